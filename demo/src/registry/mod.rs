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
use tokio_util::sync::CancellationToken;

use crate::gate::Door;

pub use answer::Registry;

/// Connections served at once.
const CONNECTIONS_MAX: usize = 256;
/// The largest blob: they are all in memory.
const UPLOAD_BYTES_MAX: u64 = 256 << 20;

/// Serves `registry` at `door` until `shutdown`.
pub async fn serve(registry: Arc<Registry>, door: Door, shutdown: CancellationToken) {
    let one = |stream, _| connection(registry.clone(), stream, shutdown.clone());
    crate::serve::serve(door, CONNECTIONS_MAX, &shutdown, one).await;
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
        Self { store, credentials, upload_bytes_max: UPLOAD_BYTES_MAX }
    }

    /// Answers one request.
    pub async fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes, Error: std::fmt::Display> + Unpin,
    {
        self.route(request).await.unwrap_or_else(answer::Refusal::into_answer)
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http_body_util::BodyExt;

    use super::*;

    async fn ask(registry: &Registry, method: &str, path: &str, body: &'static [u8]) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).body(Full::new(Bytes::from_static(body))).unwrap();
        let (parts, body) = registry.answer(request).await.into_parts();
        let text = String::from_utf8_lossy(&body.collect().await.unwrap().to_bytes()).into_owned();
        let location = parts.headers.get("location").and_then(|l| l.to_str().ok()).map(str::to_owned);
        (parts.status, location.unwrap_or(text))
    }

    #[tokio::test]
    async fn a_blob_that_is_too_large_is_refused_and_forgotten() {
        let registry = Registry { upload_bytes_max: 5, ..Registry::new(Arc::default(), None) };
        let (_, upload) = ask(&registry, "POST", "/v2/shop/web/blobs/uploads/", b"").await;
        assert_eq!(ask(&registry, "PATCH", &upload, b"12345").await.0, StatusCode::ACCEPTED);
        let (status, said) = ask(&registry, "PATCH", &upload, b"6").await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(said.contains("SIZE_INVALID") && said.contains("at most 5 bytes"), "{said}");
        assert_eq!(registry.store.uploads_open(), 0);
        assert_eq!(ask(&registry, "PATCH", &upload, b"6").await.0, StatusCode::NOT_FOUND);
    }
}
