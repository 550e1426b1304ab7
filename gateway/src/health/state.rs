//! The state of one endpoint: what results do to it. Pure but for the type of its clock: time is an argument.

use std::time::Duration;

use atoll_api::health::{Probe, Rules};

use super::care::{Care, Outlier};
use super::outage::ramp;
use crate::balance::PeakEwma;

type Instant = tokio::time::Instant;

/// A request that waits for so long without a sign of life makes us ask the endpoint for one.
pub(crate) const LOOK_AFTER: Duration = Duration::from_millis(300);
/// So long that may take: a second in all.
pub(crate) const LOOK_MAX: Duration = Duration::from_millis(700);
/// Between two probes of an endpoint that is well.
const PROBE_EVERY: Duration = Duration::from_secs(3);
/// Of one that is not.
const PROBE_ILL_EVERY: Duration = Duration::from_secs(1);
/// An answer within this time makes a probe needless.
const PROVEN: Duration = Duration::from_secs(2);

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection.
    Connect,
    /// A connection, but no answer.
    FirstByte,
}

/// What a probe looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Whether somebody takes connections.
    Connect,
    /// Whether somebody says anything.
    Ask,
    /// What the policy says.
    Check,
}

/// What a probe found, where it found somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// A connection was taken.
    Connection,
    /// Something was said on it.
    Octets,
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
    /// The probe that is under way, and when it began.
    probing: Option<(Instant, Look)>,
    /// A request waits: the next result counts like that of a request.
    suspected: bool,
    /// When it last said something to a probe.
    heard: Option<Instant>,
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
        self.ejected_until(now).is_some()
    }

    /// Until when it is left out, if it is.
    pub(crate) fn ejected_until(&self, now: Instant) -> Option<Instant> {
        self.ejected_until.filter(|until| now < *until)
    }

    /// What it was left out for, for people.
    pub(crate) fn ejected_for(&self) -> String {
        match (self.failures, self.errors) {
            (0, errors) => format!("{errors} answers with errors in a row"),
            (failures, _) => format!("{failures} requests in a row without an answer"),
        }
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

    /// Whether it gave a sign of life since then: the beginning of an answer to anybody.
    pub(crate) fn is_heard_since(&self, since: Instant) -> bool {
        self.answered.max(self.heard).is_some_and(|at| at >= since)
    }

    /// A request waits for it. Whether that is news.
    pub(crate) fn suspect(&mut self) -> bool {
        !std::mem::replace(&mut self.suspected, true)
    }

    /// Whether it is looked at already, or need not be.
    pub(crate) fn is_looked_at(&self, now: Instant) -> bool {
        self.suspected || now.checked_sub(LOOK_AFTER).is_some_and(|since| self.is_heard_since(since))
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
        self.suspected = false;
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

    /// The regular probe that is to begin now. `checked`: it says more than that somebody is there, and answers don't prove the same.
    pub(crate) fn begin_probe(&mut self, checked: bool, now: Instant) -> Option<Look> {
        let proven = !checked && self.answered.is_some_and(|at| now.saturating_duration_since(at) < PROVEN);
        let due = self.suspected || self.next.is_none_or(|next| now >= next) && (!proven || self.is_failing());
        if due { self.begin(checked, now) } else { None }
    }

    /// The one that settles a suspicion. If one is under way its result does, unless it asks too little.
    pub(crate) fn begin_check(&mut self, checked: bool, now: Instant) -> Option<Look> {
        if self.suspected { self.begin(checked, now) } else { None }
    }

    fn begin(&mut self, checked: bool, now: Instant) -> Option<Look> {
        if self.probing.is_some() {
            return None;
        }
        // A connection alone does not show that a silent server answers again.
        let asks = self.suspected || self.last_failure == Some(Failure::FirstByte);
        let look = match (checked, asks) {
            (true, _) => Look::Check,
            (false, true) => Look::Ask,
            (false, false) => Look::Connect,
        };
        self.probing = Some((now, look));
        Some(look)
    }

    /// A probe could not be made: nothing was learnt.
    pub(crate) fn unprobed(&mut self, now: Instant) {
        self.probing = None;
        self.next = Some(now + PROBE_ILL_EVERY);
    }

    /// A probe ended. One that checked a suspicion and failed says as much as a failed request.
    pub(crate) fn probed(&mut self, found: Result<Proof, Failure>, rules: &Rules, care: &Care, now: Instant) -> Turn {
        let (was, was_up) = (self.is_failing(), self.probe.up());
        let (began, look) = self.probing.take().unwrap_or((now, Look::Connect));
        // Who answered a request meanwhile is there.
        let answered = self.suspected && self.answered.is_some_and(|at| at >= began);
        let found = if answered { Ok(found.unwrap_or(Proof::Octets)) } else { found };
        self.probe.observe(found.is_ok(), rules);
        if self.probe.up() && !was_up {
            self.since = Some(now);
        }
        if found == Ok(Proof::Octets) {
            self.heard = Some(now);
        }
        let said = if found == Ok(Proof::Octets) { self.last_failure } else { Some(Failure::Connect) };
        if found.is_ok() && self.probe.up() && self.last_failure.is_some() && self.last_failure == said {
            self.failures = 0;
            self.last_failure = None;
            self.ejected_until = None;
        }
        // Somebody takes connections; whether anybody is behind them is still to be asked.
        let open = self.suspected && look == Look::Connect && found.is_ok();
        if !open
            && std::mem::take(&mut self.suspected)
            && let Err(failure) = found
        {
            self.failed(failure, &care.outlier, now);
        }
        // It gets another chance when its time is over.
        let over = self.ejected_until.is_none_or(|until| now >= until);
        if self.last_failure == Some(Failure::FirstByte) && found.is_ok() && over {
            self.failures = 0;
        }
        // From when it began: one that ran into its time limit is followed at once.
        let (well, ill) = care.check.as_ref().map_or((PROBE_EVERY, PROBE_ILL_EVERY), |c| (c.interval, c.interval));
        self.next = Some(if self.is_failing() || found.is_err() { began + ill } else { now + well });
        match (was, self.is_failing()) {
            (true, false) => Turn::Better,
            (false, true) => Turn::Worse,
            _ => Turn::None,
        }
    }
}
