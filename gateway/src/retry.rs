//! How often requests may be sent again: at most a fifth of what comes in, and a handful a second on top.
//!
//! A token bucket, so that a dead backend does not double the load of the others. Time is an argument. Source: Finagle's retry budgets.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// A retry costs so much; a request gives 1.
const COST: u32 = 5;
/// Retries that are always allowed, each second.
const PER_SECOND: u32 = 10;
/// Retries saved up at most.
const SAVED_MAX: u32 = 200;

/// The bucket.
#[derive(Debug)]
pub(crate) struct Budget {
    state: Mutex<(u32, Option<Instant>)>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { state: Mutex::new((SAVED_MAX * COST, None)) }
    }
}

impl Budget {
    /// A request came in.
    pub(crate) fn request(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = (state.0 + 1).min(SAVED_MAX * COST);
    }

    /// Whether one may be sent again now; if so, that is paid for.
    pub(crate) fn retry(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let since = state.1.map_or(0, |at| now.saturating_duration_since(at).as_millis());
        let earned = u32::try_from(since).unwrap_or(u32::MAX).saturating_mul(PER_SECOND * COST) / 1000;
        if state.1.is_none() || earned > 0 {
            state.0 = state.0.saturating_add(earned).min(SAVED_MAX * COST);
            state.1 = Some(now);
        }
        let allowed = state.0 >= COST;
        if allowed {
            state.0 -= COST;
        }
        allowed
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
        assert_eq!(spend(start + Duration::from_secs(2)), 20, "ten a second");
        assert_eq!(spend(start + Duration::from_secs(3600)), 200, "never more than was saved");
    }
}
