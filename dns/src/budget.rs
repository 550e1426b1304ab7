//! What one client's query may cost: so much time, so many questions to others, whatever chain, retry or hedge asks them.
//!
//! In: the time. Out: leave to ask once more, or not. Clones share it, so that what a query sets going is counted together. This is the
//! bound against amplification by chains and fan-out (NXNSAttack, CAMP): no answer of anybody's makes us ask more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// From question to answer, all links together; the rest of the two seconds that clients wait is for the way.
pub(crate) const TIME: Duration = Duration::from_millis(1500);
/// Questions to members and upstreams, second tries and TCP counted.
pub(crate) const QUESTIONS_MAX: u32 = 16;

/// What a query has cost before it came to where its budget is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    pub(crate) at: Instant,
    /// Questions that were asked for it.
    pub(crate) spent: u32,
    /// Its answer must be had by a stream: a datagram did not bring it, or can't be believed.
    pub(crate) by_stream: bool,
}

/// What is left for a query.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    /// Nothing is waited for beyond it.
    pub(crate) deadline: Instant,
    /// Members are asked by streams.
    pub(crate) by_stream: bool,
    left: Arc<AtomicU32>,
}

impl Budget {
    /// A whole one.
    pub(crate) fn new(now: Instant) -> Self {
        Self::until(now + TIME)
    }

    /// A whole one that ends at `deadline`.
    pub(crate) fn until(deadline: Instant) -> Self {
        Self { deadline, by_stream: false, left: Arc::new(AtomicU32::new(QUESTIONS_MAX)) }
    }

    /// What is left of one for a query that has begun.
    pub(crate) fn of(begun: Option<Begun>, now: Instant) -> Self {
        let Some(Begun { at, spent, by_stream }) = begun else { return Self::new(now) };
        let left = Arc::new(AtomicU32::new(QUESTIONS_MAX.saturating_sub(spent)));
        Self { by_stream, left, ..Self::new(at) }
    }

    /// Takes one question out of it; false: there is none left.
    pub(crate) fn take(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// Questions asked so far.
    pub(crate) fn spent(&self) -> u32 {
        QUESTIONS_MAX - self.left.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_budget_is_shared_and_ends() {
        let budget = Budget::new(Instant::now());
        let other = budget.clone();
        let taken = (0..100).filter(|n| if n % 2 == 0 { budget.take() } else { other.take() }).count();
        assert_eq!((taken, budget.spent()), (16, 16));
        let begun = Begun { at: Instant::now(), spent: 15, by_stream: true };
        let late = Budget::of(Some(begun), begun.at + TIME / 2);
        assert_eq!((late.deadline, late.by_stream, late.spent()), (begun.at + TIME, true, 15));
        assert_eq!([late.take(), late.take()], [true, false]);
    }
}
