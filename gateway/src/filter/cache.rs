//! `cache`: answers are kept and given again, as RFC 9111 lets a shared cache do, and each answer says what became of it (RFC 9211).
//!
//! It stands after those that authenticate: what is kept is given to nobody who may not have it. Requests with a body, with If-Match or
//! If-Unmodified-Since, and upgrades pass. Of many that ask for the same at once one goes on, the others wait for it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use atoll_api::kinds::route_policy::filters::Cache;
use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body::Body as _;
use serde_json::{Map, Value};

use super::{Guard, Guarded, Making, parameters, said};
use crate::policy::cache::answered::{Answered, Changed, Passed};
use crate::policy::cache::question::{Question, note, now};
use crate::policy::cache::rules::{self, Use};
use crate::policy::cache::{Kept, Store, Taken};
use crate::policy::{Asked, Behind};

const BYTES_MAX: u64 = 64 << 20;
const ENTRY_BYTES_MAX: u64 = 1 << 20;
/// So long one who asks for the same as another waits; then it goes on itself.
const WAIT_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Caching(Arc<Store>);

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
