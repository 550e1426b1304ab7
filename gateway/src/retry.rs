//! How often requests may be sent again: at most a fifth of what comes in, and a handful a second on top.
//!
//! A token bucket, so that a dead backend does not double the load of the others. Time is an argument. Source: Finagle's retry budgets.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// A retry costs so much; a request gives as much as its percents.
const COST: u32 = 100;
/// Retries that are always allowed, each second, where nobody says otherwise.
pub(crate) const PER_SECOND: u32 = 10;
/// And what part of the requests, percent.
pub(crate) const PERCENT: u8 = 20;
/// Retries saved up at most.
const SAVED_MAX: u32 = 200;

/// The bucket. Requests take no lock, and write nothing while it is full.
#[derive(Debug)]
pub(crate) struct Budget {
    saved: AtomicU32,
    percent: u32,
    per_second: u32,
    /// When what time gives was last counted.
    counted: Mutex<Option<Instant>>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(PERCENT, PER_SECOND)
    }
}

impl Budget {
    /// Full; what it allows is `percent` of the requests, and `per_second` beside them.
    pub(crate) fn new(percent: u8, per_second: u32) -> Self {
        // Who allows nothing has nothing saved.
        let saved = if percent == 0 && per_second == 0 { 0 } else { SAVED_MAX * COST };
        Self { saved: AtomicU32::new(saved), percent: u32::from(percent), per_second, counted: Mutex::new(None) }
    }

    /// A request came in.
    pub(crate) fn request(&self) {
        if self.saved.load(Ordering::Relaxed) < SAVED_MAX * COST {
            self.earn(self.percent);
        }
    }

    fn earn(&self, earned: u32) {
        let add = |saved: u32| Some(saved.saturating_add(earned).min(SAVED_MAX * COST));
        // It always has something to put there.
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// What time gave since it was last counted.
    fn given(&self, counted: Option<Instant>, now: Instant) -> u32 {
        let since = counted.map_or(0, |at| now.saturating_duration_since(at).as_millis());
        u32::try_from(since).unwrap_or(u32::MAX).saturating_mul(self.per_second.saturating_mul(COST)) / 1000
    }

    /// How many may be sent again now.
    pub(crate) fn left(&self, now: Instant) -> u32 {
        let counted = *self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let saved = self.saved.load(Ordering::Relaxed).saturating_add(self.given(counted, now));
        saved.min(SAVED_MAX * COST) / COST
    }

    /// Whether one may be sent again now; if so, that is paid for.
    pub(crate) fn retry(&self, now: Instant) -> bool {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let earned = self.given(*counted, now);
        if counted.is_none() || earned > 0 {
            self.earn(earned);
            *counted = Some(now);
        }
        let pay = |saved: u32| saved.checked_sub(COST);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_spent_budget_grows_with_requests_and_with_time() {
        let (budget, start) = (Budget::default(), Instant::now());
        let spend = |now| (0..1000).take_while(|_| budget.retry(now)).count();
        assert_eq!(spend(start), 200);
        (0..50).for_each(|_| budget.request());
        assert_eq!(spend(start), 10, "a fifth of the requests");
        assert_eq!(budget.left(start + Duration::from_secs(2)), 20, "which costs nothing to know");
        assert_eq!(spend(start + Duration::from_secs(2)), 20, "ten a second");
        assert_eq!(spend(start + Duration::from_secs(3600)), 200, "never more than was saved");
        assert!(!Budget::new(0, 0).retry(start), "nothing is allowed");
        let half = Budget::new(50, 0);
        while half.retry(start) {}
        (0..10).for_each(|_| half.request());
        assert_eq!((0..9).filter(|_| half.retry(start + Duration::from_secs(9))).count(), 5);
    }
}
