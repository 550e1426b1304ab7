//! When what answers are made of last changed: one number for each kind of thing, so that a change makes void what it concerns, at once.
//!
//! ```text
//!   world of generation 7 ── answer made of shop/web ── entry {7, [stamp of shop/web]}
//!   world of generation 8 differs in shop/web ── its stamp becomes 8 ── the entry is older: void
//! ```
//!
//! In: the generation of a new world and what differs in it. Out: whether an entry still holds. Things that share a stamp by chance void
//! one another, which costs a look-up and is never wrong. Nothing here waits.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::answer::Source;

/// Stamps; the first three have a meaning of their own.
const STAMPS: usize = 8192;
/// Everything.
pub(crate) const EVERYTHING: u16 = 0;
/// Who stands where.
const CLIENTS: u16 = 1;
/// The number of the topology, which SOA records show.
pub(crate) const VERSION: u16 = 2;
/// All hosts of policies: a wildcard stands for more names than can be listed.
const HOSTS: u16 = 3;
const FIRST: u16 = 4;

/// What differs between two worlds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Too much to list.
    pub(crate) everything: bool,
    /// Who stands where.
    pub(crate) clients: bool,
    /// The topology's number.
    pub(crate) version: bool,
    /// These.
    pub(crate) sources: std::collections::HashSet<Source>,
}

impl Changes {
    /// Whether the worlds are the same.
    pub(crate) fn is_empty(&self) -> bool {
        !self.everything && !self.clients && !self.version && self.sources.is_empty()
    }
}

/// The stamps.
#[derive(Debug)]
pub(crate) struct Stamps {
    stamps: Box<[AtomicU64]>,
    seed: RandomState,
}

impl Default for Stamps {
    fn default() -> Self {
        Self { stamps: (0..STAMPS).map(|_| AtomicU64::new(0)).collect(), seed: RandomState::new() }
    }
}

impl Stamps {
    /// The stamp of `source`.
    pub(crate) fn of(&self, source: &Source) -> u16 {
        if let Source::Host(_) = source {
            return HOSTS;
        }
        let room = STAMPS as u64 - u64::from(FIRST);
        u16::try_from(self.seed.hash_one(source) % room).unwrap_or(0) + FIRST
    }

    /// A world of `generation`, in which `changes` differ, counts from now on.
    pub(crate) fn bump(&self, changes: &Changes, generation: u64) {
        let fixed = [(changes.everything, EVERYTHING), (changes.clients, CLIENTS), (changes.version, VERSION)];
        for (_, stamp) in fixed.into_iter().filter(|(changed, _)| *changed) {
            self.stamps[usize::from(stamp)].store(generation, Ordering::Release);
        }
        for source in &changes.sources {
            self.stamps[usize::from(self.of(source))].store(generation, Ordering::Release);
        }
    }

    /// Whether what was made under `generation` out of what `stamps` stand for still holds.
    pub(crate) fn hold(&self, generation: u64, stamps: impl IntoIterator<Item = u16>) -> bool {
        let unchanged =
            |stamp: u16| self.stamps.get(usize::from(stamp)).is_some_and(|s| s.load(Ordering::Acquire) <= generation);
        unchanged(EVERYTHING) && stamps.into_iter().all(unchanged)
    }

    /// Whether who stood where under `generation` stands there still.
    pub(crate) fn stand(&self, generation: u64) -> bool {
        self.hold(generation, [CLIENTS])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_makes_void_what_it_concerns_and_nothing_else() {
        let stamps = Stamps::default();
        let source = |name: &str| Source::Member(name.parse().unwrap());
        let eu = stamps.of(&source("eu"));
        // By chance some share one.
        let us = (0..).map(|n| stamps.of(&source(&format!("us-{n}")))).find(|us| *us != eu).unwrap();
        let changes = Changes { sources: [source("eu")].into(), ..Changes::default() };
        stamps.bump(&changes, 2);
        for (generation, stamp, holds) in [(1, eu, false), (2, eu, true), (1, us, true)] {
            assert_eq!(stamps.hold(generation, [stamp]), holds, "{generation} {stamp}");
        }
        assert!(stamps.stand(1));
        stamps.bump(&Changes { everything: true, ..Changes::default() }, 3);
        assert!(!stamps.hold(2, [us]) && !stamps.stand(2) && stamps.hold(3, [us]));
    }
}
