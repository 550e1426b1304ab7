//! `compression`: answers' bodies are written shorter where the client takes that. Sources: RFC 9110 §8.4 (Content-Encoding), §8.8.3.3 (a coded body
//! has another entity tag), §12.5.3 (Accept-Encoding), RFC 9111 §5.2.2.6 (no-transform).
//!
//! Left as they are: what is coded already, parts of a body (206, or the answer to a request for a range), what must not be changed
//! (`no-transform`), what is short or of another type. An event stream's events are sent as they come.

use std::sync::Arc;

use async_trait::async_trait;
use atoll_api::kinds::route_policy::filters::{Coding, Compression};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, response};
use http_body::Body as _;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Guard, Guarded, Making, parameters};
use crate::policy::cache::Control;
use crate::policy::cache::rules::listed;
use crate::policy::carried::Carried;
use crate::policy::coding::{Coded, Coder};
use crate::policy::{Asked, Back};

/// Bodies that are coded at once; one more goes as it is.
const BODIES_MAX: usize = 1024;
const BYTES_MIN: u64 = 1024;
const CODINGS: &[Coding] = &[Coding::Br, Coding::Zstd, Coding::Gzip];
const TYPES: &[&str] = &[
    "text/*",
    "application/json",
    "application/javascript",
    "application/xml",
    "application/wasm",
    "application/x-ndjson",
    "application/manifest+json",
    "image/svg+xml",
    "*+json",
    "*+xml",
    "font/ttf",
    "font/otf",
    "application/vnd.ms-fontobject",
];

#[derive(Debug)]
struct Settings {
    codings: Vec<Coding>,
    types: Vec<String>,
    bytes_min: u64,
    bodies: Arc<Semaphore>,
}

#[derive(Debug)]
struct Shorter(Arc<Settings>);

#[async_trait]
impl Guard for Shorter {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        let head = &asked.head;
        if head.headers.contains_key(header::UPGRADE) {
            return None;
        }
        asked.backs.push(Box::new(Answer {
            settings: Arc::clone(&self.0),
            coding: preferred(&head.headers, &self.0.codings),
            is_head: head.method == Method::HEAD,
            is_range: head.headers.contains_key(header::RANGE),
            known: head.headers.get(header::IF_NONE_MATCH).cloned(),
        }));
        None
    }
}

/// What is done with the answer to a request.
struct Answer {
    settings: Arc<Settings>,
    /// What the client takes; nothing: none of ours, or rather the body as it is.
    coding: Option<Coding>,
    is_head: bool,
    is_range: bool,
    known: Option<HeaderValue>,
}

impl Answer {
    /// Whether another client might get this answer coded.
    fn may_be_coded(&self, head: &response::Parts, length: u64) -> bool {
        let headers = &head.headers;
        let coded =
            headers.get(header::CONTENT_ENCODING).is_some_and(|c| !c.as_bytes().eq_ignore_ascii_case(b"identity"));
        let has_body = !head.status.is_informational()
            && ![
                StatusCode::NO_CONTENT,
                StatusCode::RESET_CONTENT,
                StatusCode::PARTIAL_CONTENT,
                StatusCode::NOT_MODIFIED,
            ]
            .contains(&head.status);
        has_body
            && !coded
            && !headers.contains_key(header::CONTENT_RANGE)
            && !Control::of(headers).no_transform
            && length >= self.settings.bytes_min
            && content_type(headers).is_some_and(|kind| self.settings.types.iter().any(|t| covers(t, kind)))
    }
}

#[async_trait]
impl Back for Answer {
    async fn answer(self: Box<Self>, head: &mut response::Parts, body: Carried) -> Carried {
        if head.status == StatusCode::NOT_MODIFIED {
            // The client knows the body by the tag that it got with it.
            if let Some(weak) = head.headers.get(header::ETAG).and_then(weakened)
                && self.known.is_some_and(|known| tags(&known).any(|tag| tag.as_bytes() == weak.as_bytes()))
            {
                head.headers.insert(header::ETAG, weak);
            }
            return body;
        }
        let length = head.headers.get(header::CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse().ok());
        let length = length.or_else(|| body.size_hint().exact()).unwrap_or(u64::MAX);
        if !self.may_be_coded(head, length) {
            return body;
        }
        vary(&mut head.headers, "accept-encoding");
        let Some(coding) = self.coding.filter(|_| !self.is_range) else { return body };
        let Ok(permit) = Arc::clone(&self.settings.bodies).try_acquire_owned() else { return body };
        let Some(coder) = coder(coding) else { return body };
        let name = match coding {
            Coding::Br => "br",
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
        };
        let at_once = content_type(&head.headers) == Some("text/event-stream");
        let headers = &mut head.headers;
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
        // They are of the body that is not sent (RFC 9530, RFC 9110 §14.3).
        for gone in [header::CONTENT_LENGTH, header::ACCEPT_RANGES, CONTENT_DIGEST, CONTENT_MD5] {
            headers.remove(gone);
        }
        if let Some(weak) = headers.get(header::ETAG).and_then(weakened) {
            headers.insert(header::ETAG, weak);
        }
        if self.is_head {
            return body;
        }
        Box::pin(Coded::<OwnedSemaphorePermit>::new(body, coder, at_once, permit))
    }
}

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

fn coder(coding: Coding) -> Option<Coder> {
    match coding {
        Coding::Br => Some(Coder::br()),
        Coding::Zstd => Coder::zstd().ok(),
        Coding::Gzip => Some(Coder::gzip()),
    }
}

/// The coding that a client likes best; of those that it likes as much the first of `ours` (RFC 9110 §12.5.3).
fn preferred(headers: &HeaderMap, ours: &[Coding]) -> Option<Coding> {
    let mut named: Vec<(String, u16)> = Vec::new();
    for item in listed(headers, &header::ACCEPT_ENCODING) {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
        named.push((name, weight.map_or(1000, quality)));
    }
    let of = |names: &[&str]| named.iter().find(|(name, _)| names.contains(&name.as_str())).map(|(_, q)| *q);
    let any = of(&["*"]);
    let weight = |coding: &Coding| match coding {
        Coding::Br => of(&["br"]).or(any),
        Coding::Zstd => of(&["zstd"]).or(any),
        Coding::Gzip => of(&["gzip", "x-gzip"]).or(any),
    };
    // Of a body that is as it is nobody needs to say that it may come; who says so says how much it is liked.
    let plain = of(&["identity"]).unwrap_or(0);
    let mut best: Option<(Coding, u16)> = None;
    for coding in ours {
        let q = weight(coding).unwrap_or(0);
        if q > 0 && q >= plain && best.is_none_or(|(_, most)| q > most) {
            best = Some((*coding, q));
        }
    }
    best.map(|(coding, _)| coding)
}

/// A weight in thousandths; what is none counts for nothing (RFC 9110 §12.4.2).
fn quality(written: &str) -> u16 {
    let q = written.trim().parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q));
    q.map_or(0, |q| (q * 1000.0).round() as u16)
}

/// The type of a body, without parameters.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(kind.split(';').next().unwrap_or_default().trim())
}

fn covers(pattern: &str, kind: &str) -> bool {
    let ends = |tail: &str| {
        kind.len() >= tail.len() && kind.as_bytes()[kind.len() - tail.len()..].eq_ignore_ascii_case(tail.as_bytes())
    };
    let begins = |first: &str| {
        kind.len() >= first.len() && kind.as_bytes()[..first.len()].eq_ignore_ascii_case(first.as_bytes())
    };
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(tail), _) => ends(tail),
        (None, Some(first)) => begins(first),
        (None, None) => kind.eq_ignore_ascii_case(pattern),
    }
}

/// A strong tag as a weak one: another coding is the same only in meaning (RFC 9110 §8.8.3.3).
fn weakened(tag: &HeaderValue) -> Option<HeaderValue> {
    if tag.as_bytes().starts_with(b"W/") {
        return None;
    }
    HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok()
}

fn tags(written: &HeaderValue) -> impl Iterator<Item = &str> {
    written.to_str().unwrap_or_default().split(',').map(str::trim)
}

/// Says that an answer depends on a header of the request, too.
fn vary(headers: &mut HeaderMap, name: &'static str) {
    if !listed(headers, &header::VARY).any(|v| v == "*" || v.eq_ignore_ascii_case(name)) {
        headers.append(header::VARY, HeaderValue::from_static(name));
    }
}

pub(super) fn make(written: &Map<String, Value>, _: &Making<'_>) -> Guarded {
    let settings: Compression = parameters(written)?;
    let odd = |t: &&String| {
        let kind = t.strip_prefix('*').or_else(|| t.strip_suffix('*')).unwrap_or(t);
        kind.is_empty() || kind.contains(['*', ' ', ';']) || !kind.contains(['/', '+'])
    };
    if let Some(odd) = settings.content_types.iter().find(odd) {
        return Err(format!("contentTypes: `{odd}` is none, like text/html, text/* or *+json"));
    }
    let or = |given: Vec<String>| {
        if given.is_empty() { TYPES.iter().map(|t| (*t).to_owned()).collect() } else { given }
    };
    let settings = Settings {
        codings: if settings.codings.is_empty() { CODINGS.to_vec() } else { settings.codings },
        types: or(settings.content_types),
        bytes_min: settings.bytes_min.unwrap_or(BYTES_MIN),
        bodies: Arc::new(Semaphore::new(BODIES_MAX)),
    };
    Ok(Arc::new(Shorter(Arc::new(settings))))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::policy::carried::whole;

    #[test]
    fn the_client_says_which_coding_it_likes() {
        for (accepted, expected) in [
            (&["gzip, deflate, br, zstd"][..], Some(Coding::Br)),
            (&["gzip;q=1.0, br;q=0.5"], Some(Coding::Gzip)),
            (&["gzip", "zstd"], Some(Coding::Zstd)),
            (&["x-gzip"], Some(Coding::Gzip)),
            (&["GZIP"], Some(Coding::Gzip)),
            (&["*"], Some(Coding::Br)),
            (&["br;q=0, *"], Some(Coding::Zstd)),
            (&["*;q=0"], None),
            (&["identity"], None),
            (&["identity;q=1, gzip;q=0.5"], None),
            (&["identity;q=0, gzip;q=0.001"], Some(Coding::Gzip)),
            (&["gzip;q=0"], None),
            (&["gzip;q=none"], None),
            (&["deflate, compress"], None),
            (&[""], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in accepted {
                headers.append("accept-encoding", value.parse().unwrap());
            }
            assert_eq!(preferred(&headers, CODINGS), expected, "{accepted:?}");
        }
    }

    #[tokio::test]
    async fn only_what_may_be_changed_is_coded_and_says_so() {
        let settings = || Settings {
            codings: CODINGS.to_vec(),
            types: TYPES.iter().map(|t| (*t).to_owned()).collect(),
            bytes_min: 100,
            bodies: Arc::new(Semaphore::new(BODIES_MAX)),
        };
        let plain = &[("content-type", "text/html; charset=utf-8"), ("etag", "\"1\"")][..];
        let with = |more: &[(&'static str, &'static str)]| [plain, more].concat();
        for (name, status, headers, length, is_range, coded, varies) in [
            ("a page", 200, with(&[]), 200, false, true, true),
            ("an error's page", 404, with(&[]), 200, false, true, true),
            ("a short one", 200, with(&[]), 99, false, false, false),
            ("of another type", 200, vec![("content-type", "image/png")], 200, false, false, false),
            ("JSON of a kind", 200, vec![("content-type", "application/problem+json")], 200, false, true, true),
            ("of no type", 200, vec![], 200, false, false, false),
            ("coded already", 200, with(&[("content-encoding", "br")]), 200, false, false, false),
            ("not to be changed", 200, with(&[("cache-control", "max-age=5, no-transform")]), 200, false, false, false),
            ("a part", 206, with(&[("content-range", "bytes 0-199/500")]), 200, false, false, false),
            ("asked for a part, and got all", 200, with(&[]), 200, true, false, true),
            ("nothing new", 304, with(&[]), 0, false, false, false),
        ] {
            let answer = Answer {
                settings: Arc::new(settings()),
                coding: Some(Coding::Gzip),
                is_head: false,
                is_range,
                known: Some("W/\"1\"".parse().unwrap()),
            };
            let mut response = Response::builder().status(status).header("accept-ranges", "bytes");
            for (name, value) in headers {
                response = response.header(name, value);
            }
            let mut head = response.body(()).unwrap().into_parts().0;
            let body = Box::new(answer).answer(&mut head, whole(vec![b'a'; length])).await;
            let read = body.collect().await.unwrap().to_bytes();
            let is_coded = head.headers.get("content-encoding").is_some_and(|c| c == "gzip");
            assert_eq!((is_coded, read.starts_with(&[0x1f, 0x8b])), (coded, coded), "{name}");
            assert_eq!(head.headers.get("vary").is_some_and(|v| v == "accept-encoding"), varies, "{name}");
            if coded {
                assert!(!head.headers.contains_key("accept-ranges"), "{name}");
            }
            let weak = head.headers.get("etag").is_some_and(|tag| tag == "W/\"1\"");
            assert_eq!(weak, (coded && head.headers.contains_key("etag")) || status == 304, "{name}");
        }
    }
}
