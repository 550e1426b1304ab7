//! A request as the cache knows it, and what is kept given as its answer.
//!
//! In: a request; what is kept. Out: its key and what it wants of a cache, the answer (whole, a part, or that nothing changed) and what became of
//! it (RFC 9211). Never looks into the store.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, response};

use super::rules::{self, Part};
use super::store::RuleId;
use super::{Control, Kept};
use crate::policy::Asked;
use crate::policy::carried::{Carried, whole};

const CACHE_STATUS: http::HeaderName = http::HeaderName::from_static("cache-status");

/// A request, as the cache knows it.
pub(crate) struct Question {
    pub(crate) key: Arc<str>,
    pub(crate) rule: RuleId,
    pub(crate) headers: HeaderMap,
    pub(crate) control: Control,
    pub(crate) is_head: bool,
    /// It said who asks.
    pub(crate) authorized: bool,
    /// When it came, in seconds since 1970.
    pub(crate) at: i64,
}

pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

pub(crate) fn key(scheme: &str, authority: &str, target: &str) -> Arc<str> {
    format!("{scheme} {} {target}", authority.to_ascii_lowercase()).into()
}

impl Question {
    pub(crate) fn of(asked: &Asked<'_>) -> Self {
        let head = &asked.head;
        let scheme = if asked.tls { "https" } else { "http" };
        let authority = head.headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or(asked.host);
        let target = head.uri.path_and_query().map_or("/", |p| p.as_str());
        Self {
            key: key(scheme, authority, target),
            rule: (Arc::clone(asked.route), asked.rule.index),
            control: Control::of(&head.headers),
            headers: head.headers.clone(),
            is_head: head.method == Method::HEAD,
            authorized: asked.authorized || asked.user.is_some(),
            at: now(),
        }
    }

    pub(crate) fn is_of_part(&self) -> bool {
        self.headers.contains_key(header::RANGE)
    }

    /// Gives what is kept: whole, a part of it (RFC 9110 §14), its head, or that the client has it (§4.3.2).
    pub(crate) fn give(&self, kept: &Kept, status: &str) -> Response<Bytes> {
        let mut answer = Response::new(kept.body.clone());
        *answer.status_mut() = kept.status;
        *answer.headers_mut() = kept.headers.clone();
        // "When a stored response is used …, a cache MUST generate a single Age header field" (§4).
        answer.headers_mut().insert(header::AGE, HeaderValue::from(kept.age(now())));
        note(answer.headers_mut(), status);
        let length = kept.body.len();
        if kept.status.is_success() && rules::is_known(&self.headers, &kept.headers) {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            *answer.body_mut() = Bytes::new();
            for gone in [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CONTENT_ENCODING] {
                answer.headers_mut().remove(gone);
            }
            return answer;
        }
        let range = self.headers.get(header::RANGE).filter(|_| !self.is_head && kept.status == StatusCode::OK);
        let part = range.filter(|_| rules::range_holds(&self.headers, &kept.headers)).map(|r| rules::part(r, length));
        let says = match part {
            None | Some(Part::All) => None,
            Some(Part::Of(first, last)) => {
                *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
                *answer.body_mut() = kept.body.slice(first..=last);
                Some(format!("bytes {first}-{last}/{length}"))
            }
            Some(Part::None) => {
                *answer.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                *answer.body_mut() = Bytes::new();
                Some(format!("bytes */{length}"))
            }
        };
        if let Some(says) = says.and_then(|says| HeaderValue::from_str(&says).ok()) {
            answer.headers_mut().insert(header::CONTENT_RANGE, says);
        }
        let length = answer.body().len();
        answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        if self.is_head {
            *answer.body_mut() = Bytes::new();
        }
        answer
    }

    /// Gives it in the place of the backend's answer.
    pub(crate) fn instead(&self, kept: &Kept, status: &str, head: &mut response::Parts) -> Carried {
        let (given, body) = self.give(kept, status).into_parts();
        (head.status, head.headers) = (given.status, given.headers);
        whole(body)
    }
}

/// Says what became of an answer (RFC 9211 §2).
pub(crate) fn note(headers: &mut HeaderMap, status: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("Atoll; {status}")) {
        headers.append(CACHE_STATUS, value);
    }
}
