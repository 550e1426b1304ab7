//! Trying again: bounded, with growing pauses, and never before a registry's `Retry-After`.
//!
//! Only what [`Error::is_transient`] calls so is tried again. Pauses are spread by a hash of what is tried, so that many blobs that
//! failed together don't come back together; no random number is needed for that.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use crate::error::Error;

/// Longest `Retry-After` that we sit out; a longer one ends the attempt.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);

/// How often and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries of one step, the first included.
    pub attempts_max: u32,
    /// The pause after the first try; it doubles with each.
    pub pause: Duration,
    /// The longest pause.
    pub pause_max: Duration,
}

impl Default for Retry {
    /// Seven tries within some 13 s: longer than a registry needs to start again.
    fn default() -> Self {
        Self { attempts_max: 7, pause: Duration::from_millis(200), pause_max: Duration::from_secs(10) }
    }
}

impl Retry {
    /// How long to wait after try number `tried` (from 1) of `what` failed with `error`; `None` to give up.
    pub fn pause_after(&self, tried: u32, what: &str, error: &Error) -> Option<Duration> {
        if tried >= self.attempts_max || !error.is_transient() {
            return None;
        }
        let full = self.pause.saturating_mul(1 << (tried - 1).min(16)).min(self.pause_max);
        let mut hash = DefaultHasher::new();
        (what, tried).hash(&mut hash);
        let pause = full / 2 + full.mul_f64((hash.finish() % 1000) as f64 / 2000.0);
        match error.retry_after() {
            Some(asked) if asked > RETRY_AFTER_MAX => None,
            Some(asked) => Some(pause.max(asked)),
            None => Some(pause),
        }
    }

    /// Does `step` until it succeeds, fails for good, or was tried often enough.
    pub(crate) async fn run<T, F, Fut>(&self, what: &str, mut step: F) -> Result<T, Error>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        let mut tried = 0;
        loop {
            let error = match step().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            tried += 1;
            let Some(pause) = self.pause_after(tried, what, &error) else { return Err(error) };
            tracing::debug!(%error, tried, ?pause, "trying again");
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{At, Why};

    fn error(why: Why) -> Error {
        Error::new(At::default(), why)
    }

    #[test]
    fn pauses_grow_to_a_bound_and_end() {
        let retry = Retry { attempts_max: 5, pause: Duration::from_millis(100), pause_max: Duration::from_millis(300) };
        let broken = || error(Why::Broken("cut".into()));
        let pauses: Vec<_> = (1..=5).map(|tried| retry.pause_after(tried, "blob", &broken())).collect();
        let full = [100, 200, 300, 300];
        for (pause, full) in pauses.iter().zip(full) {
            let ms = pause.expect("a pause").as_millis();
            assert!((full / 2..=full).contains(&ms), "{ms} of {full}");
        }
        assert_eq!(pauses[4], None);
    }

    #[test]
    fn only_what_may_pass_is_tried_again_and_never_too_soon() {
        let retry = Retry::default();
        let status = |status| error(Why::Status { status, message: String::new() });
        let throttled = |s| error(Why::Throttled { retry_after: Some(Duration::from_secs(s)) });
        assert!(retry.pause_after(1, "x", &status(500)).is_some());
        assert!(retry.pause_after(1, "x", &status(502)).is_some());
        for final_ in
            [status(501), status(400), error(Why::NotFound), error(Why::Corrupt(String::new())), throttled(3600)]
        {
            assert_eq!(retry.pause_after(1, "x", &final_), None, "{final_}");
        }
        assert!(retry.pause_after(1, "x", &throttled(7)).expect("pause") >= Duration::from_secs(7));
    }
}
