//! The state of one endpoint and of one cluster: what results do to it. Pure but for the type of its clock: time is an argument.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use atoll_api::health::{Probe, Rules};
use atoll_api::names::ClusterName;

use crate::balance::PeakEwma;

type Instant = tokio::time::Instant;

/// Between two probes of an endpoint that is well.
const PROBE_EVERY: Duration = Duration::from_secs(3);
/// Of one that is not.
const PROBE_ILL_EVERY: Duration = Duration::from_secs(1);
/// An answer within this time makes a probe needless.
const PROVEN: Duration = Duration::from_secs(2);
/// So many failed requests in a row eject an endpoint.
const FAILURES_TO_EJECT: u32 = 2;
const EJECT_MIN: Duration = Duration::from_secs(5);
const EJECT_MAX: Duration = Duration::from_secs(60);
/// A cluster stays out for at least this long, longer when it falls again soon.
const OUT_MIN: Duration = Duration::from_secs(2);
const OUT_MAX: Duration = Duration::from_secs(60);
/// Falling again within this time is soon.
const SOON: Duration = Duration::from_secs(30);

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

    /// A request was answered, after `took` if that tells anything.
    pub(crate) fn answered(&mut self, took: Option<Duration>, now: Instant) -> Turn {
        if let Some(took) = took {
            self.latency.observe(took, now);
        }
        let was = self.is_failing();
        self.failures = 0;
        self.last_failure = None;
        self.ejected_until = None;
        self.ejections = 0;
        self.answered = Some(now);
        if was && !self.is_failing() { Turn::Better } else { Turn::None }
    }

    /// A request failed.
    pub(crate) fn failed(&mut self, failure: Failure, now: Instant) -> Turn {
        let was = self.is_failing();
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(failure);
        self.next = Some(now);
        if self.failures >= FAILURES_TO_EJECT && self.ejected_until.is_none_or(|until| now >= until) {
            let time = EJECT_MIN.saturating_mul(1 << self.ejections.min(4)).min(EJECT_MAX);
            self.ejections = self.ejections.saturating_add(1);
            self.ejected_until = Some(now + time);
        }
        if was { Turn::None } else { Turn::Worse }
    }

    /// Whether a regular probe is to begin now.
    pub(crate) fn begin_probe(&mut self, now: Instant) -> bool {
        let proven = self.answered.is_some_and(|at| now.saturating_duration_since(at) < PROVEN);
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
    pub(crate) fn probed(&mut self, ok: bool, rules: &Rules, now: Instant) -> Turn {
        let was = self.is_failing();
        let began = self.probing.take().unwrap_or(now);
        self.probe.observe(ok, rules);
        if ok && self.probe.up() && self.last_failure == Some(Failure::Connect) {
            self.failures = 0;
            self.last_failure = None;
            self.ejected_until = None;
        }
        if std::mem::take(&mut self.suspected) && !ok {
            self.failed(Failure::Connect, now);
        }
        // A connection alone does not show that a silent server answers again: it gets another chance when its time is over.
        if self.last_failure == Some(Failure::FirstByte) && ok && self.ejected_until.is_none_or(|until| now >= until) {
            self.failures = 0;
        }
        // From when it began: one that ran into its time limit is followed at once.
        self.next = Some(if self.is_failing() || !ok { began + PROBE_ILL_EVERY } else { now + PROBE_EVERY });
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
        Self { name, out: AtomicBool::new(false), history: Mutex::default() }
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
                self.out.store(false, Ordering::Release);
                Some(false)
            }
            _ => None,
        }
    }
}
