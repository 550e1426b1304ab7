//! A member's OCI registry: the distribution specification's pull and push over a store in memory.
//!
//! In: HTTP requests. Out: answers by OCI distribution specification 1.1: manifests, blobs with Range, mounts, uploads in one or many
//! pieces, tags and catalogue in pages, referrers; Basic authentication if asked for. Never: a file, a deletion of content.

mod answer;
pub mod images;

use std::{convert::Infallible, sync::Arc};

use atoll_registry::{Credentials, backend::memory::Store};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Body, Bytes};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::gate::Door;

pub use answer::Registry;

/// Connections served at once.
const CONNECTIONS_MAX: usize = 256;

/// Serves `registry` at `door` until `shutdown`.
pub async fn serve(registry: Arc<Registry>, mut door: Door, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    while let Some(knock) = shutdown.run_until_cancelled(door.knock()).await {
        let Ok((stream, _)) = knock else {
            // out of descriptors: do not spin
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        if tasks.len() >= CONNECTIONS_MAX {
            continue;
        }
        tasks.spawn(connection(registry.clone(), stream, shutdown.clone()));
    }
    tasks.close();
    tasks.wait().await;
}

/// Serves one connection.
pub(crate) async fn connection<S>(registry: Arc<Registry>, stream: S, shutdown: CancellationToken)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request| {
        let registry = registry.clone();
        async move { Ok::<_, Infallible>(registry.answer(request).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).half_close(true);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    // a client that goes away is no news
    let _ = shutdown.run_until_cancelled(serving).await;
}

/// What every request gets.
pub type Answer = Response<Full<Bytes>>;

impl Registry {
    /// A registry over `store`, which asks for `credentials` if there are any.
    pub fn new(store: Arc<Store>, credentials: Option<Credentials>) -> Self {
        Self { store, credentials }
    }

    /// Answers one request.
    pub async fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes, Error: std::fmt::Display> + Unpin,
    {
        self.route(request).await.unwrap_or_else(answer::Refusal::into_answer)
    }
}
