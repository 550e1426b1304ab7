//! HTTP/1.1 or HTTP/2 on one connection of a client, until it ends or we do.
//!
//! In: a stream whose TLS was ended, and where it was accepted. Bounds: request head, streams, header sizes. At the end open requests are
//! finished, within the drain time.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use atoll_reach::BoxStream;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use super::answer::answer;
use crate::plane::Plane;
use crate::table::Slot;

/// Who asks, and where.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) slot: Slot,
    pub(crate) peer: SocketAddr,
    pub(crate) tls: bool,
    /// The name that TLS was opened for.
    pub(crate) sni: Option<String>,
}

/// Serves one connection. `h2`: HTTP/2 is spoken. `stop`: no further requests.
pub(crate) async fn speak(
    plane: Arc<Plane>,
    stream: BoxStream,
    client: Client,
    h2: bool,
    stop: CancellationToken,
) -> io::Result<()> {
    let (limits, end) = (plane.limits.clone(), plane.end.clone());
    let client = Arc::new(client);
    let service = service_fn(move |request: Request<Incoming>| {
        let (plane, client) = (Arc::clone(&plane), Arc::clone(&client));
        async move { Ok::<_, Infallible>(Box::pin(answer(&plane, &client, request)).await) }
    });
    let stream = TokioIo::new(stream);
    if h2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_max)
            .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .serve_connection(stream, service);
        return drive(pin!(connection), |c| c.graceful_shutdown(), &stop, &end).await;
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes_max)
        .max_headers(limits.headers_max)
        .serve_connection(stream, service)
        .with_upgrades();
    drive(pin!(connection), |c| c.graceful_shutdown(), &stop, &end).await
}

/// Drives a connection; after `stop` it finishes what it does, after `end` it is dropped.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    finish: impl FnOnce(Pin<&mut C>),
    stop: &CancellationToken,
    end: &CancellationToken,
) -> io::Result<()> {
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        () = stop.cancelled() => finish(connection.as_mut()),
    }
    tokio::select! {
        ended = connection => ended.map_err(io::Error::other),
        () = end.cancelled() => Ok(()),
    }
}
