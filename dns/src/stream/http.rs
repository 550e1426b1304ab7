//! DoH over HTTP/1.1 and HTTP/2 (RFC 8484), by hyper.
//!
//! In: a secured client. Out: responses, until the client ends the connection or is idle. Queries in flight are as many as streams that a
//! client may open; heads, bodies and buffers are bounded; a client that does not read is cut.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::listen::{Client, Tasks};
use super::message::{self, MESSAGE_BYTES_MAX, Query};
use super::patient::Patient;
use crate::respond::{Responder, Via};
use crate::transport::reply;

const HEAD_BYTES_MAX: usize = 16 * 1024;
/// What HTTP/2 may have in flight for a client that reads slowly.
const WINDOW_BYTES: u32 = 128 * 1024;
const BUFFER_BYTES: usize = 128 * 1024;
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(10);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.spawn(future);
    }
}

/// Answers a client's requests.
///
/// # Errors
/// The connection's.
pub(crate) async fn answer(client: Client, via: Via) -> io::Result<()> {
    let Client { stream, from, seat, direct: _, responder, tasks } = client;
    let limits = responder.edge.limits;
    let busy = watch::Sender::new(0_usize);
    let service = service_fn(|request: Request<Incoming>| {
        busy.send_modify(|n| *n += 1);
        let (busy, responder) = (Busy(busy.clone()), responder.clone());
        async move {
            let response = exchange(request, from, via, responder).await;
            drop(busy);
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = Builder::new(tasks);
    // Our own clock comes first, and says good-bye.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle * 2).max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(u32::try_from(limits.queries).unwrap_or(u32::MAX))
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buf_size(BUFFER_BYTES)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN);
    let stream = TokioIo::new(Patient::new(stream, limits.write));
    let mut connection = std::pin::pin!(builder.serve_connection(stream, service));
    let mut changed = busy.subscribe();
    let mut closing = false;
    loop {
        let idle = *changed.borrow_and_update() == 0;
        let pause = if closing { limits.write } else { seat.idle() };
        tokio::select! {
            ended = connection.as_mut() => return ended.map_err(io::Error::other),
            // Something came or went: the time begins anew.
            _ = changed.changed(), if !closing => {}
            () = sleep(pause), if idle || closing => {
                if std::mem::replace(&mut closing, true) {
                    return Ok(());
                }
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// A request in flight, until it is dropped.
struct Busy(watch::Sender<usize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

async fn exchange(
    request: Request<Incoming>,
    from: SocketAddr,
    via: Via,
    responder: Responder,
) -> Response<Full<Bytes>> {
    let max = responder.edge.limits.handshake;
    let read = timeout(max, packet(request)).await.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT));
    let answered = match read {
        Ok(packet) => Ok(reply(responder, packet, from, via).await),
        Err(status) => Err(status),
    };
    message::response(answered).map(|octets| Full::new(Bytes::from(octets)))
}

async fn packet(request: Request<Incoming>) -> Result<Vec<u8>, StatusCode> {
    match message::query(request.method(), request.uri(), request.headers())? {
        Query::Here(packet) => Ok(packet),
        Query::Body => {
            let body = Limited::new(request.into_body(), MESSAGE_BYTES_MAX).collect().await.map_err(|error| {
                let large = error.is::<http_body_util::LengthLimitError>();
                if large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST }
            })?;
            let packet = body.to_bytes().to_vec();
            message::sized(packet.len())?;
            Ok(packet)
        }
    }
}
