//! One stream to a processor, as long as a request and its answer last: what is said, and what it answers to that.
//!
//! Each thing that is said has one answer, which is waited for within a time. A processor that ends its stream well wants to see no more, and
//! all goes on without it. One that fails is done without where failing is open; else nobody passes. Source: envoy.service.ext_proc.v3, gRPC
//! over HTTP/2.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use tokio::sync::{Mutex, mpsc};

use super::message::{Answer, CommonResponse, ImmediateResponse, PROCESS, ProcessingMode, Said};
use super::message::{ProcessingRequest, ProcessingResponse};
use crate::filter::said;
use crate::plane::Plane;
use crate::policy::grpc;
use crate::policy::peer::{Peer, Sent};

/// A message is at most this long.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// What a processor makes of something that it was shown.
#[derive(Debug)]
pub(crate) enum Told {
    /// It goes on, changed like that; and so much of the rest is shown from now on.
    Goes(CommonResponse, Option<ProcessingMode>),
    /// The client gets this instead.
    Instead(ImmediateResponse),
}

/// What both ways of one request say to its processor.
pub(crate) struct Exchange {
    call: Mutex<Call>,
    /// A processor that fails is done without.
    open: bool,
    /// What the client gets in the place of an answer, once a body was broken off.
    pub(crate) instead: OnceLock<Response<Bytes>>,
}

impl Exchange {
    pub(crate) fn new(peer: &Arc<Peer>, plane: &Arc<Plane>, within: Duration, open: bool) -> Arc<Self> {
        let (peer, plane) = (Arc::clone(peer), Arc::clone(plane));
        let call = Call { peer, plane, within, say: None, hear: Hear::Not, buffer: BytesMut::new() };
        Arc::new(Self { call: Mutex::new(call), open, instead: OnceLock::new() })
    }

    /// Shows something, and waits for what is made of it.
    ///
    /// # Errors
    /// What the client gets, because nobody says that it may pass.
    pub(crate) async fn show(&self, shown: Said) -> Result<Told, Response<Bytes>> {
        let why = match self.call.lock().await.ask(shown).await {
            Ok(told) => return Ok(told),
            Err(why) if self.open => {
                tracing::warn!(why, "a processor fails, and is done without");
                return Ok(Told::Goes(CommonResponse::default(), None));
            }
            Err(why) => why,
        };
        tracing::warn!(why, "a processor fails, so nobody passes");
        Err(said(StatusCode::SERVICE_UNAVAILABLE, "a processor of this route says nothing of this"))
    }
}

/// A stream.
struct Call {
    peer: Arc<Peer>,
    plane: Arc<Plane>,
    within: Duration,
    say: Option<mpsc::Sender<Bytes>>,
    hear: Hear,
    buffer: BytesMut,
}

/// Its answers.
enum Hear {
    /// It is not open yet.
    Not,
    Goes(Incoming),
    /// It ended, well or not.
    Over(Result<(), String>),
}

impl Call {
    async fn ask(&mut self, shown: Said) -> Result<Told, String> {
        if let Hear::Over(how) = &self.hear {
            return how.clone().map(|()| Told::Goes(CommonResponse::default(), None));
        }
        let part = shown.part();
        let message = grpc::frame(&ProcessingRequest { said: Some(shown) });
        let answered = tokio::time::timeout(self.within, self.exchange(message)).await;
        let name = &self.peer.name;
        let told = match answered.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(Some(response)) => {
                response.told(part).map(Some).ok_or_else(|| format!("{name}: it answers something else"))
            }
            Ok(None) => Ok(None),
            Err(why) => Err(format!("{name}: {why}")),
        };
        match told {
            Ok(Some(told)) => Ok(told),
            Ok(None) => {
                self.end(Ok(()));
                Ok(Told::Goes(CommonResponse::default(), None))
            }
            Err(why) => {
                self.end(Err(why.clone()));
                Err(why)
            }
        }
    }

    fn end(&mut self, how: Result<(), String>) {
        self.say = None;
        self.hear = Hear::Over(how);
    }

    async fn exchange(&mut self, message: Bytes) -> Result<Option<ProcessingResponse>, String> {
        match &self.say {
            // The one before was answered, so the stream has taken it.
            Some(say) => say.try_send(message).map_err(|_| "its stream takes nothing".to_owned())?,
            None => self.begin(message).await?,
        }
        self.next().await
    }

    /// Opens the stream with its first message. Many servers say nothing before they heard one.
    async fn begin(&mut self, first: Bytes) -> Result<(), String> {
        let mut last = String::new();
        // A connection that was kept may be closed already; what nobody answered may be said again.
        for _ in 0..2 {
            let (say, mut said) = mpsc::channel::<Bytes>(1);
            say.try_send(first.clone()).map_err(|e| e.to_string())?;
            let frames = futures::stream::poll_fn(move |cx| said.poll_recv(cx).map(|b| b.map(|b| Ok(Frame::data(b)))));
            let body: Sent = StreamBody::new(frames).boxed_unsync();
            match self.peer.stream(&self.plane, grpc::head(PROCESS, body)).await {
                Ok(answer) => {
                    let status = grpc::status(answer.headers()).map(str::to_owned);
                    match (answer.status(), status) {
                        (StatusCode::OK, None) => {}
                        (StatusCode::OK, Some(status)) => return Err(format!("grpc-status {status}")),
                        (status, _) => return Err(format!("it answers {status}")),
                    }
                    (self.say, self.hear) = (Some(say), Hear::Goes(answer.into_body()));
                    return Ok(());
                }
                Err(why) => last = why.to_string(),
            }
        }
        Err(last)
    }

    /// The next answer; nothing where the stream ended well.
    async fn next(&mut self) -> Result<Option<ProcessingResponse>, String> {
        loop {
            if let Some(message) = grpc::unframe::<ProcessingResponse>(&mut self.buffer, MESSAGE_BYTES_MAX)? {
                return Ok(Some(message));
            }
            let Hear::Goes(incoming) = &mut self.hear else { return Err("its stream is over".to_owned()) };
            let frame = incoming.frame().await.ok_or("it broke its stream off")?.map_err(|e| e.to_string())?;
            match frame.into_data().map_err(Frame::into_trailers) {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(Ok(trailers)) => {
                    return match grpc::status(&trailers) {
                        Some("0") => Ok(None),
                        status => Err(format!("it ended its stream: grpc-status {}", status.unwrap_or("none"))),
                    };
                }
                Err(Err(_)) => {}
            }
        }
    }
}

/// What of a request or an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    RequestHeaders,
    ResponseHeaders,
    RequestBody,
    ResponseBody,
    RequestTrailers,
    ResponseTrailers,
}

impl Said {
    fn part(&self) -> Shown {
        match self {
            Self::RequestHeaders(_) => Shown::RequestHeaders,
            Self::ResponseHeaders(_) => Shown::ResponseHeaders,
            Self::RequestBody(_) => Shown::RequestBody,
            Self::ResponseBody(_) => Shown::ResponseBody,
            Self::RequestTrailers(_) => Shown::RequestTrailers,
            Self::ResponseTrailers(_) => Shown::ResponseTrailers,
        }
    }
}

impl ProcessingResponse {
    /// What it says of that part; nothing where it speaks of another.
    fn told(self, part: Shown) -> Option<Told> {
        let (of, common) = match self.answer? {
            Answer::Immediate(immediate) => return Some(Told::Instead(immediate)),
            Answer::RequestHeaders(said) => (Shown::RequestHeaders, said.response.unwrap_or_default()),
            Answer::ResponseHeaders(said) => (Shown::ResponseHeaders, said.response.unwrap_or_default()),
            Answer::RequestBody(said) => (Shown::RequestBody, said.response.unwrap_or_default()),
            Answer::ResponseBody(said) => (Shown::ResponseBody, said.response.unwrap_or_default()),
            Answer::RequestTrailers(said) => (Shown::RequestTrailers, CommonResponse::of(said)),
            Answer::ResponseTrailers(said) => (Shown::ResponseTrailers, CommonResponse::of(said)),
        };
        (of == part).then_some(Told::Goes(common, self.mode_override))
    }
}
