//! `cache`: answers are kept and given again, as RFC 9111 lets a shared cache do, and each answer says what became of it (RFC 9211).
//!
//! It stands after those that authenticate: what is kept is given to nobody who may not have it. Requests with a body, with If-Match or
//! If-Unmodified-Since, and upgrades pass. Of many that ask for the same at once one goes on, the others wait for it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use atoll_api::kinds::route_policy::filters::Cache;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header, response};
use http_body::Body as _;
use serde_json::{Map, Value};

use super::{Guard, Guarded, Making, parameters, said};
use crate::policy::cache::fill::{Fill, Filling};
use crate::policy::cache::rules::{self, Part, Use};
use crate::policy::cache::store::{RuleId, Stamped, varied};
use crate::policy::cache::{Control, Flight, Kept, Store, Taken};
use crate::policy::carried::{Carried, whole};
use crate::policy::{Asked, Back, Behind};

const BYTES_MAX: u64 = 64 << 20;
const ENTRY_BYTES_MAX: u64 = 1 << 20;
/// So long one who asks for the same as another waits; then it goes on itself.
const WAIT_MAX: Duration = Duration::from_secs(5);
const CACHE_STATUS: http::HeaderName = http::HeaderName::from_static("cache-status");

#[derive(Debug)]
struct Caching(Arc<Store>);

/// A request, as the cache knows it.
struct Question {
    key: Arc<str>,
    rule: RuleId,
    headers: HeaderMap,
    control: Control,
    is_head: bool,
    /// It said who asks.
    authorized: bool,
    /// When it came, in seconds since 1970.
    at: i64,
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn key(scheme: &str, authority: &str, target: &str) -> Arc<str> {
    format!("{scheme} {} {target}", authority.to_ascii_lowercase()).into()
}

impl Question {
    fn of(asked: &Asked<'_>) -> Self {
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

    fn is_of_part(&self) -> bool {
        self.headers.contains_key(header::RANGE)
    }

    /// Gives what is kept: whole, a part of it (RFC 9110 §14), its head, or that the client has it (§4.3.2).
    fn give(&self, kept: &Kept, status: &str) -> Response<Bytes> {
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
    fn instead(&self, kept: &Kept, status: &str, head: &mut response::Parts) -> Carried {
        let (given, body) = self.give(kept, status).into_parts();
        (head.status, head.headers) = (given.status, given.headers);
        whole(body)
    }
}

/// Says what became of an answer (RFC 9211 §2).
fn note(headers: &mut HeaderMap, status: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("Atoll; {status}")) {
        headers.append(CACHE_STATUS, value);
    }
}

#[async_trait]
impl Guard for Caching {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        let head = &asked.head;
        if !head.method.is_safe() {
            // §4.4: "MUST invalidate the target URI … when it receives a non-error status code in response to an unsafe request method".
            asked.backs.push(Box::new(Changed { store: Arc::clone(&self.0), question: Question::of(asked) }));
            return None;
        }
        // §4.3.2: "If-Match and If-Unmodified-Since … are not applicable to a cache". What comes with a body is not told apart by its key.
        let passes = ![Method::GET, Method::HEAD].contains(&head.method)
            || [header::UPGRADE, header::IF_MATCH, header::IF_UNMODIFIED_SINCE]
                .iter()
                .any(|n| head.headers.contains_key(n))
            || !asked.body.is_end_stream();
        if passes {
            asked.backs.push(Box::new(Passed));
            return None;
        }
        let question = Question::of(asked);
        let mut collapsed = false;
        let (reason, stale, if_error, flight) = loop {
            let (kept, others) = self.0.find(&question.key, &question.rule, &question.headers);
            let judged =
                kept.as_ref().map(|kept| rules::judge(&question.control, &kept.said, kept.lifetime, kept.age(now())));
            let (reason, if_error) = match (&kept, judged) {
                (Some(kept), Some(Use::Fresh | Use::Stale | Use::Meanwhile)) => {
                    if judged == Some(Use::Meanwhile) {
                        self.ask_meanwhile(asked, &question, kept);
                    }
                    let also = if collapsed { "; collapsed" } else { "" };
                    return Some(question.give(kept, &format!("hit; ttl={}{also}", kept.ttl(now()))));
                }
                (Some(_), Some(Use::Ask { wanted, if_error })) => (if wanted { "request" } else { "stale" }, if_error),
                _ => (if others { "vary-miss" } else { "uri-miss" }, false),
            };
            // §5.2.1.7.
            if question.control.only_if_cached {
                let mut refused = said(StatusCode::GATEWAY_TIMEOUT, "it is not kept here");
                note(refused.headers_mut(), "detail=only-if-cached");
                return Some(refused);
            }
            let stale = kept.filter(|kept| rules::validators(&kept.headers) || if_error);
            if question.is_of_part() || question.control.no_store || question.is_head {
                break (reason, stale.filter(|_| question.is_head), if_error, None);
            }
            match self.0.take(&question.key, &question.rule, &question.headers) {
                Taken::First(flight) => break (reason, stale, if_error, Some(flight)),
                Taken::Passed => break (reason, stale, if_error, None),
                Taken::Asked(_) if collapsed => break (reason, stale, if_error, None),
                Taken::Asked(mut told) => {
                    let told = tokio::time::timeout(WAIT_MAX, told.wait_for(Option::is_some)).await;
                    collapsed = true;
                    if !matches!(told, Ok(Ok(kept)) if *kept == Some(true)) {
                        break (reason, stale, if_error, None);
                    }
                }
            }
        };
        if let Some(stale) = &stale {
            condition(&mut asked.head.headers, &stale.headers);
        }
        let stamped = self.0.stamped(Arc::clone(&question.key));
        let store = Arc::clone(&self.0);
        asked.backs.push(Box::new(Answered { store, stamped, question, reason, stale, if_error, flight }));
        None
    }
}

/// Asks the backend whether what is kept still holds (§4.3.1).
fn condition(headers: &mut HeaderMap, kept: &HeaderMap) {
    if !rules::validators(kept) {
        return;
    }
    headers.remove(header::IF_NONE_MATCH);
    headers.remove(header::IF_MODIFIED_SINCE);
    for (name, of) in [(header::IF_NONE_MATCH, header::ETAG), (header::IF_MODIFIED_SINCE, header::LAST_MODIFIED)] {
        if let Some(value) = kept.get(of) {
            headers.insert(name, value.clone());
        }
    }
}

impl Caching {
    /// Asks for an answer anew, while the client has the stale one already.
    fn ask_meanwhile(&self, asked: &mut Asked<'_>, question: &Question, kept: &Arc<Kept>) {
        let Taken::First(flight) = self.0.take(&question.key, &question.rule, &question.headers) else { return };
        let mut head = asked.head.clone();
        head.method = Method::GET;
        // Nobody's own conditions, and all of it.
        for gone in [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::RANGE, header::IF_RANGE] {
            head.headers.remove(gone);
        }
        let question = Question { headers: head.headers.clone(), is_head: false, ..Question::of(asked) };
        condition(&mut head.headers, &kept.headers);
        let stale = Some(Arc::clone(kept)).filter(|kept| rules::validators(&kept.headers));
        let stamped = self.0.stamped(Arc::clone(&question.key));
        let store = Arc::clone(&self.0);
        let back = Answered { store, stamped, question, reason: "stale", stale, if_error: false, flight: Some(flight) };
        asked.behind = Some(Behind { head, back: Box::new(back), next: 0 });
    }
}

/// An answer that is none of ours to keep.
struct Passed;

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
struct Changed {
    store: Arc<Store>,
    question: Question,
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
struct Answered {
    store: Arc<Store>,
    stamped: Stamped,
    question: Question,
    /// Why it was passed on (RFC 9211 §2.2).
    reason: &'static str,
    /// What is kept, and may be out of date.
    stale: Option<Arc<Kept>>,
    /// It may stand in for an error.
    if_error: bool,
    flight: Option<Flight>,
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

pub(super) fn make(written: &Map<String, Value>, making: &Making<'_>) -> Guarded {
    let settings: Cache = parameters(written)?;
    let bytes_max = settings.bytes_max.unwrap_or(BYTES_MAX);
    let entry = settings.entry_bytes_max.unwrap_or(ENTRY_BYTES_MAX.min(bytes_max));
    if entry > bytes_max {
        return Err("entryBytesMax: at most bytesMax".to_owned());
    }
    let entry = usize::try_from(entry).unwrap_or(usize::MAX);
    Ok(Arc::new(Caching(making.stores.keep(&making.id, || Store::new(bytes_max, entry)))))
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
