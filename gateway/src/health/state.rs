//! The state of one endpoint and of one cluster: what results do to it. Pure but for the type of its clock: time is an argument.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use atoll_api::health::{Probe, Rules};
use atoll_api::names::ClusterName;

use super::care::{Care, Outlier};
use crate::balance::PeakEwma;

type Instant = tokio::time::Instant;

/// Between two probes of an endpoint that is well.
const PROBE_EVERY: Duration = Duration::from_secs(3);
/// Of one that is not.
const PROBE_ILL_EVERY: Duration = Duration::from_secs(1);
/// An answer within this time makes a probe needless.
const PROVEN: Duration = Duration::from_secs(2);
/// A cluster stays out for at least this long, longer when it falls again soon.
const OUT_MIN: Duration = Duration::from_secs(2);
const OUT_MAX: Duration = Duration::from_secs(60);
/// Falling again within this time is soon.
const SOON: Duration = Duration::from_secs(30);
/// A cluster that is back gets its whole part after this time.
const RAMP: Duration = Duration::from_secs(10);
/// And so much of it at once.
const RAMP_FIRST: f64 = 0.1;

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection.
    Connect,
    /// A connection, but no answer.
    FirstByte,
}

/// What a result did to an endpoint, as far as its cluster is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    None,
    Better,
    Worse,
}

/// The state of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct EndpointState {
    probe: Probe,
    next: Option<Instant>,
    /// When the probe began that is under way.
    probing: Option<Instant>,
    /// A request waits: the next result counts like that of a request.
    suspected: bool,
    /// Failed requests in a row.
    failures: u32,
    last_failure: Option<Failure>,
    /// Answers with errors in a row.
    errors: u32,
    /// Since when it may be asked.
    since: Option<Instant>,
    ejections: u32,
    ejected_until: Option<Instant>,
    answered: Option<Instant>,
    latency: PeakEwma,
}

impl EndpointState {
    /// Whether it takes requests.
    pub(crate) fn is_usable(&self, now: Instant) -> bool {
        self.probe.up() && self.ejected_until.is_none_or(|until| now >= until)
    }

    /// A new one.
    pub(crate) fn begun(now: Instant) -> Self {
        Self { since: Some(now), ..Self::default() }
    }

    /// Whether requests say that it is ill, and it is left out.
    pub(crate) fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }

    /// How much of its part it gets, where one that is new or back gets all after `window`.
    pub(crate) fn ease(&self, window: Duration, now: Instant) -> f64 {
        let since = self.since.max(self.ejected_until);
        since.map_or(1.0, |since| ramp(now.saturating_duration_since(since), window))
    }

    /// Whether probes say that it is there.
    pub(crate) fn is_up(&self) -> bool {
        self.probe.up()
    }

    /// Whether it counts against its cluster.
    pub(crate) fn is_failing(&self) -> bool {
        self.failures > 0 || !self.probe.up()
    }

    /// How long it takes to answer.
    pub(crate) fn latency(&self) -> PeakEwma {
        self.latency
    }

    /// A request was answered, after `took` if that tells anything. `error`: with an error, which may eject it if that says so.
    pub(crate) fn answered(
        &mut self,
        took: Option<Duration>,
        error: Option<bool>,
        outlier: &Outlier,
        now: Instant,
    ) -> Turn {
        if let Some(took) = took {
            self.latency.observe(took, now);
        }
        let was = self.is_failing();
        self.failures = 0;
        self.last_failure = None;
        self.answered = Some(now);
        match error {
            None => {
                self.errors = 0;
                self.since = self.since.max(self.ejected_until.take().map(|until| until.min(now)));
                self.ejections = 0;
            }
            Some(may_eject) => {
                self.errors = self.errors.saturating_add(1);
                if may_eject && outlier.errors.is_some_and(|max| self.errors >= max) {
                    self.eject(outlier, now);
                }
            }
        }
        if was && !self.is_failing() { Turn::Better } else { Turn::None }
    }

    /// A request failed.
    pub(crate) fn failed(&mut self, failure: Failure, outlier: &Outlier, now: Instant) -> Turn {
        let was = self.is_failing();
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(failure);
        self.next = Some(now);
        if self.failures >= outlier.failures {
            self.eject(outlier, now);
        }
        if was { Turn::None } else { Turn::Worse }
    }

    /// Leaves it out for a while, unless it is.
    fn eject(&mut self, outlier: &Outlier, now: Instant) {
        if !self.is_ejected(now) {
            let time = outlier.time.saturating_mul(1 << self.ejections.min(4)).min(outlier.time_max);
            self.ejections = self.ejections.saturating_add(1);
            self.ejected_until = Some(now + time);
        }
    }

    /// Whether a regular probe is to begin now. `checked`: it says more than that somebody is there, and answers don't prove the same.
    pub(crate) fn begin_probe(&mut self, checked: bool, now: Instant) -> bool {
        let proven = !checked && self.answered.is_some_and(|at| now.saturating_duration_since(at) < PROVEN);
        if self.probing.is_some()
            || self.next.is_some_and(|next| now < next)
            || (proven && !self.is_failing() && !self.suspected)
        {
            return false;
        }
        self.probing = Some(now);
        true
    }

    /// Whether a suspicion is to be checked now; if a probe is under way or was just done, the next result settles it.
    pub(crate) fn begin_check(&mut self, now: Instant) -> bool {
        let just = self.next.is_some_and(|next| now + PROBE_EVERY < next + PROBE_ILL_EVERY);
        self.suspected = true;
        if self.probing.is_some() {
            return false;
        }
        if just {
            self.next = self.next.map(|next| next.min(now + PROBE_ILL_EVERY / 2));
            return false;
        }
        self.probing = Some(now);
        true
    }

    /// A probe ended. One that checked a suspicion and failed says as much as a failed request.
    pub(crate) fn probed(&mut self, ok: bool, rules: &Rules, care: &Care, now: Instant) -> Turn {
        let (was, was_up) = (self.is_failing(), self.probe.up());
        let began = self.probing.take().unwrap_or(now);
        self.probe.observe(ok, rules);
        if self.probe.up() && !was_up {
            self.since = Some(now);
        }
        if ok && self.probe.up() && self.last_failure == Some(Failure::Connect) {
            self.failures = 0;
            self.last_failure = None;
            self.ejected_until = None;
        }
        if std::mem::take(&mut self.suspected) && !ok {
            self.failed(Failure::Connect, &care.outlier, now);
        }
        // A connection alone does not show that a silent server answers again: it gets another chance when its time is over.
        if self.last_failure == Some(Failure::FirstByte) && ok && self.ejected_until.is_none_or(|until| now >= until) {
            self.failures = 0;
        }
        // From when it began: one that ran into its time limit is followed at once.
        let (well, ill) = care.check.as_ref().map_or((PROBE_EVERY, PROBE_ILL_EVERY), |c| (c.interval, c.interval));
        self.next = Some(if self.is_failing() || !ok { began + ill } else { now + well });
        match (was, self.is_failing()) {
            (true, false) => Turn::Better,
            (false, true) => Turn::Worse,
            _ => Turn::None,
        }
    }
}

/// The state of one cluster.
#[derive(Debug)]
pub(crate) struct ClusterState {
    pub(crate) name: ClusterName,
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

impl ClusterState {
    /// A cluster that is well.
    pub(crate) fn new(name: ClusterName) -> Self {
        Self { name, out: AtomicBool::new(false), ramping: AtomicBool::new(false), history: Mutex::default() }
    }

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

    /// Judges by how many of its endpoints in use fail. Returns whether it is out now, where that changed.
    ///
    /// It is out when at least half of them fail (two or more, or its only one), and back when they no longer do, at the earliest
    /// after a while that doubles when it falls again soon.
    pub(crate) fn weigh(&self, failing: usize, in_use: usize, now: Instant) -> Option<bool> {
        let ill = failing * 2 >= in_use && (failing >= 2 || (failing == 1 && in_use == 1));
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
fn ramp(gone: Duration, window: Duration) -> f64 {
    if gone >= window {
        return 1.0;
    }
    (gone.as_secs_f64() / window.as_secs_f64()).max(RAMP_FIRST)
}
