//! Answers that are kept, by what was asked for; and who is asking for one right now.
//!
//! A key is scheme, authority and target. Under it stand variants: by the rule that answers, and by the request's headers that the answer says it
//! depends on (RFC 9111 §4.1). Least used keys go first. A key that was changed by an unsafe request takes no answer that began before.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header};
use moka::ops::compute::Op;
use moka::sync::Cache;
use tokio::sync::watch;

use super::control::Control;
use super::rules::listed;

/// Variants of one key.
const VARIANTS_MAX: usize = 16;
/// What an answer costs beside its octets.
const OVERHEAD_BYTES: usize = 512;
/// Keys share so many stamps.
const STAMPS: usize = 1024;
/// Keys whose answers are known not to be kept, and for how long: nobody waits for them.
const PASSES_MAX: u64 = 10_000;
const PASS_FOR: Duration = Duration::from_secs(30);

/// The rule that answers: kind namespace/name of its route, and its number.
pub(crate) type RuleId = (Arc<str>, usize);

/// An answer that is kept.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) said: Control,
    /// For so many seconds it is fresh.
    pub(crate) lifetime: u64,
    /// How old it was when it came, in seconds.
    pub(crate) initial_age: u64,
    /// When it came, in seconds since 1970.
    pub(crate) came: i64,
    pub(crate) rule: RuleId,
    /// What the request had in the headers that it depends on.
    pub(crate) vary: Vec<(HeaderName, Vec<u8>)>,
}

impl Kept {
    /// §4.2.3.
    pub(crate) fn age(&self, now: i64) -> u64 {
        self.initial_age.saturating_add(u64::try_from(now.saturating_sub(self.came)).unwrap_or(0))
    }

    /// For how many seconds it is fresh yet; below 0: since when it is not.
    pub(crate) fn ttl(&self, now: i64) -> i64 {
        i64::try_from(self.lifetime)
            .unwrap_or(i64::MAX)
            .saturating_sub(i64::try_from(self.age(now)).unwrap_or(i64::MAX))
    }

    fn fits(&self, rule: &RuleId, asked: &HeaderMap) -> bool {
        self.rule == *rule && self.vary.iter().all(|(name, value)| combined(asked, name) == *value)
    }

    fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        self.body.len() + headers + OVERHEAD_BYTES
    }
}

/// What a request has in the headers that an answer depends on.
pub(crate) fn varied(answer: &HeaderMap, asked: &HeaderMap) -> Vec<(HeaderName, Vec<u8>)> {
    let names = listed(answer, &header::VARY).filter_map(|name| name.parse::<HeaderName>().ok());
    names.map(|name| (name.clone(), combined(asked, &name))).collect()
}

/// All lines of a header as one (§4.1); of those that are known to be lists white space does not count.
fn combined(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    if name.as_str().starts_with("accept") {
        return listed(headers, name).collect::<Vec<_>>().join(",").into_bytes();
    }
    // What is absent is something else than what is empty.
    headers.get_all(name).iter().fold(Vec::new(), |all, value| [&all[..], b", ", value.as_bytes()].concat())
}

type Variants = Arc<Vec<Arc<Kept>>>;

/// What is kept.
pub(crate) struct Store {
    kept: Cache<Arc<str>, Variants>,
    passes: Cache<u64, ()>,
    bytes_max: u64,
    pub(crate) entry_bytes_max: usize,
    /// Of answers that are being taken in.
    filling: AtomicU64,
    flights: Mutex<HashMap<u64, watch::Receiver<Option<bool>>>>,
    stamps: Vec<AtomicU64>,
    hasher: RandomState,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({} bytes at most)", self.bytes_max)
    }
}

/// A key, as it was when somebody began to ask.
#[derive(Debug, Clone)]
pub(crate) struct Stamped {
    pub(crate) key: Arc<str>,
    stamp: u64,
}

/// Who may ask for an answer.
pub(crate) enum Taken {
    /// Whoever has it.
    First(Flight),
    /// Somebody asks already: what became of it, whether it is kept.
    Asked(watch::Receiver<Option<bool>>),
    /// Nobody waits for it: it is not kept.
    Passed,
}

/// One asks, the others wait; dropped, they go on.
pub(crate) struct Flight {
    store: Arc<Store>,
    id: u64,
    tell: watch::Sender<Option<bool>>,
}

impl Flight {
    /// The answer is kept, or can't be.
    pub(crate) fn ends(self, kept: bool) {
        if kept {
            self.store.passes.invalidate(&self.id);
        } else {
            self.store.passes.insert(self.id, ());
        }
        self.tell.send_replace(Some(kept));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.store.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        self.tell.send_if_modified(|told| {
            let is_news = told.is_none();
            *told = Some(told.unwrap_or(false));
            is_news
        });
    }
}

impl Store {
    pub(crate) fn new(bytes_max: u64, entry_bytes_max: usize) -> Self {
        let weight = |key: &Arc<str>, variants: &Variants| {
            let all = key.len() + variants.iter().map(|kept| kept.bytes()).sum::<usize>();
            u32::try_from(all).unwrap_or(u32::MAX)
        };
        Self {
            kept: Cache::builder().max_capacity(bytes_max).weigher(weight).build(),
            passes: Cache::builder().max_capacity(PASSES_MAX).time_to_live(PASS_FOR).build(),
            bytes_max,
            entry_bytes_max,
            filling: AtomicU64::default(),
            flights: Mutex::default(),
            stamps: (0..STAMPS).map(|_| AtomicU64::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// The newest answer that fits a request; whether there is any under the key.
    pub(crate) fn find(&self, key: &Arc<str>, rule: &RuleId, asked: &HeaderMap) -> (Option<Arc<Kept>>, bool) {
        let Some(variants) = self.kept.get(key) else { return (None, false) };
        (variants.iter().rev().find(|kept| kept.fits(rule, asked)).cloned(), true)
    }

    /// The key as it is now.
    pub(crate) fn stamped(&self, key: Arc<str>) -> Stamped {
        let stamp = self.stamp(&key).load(Ordering::Acquire);
        Stamped { key, stamp }
    }

    fn stamp(&self, key: &Arc<str>) -> &AtomicU64 {
        let at = usize::try_from(self.hasher.hash_one(key) % STAMPS as u64).unwrap_or_default();
        &self.stamps[at]
    }

    /// Keeps an answer in the place of the one for the same requests, unless the key was changed since `stamped`.
    pub(crate) fn put(&self, Stamped { key, stamp }: &Stamped, kept: Kept) {
        let is_old = || self.stamp(key).load(Ordering::Acquire) != *stamp;
        if is_old() {
            return;
        }
        let kept = Arc::new(kept);
        self.kept.entry_by_ref(key).and_compute_with(|held| {
            let held = held.map(moka::Entry::into_value).unwrap_or_default();
            let is_other = |k: &&Arc<Kept>| k.rule != kept.rule || k.vary != kept.vary;
            let mut variants: Vec<Arc<Kept>> = held.iter().filter(is_other).cloned().collect();
            if variants.len() >= VARIANTS_MAX {
                variants.remove(0);
            }
            variants.push(Arc::clone(&kept));
            Op::Put(Arc::new(variants))
        });
        if is_old() {
            self.kept.invalidate(key);
        }
    }

    /// Forgets everything of a key, also what is under way (§4.4).
    pub(crate) fn forget(&self, key: &Arc<str>) {
        self.stamp(key).fetch_add(1, Ordering::AcqRel);
        self.kept.invalidate(key);
    }

    /// Asks for the answer to a request, where nobody does.
    pub(crate) fn take(self: &Arc<Self>, key: &Arc<str>, rule: &RuleId, asked: &HeaderMap) -> Taken {
        // Requests that will not get the same answer do not wait for one another, as far as that is known.
        let newest = self.kept.get(key).and_then(|v| v.iter().rev().find(|k| k.rule == *rule).cloned());
        let vary: Vec<Vec<u8>> =
            newest.iter().flat_map(|kept| &kept.vary).map(|(name, _)| combined(asked, name)).collect();
        let id = self.hasher.hash_one((key, rule, vary));
        if self.passes.contains_key(&id) {
            return Taken::Passed;
        }
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = flights.get(&id) {
            return Taken::Asked(asked.clone());
        }
        let (tell, told) = watch::channel(None);
        flights.insert(id, told);
        Taken::First(Flight { store: Arc::clone(self), id, tell })
    }

    /// So much more is being taken in; nothing where that would be too much.
    pub(super) fn grow(&self, bytes: u64) -> bool {
        self.filling.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.bytes_max
    }

    pub(super) fn shrink(&self, bytes: u64) {
        self.filling.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&str, &str)]) -> HeaderMap {
        all.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect()
    }

    fn kept(body: &str, rule: &RuleId, vary: &str, asked: &HeaderMap) -> Kept {
        let answer = if vary.is_empty() { HeaderMap::new() } else { headers(&[("vary", vary)]) };
        Kept {
            status: StatusCode::OK,
            vary: varied(&answer, asked),
            headers: answer,
            body: Bytes::from(body.to_owned()),
            said: Control::default(),
            lifetime: 60,
            initial_age: 0,
            came: 0,
            rule: rule.clone(),
        }
    }

    #[test]
    fn variants_are_told_apart_by_rule_and_by_what_answers_depend_on() {
        let store = Store::new(1 << 20, 1 << 16);
        let key: Arc<str> = Arc::from("http a.test /");
        let (first, second): (RuleId, RuleId) = ((Arc::from("r"), 0), (Arc::from("r"), 1));
        let de = headers(&[("accept-language", "de, en")]);
        let fr = headers(&[("accept-language", "fr")]);
        store.put(&store.stamped(Arc::clone(&key)), kept("de", &first, "Accept-Language", &de));
        store.put(&store.stamped(Arc::clone(&key)), kept("fr", &first, "Accept-Language", &fr));
        let found = |rule: &RuleId, asked: &HeaderMap| store.find(&key, rule, asked).0.map(|k| k.body.clone());
        assert_eq!(found(&first, &de).unwrap(), "de", "§4.1");
        assert_eq!(found(&first, &headers(&[("accept-language", "de,en")])).unwrap(), "de", "§4.1: white space");
        assert_eq!(found(&first, &fr).unwrap(), "fr", "§4.1");
        assert_eq!(found(&first, &HeaderMap::new()), None, "§4.1: absent is not the same");
        assert_eq!(found(&second, &de), None, "another rule's backends said something else");
        assert!(store.find(&key, &second, &de).1);
        store.put(&store.stamped(Arc::clone(&key)), kept("de 2", &first, "Accept-Language", &de));
        assert_eq!(found(&first, &de).unwrap(), "de 2", "the newer one counts");
        store.forget(&key);
        assert_eq!(found(&first, &de), None, "§4.4");
    }

    #[test]
    fn what_began_before_a_change_is_not_kept() {
        let store = Store::new(1 << 20, 1 << 16);
        let (key, rule): (Arc<str>, RuleId) = (Arc::from("k"), (Arc::from("r"), 0));
        let before = store.stamped(Arc::clone(&key));
        store.forget(&key);
        store.put(&before, kept("old", &rule, "", &HeaderMap::new()));
        assert!(store.find(&key, &rule, &HeaderMap::new()).0.is_none());
    }

    #[test]
    fn memory_is_bounded_by_bytes_and_variants_by_number() {
        let store = Store::new(1 << 20, 1 << 16);
        let rule: RuleId = (Arc::from("r"), 0);
        for n in 0..1000 {
            let key = Arc::from(format!("k{n}"));
            store.put(&store.stamped(key), kept(&"x".repeat(10_000), &rule, "", &HeaderMap::new()));
        }
        store.kept.run_pending_tasks();
        assert!(store.kept.weighted_size() <= 1 << 20 && store.kept.entry_count() > 50);
        let key: Arc<str> = Arc::from("one");
        for n in 0..100 {
            let asked = headers(&[("x-a", &n.to_string())]);
            store.put(&store.stamped(Arc::clone(&key)), kept("x", &rule, "x-a", &asked));
        }
        assert!(store.kept.get(&key).unwrap().len() <= VARIANTS_MAX);
    }

    #[tokio::test]
    async fn one_asks_and_the_others_wait_unless_it_is_known_to_be_in_vain() {
        let store = Arc::new(Store::new(1 << 20, 1 << 16));
        let (key, rule): (Arc<str>, RuleId) = (Arc::from("k"), (Arc::from("r"), 0));
        let take = || store.take(&key, &rule, &HeaderMap::new());
        let Taken::First(flight) = take() else { panic!("nobody asks yet") };
        let Taken::Asked(mut told) = take() else { panic!("somebody asks") };
        drop(flight);
        assert_eq!(*told.wait_for(Option::is_some).await.unwrap(), Some(false), "whoever asked went away");
        let Taken::First(flight) = take() else { panic!("nobody asks any more") };
        flight.ends(false);
        assert!(matches!(take(), Taken::Passed), "what can't be kept is not waited for");
    }
}
