//! HTTP/1.1 or HTTP/2 on one connection of a client, until it ends or we do.
//!
//! In: a stream whose TLS was ended, and where it was accepted. Bounds: request head, streams, header sizes, idle time. At the end open
//! requests are finished, within the drain time.

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
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::answer::answer;
use super::streams::Streams;
use crate::metrics::Cut;
use crate::plane::Plane;
use crate::table::Slot;

/// A client of HTTP/2 is asked so often whether it still is there, and has so long to say so.
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_MAX: Duration = Duration::from_secs(10);

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
    let (limits, metrics) = (plane.limits.clone(), plane.metrics.clone());
    let (client, served_by) = (Arc::new(client), Arc::clone(&plane));
    let service = service_fn(move |request: Request<Incoming>| {
        let (plane, client) = (Arc::clone(&served_by), Arc::clone(&client));
        async move { Ok::<_, Infallible>(Box::pin(answer(&plane, &client, request)).await) }
    });
    let stream = TokioIo::new(stream);
    if h2 {
        let streams = Streams::new(Arc::clone(&plane));
        let connection = http2::Builder::new(streams.clone())
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_max)
            .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PONG_MAX)
            .serve_connection(stream, service);
        let idle = async {
            streams.are_gone(limits.idle_timeout).await;
            metrics.cut(Cut::Idle);
        };
        return drive(&plane, pin!(connection), |c| c.graceful_shutdown(), &stop, idle).await.map_err(io::Error::other);
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes_max)
        .max_headers(limits.headers_max)
        .serve_connection(stream, service)
        .with_upgrades();
    // Hyper's time for a head begins with the answer before it.
    let idle = std::future::pending();
    let ended = drive(&plane, pin!(connection), |c| c.graceful_shutdown(), &stop, idle).await;
    ended.map_err(|error| {
        if error.is_timeout() {
            metrics.cut(Cut::Head);
        }
        io::Error::other(error)
    })
}

/// Drives a connection. After `stop`, or once it is idle, it finishes what it does; after the plane's end it is dropped, and so is an idle
/// one whose client does not take that it is over.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    plane: &Plane,
    mut connection: Pin<&mut C>,
    finish: impl FnOnce(Pin<&mut C>),
    stop: &CancellationToken,
    idle: impl Future<Output = ()>,
) -> hyper::Result<()> {
    let is_idle = tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => false,
        () = idle => true,
    };
    finish(connection.as_mut());
    tokio::select! {
        ended = connection => ended,
        () = plane.end.cancelled() => Ok(()),
        () = sleep(plane.limits.write_timeout), if is_idle => Ok(()),
    }
}
