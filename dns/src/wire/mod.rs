//! The wire cache: answers as octets, given again without being decided, parsed or encoded again.
//!
//! ```text
//!   packet ── query (plain?) ── who asks ── key ── local (this thread's) ── store (all threads') ── render ── reply
//!                 │ no                                                          │ none, void or over
//!                 └──────────────────────── respond: decide, encode, render ◄───┘
//!                                                       └── deposit ──► store
//! ```
//!
//! In: plain queries, and what the slow path answered to them. Out: the octets that the slow path would have given, apart from the
//! time that has passed and which address comes first. An entry is given while the stamps of what it was made of are unchanged and its
//! time runs. A look-up waits for nobody; one that finds an entry allocates nothing.

pub(crate) mod encode;
mod entry;
mod local;
mod places;
pub(crate) mod query;
pub(crate) mod render;
mod stamps;
mod store;

#[cfg(test)]
pub(crate) mod tests;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use tokio::time::Instant;

use crate::answer::{Answer, Reuse};
use crate::counters::Told;
use crate::edns::ReplyOpt;
use encode::Encoded;
use entry::{Entry, Kept, Key, STAMPS_MAX, Shape};
pub(crate) use local::Local;
pub(crate) use places::Stands;
use query::Query;
use render::Asked;
pub(crate) use stamps::{Changes, Stamps};
use store::Store;

/// Entries of all threads together.
pub(crate) const BYTES_MAX: usize = 32 * 1024 * 1024;
/// An answer of others with less than a tenth of its time left is looked for again, once.
const LATE_PART: u64 = 10;
/// Answers that live shorter are not looked for before they end.
const LATE_MIN_S: u32 = 10;

/// Who asks, as far as it is the same for many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    /// Where it stands.
    pub(crate) place: u32,
    /// Its neighbourhood.
    pub(crate) net: u64,
}

/// What a hit is rendered with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) now: Instant,
    /// Evenly distributed, new for every question.
    pub(crate) dice: u64,
    /// How large the reply may be.
    pub(crate) limit: usize,
    /// Its OPT, but for what belongs to the answer.
    pub(crate) opt: Option<ReplyOpt<'a>>,
}

/// An answer that was made, and under what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made<'a> {
    pub(crate) answer: &'a Answer,
    /// Of the world.
    pub(crate) generation: u64,
    pub(crate) dice: u64,
    pub(crate) now: Instant,
    /// Whose it is, for those who count (of [`crate::labels`]).
    pub(crate) label: u16,
}

/// A hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hit {
    /// Octets written.
    pub(crate) len: usize,
    pub(crate) told: Told,
}

/// What a look-up comes to.
enum Step {
    Given(Hit),
    /// There are variants.
    Varied(Shape),
}

/// The wire cache.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stamps: Stamps,
    store: Store,
    seed: RandomState,
    start: Instant,
}

impl Wire {
    /// An empty one.
    pub(crate) fn new(bytes_max: usize, now: Instant) -> Self {
        Self { stamps: Stamps::default(), store: Store::new(bytes_max), seed: RandomState::new(), start: now }
    }

    /// Entries and their bytes.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (usize, usize) {
        self.store.size()
    }

    /// The reply to `query`, out of what this thread or all have; written into `out`.
    pub(crate) fn hit(
        &self,
        local: &mut Local,
        query: &Query<'_>,
        client: Client,
        terms: Terms<'_>,
        out: &mut [u8],
    ) -> Option<Hit> {
        self.found(query, client, terms.dice, |hash, key| {
            self.look(local, hash, key, terms.now, |entry| {
                self.step(&entry, terms, |body, age_s| {
                    body.render(&Asked::of(query, terms.opt), age_s, terms.dice, terms.limit, out)
                })
            })
        })
    }

    /// The same without entries of one's own, for streams.
    pub(crate) fn shared(&self, query: &Query<'_>, client: Client, terms: Terms<'_>, out: &mut Vec<u8>) -> Option<Hit> {
        self.found(query, client, terms.dice, |hash, key| {
            let stored = self.stored(hash, key, terms.now, |octets, _| octets.to_vec())?;
            let entry = Entry::read(&stored).filter(|entry| self.holds(entry, terms.now))?;
            self.step(&entry, terms, |body, age_s| {
                out.resize(body.room(terms.limit), 0);
                let len = body.render(&Asked::of(query, terms.opt), age_s, terms.dice, terms.limit, out)?;
                out.truncate(len);
                Some(len)
            })
        })
    }

    /// What `step` finds for everybody, or for the variant that this client gets now.
    fn found(
        &self,
        query: &Query<'_>,
        client: Client,
        dice: u64,
        mut step: impl FnMut(u64, &Key<'_>) -> Option<Step>,
    ) -> Option<Hit> {
        let base = key(query, client);
        let hash = self.hash(&base);
        let (hash, key) = match step(hash, &base)? {
            Step::Given(hit) => return Some(hit),
            Step::Varied(shape) => varied(shape, hash, base, client, dice)?,
        };
        match step(hash, &key)? {
            Step::Given(hit) => Some(hit),
            Step::Varied(_) => None,
        }
    }

    /// Keeps what the slow path answered, for those who may get the same.
    pub(crate) fn deposit(&self, query: &Query<'_>, client: Client, made: &Made<'_>, encoded: &Encoded) {
        let Made { answer, generation, dice, now, label } = *made;
        let mut stamps = [0; STAMPS_MAX];
        let Some(stamps) = self.stamps_of(answer, query.kind, &mut stamps) else { return };
        let (base, life_s) = (key(query, client), encoded.life_s);
        if life_s == 0 || client.place == 0 || answer.reuse == Reuse::Never {
            return;
        }
        let hash = self.hash(&base);
        // Kept no longer than what it was made of, which does not end with a whole second from now.
        let at_ms = self.ms(now).saturating_sub(u64::from(answer.spent_ms));
        let kept = |key, hash| Kept { key, hash, generation, at_ms, life_s, stamps, label };
        let shape = match answer.reuse {
            Reuse::Slots(slots) if slots > 1 => Shape::Slots(slots),
            Reuse::Client => Shape::Client,
            _ => Shape::Answer,
        };
        let (own_hash, own) = varied(shape, hash, base, client, dice).unwrap_or((hash, base));
        let Some(octets) = kept(own, own_hash).answer(encoded) else { return };
        let void = |entry: &Entry<'_>| !self.holds(entry, now);
        if shape != Shape::Answer {
            self.store.put(hash, &base, &kept(base, hash).mark(shape), void);
        }
        self.store.put(own_hash, &own, &octets, void);
    }

    /// What `found` makes of the entry in `local`; brought there when all have it and it was asked for before.
    fn look<T>(
        &self,
        local: &mut Local,
        hash: u64,
        key: &Key<'_>,
        now: Instant,
        found: impl FnOnce(Entry<'_>) -> Option<T>,
    ) -> Option<T> {
        if let Some(at) = local.find(hash, key) {
            let entry = local.at(at)?;
            if !self.holds(&entry, now) {
                local.forget(at);
            } else if self.late(&entry, now) && local.first_late(at) {
                return None;
            } else {
                return found(local.at(at)?);
            }
        }
        let (copied, used) = self.stored(hash, key, now, |octets, used| (local.copy(octets), used))?;
        let entry = local.copied(&copied).filter(|entry| self.holds(entry, now))?;
        let (late, made) = (self.late(&entry, now), found(entry));
        if used > 0 {
            local.keep(hash, &copied, late);
        }
        made
    }

    /// What `take` makes of what all have; `None` for the first who finds it late.
    fn stored<T>(&self, hash: u64, key: &Key<'_>, now: Instant, take: impl FnOnce(&[u8], u8) -> T) -> Option<T> {
        let stored = self.store.get(hash, key, |entry| self.late(entry, now), take)?;
        (!stored.first_late).then_some(stored.taken)
    }

    fn step(
        &self,
        entry: &Entry<'_>,
        terms: Terms<'_>,
        render: impl FnOnce(&render::Body<'_>, u32) -> Option<usize>,
    ) -> Option<Step> {
        let shape = entry.shape();
        if shape != Shape::Answer {
            return Some(Step::Varied(shape));
        }
        let body = entry.body();
        let len = render(&body, self.age(entry, terms.now))?;
        Some(Step::Given(Hit { len, told: Told { rcode: body.rcode(), label: entry.label(), ede: body.ede() } }))
    }

    fn holds(&self, entry: &Entry<'_>, now: Instant) -> bool {
        let age_ms = self.ms(now).saturating_sub(entry.at_ms());
        age_ms < u64::from(entry.life_s()) * 1000 && self.stamps.hold(entry.generation(), entry.stamps())
    }

    /// Whether it is time to look for a newer one.
    fn late(&self, entry: &Entry<'_>, now: Instant) -> bool {
        let (life_s, life_ms) = (entry.life_s(), u64::from(entry.life_s()) * 1000);
        let left = life_ms.saturating_sub(self.ms(now).saturating_sub(entry.at_ms()));
        life_s >= LATE_MIN_S && entry.shape() == Shape::Answer && left < life_ms / LATE_PART
    }

    fn age(&self, entry: &Entry<'_>, now: Instant) -> u32 {
        u32::try_from(self.ms(now).saturating_sub(entry.at_ms()) / 1000).unwrap_or(u32::MAX)
    }

    fn ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }

    /// Stamps of what `answer` was made of; `None` when there are too many, or nothing is known of it.
    fn stamps_of<'s>(&self, answer: &Answer, kind: u16, stamps: &'s mut [u16; STAMPS_MAX]) -> Option<&'s [u16]> {
        // SOA shows the topology's number, which goes on with every change.
        let version = (kind == u16::from(hickory_proto::rr::RecordType::SOA)).then_some(stamps::VERSION);
        let mut count = 0;
        for stamp in answer.sources.iter().map(|source| self.stamps.of(source)).chain(version) {
            if !stamps[..count].contains(&stamp) {
                *stamps.get_mut(count)? = stamp;
                count += 1;
            }
        }
        (count > 0).then(|| &stamps[..count])
    }

    fn hash(&self, key: &Key<'_>) -> u64 {
        let mut hasher = self.seed.build_hasher();
        hasher.write(key.name);
        hasher.write_u64(u64::from(key.place) << 32 | u64::from(key.kind) << 8 | u64::from(key.bits));
        hasher.finish()
    }
}

fn key<'q>(query: &Query<'q>, client: Client) -> Key<'q> {
    Key { place: client.place, kind: query.kind, bits: query.bits, variant: 0, name: query.name }
}

/// The key and hash of the variant that this client gets now; `None` where there are none.
fn varied(shape: Shape, hash: u64, base: Key<'_>, client: Client, dice: u64) -> Option<(u64, Key<'_>)> {
    match shape {
        Shape::Answer => None,
        Shape::Slots(slots) => Some(variant(hash, base, u64::from(slot(dice, slots)))),
        Shape::Client => Some(variant(hash, base, client.net)),
    }
}

/// The key and hash of a variant; the base has the variant 0.
fn variant(hash: u64, base: Key<'_>, variant: u64) -> (u64, Key<'_>) {
    let variant = variant.wrapping_add(1);
    // The base's hash is secret, so what it is mixed with need not be.
    let mixed = (hash ^ variant.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (mixed ^ mixed >> 32, Key { variant, ..base })
}

/// Which of `slots` the dice show.
pub(crate) fn slot(dice: u64, slots: u16) -> u16 {
    u16::try_from(dice % u64::from(slots.max(1))).unwrap_or(0)
}
