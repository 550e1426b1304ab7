//! Failures, remembered so that who fails is not asked again at once (RFC 9520).
//!
//! In: what failed, when, and for how long at most that may be held against it. Out: the failure, while it holds: 1 s the first time, twice
//! as long each time after (§3.2: "exponential or linear backoff"), never longer than [`HELD_MAX`] (§3.2: "no longer than 5 minutes").

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache as Moka;
use tokio::time::Instant;

use super::Key;
use crate::forward::Failed;

/// RFC 9520 §3.2: "at least 1 second".
const FIRST: Duration = Duration::from_secs(1);
/// RFC 9520 §3.2: "MUST NOT … longer than 5 minutes".
pub(crate) const HELD_MAX: Duration = Duration::from_secs(300);
/// All failures together.
const BYTES_MAX: u64 = 4 * 1024 * 1024;
/// What one takes beside its key.
const FAILURE_BYTES: usize = 512;

#[derive(Debug)]
struct Failure {
    failed: Failed,
    until: Instant,
    /// How long it holds.
    held: Duration,
}

/// Failures by key; clones share them.
#[derive(Clone)]
pub(crate) struct Failures {
    known: Moka<Key, Arc<Failure>>,
}

impl Failures {
    pub(crate) fn new() -> Self {
        let weigh = |key: &Key, _: &Arc<Failure>| u32::try_from(key.bytes() + FAILURE_BYTES).unwrap_or(u32::MAX);
        Self { known: Moka::builder().weigher(weigh).max_capacity(BYTES_MAX).time_to_live(2 * HELD_MAX).build() }
    }

    /// It failed (again).
    pub(crate) fn note(&self, key: Key, failed: Failed, held_max: Duration, now: Instant) {
        let before = self.known.get(&key).filter(|f| now < f.until + f.held.max(FIRST * 4));
        let held = before.map_or(FIRST, |f| f.held * 2).min(held_max.min(HELD_MAX));
        self.known.insert(key, Arc::new(Failure { failed, until: now + held, held }));
    }

    /// It did not fail.
    pub(crate) fn clear(&self, key: &Key) {
        self.known.invalidate(key);
    }

    /// The failure that holds for `key`.
    pub(crate) fn of(&self, key: &Key, now: Instant) -> Option<Failed> {
        self.known.get(key).filter(|f| now < f.until).map(|f| f.failed.clone())
    }

    /// Whether it failed the last time, be it over.
    pub(crate) fn last(&self, key: &Key) -> Option<Failed> {
        self.known.get(key).map(|f| f.failed.clone())
    }
}
