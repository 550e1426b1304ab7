//! A small HTTP server over any listener: for the console and the admin port (plain), and the webhook (TLS by the hub's CA).
//!
//! In: a listener, routes, bounds. Connections are bounded in number, in all and from one address, a client has a bounded time for its
//! first octets and for its headers, and everything ends with the token. Never binds anything.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::door::{Door, neighbourhood};
use crate::sniff::sniff;
use crate::stream::{Accept, BoxStream};

/// TLS handshake and request headers, each.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// A connection is closed after so long; clients open another.
const CONNECTION_MAX: Duration = Duration::from_secs(600);
/// Connections that are open at the end have so long to finish.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// After a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `routes` on `listener` until `shutdown`, at most `connections_max` connections at once, a quarter of them from one address.
/// Where there are more the oldest is closed.
pub async fn serve_http(
    listener: &mut dyn Accept,
    tls: Option<Arc<ServerConfig>>,
    routes: Router,
    connections_max: usize,
    shutdown: CancellationToken,
) {
    let (door, tracker) = (Door::new(connections_max, connections_max.div_ceil(4)), TaskTracker::new());
    let acceptor = tls.map(TlsAcceptor::from);
    let accepting = async {
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let guest = door.enter(neighbourhood(from.ip()));
            let (acceptor, routes, shutdown) = (acceptor.clone(), routes.clone(), shutdown.clone());
            tracker.spawn(async move {
                let one = tokio::time::timeout(CONNECTION_MAX, connection(stream, acceptor, routes));
                let one = guest.end().run_until_cancelled(one);
                if let Some(Some(Ok(Err(error)))) = shutdown.run_until_cancelled(one).await {
                    tracing::debug!(%from, %error, "connection ended");
                }
            });
        }
    };
    shutdown.run_until_cancelled(accepting).await;
    tracker.close();
    let _ = tokio::time::timeout(DRAIN_MAX, tracker.wait()).await;
}

async fn connection(stream: BoxStream, acceptor: Option<TlsAcceptor>, routes: Router) -> io::Result<()> {
    let stream: BoxStream = match acceptor {
        Some(acceptor) => {
            let slow = |_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long");
            Box::new(tokio::time::timeout(HEAD_MAX, acceptor.accept(stream)).await.map_err(slow)??)
        }
        None => stream,
    };
    let (h2, stream) = sniff(stream, HEAD_MAX).await?;
    let (stream, service) = (TokioIo::new(stream), TowerToHyperService::new(routes));
    let served = if h2 {
        let mut server = http2::Builder::new(TokioExecutor::new());
        server.timer(TokioTimer::new()).keep_alive_interval(HEAD_MAX).max_concurrent_streams(64);
        server.serve_connection(stream, service).await
    } else {
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
        server.serve_connection(stream, service).await
    };
    served.map_err(io::Error::other)
}
