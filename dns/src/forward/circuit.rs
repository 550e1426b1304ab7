//! Whether a party answers at all: after so many questions in a row without an answer nobody waits for it, until it answers again.
//!
//! In: what became of questions and probes, the time. Out: open or closed; while it is open one question goes through now and then, so that
//! a party which nobody probes is found again. All threads share it without a lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Questions in a row without an answer that open it.
pub(super) const LEFT_MAX: u32 = 16;
/// Between two questions that try whether it answers again.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// The circuit of one party.
#[derive(Debug)]
pub(crate) struct Circuit {
    start: Instant,
    /// In a row.
    left: AtomicU32,
    /// When the next question may try, in milliseconds since the start.
    try_at: AtomicU64,
}

impl Circuit {
    pub(super) fn new(now: Instant) -> Self {
        Self { start: now, left: AtomicU32::new(0), try_at: AtomicU64::new(0) }
    }

    /// It answered something.
    pub(crate) fn answered(&self) {
        // Read first: the line stays shared while all is well.
        if self.left.load(Ordering::Relaxed) > 0 {
            self.left.store(0, Ordering::Relaxed);
        }
    }

    /// It left a question without an answer.
    pub(crate) fn left(&self, now: Instant) {
        if self.left.fetch_add(1, Ordering::Relaxed) + 1 == LEFT_MAX {
            self.try_at.store(self.ms(now + TRY_EVERY), Ordering::Relaxed);
        }
    }

    /// Whether it answered of late: no question has to try.
    pub(crate) fn is_closed(&self) -> bool {
        self.left.load(Ordering::Relaxed) < LEFT_MAX
    }

    /// Whether nobody should wait for it, and no question is due that tries.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.left.load(Ordering::Relaxed) >= LEFT_MAX && self.ms(now) < self.try_at.load(Ordering::Relaxed)
    }

    /// Whether a question may go through: always while it is closed, else as the one that tries.
    pub(super) fn lets_through(&self, now: Instant) -> bool {
        if self.left.load(Ordering::Relaxed) < LEFT_MAX {
            return true;
        }
        let (at, due) = (self.ms(now), self.try_at.load(Ordering::Relaxed));
        let next = self.ms(now + TRY_EVERY);
        at >= due && self.try_at.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_so_many_in_a_row_lets_one_try_and_closes_with_an_answer() {
        let start = Instant::now();
        let circuit = Circuit::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        for _ in 0..LEFT_MAX - 1 {
            circuit.left(start);
        }
        circuit.answered();
        for _ in 0..LEFT_MAX - 1 {
            circuit.left(start);
        }
        assert!(!circuit.is_open(start) && circuit.lets_through(start), "an answer in between begins anew");
        circuit.left(start);
        assert!(circuit.is_open(start) && !circuit.lets_through(start));
        assert!(circuit.is_open(at(499)) && !circuit.is_open(at(500)));
        assert_eq!([500, 500, 999, 1000].map(|ms| circuit.lets_through(at(ms))), [true, false, false, true]);
        circuit.left(at(1000));
        assert!(circuit.is_open(at(1001)), "the one that tried was left without an answer, too");
        circuit.answered();
        assert!(!circuit.is_open(at(1001)) && circuit.lets_through(at(1001)));
    }
}
