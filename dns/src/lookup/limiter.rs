//! The limiter for random names: names that do not exist cost a member no more than so much, and those who ask for them more than others.
//!
//! In: whose names, who asks, the time; that a name asked for did not exist. Out: whether one more unknown name may be asked. Levels drain
//! with time, in a fixed number of cells: two askers may share one, which makes it stricter, never laxer.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// Names without existence that a member is asked for each second, and at once after a rest.
const MEMBER: Rate = Rate { each_second: 200, burst: 1000 };
/// The same of one asker's neighbourhood, while its member is above its own rate.
const ASKER: Rate = Rate { each_second: 10, burst: 50 };
const MEMBER_CELLS: usize = 1024;
const ASKER_CELLS: usize = 16_384;

#[derive(Debug, Clone, Copy)]
struct Rate {
    each_second: u64,
    burst: u64,
}

/// Levels that drain.
#[derive(Debug)]
struct Cells {
    rate: Rate,
    /// Each: when it will be empty, in microseconds since the start.
    empty_at: Box<[AtomicU64]>,
}

impl Cells {
    fn new(rate: Rate, cells: usize) -> Self {
        Self { rate, empty_at: (0..cells).map(|_| AtomicU64::new(0)).collect() }
    }

    fn cell(&self, hash: u64) -> &AtomicU64 {
        &self.empty_at[usize::try_from(hash).unwrap_or(0) % self.empty_at.len()]
    }

    fn one(&self) -> u64 {
        1_000_000 / self.rate.each_second
    }

    fn is_full(&self, hash: u64, now: u64) -> bool {
        self.cell(hash).load(Ordering::Relaxed).saturating_sub(now) > (self.rate.burst - 1) * self.one()
    }

    fn add(&self, hash: u64, now: u64) {
        let full = now + self.rate.burst * self.one();
        let more = |empty: u64| Some((empty.max(now) + self.one()).min(full));
        // It always has a next value.
        let _ = self.cell(hash).fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }
}

/// Counts names that did not exist.
#[derive(Debug)]
pub(super) struct Limiter {
    start: Instant,
    seed: RandomState,
    members: Cells,
    askers: Cells,
}

impl Limiter {
    pub(super) fn new(start: Instant) -> Self {
        let (members, askers) = (Cells::new(MEMBER, MEMBER_CELLS), Cells::new(ASKER, ASKER_CELLS));
        Self { start, seed: RandomState::new(), members, askers }
    }

    /// Whether `whose` may be asked for a name that nothing is known of: always below its rate; above it for askers who did not bring it
    /// there.
    pub(super) fn allows(&self, whose: u64, asker: u64, now: Instant) -> bool {
        let (member, asker, now) = (self.hash(whose, None), self.hash(whose, Some(asker)), self.micros(now));
        !(self.members.is_full(member, now) && self.askers.is_full(asker, now))
    }

    /// A name that was asked for did not exist.
    pub(super) fn absent(&self, whose: u64, asker: u64, now: Instant) {
        let now = self.micros(now);
        self.members.add(self.hash(whose, None), now);
        self.askers.add(self.hash(whose, Some(asker)), now);
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX / 2)
    }

    fn hash(&self, whose: u64, asker: Option<u64>) -> u64 {
        self.seed.hash_one((whose, asker))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_floods_a_member_is_held_back_and_others_are_not() {
        let start = Instant::now();
        let limiter = Limiter::new(start);
        let (mut now, mut asked) = (start, 0);
        // One asker, a name each millisecond, for ten seconds.
        for _ in 0..10_000 {
            now += Duration::from_millis(1);
            if limiter.allows(7, 1, now) {
                limiter.absent(7, 1, now);
                asked += 1;
            }
        }
        assert!((2990..3100).contains(&asked), "the burst and 200 a second: {asked}");
        while limiter.allows(7, 1, now) {
            limiter.absent(7, 1, now);
        }
        assert!(limiter.allows(7, 2, now) && limiter.allows(8, 1, now));
        assert!(limiter.allows(7, 1, now + Duration::from_secs(1)), "a rest, and it is heard again");
    }
}
