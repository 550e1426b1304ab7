//! Our own health checks: what TrafficPolicies ask for, probed from here; what the hub is told, and what counts when it is silent.
//!
//! ```text
//!   topology ── targets, each once ── due? (jittered) ── probe (dialer, or anybody's way) ── fall 3, rise 2 ─┬─► report to the hub
//!                                                                                                          └─► judge ─► findings
//! ```
//!
//! In: the world. Out: [`Findings`] and the report. A target that was not heard of yet is probed soon, and counts as well until it failed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use atoll_api::health::{Judge, Opinion, Probe, Rules, Target, Votes, targets};
use atoll_api::names::ServiceName;
use atoll_api::topology::Topology;
use atoll_reach::{Checks, Connect};
use atoll_wire::follow::Report;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::policy::TTL;
use crate::resolve::Shared;
use crate::view::Findings;

/// How often it is looked at what is due.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Probes at once; what is due beyond that waits for the next look.
const PARALLEL_MAX: usize = 128;
/// A new target is probed within this time, not all at once.
const SOON: Duration = Duration::from_secs(1);

/// One target and what was found of it.
struct Watched {
    target: Target,
    probe: Probe,
    /// Whether it was ever well: a probe begins as up, and that is no finding yet.
    answered: bool,
    due: Instant,
    probing: bool,
}

/// The targets of one topology, and what was found so far.
#[derive(Default)]
struct Watch {
    topology: Option<Arc<Topology>>,
    policies: Vec<(ServiceName, String, Target)>,
    watched: HashMap<String, Watched>,
    judge: Judge,
}

/// Checks until `shutdown`, and tells `findings` and `report` what changed.
pub(crate) async fn run(
    resolver: Shared,
    direct: Arc<dyn Connect>,
    findings: watch::Sender<Arc<Findings>>,
    report: watch::Sender<Report>,
    shutdown: CancellationToken,
) {
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let started = Instant::now();
    let mut watch = Watch::default();
    let mut probing: JoinSet<(String, bool)> = JoinSet::new();
    let way = Arc::new(Checks::new(resolver.lookups.forwarder().dialer().clone(), direct));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = tick.tick() => {
                let topology = Arc::clone(&resolver.world.load().table.topology);
                watch.follow(&topology, Instant::now());
                for target in watch.due(Instant::now(), PARALLEL_MAX - probing.len().min(PARALLEL_MAX)) {
                    let way = Arc::clone(&way);
                    probing.spawn(async move { (target.key(), way.probe(&target).await) });
                }
            }
            Some(ended) = probing.join_next() => {
                if let Ok((key, well)) = ended {
                    watch.take(&key, well, Instant::now());
                }
                // What it means is looked at with the next tick, for all that ended until then: there may be thousands.
                continue;
            }
        }
        let now = Instant::now().saturating_duration_since(started);
        let found = Arc::new(watch.findings(now));
        findings.send_if_modified(|known| {
            let changed = *known != found;
            *known = found;
            changed
        });
        report.send_if_modified(|report| {
            let told = watch.told();
            let changed = report.checks != told;
            report.checks = told;
            changed
        });
    }
}

impl Watch {
    /// Takes the targets of `topology`; what was found of those that stay is kept.
    fn follow(&mut self, topology: &Arc<Topology>, now: Instant) {
        if self.topology.as_ref().is_some_and(|known| Arc::ptr_eq(known, topology)) {
            return;
        }
        self.topology = Some(Arc::clone(topology));
        self.policies = targets(topology).into_iter().map(|(policy, target)| (policy, target.key(), target)).collect();
        let mut before = std::mem::take(&mut self.watched);
        for (_, key, target) in &self.policies {
            let soon = now + SOON.min(target.check.interval).mul_f64(rand::random());
            let known = before.remove(key).map(|known| Watched { target: target.clone(), ..known });
            let new = || Watched {
                target: target.clone(),
                probe: Probe::default(),
                answered: false,
                due: soon,
                probing: false,
            };
            if !self.watched.contains_key(key) {
                self.watched.insert(key.clone(), known.unwrap_or_else(new));
            }
        }
    }

    /// Up to `most` targets whose time has come, the longest due first.
    fn due(&mut self, now: Instant, most: usize) -> Vec<Target> {
        let mut due: Vec<&mut Watched> = self.watched.values_mut().filter(|w| !w.probing && w.due <= now).collect();
        due.sort_by_key(|w| w.due);
        let due = due.into_iter().take(most);
        due.map(|watched| {
            watched.probing = true;
            watched.target.clone()
        })
        .collect()
    }

    /// Takes what a probe found.
    fn take(&mut self, key: &str, well: bool, now: Instant) {
        let Some(watched) = self.watched.get_mut(key) else { return };
        watched.probing = false;
        watched.answered |= well;
        // A tenth earlier or later: probes of many servers would come together in the end.
        watched.due = now + watched.target.check.interval.mul_f64(0.9 + 0.2 * rand::random::<f64>());
        if watched.probe.observe(well, &Rules::default()) {
            tracing::info!(target = key, well, "health check changed");
        }
    }

    /// What the hub is told: targets found well or ill.
    fn told(&self) -> BTreeMap<String, bool> {
        let found = self.watched.iter().filter(|(_, w)| w.answered || !w.probe.up());
        found.map(|(key, w)| (key.clone(), w.probe.up())).collect()
    }

    /// What is taken out by our own word alone.
    fn findings(&mut self, now: Duration) -> Findings {
        let Some(topology) = &self.topology else { return Findings::default() };
        let hold = |policy: &ServiceName| topology.traffic.get(policy).and_then(|p| p.ttl_seconds).unwrap_or(TTL);
        let opinions: Vec<Opinion<'_>> = self
            .policies
            .iter()
            .map(|(policy, key, target)| Opinion {
                key,
                group: &target.group,
                hold: Duration::from_secs(hold(policy).into()),
            })
            .collect();
        let votes = self.watched.iter().map(|(key, w)| {
            let mut votes = Votes::default();
            votes.add(w.probe.up());
            (key.clone(), votes)
        });
        let judged = self.judge.judge(&opinions, &votes.collect(), now);
        let mut findings = Findings::default();
        for (policy, _, target) in self.policies.iter().filter(|(_, key, _)| judged.down.contains(key)) {
            let why = format!("{:?} at port {} fails from here", target.check.protocol, target.address.port());
            findings.entry(policy.clone()).or_default().insert(target.place(), why);
        }
        findings
    }
}

#[cfg(test)]
mod tests;
