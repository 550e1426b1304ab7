//! Pods: HTTP servers on loopback addresses of their own, which say who they are and what they got, and can die.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How a pod behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Answers.
    Well,
    /// Accepts, reads, and closes without an answer.
    Rude,
    /// Answers at once, whatever is still to come of the request, and keeps the connection.
    Hasty,
    /// Answers without an end.
    Flood,
}

/// A pod.
pub(crate) struct Pod {
    pub(crate) address: SocketAddr,
    pub(crate) hits: Arc<AtomicUsize>,
    /// Connections on which there was a request.
    pub(crate) used: Arc<AtomicUsize>,
    /// Requests that are worked on, and the most that ever were at once.
    pub(crate) busy: Arc<Busy>,
    end: CancellationToken,
    freeze: CancellationToken,
}

impl Pod {
    /// Starts a pod on `ip`, on a free port.
    pub(crate) async fn start(name: &str, ip: &str) -> Self {
        Self::start_as(name, ip, 0, Manner::Well).await
    }

    /// Starts a pod of some manner on `ip` and `port`.
    pub(crate) async fn start_as(name: &str, ip: &str, port: u16, manner: Manner) -> Self {
        let ip: IpAddr = ip.parse().unwrap();
        let listener = TcpListener::bind((ip, port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, hits, used) =
            (CancellationToken::new(), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (busy, frozen_at) = (Arc::<Busy>::default(), CancellationToken::new());
        let (stop, count, connections, name) = (end.clone(), Arc::clone(&hits), Arc::clone(&used), name.to_owned());
        let (work, freeze) = (Arc::clone(&busy), frozen_at.clone());
        tokio::spawn(async move {
            let gone = async {
                tokio::select! {
                    () = stop.cancelled() => true,
                    () = freeze.cancelled() => false,
                }
            };
            let mut gone = std::pin::pin!(gone);
            let is_dead = loop {
                tokio::select! {
                    is_dead = &mut gone => break is_dead,
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { break true };
                        let counts = (Arc::clone(&count), Arc::clone(&connections), Arc::clone(&work));
                        let talk = frozen(freeze.clone(), talk(stream, name.clone(), counts, manner));
                        tokio::spawn(stop.clone().run_until_cancelled_owned(talk));
                    }
                }
            };
            if !is_dead {
                swallow(&listener, address).await;
                stop.cancelled().await;
            }
        });
        Self { address, hits, used, busy, end, freeze: frozen_at }
    }

    /// A pod that somebody else runs.
    pub(crate) fn named(address: SocketAddr) -> Self {
        let end = CancellationToken::new();
        let freeze = CancellationToken::new();
        Self { address, hits: Arc::default(), used: Arc::default(), busy: Arc::default(), end, freeze }
    }

    /// Closes its port and all its connections.
    pub(crate) fn die(&self) {
        self.end.cancel();
    }

    /// Says nothing any more, takes no connections and refuses none: as behind a cut link.
    pub(crate) fn freeze(&self) {
        self.freeze.cancel();
    }

    /// How many requests it got.
    pub(crate) fn hits(&self) -> usize {
        self.hits.load(Ordering::Relaxed)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.die();
    }
}

type Counts = (Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<Busy>);

/// Requests that are worked on.
#[derive(Default)]
pub(crate) struct Busy {
    pub(crate) now: AtomicUsize,
    pub(crate) peak: AtomicUsize,
    /// It says at `/healthz` that it is ill.
    pub(crate) ill: AtomicBool,
    /// How often it was asked there.
    pub(crate) checks: AtomicUsize,
    /// It answers everything else with 500.
    pub(crate) wrong: AtomicBool,
    /// Bodies of POSTs.
    pub(crate) posts: Mutex<Vec<String>>,
}

/// One of them.
struct Working(Arc<Busy>);

impl Working {
    fn on(busy: Arc<Busy>) -> Self {
        let now = busy.now.fetch_add(1, Ordering::SeqCst) + 1;
        busy.peak.fetch_max(now, Ordering::SeqCst);
        Self(busy)
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn talk(mut stream: tokio::net::TcpStream, name: String, (hits, used, busy): Counts, manner: Manner) {
    if manner != Manner::Well {
        let mut bytes = [0; 1024];
        // A probe is no hit.
        let read = stream.read(&mut bytes).await.unwrap_or_default();
        if read > 0 && !bytes.starts_with(b"OPTIONS * ") {
            hits.fetch_add(1, Ordering::Relaxed);
            misbehave(stream, manner).await;
        }
        return;
    }
    let first = std::sync::Once::new();
    let service = service_fn(move |request: Request<Incoming>| {
        let is_probe = request.method() == http::Method::OPTIONS && request.uri() == "*";
        if !is_probe {
            first.call_once(|| {
                used.fetch_add(1, Ordering::Relaxed);
            });
            hits.fetch_add(1, Ordering::Relaxed);
        }
        // A probe takes no seat.
        let (working, name) = ((!is_probe).then(|| Working::on(Arc::clone(&busy))), name.clone());
        let busy = Arc::clone(&busy);
        async move {
            let (path, method) = (request.uri().path().to_owned(), request.method().clone());
            if path == "/healthz" {
                busy.checks.fetch_add(1, Ordering::SeqCst);
            }
            let mut said = answer(name, request, &busy, method == http::Method::POST).await?;
            let fails = if path == "/healthz" { &busy.ill } else { &busy.wrong };
            if fails.load(Ordering::SeqCst) {
                *said.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
            }
            drop(working);
            Ok::<_, Infallible>(said)
        }
    });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

/// Does nothing any more once that is cancelled, and ends nothing.
async fn frozen(freeze: CancellationToken, talk: impl Future<Output = ()>) {
    let mut talk = std::pin::pin!(talk);
    tokio::select! {
        biased;
        () = freeze.cancelled() => {}
        () = &mut talk => return,
    }
    std::future::pending::<()>().await;
}

/// Fills the queue of a listener that nobody accepts from.
async fn swallow(listener: &TcpListener, address: SocketAddr) {
    socket2::SockRef::from(listener).listen(0).unwrap();
    let mut queue = Vec::new();
    for _ in 0..4 {
        let connect =
            tokio::time::timeout(std::time::Duration::from_millis(50), tokio::net::TcpStream::connect(address));
        if let Ok(Ok(stream)) = connect.await {
            queue.push(stream);
        }
    }
    // They stay in the queue for as long as the listener does.
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        drop(queue);
    });
}

async fn misbehave(mut stream: tokio::net::TcpStream, manner: Manner) {
    match manner {
        Manner::Well | Manner::Rude => {}
        Manner::Hasty => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            std::future::pending().await
        }
        Manner::Flood => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
            let chunk = [b"10000\r\n", [b'x'; 0x10000].as_slice(), b"\r\n"].concat();
            while stream.write_all(&chunk).await.is_ok() {}
        }
    }
}

async fn answer(
    name: String,
    mut request: Request<Incoming>,
    busy: &Busy,
    is_post: bool,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    if request.headers().contains_key("upgrade") {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgraded.await.unwrap());
            let mut line = [0; 5];
            stream.read_exact(&mut line).await.unwrap();
            stream.write_all(format!("{name} heard {}", String::from_utf8_lossy(&line)).as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let mut response = Response::new(Full::default().boxed());
        *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("connection", "upgrade".parse().unwrap());
        response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
        if let Some(key) = request.headers().get("sec-websocket-key") {
            let said = [key.as_bytes(), b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
            let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &said);
            let accept = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, sum);
            response.headers_mut().insert("sec-websocket-accept", accept.parse().unwrap());
        }
        return Ok(response);
    }
    let (head, body) = request.into_parts();
    let wait: u64 = head.uri.query().and_then(|q| q.strip_prefix("wait_ms=")?.parse().ok()).unwrap_or(0);
    tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
    let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    if is_post {
        busy.posts.lock().unwrap().push(String::from_utf8_lossy(&body).into_owned());
    }
    let headers: serde_json::Map<String, serde_json::Value> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned().into()))
        .collect();
    let said = json!({
        "pod": name, "method": head.method.as_str(), "uri": head.uri.to_string(), "headers": headers,
        "body": String::from_utf8_lossy(&body), "version": format!("{:?}", head.version),
    });
    let body = Full::<Bytes>::new(said.to_string().into());
    let trailers = head.headers.get("te").map(|_| Ok(http::HeaderMap::from_iter([trailer()])));
    let mut response = Response::new(match trailers {
        Some(trailers) => body.with_trailers(std::future::ready(Some(trailers))).boxed(),
        None => body.boxed(),
    });
    response.headers_mut().insert("x-pod", name.parse().unwrap());
    Ok(response)
}

fn trailer() -> (http::HeaderName, http::HeaderValue) {
    (http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"))
}
