//! What becomes of answers that came from the backend: kept, given in the place of others, or what makes others forgotten.
//!
//! In: a request that was passed on, its answer. Out: the answer as the client gets it. Source: RFC 9111 §3, §4.3.4, §4.4.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header, response};
use http_body::Body as _;

use super::fill::{Fill, Filling};
use super::question::{Question, key, note, now};
use super::rules;
use super::store::{Stamped, varied};
use super::{Control, Flight, Kept, Store};
use crate::filter::said;
use crate::policy::Back;
use crate::policy::carried::{Carried, whole};

/// An answer that is none of ours to keep.
pub(crate) struct Passed;

#[async_trait]
impl Back for Passed {
    async fn answer(self: Box<Self>, head: &mut response::Parts, body: Carried) -> Carried {
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            note(&mut head.headers, "fwd=bypass");
        }
        body
    }
}

/// The answer to an unsafe request.
pub(crate) struct Changed {
    pub(crate) store: Arc<Store>,
    pub(crate) question: Question,
}

#[async_trait]
impl Back for Changed {
    async fn answer(self: Box<Self>, head: &mut response::Parts, body: Carried) -> Carried {
        if head.status.is_success() || head.status.is_redirection() {
            self.store.forget(&self.question.key);
            // "… and MAY invalidate … the URI(s) in the Location and Content-Location …"; never of another origin (§4.4).
            for name in [header::LOCATION, header::CONTENT_LOCATION] {
                let named = head.headers.get(name).and_then(|v| v.to_str().ok());
                if let Some(key) = named.and_then(|named| resolved(&self.question.key, named)) {
                    self.store.forget(&key);
                }
            }
        }
        note(&mut head.headers, "fwd=method");
        body
    }
}

/// The key of a reference, seen from another key; nothing where it leads to another origin.
fn resolved(from: &str, named: &str) -> Option<Arc<str>> {
    let (origin, target) = from.rsplit_once(' ')?;
    let (scheme, authority) = origin.split_once(' ')?;
    if let Some(rest) = named.strip_prefix("//") {
        return resolved(from, &format!("{scheme}://{rest}"));
    }
    let named = named.split('#').next()?;
    if named.contains("://") {
        let uri: Uri = named.parse().ok()?;
        let is_same = uri.scheme_str() == Some(scheme) && uri.authority()?.as_str().eq_ignore_ascii_case(authority);
        return is_same.then(|| key(scheme, authority, uri.path_and_query().map_or("/", |p| p.as_str())));
    }
    if named.starts_with('/') {
        return Some(key(scheme, authority, named));
    }
    let path = target.split('?').next().unwrap_or("/");
    let (folder, _) = path.rsplit_once('/')?;
    Some(key(scheme, authority, &format!("{folder}/{named}")))
}

/// The answer to a request that was passed on.
pub(crate) struct Answered {
    pub(crate) store: Arc<Store>,
    pub(crate) stamped: Stamped,
    pub(crate) question: Question,
    /// Why it was passed on (RFC 9211 §2.2).
    pub(crate) reason: &'static str,
    /// What is kept, and may be out of date.
    pub(crate) stale: Option<Arc<Kept>>,
    /// It may stand in for an error.
    pub(crate) if_error: bool,
    pub(crate) flight: Option<Flight>,
}

impl Answered {
    /// All that is kept of an answer but its body.
    fn keep(&self, status: StatusCode, headers: &mut HeaderMap) -> Kept {
        let came = now();
        // "A recipient with a clock that receives a response … without a Date MUST record the time" (RFC 9110 §6.6.1).
        let date = headers.get(header::DATE).and_then(rules::time).unwrap_or_else(|| {
            let at = std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(came).unwrap_or(0));
            headers.extend(HeaderValue::from_str(&httpdate::fmt_http_date(at)).ok().map(|date| (header::DATE, date)));
            came
        });
        let said = Control::of(headers);
        Kept {
            status,
            lifetime: rules::lifetime(headers, &said, date),
            initial_age: rules::initial_age(headers, date, self.question.at, came),
            came,
            said,
            rule: self.question.rule.clone(),
            vary: varied(headers, &self.question.headers),
            headers: headers.clone(),
            body: Bytes::new(),
        }
    }

    /// The backend says that what is kept holds (§4.3.4).
    fn holds(mut self: Box<Self>, stale: &Arc<Kept>, head: &mut response::Parts) -> Carried {
        if !rules::is_about(&stale.headers, &head.headers) {
            self.store.forget(&self.question.key);
            let (refused, why) = said(StatusCode::BAD_GATEWAY, "the backend speaks of another body").into_parts();
            (head.status, head.headers) = (refused.status, refused.headers);
            note(&mut head.headers, &format!("fwd={}; fwd-status=304", self.reason));
            return whole(why);
        }
        let mut headers = stale.headers.clone();
        rules::freshen(&mut headers, &head.headers);
        let mut kept = self.keep(stale.status, &mut headers);
        kept.body = stale.body.clone();
        let may = rules::may_store(&self.question.control, self.question.authorized, kept.status, &headers, &kept.said);
        let stored = if may.is_ok() { "; stored" } else { "" };
        let body = self.question.instead(&kept, &format!("fwd={}; fwd-status=304{stored}", self.reason), head);
        match may {
            Ok(()) => self.store.put(&self.stamped, kept),
            Err(_) => self.store.forget(&self.question.key),
        }
        if let Some(flight) = self.flight.take() {
            flight.ends(may.is_ok());
        }
        body
    }
}

#[async_trait]
impl Back for Answered {
    async fn answer(mut self: Box<Self>, head: &mut response::Parts, body: Carried) -> Carried {
        if let Some(stale) = self.stale.clone() {
            if head.status == StatusCode::NOT_MODIFIED && rules::validators(&stale.headers) {
                return self.holds(&stale, head);
            }
            if self.if_error && rules::is_error(head.status) {
                let status = format!("fwd=stale; fwd-status={}; detail=stale-if-error", head.status.as_u16());
                return self.question.instead(&stale, &status, head);
            }
        }
        let forwarded = format!("fwd={}; fwd-status={}", self.reason, head.status.as_u16());
        let Question { control, authorized, is_head, .. } = &self.question;
        let said = Control::of(&head.headers);
        let length = body.size_hint().exact();
        let may = rules::may_store(control, *authorized, head.status, &head.headers, &said);
        let fits = length.is_none_or(|length| length <= self.store.entry_bytes_max as u64);
        if *is_head || may.is_err() || !fits {
            let is_gone = may.is_err() && !*is_head && head.status.is_success();
            if is_gone && self.stale.is_some() {
                self.store.forget(&self.question.key);
            }
            // An error says nothing of whether the next answer may be kept.
            if let Some(flight) = self.flight.take().filter(|_| !head.status.is_server_error()) {
                flight.ends(false);
            }
            note(&mut head.headers, &forwarded);
            return body;
        }
        let kept = self.keep(head.status, &mut head.headers);
        note(&mut head.headers, &format!("{forwarded}; stored"));
        let (store, stamped, flight) = (self.store, self.stamped, self.flight);
        let filling = Filling { store, stamped, flight, kept, length, pieces: Vec::new(), bytes: 0 };
        Box::pin(Fill::new(body, filling))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_change_names_is_forgotten_in_its_own_origin_only() {
        for (named, expected) in [
            ("/b?c=d", Some("http a.test:80 /b?c=d")),
            ("b", Some("http a.test:80 /x/b")),
            ("http://A.test:80/b#top", Some("http a.test:80 /b")),
            ("//a.test:80/b", Some("http a.test:80 /b")),
            ("https://a.test:80/b", None),
            ("http://b.test/b", None),
            ("//b.test/b", None),
        ] {
            assert_eq!(resolved("http a.test:80 /x/y?z", named).as_deref(), expected, "§4.4: {named}");
        }
    }
}
