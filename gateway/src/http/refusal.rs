//! Answers of our own when a request can't be served: a status, and one line that says why.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::body::Reply;
use crate::filter::said;

/// A client of gRPC is told so much of why.
const WHY_MAX: usize = 256;

/// Why a request is not served.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) why: String,
    /// Seconds after which it may be tried again.
    pub(crate) retry_after: Option<u32>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), retry_after: None }
    }

    /// The request itself is wrong.
    pub(crate) fn bad(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why)
    }

    /// Nobody can serve it now.
    pub(crate) fn unavailable(why: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, why)
    }

    /// Everybody who could serve it has as much as they may.
    pub(crate) fn full() -> Self {
        Self { retry_after: Some(1), ..Self::unavailable("every cluster has as many requests as it may") }
    }

    /// The same as gRPC says it: an answer without a body whose head holds the trailers (gRPC over HTTP/2, Trailers-Only).
    pub(crate) fn answer_grpc(&self) -> Response<Reply> {
        // As gRPC clients read statuses of HTTP (grpc/doc/http-grpc-status-mapping.md).
        let status = match self.status.as_u16() {
            400 => "13",
            401 => "16",
            403 => "7",
            404 => "12",
            429 | 502 | 503 | 504 => "14",
            _ => "2",
        };
        let mut answer = Response::new(Reply::own(""));
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from_static(status));
        let said: String = self.why.chars().filter(|c| c.is_ascii_graphic() && *c != '%' || *c == ' ').collect();
        if let Ok(said) = HeaderValue::from_str(&said) {
            headers.insert("grpc-message", said);
        }
        answer
    }

    /// What a filter answered, as gRPC says it; nothing: it is no error, or is said so already.
    pub(crate) fn grpc_of(answer: &Response<Bytes>) -> Option<(Self, Response<Reply>)> {
        let kind = answer.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if answer.status().as_u16() < 400 || kind.starts_with(b"application/grpc") {
            return None;
        }
        let said = String::from_utf8_lossy(answer.body());
        let line: String = said.lines().next().unwrap_or_default().chars().take(WHY_MAX).collect();
        let refusal = Self::new(answer.status(), line);
        let mut told = refusal.answer_grpc();
        let others = answer.headers().iter().filter(|(name, _)| !name.as_str().starts_with("content-"));
        told.headers_mut().extend(others.map(|(name, value)| (name.clone(), value.clone())));
        Some((refusal, told))
    }

    pub(crate) fn answer(&self) -> Response<Reply> {
        let mut answer = said(self.status, &self.why).map(Reply::own);
        if let Some(seconds) = self.retry_after {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer
    }
}
