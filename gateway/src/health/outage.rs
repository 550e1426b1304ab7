//! Whether a cluster takes requests, or one service in it: when it is out, when it is back, and how much it gets then. Pure but for the type of
//! its clock: time is an argument.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use atoll_api::names::ClusterName;

type Instant = tokio::time::Instant;

/// Who is out stays so for at least this long, longer when it falls again soon.
const OUT_MIN: Duration = Duration::from_secs(2);
const OUT_MAX: Duration = Duration::from_secs(60);
/// Falling again within this time is soon.
const SOON: Duration = Duration::from_secs(30);
/// Who is back gets its whole part after this time.
const RAMP: Duration = Duration::from_secs(10);
/// And so much of it at once.
const RAMP_FIRST: f64 = 0.1;

/// The state of one cluster.
#[derive(Debug)]
pub(crate) struct ClusterState {
    pub(crate) name: ClusterName,
    pub(crate) outage: Outage,
}

impl ClusterState {
    /// A cluster that is well.
    pub(crate) fn new(name: ClusterName) -> Self {
        Self { name, outage: Outage::default() }
    }
}

/// Whether it is out, and was lately.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    out: AtomicBool,
    /// It is back, and gets less than its part.
    ramping: AtomicBool,
    history: Mutex<History>,
}

#[derive(Debug, Default)]
struct History {
    out_since: Option<Instant>,
    back_since: Option<Instant>,
    hold: Duration,
}

/// How many of a cluster's endpoints in use fail, and of how many of its services in use at least half do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) failing: usize,
    pub(crate) endpoints: usize,
    pub(crate) ill: usize,
    pub(crate) services: usize,
}

impl Tally {
    /// One more service, of whose endpoints so many fail.
    pub(crate) fn count(&mut self, failing: usize, endpoints: usize) {
        self.services += usize::from(endpoints > 0);
        self.ill += usize::from(failing > 0 && failing * 2 >= endpoints);
    }

    /// Whether the cluster is gone: at least half of its endpoints fail (two or more, or its only one), and not merely those of one service
    /// among several, whatever the size of that.
    pub(crate) fn is_ill(&self) -> bool {
        let half = |failing: usize, all: usize| failing * 2 >= all && (failing >= 2 || (failing == 1 && all == 1));
        half(self.failing, self.endpoints) && half(self.ill, self.services)
    }
}

impl Outage {
    /// How much of its part it gets: less while it was out not long ago.
    pub(crate) fn ease(&self, now: Instant) -> f64 {
        if !self.ramping.load(Ordering::Relaxed) {
            return 1.0;
        }
        let back = self.history.lock().unwrap_or_else(PoisonError::into_inner).back_since;
        let ease = back.map_or(1.0, |at| ramp(now.saturating_duration_since(at), RAMP));
        if ease >= 1.0 {
            self.ramping.store(false, Ordering::Relaxed);
        }
        ease
    }

    /// Whether it takes no requests.
    pub(crate) fn is_out(&self) -> bool {
        self.out.load(Ordering::Acquire)
    }

    /// Judges by whether it is ill. Returns whether it is out now, where that changed.
    ///
    /// It is out when it is ill, and back when it no longer is, at the earliest after a while that doubles when it falls again soon.
    pub(crate) fn weigh(&self, ill: bool, now: Instant) -> Option<bool> {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.is_out(), ill) {
            (false, true) => {
                let again = history.back_since.is_some_and(|at| now.saturating_duration_since(at) < SOON);
                history.hold = if again { (history.hold * 2).clamp(OUT_MIN, OUT_MAX) } else { OUT_MIN };
                history.out_since = Some(now);
                self.out.store(true, Ordering::Release);
                Some(true)
            }
            (true, false) if history.out_since.is_none_or(|at| now.saturating_duration_since(at) >= history.hold) => {
                history.back_since = Some(now);
                self.ramping.store(true, Ordering::Relaxed);
                self.out.store(false, Ordering::Release);
                Some(false)
            }
            _ => None,
        }
    }
}

/// From a tenth to all, evenly, within `window`.
pub(super) fn ramp(gone: Duration, window: Duration) -> f64 {
    if gone >= window {
        return 1.0;
    }
    (gone.as_secs_f64() / window.as_secs_f64()).max(RAMP_FIRST)
}
