//! HTTP/2: an origin that answers calls, and connections with many streams each.

use std::any::Any;
use std::net::SocketAddr;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

use crate::load::{Due, Load, Seen, Way};
use crate::{Result, say};

/// Streams at once on one connection.
const STREAMS: usize = 32;
/// An empty message of gRPC.
const MESSAGE: &[u8] = &[0; 5];

/// Answers every call with a message and trailers, until it is killed.
pub(crate) async fn origin(at: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(at).await?;
    say("ready", at)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = service_fn(call);
        tokio::spawn(async move {
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = serving.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, std::io::Error>;

/// A message, and trailers that say that all is well.
async fn call(request: Request<Incoming>) -> std::io::Result<Response<Body>> {
    request.into_body().collect().await.map_err(std::io::Error::other)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", hyper::header::HeaderValue::from_static("0"));
    let frames = [Frame::data(Bytes::from_static(MESSAGE)), Frame::trailers(trailers)].map(Ok);
    let body = BodyExt::boxed(StreamBody::new(futures::stream::iter(frames)));
    let answer = Response::builder().header("content-type", "application/grpc");
    answer.body(body).map_err(std::io::Error::other)
}

/// Asks on one connection, with so many streams at once.
pub(crate) async fn ask(load: &Load, mut due: Due) -> Result<Seen> {
    let stream = TcpStream::connect(load.at).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let (mut open, mut seen) = (FuturesUnordered::new(), Seen::default());
    while let Some(began) = due.next().await {
        let sender = sender.clone();
        open.push(async move { (began, one(load, sender).await) });
        if open.len() < STREAMS {
            continue;
        }
        if let Some((began, answered)) = open.next().await {
            seen.note(began, answered);
        }
    }
    while let Some((began, answered)) = open.next().await {
        seen.note(began, answered);
    }
    connection.abort();
    Ok(seen)
}

/// Connections of which each asked once.
pub(crate) async fn idle(load: &Load) -> Result<Vec<Box<dyn Any>>> {
    let mut kept: Vec<Box<dyn Any>> = Vec::new();
    for _ in 0..load.connections {
        let stream = TcpStream::connect(load.at).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        one(load, sender.clone()).await?;
        kept.push(Box::new(sender));
    }
    Ok(kept)
}

impl Seen {
    fn note(&mut self, began: tokio::time::Instant, answered: Result<()>) {
        match answered {
            Ok(()) => self.took(began.elapsed()),
            Err(_) => self.failed += 1,
        }
    }
}

async fn one(load: &Load, mut sender: SendRequest<Full<Bytes>>) -> Result<()> {
    let uri = format!("http://{}{}", load.host, load.path);
    let calls = load.way == Way::Grpc;
    let request = if calls {
        let head = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
        head.body(Full::new(Bytes::from_static(MESSAGE)))?
    } else {
        Request::get(uri).body(Full::default())?
    };
    let answer = sender.send_request(request).await?;
    if !answer.status().is_success() {
        return Err(answer.status().to_string().into());
    }
    let read = answer.into_body().collect().await?;
    let status = read.trailers().and_then(|trailers| trailers.get("grpc-status"));
    if calls && status.is_none_or(|status| status != "0") { Err("the call failed".into()) } else { Ok(()) }
}
