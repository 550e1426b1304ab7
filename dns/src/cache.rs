//! Forwarded answers, kept in bytes: positive, negative (RFC 2308), stale (RFC 8767), and failures for a moment (RFC 9520).
//!
//! In: answers in our names with their times to live. Out: the same with the age taken off. The key holds the member's fingerprint, so
//! that a member which is gone, new or renamed is another key at once; time is an argument.

use std::time::Duration;

use hickory_proto::rr::{Name, Record, RecordType};
use moka::sync::Cache as Moka;
use tokio::time::Instant;

use crate::forward::Failed;

/// All answers together.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// So long after its end an answer may be given when there is no other.
const STALE_MAX: Duration = Duration::from_secs(3600);
/// RFC 9520 §3.2: failures are kept for at least 1 s, and not long.
const FAILURE: Duration = Duration::from_secs(1);
const FAILURES_MAX: u64 = 10_000;
/// A positive answer is kept for so long at most.
const POSITIVE_TTL_MAX: u32 = 86_400;
/// A negative one (RFC 2308 §5).
const NEGATIVE_TTL_MAX: u32 = 300;

/// Which answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Whose: a member's fingerprint, or the upstreams'.
    pub(crate) whose: u64,
    pub(crate) name: Name,
    pub(crate) kind: RecordType,
    /// With DNSSEC records.
    pub(crate) dnssec: bool,
}

/// A forwarded answer, in our names.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Kept {
    pub(crate) nxdomain: bool,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
    pub(crate) additionals: Vec<Record>,
    pub(crate) next: Option<Name>,
}

impl Kept {
    /// How long it may be kept.
    fn ttl(&self) -> u32 {
        let least = |records: &[Record]| records.iter().map(|r| r.ttl).min();
        let negative = self.authorities.iter().find_map(|r| match &r.data {
            hickory_proto::rr::RData::SOA(soa) => Some(r.ttl.min(soa.minimum).min(NEGATIVE_TTL_MAX)),
            _ => None,
        });
        match (least(&self.answers), negative) {
            (Some(positive), Some(negative)) => positive.min(negative),
            (Some(positive), None) => positive.min(POSITIVE_TTL_MAX),
            (None, Some(negative)) => negative,
            // RFC 2308 §5: without a SOA a negative answer is not kept.
            (None, None) => 0,
        }
    }

    fn bytes(&self) -> u32 {
        let sections = [&self.answers, &self.authorities, &self.additionals];
        let records = sections.iter().flat_map(|s| s.iter());
        // A record's own size, and about as much again for what it points to.
        let size = records.map(|r| 2 * size_of::<Record>() + r.name.len()).sum::<usize>() + 512;
        u32::try_from(size).unwrap_or(u32::MAX)
    }

    /// With `age` taken off every time to live, or with `ttl` in its place.
    pub(crate) fn aged(&self, age: Duration, ttl: Option<u32>) -> Self {
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        let mut aged = self.clone();
        for section in [&mut aged.answers, &mut aged.authorities, &mut aged.additionals] {
            for record in section {
                record.ttl = ttl.unwrap_or_else(|| record.ttl.saturating_sub(age));
            }
        }
        aged
    }
}

#[derive(Debug, Clone)]
struct Entry {
    kept: Kept,
    since: Instant,
    until: Instant,
}

/// What the cache has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cached {
    /// Good.
    Fresh(Kept),
    /// Over, but better than nothing.
    Stale(Kept),
    /// Nothing.
    None,
}

/// The cache; clones share it.
#[derive(Clone)]
pub(crate) struct Cache {
    entries: Moka<Key, std::sync::Arc<Entry>>,
    failures: Moka<Key, (Instant, Failed)>,
}

impl Cache {
    pub(crate) fn new() -> Self {
        let weigh = |key: &Key, entry: &std::sync::Arc<Entry>| {
            entry.kept.bytes().saturating_add(u32::try_from(size_of::<Key>() + key.name.len()).unwrap_or(0))
        };
        let stale = Duration::from_secs(u64::from(POSITIVE_TTL_MAX)) + STALE_MAX;
        Self {
            entries: Moka::builder().weigher(weigh).max_capacity(BYTES_MAX).time_to_live(stale).build(),
            failures: Moka::builder().max_capacity(FAILURES_MAX).time_to_live(FAILURE * 2).build(),
        }
    }

    pub(crate) fn get(&self, key: &Key, now: Instant) -> Cached {
        let Some(entry) = self.entries.get(key) else { return Cached::None };
        if now < entry.until {
            return Cached::Fresh(entry.kept.aged(now.saturating_duration_since(entry.since), None));
        }
        if now < entry.until + STALE_MAX { Cached::Stale(entry.kept.clone()) } else { Cached::None }
    }

    /// Keeps an answer; also one that is over at once, for when there will be no other.
    pub(crate) fn put(&self, key: Key, kept: Kept, now: Instant) {
        let until = now + Duration::from_secs(u64::from(kept.ttl()));
        self.failures.invalidate(&key);
        self.entries.insert(key, std::sync::Arc::new(Entry { kept, since: now, until }));
    }

    pub(crate) fn fail(&self, key: Key, failed: Failed, now: Instant) {
        self.failures.insert(key, (now + FAILURE, failed));
    }

    /// A failure of a moment ago.
    pub(crate) fn failed(&self, key: &Key, now: Instant) -> Option<Failed> {
        self.failures.get(key).filter(|(until, _)| now < *until).map(|(_, failed)| failed)
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::RData;
    use hickory_proto::rr::rdata::{A, SOA};

    use super::*;
    use crate::names::absolute;

    #[test]
    fn an_answer_is_good_for_its_time_then_stale_then_gone() {
        let name = absolute("a.example").unwrap();
        let a = Record::from_rdata(name.clone(), 10, RData::A(A::new(10, 0, 0, 1)));
        let soa = SOA::new(name.clone(), name.clone(), 1, 2, 3, 4, 7);
        let soa = Record::from_rdata(name.clone(), 60, RData::SOA(soa));
        let positive = Kept { answers: vec![a], ..Kept::default() };
        let negative = Kept { nxdomain: true, authorities: vec![soa], ..Kept::default() };
        let start = Instant::now();
        for (kept, ttl) in [(positive, 10), (negative, 7), (Kept::default(), 0)] {
            let cache = Cache::new();
            let key = Key { whose: 1, name: name.clone(), kind: RecordType::A, dnssec: false };
            cache.put(key.clone(), kept.clone(), start);
            for (after, want) in [(0, "fresh"), (ttl, "stale"), (ttl + 3599, "stale"), (ttl + 3600, "none")] {
                let want = if after >= ttl && want == "fresh" { "stale" } else { want };
                let got = match cache.get(&key, start + Duration::from_secs(after)) {
                    Cached::Fresh(_) => "fresh",
                    Cached::Stale(_) => "stale",
                    Cached::None => "none",
                };
                assert_eq!(got, want, "{kept:?} after {after} s");
            }
            let other = Key { whose: 2, ..key };
            assert_eq!(cache.get(&other, start), Cached::None);
        }
    }
}
