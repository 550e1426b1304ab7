//! HTTP requests to a demo pod. `?status=503` answers so, `?delay=200ms` waits first, `?size=1000` pads the body.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::body::Incoming;

use super::{Identity, Reply, grpc};

/// What of a body is read and told back.
const BODY_BYTES_MAX: usize = 1 << 20;
/// The largest padding that is given.
const PADDING_BYTES_MAX: usize = 64 << 20;
/// The longest wait that is granted.
const DELAY_MAX: Duration = Duration::from_secs(60);

pub(super) type Body = UnsyncBoxBody<Bytes, hyper::Error>;

pub(super) async fn answer(identity: &Identity, peer: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    let grpc =
        request.headers().get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"));
    if grpc {
        return grpc::answer(identity.clone(), request);
    }
    let (parts, body) = request.into_parts();
    let query = |key: &str| {
        let pairs = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        pairs.into_iter().find(|(k, _)| k == key).map(|(_, v)| v.into_owned())
    };
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    if let Some(delay) = query("delay").and_then(|d| duration(&d)) {
        tokio::time::sleep(delay.min(DELAY_MAX)).await;
    }
    let proto = if parts.version == Version::HTTP_2 { "HTTP/2.0" } else { "HTTP/1.1" };
    let host = parts.headers.get(header::HOST).and_then(|h| h.to_str().ok());
    let reply = Reply {
        method: parts.method.to_string(),
        host: host.or(parts.uri.authority().map(|a| a.as_str())).unwrap_or_default().to_owned(),
        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: headers(&parts.headers),
        padding: query("size")
            .and_then(|s| s.parse().ok())
            .map(|n| "x".repeat(PADDING_BYTES_MAX.min(n)))
            .unwrap_or_default(),
        ..identity.reply(proto, peer.to_string(), String::from_utf8_lossy(&body).into_owned())
    };
    let status = query("status").and_then(|s| StatusCode::from_bytes(s.as_bytes()).ok()).filter(|s| s.as_u16() >= 200);
    let mut response = Response::new(Full::from(reply.line() + "\n").map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status.unwrap_or_default();
    for (name, value) in
        [("content-type", "application/json"), ("x-cluster", &identity.cluster), ("x-pod", &identity.pod)]
    {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// `200ms`, `2s`.
fn duration(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(ms) => ms.parse().ok().map(Duration::from_millis),
        None => text.strip_suffix('s')?.parse().ok().map(Duration::from_secs),
    }
}

/// Headers by their names as HTTP/1.1 writes them (`X-Forwarded-For`), without Host.
pub(super) fn headers(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| *name != header::HOST) {
        let name: Vec<_> = name.as_str().split('-').map(capitalised).collect();
        out.entry(name.join("-")).or_default().push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    out
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}
