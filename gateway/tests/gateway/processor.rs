//! A stand-in for processors of Envoy's protocol: it speaks gRPC over HTTP/2, notes what it is shown, and does what its test says.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// What of Envoy's messages the stand-in reads and writes.
pub(crate) mod said {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Header {
        #[prost(string, tag = "1")]
        pub(crate) key: String,
        #[prost(string, tag = "2")]
        pub(crate) value: String,
        #[prost(bytes = "vec", tag = "3")]
        pub(crate) raw: Vec<u8>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Body {
        #[prost(bytes = "vec", tag = "1")]
        pub(crate) body: Vec<u8>,
        #[prost(bool, tag = "2")]
        pub(crate) end: bool,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Code {
        #[prost(int32, tag = "1")]
        pub(crate) code: i32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct GrpcStatus {
        #[prost(uint32, tag = "1")]
        pub(crate) status: u32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Mode {
        #[prost(int32, tag = "3")]
        pub(crate) request_body: i32,
        #[prost(int32, tag = "4")]
        pub(crate) response_body: i32,
        #[prost(int32, tag = "6")]
        pub(crate) response_trailers: i32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Map {
        #[prost(message, repeated, tag = "1")]
        pub(crate) headers: Vec<Header>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Headers {
        #[prost(message, optional, tag = "1")]
        pub(crate) headers: Option<Map>,
        #[prost(bool, tag = "3")]
        pub(crate) end: bool,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Request {
        #[prost(message, optional, tag = "2")]
        pub(crate) request_headers: Option<Headers>,
        #[prost(message, optional, tag = "3")]
        pub(crate) response_headers: Option<Headers>,
        #[prost(message, optional, tag = "4")]
        pub(crate) request_body: Option<Body>,
        #[prost(message, optional, tag = "5")]
        pub(crate) response_body: Option<Body>,
        #[prost(message, optional, tag = "6")]
        pub(crate) request_trailers: Option<Map1>,
        #[prost(message, optional, tag = "7")]
        pub(crate) response_trailers: Option<Map1>,
    }
    /// A map one level down.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Map1 {
        #[prost(message, optional, tag = "1")]
        pub(crate) map: Option<Map>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Set {
        #[prost(message, optional, tag = "1")]
        pub(crate) header: Option<Header>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Change {
        #[prost(message, repeated, tag = "1")]
        pub(crate) set: Vec<Set>,
        #[prost(string, repeated, tag = "2")]
        pub(crate) remove: Vec<String>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct NewBody {
        #[prost(bytes = "vec", optional, tag = "1")]
        pub(crate) body: Option<Vec<u8>>,
        #[prost(bool, optional, tag = "2")]
        pub(crate) clear: Option<bool>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Common {
        #[prost(int32, tag = "1")]
        pub(crate) status: i32,
        #[prost(message, optional, tag = "2")]
        pub(crate) headers: Option<Change>,
        #[prost(message, optional, tag = "3")]
        pub(crate) body: Option<NewBody>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Part {
        #[prost(message, optional, tag = "1")]
        pub(crate) common: Option<Common>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Trailers {
        #[prost(message, optional, tag = "1")]
        pub(crate) change: Option<Change>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Immediate {
        #[prost(message, optional, tag = "1")]
        pub(crate) status: Option<Code>,
        #[prost(message, optional, tag = "2")]
        pub(crate) headers: Option<Change>,
        #[prost(bytes = "vec", tag = "3")]
        pub(crate) body: Vec<u8>,
        #[prost(message, optional, tag = "4")]
        pub(crate) grpc: Option<GrpcStatus>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Response {
        #[prost(message, optional, tag = "1")]
        pub(crate) request_headers: Option<Part>,
        #[prost(message, optional, tag = "2")]
        pub(crate) response_headers: Option<Part>,
        #[prost(message, optional, tag = "3")]
        pub(crate) request_body: Option<Part>,
        #[prost(message, optional, tag = "4")]
        pub(crate) response_body: Option<Part>,
        #[prost(message, optional, tag = "5")]
        pub(crate) request_trailers: Option<Trailers>,
        #[prost(message, optional, tag = "6")]
        pub(crate) response_trailers: Option<Trailers>,
        #[prost(message, optional, tag = "7")]
        pub(crate) immediate: Option<Immediate>,
        #[prost(message, optional, tag = "9")]
        pub(crate) mode: Option<Mode>,
    }
}

use said::{Change, Code, Common, Header, Immediate, Mode, NewBody, Part, Set, Trailers};

/// One thing that the processor was shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    /// `request headers`, `response body` and so on.
    pub(crate) what: &'static str,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
    pub(crate) end: bool,
}

/// What the processor does next.
pub(crate) enum Does {
    /// Goes on, with these changes.
    Goes(Common),
    /// Goes on, and wants to see other things.
    Wants(Mode),
    Instead(Immediate),
    /// Says nothing.
    Sleeps,
    /// Ends the stream with a status of gRPC.
    Ends(&'static str),
    /// Answers something that it was not shown.
    Confuses,
}

pub(crate) fn goes() -> Does {
    Does::Goes(Common::default())
}

pub(crate) fn change(set: &[(&str, &str)], remove: &[&str]) -> Change {
    let header =
        |(key, value): &(&str, &str)| Header { key: (*key).into(), value: String::new(), raw: (*value).into() };
    let set = set.iter().map(|pair| Set { header: Some(header(pair)) }).collect();
    Change { set, remove: remove.iter().map(|name| (*name).to_owned()).collect() }
}

pub(crate) fn sets(set: &[(&str, &str)], remove: &[&str]) -> Does {
    Does::Goes(Common { headers: Some(change(set, remove)), ..Common::default() })
}

pub(crate) fn body(new: String) -> Does {
    let body = Some(NewBody { body: Some(new.into_bytes()), clear: None });
    Does::Goes(Common { body, ..Common::default() })
}

pub(crate) fn instead(code: i32, body: &str) -> Does {
    let headers = Some(change(&[("x-why", "because")], &[]));
    Does::Instead(Immediate { status: Some(Code { code }), headers, body: body.into(), grpc: None })
}

fn shown(request: said::Request) -> Shown {
    let map = |map: Option<said::Map>| {
        let text = |h: Header| if h.raw.is_empty() { h.value } else { String::from_utf8(h.raw).unwrap() };
        map.unwrap_or_default().headers.into_iter().map(|h| (h.key.clone(), text(h))).collect()
    };
    let headers = |what, h: said::Headers| Shown { what, headers: map(h.headers), end: h.end, ..Shown::default() };
    let body =
        |what, b: said::Body| Shown { what, body: String::from_utf8(b.body).unwrap(), end: b.end, ..Shown::default() };
    let trailers = |what, t: said::Map1| Shown { what, headers: map(t.map), end: true, ..Shown::default() };
    let said::Request {
        request_headers,
        response_headers,
        request_body,
        response_body,
        request_trailers,
        response_trailers,
    } = request;
    (request_headers.map(|h| headers("request headers", h)))
        .or(response_headers.map(|h| headers("response headers", h)))
        .or(request_body.map(|b| body("request body", b)))
        .or(response_body.map(|b| body("response body", b)))
        .or(request_trailers.map(|t| trailers("request trailers", t)))
        .or(response_trailers.map(|t| trailers("response trailers", t)))
        .expect("it is shown something")
}

/// The answer to what was shown.
fn answer(what: &str, does: Does) -> Option<said::Response> {
    let mut response = said::Response::default();
    let (common, what) = match does {
        Does::Goes(common) => (common, what),
        Does::Wants(mode) => {
            response.mode = Some(mode);
            (Common::default(), what)
        }
        Does::Instead(immediate) => {
            response.immediate = Some(immediate);
            return Some(response);
        }
        Does::Confuses => (Common::default(), "response trailers"),
        Does::Sleeps | Does::Ends(_) => return None,
    };
    let change = common.headers.clone();
    let part = Some(Part { common: Some(common) });
    match what {
        "request headers" => response.request_headers = part,
        "response headers" => response.response_headers = part,
        "request body" => response.request_body = part,
        "response body" => response.response_body = part,
        "request trailers" => response.request_trailers = Some(Trailers { change }),
        _ => response.response_trailers = Some(Trailers { change }),
    }
    Some(response)
}

type Work = dyn Fn(&Shown) -> Does + Send + Sync;

/// A processor, and what it was shown.
pub(crate) struct Processor {
    pub(crate) at: SocketAddr,
    seen: Arc<Mutex<Vec<Shown>>>,
}

impl Processor {
    pub(crate) async fn start(ip: &str, work: impl Fn(&Shown) -> Does + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let (at, seen, work): (_, Arc<Mutex<Vec<Shown>>>, Arc<Work>) =
            (listener.local_addr().unwrap(), Arc::default(), Arc::new(work));
        let kept = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, work) = (Arc::clone(&kept), Arc::clone(&work));
                let service = service_fn(move |request: Request<Incoming>| {
                    assert_eq!(request.uri().path(), "/envoy.service.ext_proc.v3.ExternalProcessor/Process");
                    let (say, mut said) = mpsc::channel::<Frame<Bytes>>(4);
                    tokio::spawn(process(request.into_body(), say, Arc::clone(&seen), Arc::clone(&work)));
                    let frames =
                        futures::stream::poll_fn(move |cx| said.poll_recv(cx).map(|f| f.map(Ok::<_, Infallible>)));
                    let mut answer = Response::new(StreamBody::new(frames));
                    answer.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
                    std::future::ready(Ok::<_, Infallible>(answer))
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(async move { drop(builder.serve_connection(TokioIo::new(stream), service).await) });
            }
        });
        Self { at, seen }
    }

    /// What it was shown since it was asked last, each as `what body end`.
    pub(crate) fn seen(&self) -> Vec<String> {
        let all = std::mem::take(&mut *self.seen.lock().unwrap());
        all.iter().map(|s| format!("{} {}{}", s.what, s.body, if s.end { "." } else { "" })).collect()
    }
}

async fn process(mut asked: Incoming, say: mpsc::Sender<Frame<Bytes>>, seen: Arc<Mutex<Vec<Shown>>>, work: Arc<Work>) {
    let mut buffer = BytesMut::new();
    while let Some(Ok(frame)) = asked.frame().await {
        buffer.extend_from_slice(&frame.into_data().unwrap_or_default());
        while buffer.len() >= 5 && buffer.len() >= 5 + (&buffer[1..5]).get_u32() as usize {
            let length = (&buffer.split_to(5)[1..]).get_u32() as usize;
            let shown = shown(said::Request::decode(buffer.split_to(length)).unwrap());
            let does = work(&shown);
            let (what, ends) = (shown.what, if let Does::Ends(status) = &does { Some(*status) } else { None });
            seen.lock().unwrap().push(shown);
            if let Some(status) = ends {
                let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), status.parse().unwrap())]);
                drop(say.send(Frame::trailers(trailers)).await);
                return;
            }
            let Some(answer) = answer(what, does) else { continue };
            let octets = answer.encode_to_vec();
            let prefix = [&[0][..], &u32::try_from(octets.len()).unwrap().to_be_bytes()].concat();
            drop(say.send(Frame::data([prefix, octets].concat().into())).await);
        }
    }
}
