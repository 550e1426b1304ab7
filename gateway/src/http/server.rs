//! One connection of a client: TLS if it is to be, HTTP/1.1 or HTTP/2, until it ends or we do.
//!
//! In: a stream, and where it was accepted. Bounds: handshake, request head, streams, header sizes. At the end open requests are finished, within
//! the drain time.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use atoll_reach::{BoxStream, sniff};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
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

/// Serves one connection. `tls`: how TLS is to be spoken. `stop`: no further requests.
pub(crate) async fn serve(
    plane: Arc<Plane>,
    stream: BoxStream,
    peer: SocketAddr,
    slot: Slot,
    tls: Option<Arc<rustls::ServerConfig>>,
    stop: CancellationToken,
) -> io::Result<()> {
    let limits = &plane.limits;
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let Some(config) = tls else {
        let (h2, stream) = sniff(stream, limits.header_timeout).await?;
        let client = Client { slot, peer, tls: false, sni: None };
        return speak(plane, stream, client, h2, stop).await;
    };
    let accepted = timeout(limits.handshake_timeout, TlsAcceptor::from(config).accept(stream));
    let stream = accepted.await.map_err(late)??;
    let session = stream.get_ref().1;
    let h2 = session.alpn_protocol() == Some(b"h2");
    let client = Client { slot, peer, tls: true, sni: session.server_name().map(str::to_ascii_lowercase) };
    // Who agreed on HTTP/2 begins with its preface; the bounds below begin with the first octets.
    let (begun, stream) = sniff(Box::new(stream), limits.header_timeout).await?;
    if h2 && !begun {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "HTTP/2 was agreed on, and something else spoken"));
    }
    speak(plane, stream, client, h2, stop).await
}

async fn speak(
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
