//! A small HTTP server over any listener: for the console (plain) and the webhook (TLS by the hub's CA).
//!
//! In: a listener, routes, bounds. Connections are bounded in number, a client has a bounded time for its headers, and everything ends
//! with the token. Never binds anything.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use atoll_reach::{Accept, BoxStream};
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// TLS handshake and request headers, each.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// A connection is closed after so long; clients open another.
const CONNECTION_MAX: Duration = Duration::from_secs(600);
/// Connections that are open at the end have so long to finish.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// Serves `routes` on `listener` until `shutdown`, at most `connections_max` connections at once.
pub(crate) async fn serve(
    listener: &mut dyn Accept,
    tls: Option<Arc<ServerConfig>>,
    routes: Router,
    connections_max: usize,
    shutdown: CancellationToken,
) {
    let (slots, tracker) = (Arc::new(Semaphore::new(connections_max)), TaskTracker::new());
    let acceptor = tls.map(TlsAcceptor::from);
    let accepting = async {
        // The semaphore is ours and never closed.
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (acceptor, routes, shutdown) = (acceptor.clone(), routes.clone(), shutdown.clone());
            tracker.spawn(async move {
                let _slot = slot;
                let one = tokio::time::timeout(CONNECTION_MAX, connection(stream, acceptor, routes));
                if let Some(Ok(Err(error))) = shutdown.run_until_cancelled(one).await {
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
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    server.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD_MAX).max_concurrent_streams(64);
    let served = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)).await;
    served.map_err(io::Error::other)
}
