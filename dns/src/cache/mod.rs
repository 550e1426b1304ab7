//! Forwarded answers, kept in octets: positive, negative (RFC 2308), stale (RFC 8767); failures for a while (RFC 9520).
//!
//! ```text
//!   put ── settle the times to live ── as a message's octets ── moka, weighed ──► get ── fresh, soon over, stale or none (by `now`)
//! ```
//!
//! In: answers in our names with their times to live, and the time. Out: the same with the age taken off. The key holds whose answer it is
//! (a member's fingerprint, the upstreams'), so that a member which is gone, new or changed is another key at once. Forwarded answers
//! depend on nothing else: what depends on view or region is decided from the topology, never kept here.

mod failures;
mod kept;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_proto::rr::{Name, RecordType};
use moka::sync::Cache as Moka;
use tokio::time::Instant;

pub(crate) use failures::{Failures, HELD_MAX};
pub(crate) use kept::{Kept, NEGATIVE_TTL_MAX, POSITIVE_TTL_MAX};

/// What moka keeps beside key and value: two list nodes, the entry's record, its share of the table (moka 0.12, 64 bit).
const ENTRY_BYTES: usize = 256;
/// An answer that is so large at once makes room for itself: moka evicts in batches.
const LARGE_BYTES: usize = 4096;
/// Octets of a key before its name.
const KEY_HEAD: usize = 11;
/// Answers live for so long at least that renewing them early pays.
const PREFETCH_TTL_MIN: u32 = 2;

/// Which answer: whose, DNSSEC bits, type, name in lower case; compact, as a cache of a million names is made of keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key(Box<[u8]>);

impl std::borrow::Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// What of a query's flags an upstream's answer depends on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bits {
    /// DO.
    pub(crate) dnssec: bool,
    /// CD.
    pub(crate) unchecked: bool,
    /// AD is asked for: always of upstreams, so that one answer does for all.
    pub(crate) validated: bool,
}

impl Key {
    /// The answer of `whose` (a member's fingerprint, the upstreams') to a question.
    pub(crate) fn new(whose: u64, name: &Name, kind: RecordType, bits: Bits) -> Self {
        Self::of(whose, name, u16::from(kind), bits)
    }

    /// That `name` does not exist, which holds for every type (RFC 2308 §5).
    pub(crate) fn no_name(whose: u64, name: &Name, bits: Bits) -> Self {
        Self::of(whose, name, 0, bits)
    }

    /// The same of a name in octets of the wire and lower case, as members are asked for it.
    pub(crate) fn of_octets(whose: u64, name: &[u8], kind: u16) -> Self {
        let labels = &name[..name.len().saturating_sub(1)];
        let mut octets = Vec::with_capacity(KEY_HEAD + labels.len());
        octets.extend_from_slice(&whose.to_ne_bytes());
        octets.push(0);
        octets.extend_from_slice(&kind.to_be_bytes());
        octets.extend_from_slice(labels);
        Self(octets.into_boxed_slice())
    }

    fn of(whose: u64, name: &Name, kind: u16, bits: Bits) -> Self {
        let mut octets = Vec::with_capacity(12 + name.len());
        octets.extend_from_slice(&whose.to_ne_bytes());
        octets.push(u8::from(bits.dnssec) | u8::from(bits.unchecked) << 1);
        octets.extend_from_slice(&kind.to_be_bytes());
        for label in name {
            octets.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
            octets.extend(label.iter().map(u8::to_ascii_lowercase));
        }
        Self(octets.into_boxed_slice())
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.0.len()
    }
}

#[derive(Debug)]
struct Entry {
    /// As [`Kept::octets`].
    octets: Box<[u8]>,
    since: Instant,
    ttl: u32,
    /// Somebody renews it already.
    renewed: AtomicBool,
}

impl Entry {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.octets.len()
    }

    fn until(&self) -> Instant {
        self.since + Duration::from_secs(u64::from(self.ttl))
    }

    /// Whether this caller is the one to renew it: the first in the last tenth of its time.
    fn renews(&self, now: Instant) -> bool {
        let tenth = Duration::from_secs(u64::from(self.ttl)) / 10;
        self.ttl >= PREFETCH_TTL_MIN && now + tenth >= self.until() && !self.renewed.swap(true, Ordering::Relaxed)
    }
}

/// What the cache has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cached {
    /// Good.
    Fresh(Kept),
    /// Good for a moment still; whoever gets this renews it.
    Ending(Kept),
    /// Over, but better than nothing.
    Stale(Kept),
    /// Nothing.
    None,
}

/// Whether an answer, and that the name does not exist, are kept; `false`: over, but better than nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) own: Option<bool>,
    pub(crate) absent: Option<bool>,
}

/// The cache; clones share it.
#[derive(Clone)]
pub(crate) struct Cache {
    entries: Moka<Key, Arc<Entry>>,
    stale_max: Duration,
}

impl Cache {
    /// Holds `bytes_max` octets; gives answers for `stale_max` after their end.
    pub(crate) fn new(bytes_max: u64, stale_max: Duration) -> Self {
        let entries = Moka::builder().weigher(weight).max_capacity(bytes_max);
        // Housekeeping alone: whether an entry is good is decided by its own times and the caller's `now`.
        let lifetime = Duration::from_secs(u64::from(POSITIVE_TTL_MAX)) + stale_max;
        Self { entries: entries.time_to_live(lifetime).build(), stale_max }
    }

    /// What there is for `name` and `kind`: the answer itself, or that the name does not exist; what is fresh comes first.
    pub(crate) fn get(&self, whose: u64, name: &Name, kind: RecordType, bits: Bits, now: Instant) -> Cached {
        let own = self.at(&Key::new(whose, name, kind, bits), now);
        if matches!(own, Cached::Fresh(_) | Cached::Ending(_)) {
            return own;
        }
        match (own, self.at(&Key::no_name(whose, name, bits), now)) {
            (own, Cached::None) => own,
            (Cached::Stale(own), Cached::Stale(_)) => Cached::Stale(own),
            (_, no_name) => no_name,
        }
    }

    /// Whether `name` is known not to exist.
    pub(crate) fn absent(&self, whose: u64, name: &Name, bits: Bits, now: Instant) -> Option<Kept> {
        match self.at(&Key::no_name(whose, name, bits), now) {
            Cached::Fresh(kept) | Cached::Ending(kept) => Some(kept),
            Cached::Stale(_) | Cached::None => None,
        }
    }

    /// Whether there is anything for a name, given as octets of the wire in lower case, be it over. Allocates nothing.
    pub(crate) fn knows(&self, whose: u64, name: &[u8], kind: u16) -> bool {
        // The longest name, and what is before it.
        let mut octets = [0; KEY_HEAD + 255];
        let length = KEY_HEAD + name.len().saturating_sub(1);
        let Some(key) = octets.get_mut(..length) else { return false };
        key[..8].copy_from_slice(&whose.to_ne_bytes());
        key[KEY_HEAD..].copy_from_slice(&name[..length - KEY_HEAD]);
        [kind, 0].into_iter().any(|kind| {
            key[9..KEY_HEAD].copy_from_slice(&kind.to_be_bytes());
            self.entries.contains_key(&*key)
        })
    }

    /// What is known of a name without reading what was answered, as [`Self::knows`] takes it.
    pub(crate) fn standing(&self, whose: u64, name: &[u8], kind: u16, now: Instant) -> Standing {
        let mut octets = [0; KEY_HEAD + 255];
        let length = KEY_HEAD + name.len().saturating_sub(1);
        let Some(key) = octets.get_mut(..length) else { return Standing::default() };
        key[..8].copy_from_slice(&whose.to_ne_bytes());
        key[KEY_HEAD..].copy_from_slice(&name[..length - KEY_HEAD]);
        let mut at = |kind: u16| {
            key[9..KEY_HEAD].copy_from_slice(&kind.to_be_bytes());
            let entry = self.entries.get(&*key)?;
            (now < entry.until() + self.stale_max).then(|| now < entry.until())
        };
        Standing { own: at(kind), absent: at(0) }
    }

    fn at(&self, key: &Key, now: Instant) -> Cached {
        let Some(entry) = self.entries.get(key) else { return Cached::None };
        let until = entry.until();
        if now >= until + self.stale_max {
            return Cached::None;
        }
        let Some(kept) = Kept::read(&entry.octets) else { return Cached::None };
        let aged = || kept.aged(now.saturating_duration_since(entry.since), None);
        match now < until {
            true if entry.renews(now) => Cached::Ending(aged()),
            true => Cached::Fresh(aged()),
            false => Cached::Stale(kept),
        }
    }

    /// Keeps an answer of a member's that is octets already, for `key`; as [`Self::put`].
    pub(crate) fn put_octets(&self, key: Key, (octets, ttl, nxdomain): (&[u8], u32, bool), now: Instant) {
        let mut other = [0; KEY_HEAD + 255];
        let length = key.0.len();
        let mut key = key;
        if let Some(void) = other.get_mut(..length) {
            void.copy_from_slice(&key.0);
            void[9..KEY_HEAD].fill(0);
            if nxdomain {
                key.0.swap_with_slice(void);
            }
            self.entries.invalidate(&*void);
        }
        let entry = Entry { octets: octets.into(), since: now, ttl, renewed: AtomicBool::new(false) };
        self.entries.insert(key, Arc::new(entry));
    }

    /// Keeps an answer; also one that is over at once, for when there will be no other. What it says of the name voids what was said
    /// before: a name that is gone has no types, one that has a type is not gone.
    pub(crate) fn put(&self, whose: u64, name: &Name, kind: RecordType, bits: Bits, kept: &Kept, now: Instant) {
        let (own, no_name) = (Key::new(whose, name, kind, bits), Key::no_name(whose, name, bits));
        let absent = kept.nxdomain && kept.answers.is_empty();
        let (key, void) = if absent { (no_name, own) } else { (own, no_name) };
        self.entries.invalidate(&void);
        let Some(octets) = kept.octets() else { return };
        let large = octets.len() >= LARGE_BYTES;
        let entry = Entry { octets, since: now, ttl: kept.ttl(), renewed: AtomicBool::new(false) };
        self.entries.insert(key, Arc::new(entry));
        if large {
            self.entries.run_pending_tasks();
        }
    }
}

fn weight(key: &Key, entry: &Arc<Entry>) -> u32 {
    u32::try_from(key.bytes() + entry.bytes() + ENTRY_BYTES).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
