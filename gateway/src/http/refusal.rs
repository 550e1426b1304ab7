//! Answers of our own when a request can't be served: a status, and one line that says why.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::body::Reply;
use crate::filter::said;

/// A client of gRPC is told so much of why.
const WHY_MAX: usize = 256;

/// Why a request is not served.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) why: String,
    /// What clients are told in its place.
    told: Option<&'static str>,
    /// Seconds after which it may be tried again.
    pub(crate) retry_after: Option<u32>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), told: None, retry_after: None }
    }

    /// What is wrong is ours: clients are told no names of objects.
    pub(crate) fn ours(told: &'static str, why: &str) -> Self {
        Self { told: Some(told), ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{told}: {why}")) }
    }

    /// The route is there, and over a bound: the log says which.
    pub(crate) fn over(why: &str) -> Self {
        let told = "the route is over a limit of its namespace";
        Self { told: Some(told), ..Self::unavailable(format!("{told}: {why}")) }
    }

    fn told(&self) -> &str {
        self.told.unwrap_or(&self.why)
    }

    /// The request itself is wrong.
    pub(crate) fn bad(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why)
    }

    /// Nobody can serve it now.
    pub(crate) fn unavailable(why: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, why)
    }

    /// No endpoint took the connection; the log says why the last one did not.
    pub(crate) fn unreached(error: &std::io::Error) -> Self {
        let told = "no endpoint could be reached";
        Self { told: Some(told), ..Self::unavailable(format!("{told}: {error}")) }
    }

    /// Everybody who could serve it has as much as they may.
    pub(crate) fn full() -> Self {
        Self { retry_after: Some(1), ..Self::unavailable("every cluster has as many requests as it may") }
    }

    /// The same as gRPC says it: an answer without a body whose head holds the trailers (gRPC over HTTP/2, Trailers-Only).
    /// `kind`: which of its forms the client speaks, [`grpc_kind`].
    pub(crate) fn answer_grpc(&self, kind: &HeaderValue) -> Response<Reply> {
        // As gRPC clients read statuses of HTTP (grpc/doc/http-grpc-status-mapping.md).
        let status = match self.status.as_u16() {
            400 => "13",
            401 => "16",
            403 => "7",
            404 => "12",
            429 | 502 | 503 | 504 => "14",
            // "UNAVAILABLE statuses MUST be returned" where a backend is none (Gateway API, GRPCRouteRule.backendRefs).
            _ if self.told.is_some() => "14",
            _ => "2",
        };
        let mut answer = Response::new(Reply::own(""));
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, kind.clone());
        headers.insert("grpc-status", HeaderValue::from_static(status));
        let said: String = self.told().chars().filter(|c| c.is_ascii_graphic() && *c != '%' || *c == ' ').collect();
        if let Ok(said) = HeaderValue::from_str(&said) {
            headers.insert("grpc-message", said);
        }
        answer
    }

    /// What a filter answered, as gRPC says it; nothing: it is no error, or is said so already.
    pub(crate) fn grpc_of(answer: &Response<Bytes>, kind: &HeaderValue) -> Option<(Self, Response<Reply>)> {
        let its = answer.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if answer.status().as_u16() < 400 || is_grpc_kind(its) {
            return None;
        }
        let said = String::from_utf8_lossy(answer.body());
        let line: String = said.lines().next().unwrap_or_default().chars().take(WHY_MAX).collect();
        let refusal = Self::new(answer.status(), line);
        let mut told = refusal.answer_grpc(kind);
        let others = answer.headers().iter().filter(|(name, _)| !name.as_str().starts_with("content-"));
        told.headers_mut().extend(others.map(|(name, value)| (name.clone(), value.clone())));
        Some((refusal, told))
    }

    /// As whoever asked understands it.
    pub(crate) fn answer_to(&self, grpc: Option<&HeaderValue>) -> Response<Reply> {
        grpc.map_or_else(|| self.answer(), |kind| self.answer_grpc(kind))
    }

    pub(crate) fn answer(&self) -> Response<Reply> {
        let mut answer = said(self.status, self.told()).map(Reply::own);
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            // It "MUST generate an Allow header field" (RFC 9110 §15.5.6); CONNECT alone is refused.
            let others = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE");
            answer.headers_mut().insert(header::ALLOW, others);
        }
        if let Some(seconds) = self.retry_after {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer
    }
}

/// Whether a type of content is one of gRPC's, gRPC-Web's among them.
pub(crate) fn is_grpc_kind(kind: &[u8]) -> bool {
    kind.starts_with(b"application/grpc")
}

/// Which form of gRPC a client speaks, which understands statuses of gRPC only: the type of what it is answered. Of gRPC-Web, whose clients can't
/// see trailers, that is its own (PROTOCOL-WEB.md); nothing: it speaks none.
pub(crate) fn grpc_kind(headers: &HeaderMap) -> Option<HeaderValue> {
    let kind = headers.get(header::CONTENT_TYPE)?.as_bytes();
    if !is_grpc_kind(kind) {
        return None;
    }
    let own = kind.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    match own.starts_with(b"application/grpc-web") {
        true => HeaderValue::from_bytes(own).ok(),
        false => Some(HeaderValue::from_static("application/grpc")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_grpc_is_answered_in_its_own_form() {
        for (kind, answered) in [
            ("application/grpc", Some("application/grpc")),
            ("application/grpc+proto", Some("application/grpc")),
            ("application/grpc-web", Some("application/grpc-web")),
            ("application/grpc-web+proto; charset=utf-8", Some("application/grpc-web+proto")),
            ("application/grpc-web-text+proto", Some("application/grpc-web-text+proto")),
            ("application/json", None),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
            let found = grpc_kind(&headers);
            assert_eq!(found.as_ref().map(|v| v.to_str().unwrap()), answered, "{kind}");
        }
    }
}
