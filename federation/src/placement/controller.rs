//! A placement pass: every Bundle, the most important first; what members are told, and what Bundles show.
//!
//! ```text
//!   rules ─► standing of each member ─► solve ─► transition ─► waves ─► render ─► Assignments, then links, then status
//! ```
//! What was told last is read from the Assignments at the start and kept in memory; a Bundle that is bad or suspended leaves what
//! runs as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use atoll_api::facts::key;
use atoll_api::kinds::{Bundle, BundleStatus};
use atoll_api::names::ClusterName;
use atoll_api::topology::{BundleReport, DesiredBundle};
use jiff::Timestamp;
use kube::ResourceExt as _;
use tokio::time::Instant;

use super::gather::{self, Key, Ruled, Tellings, Told, key_of};
use super::model::{Demand, Member, Resources, Standing};
use super::render::{check, demand, only_where_allowed, render};
use super::status::{Line, rejected, status};
use super::transition::{Assigned, Seen, transition};
use super::waves::{Step, waiting};
use super::write::Writer;
use super::{Verdict, solve};
use crate::membership::{Judged, Membership, verdicts};
use crate::pulse::Pulse;

/// The placement controller.
pub(crate) struct Placement {
    pub(super) membership: Arc<Membership>,
    pub(super) writer: Writer,
    pub(super) told: Tellings,
    /// Bundles that had lost a cluster that is not known to be back for good.
    pub(super) lost: BTreeSet<(Key, String)>,
    /// What members were last sent, for clusters that have to wait.
    pub(super) sent: BTreeMap<(Key, String), DesiredBundle>,
    pub(super) epoch: u64,
}

type Reports = BTreeMap<String, BTreeMap<Key, BundleReport>>;

/// What one pass looks at.
pub(super) struct Pass {
    pub(super) judged: BTreeMap<ClusterName, Judged>,
    members: Vec<Member>,
    reports: Reports,
    storm: bool,
    now: Timestamp,
}

/// What one Bundle comes to.
pub(super) struct Decision {
    status: BundleStatus,
    pub(super) desired: BTreeMap<String, DesiredBundle>,
    pub(super) told: BTreeMap<String, Told>,
}

impl Placement {
    /// Goes on from what the Assignments and Bundles say.
    pub(crate) fn new(membership: Arc<Membership>, epoch: u64) -> Self {
        let told = gather::tellings(&membership.objects.assignments.state());
        let bundles = membership.objects.bundles.state();
        let lost = bundles.iter().flat_map(|bundle| {
            let clusters = bundle.status.iter().flat_map(|s| &s.clusters).filter(|c| c.state == "Lost");
            clusters.map(|c| (key_of(bundle), c.name.clone()))
        });
        let lost = lost.collect();
        let writer = Writer { client: membership.client.clone(), epoch, namespaces: BTreeSet::new() };
        Self { membership, writer, told, lost, sent: BTreeMap::new(), epoch }
    }

    /// Runs until cancelled.
    pub(crate) async fn run(mut self) {
        let watches = vec![self.membership.objects.changes(), self.membership.sessions.changes()];
        let mut pulse = Pulse::new(watches, Duration::from_secs(1));
        loop {
            self.pass().await;
            pulse.next().await;
        }
    }

    async fn pass(&mut self) {
        let mut pass = self.look();
        let policies = self.membership.objects.placement_policies.state();
        let mut bundles: Vec<(Result<Ruled, String>, Arc<Bundle>)> = self
            .membership
            .objects
            .bundles
            .state()
            .into_iter()
            .filter(|b| b.metadata.deletion_timestamp.is_none())
            .map(|b| (gather::rules_of(&b, &policies), b))
            .collect();
        bundles
            .sort_by_key(|(ruled, b)| (std::cmp::Reverse(ruled.as_ref().map_or(0, |r| r.rules.priority)), key_of(b)));
        self.reserve(&mut pass, &bundles);
        let mut decisions: BTreeMap<Key, (Arc<Bundle>, Decision)> = BTreeMap::new();
        for (ruled, bundle) in bundles {
            let decision = self.decide(&bundle, ruled, &mut pass);
            decisions.insert(key_of(&bundle), (bundle, decision));
        }
        self.tell(&pass, &decisions).await;
        for (bundle, decision) in decisions.values() {
            self.writer.bundle(bundle, &decision.status).await;
        }
    }

    fn look(&self) -> Pass {
        let now = Instant::now();
        let judged = verdicts(&self.membership, now);
        let members = judged.iter().map(|(name, j)| gather::member(name, j)).collect();
        let sessions = self.membership.sessions.lock();
        let reports = sessions.iter().map(|(name, member)| {
            let held = member.status.facts();
            let bundles = held.under(key::BUNDLE).filter_map(|(rest, json)| {
                let (namespace, name) = rest.split_once('/')?;
                Some(((namespace.to_owned(), name.to_owned()), gather::report(json)?))
            });
            (name.to_string(), bundles.collect())
        });
        let reports = reports.collect();
        let storm = gather::is_storm(&judged, now.saturating_duration_since(self.membership.sessions.started));
        Pass { judged, members, reports, storm, now: Timestamp::now() }
    }

    /// Takes away from the free room what was told and does not show yet.
    fn reserve(&self, pass: &mut Pass, bundles: &[(Result<Ruled, String>, Arc<Bundle>)]) {
        for (_, bundle) in bundles {
            let (key, each) = (key_of(bundle), demand(&bundle.spec).1);
            for member in &mut pass.members {
                let told = self.told.get(&key).and_then(|t| t.get(&member.name)).map_or(0, |t| t.replicas);
                let report = pass.reports.get(&member.name).and_then(|r| r.get(&key));
                member.free = member.free.plus(&each, -gather::pending(told, report));
            }
        }
    }

    fn decide(&mut self, bundle: &Bundle, ruled: Result<Ruled, String>, pass: &mut Pass) -> Decision {
        let key = key_of(bundle);
        let old = bundle.status.clone().unwrap_or_default();
        let told = self.told.get(&key).cloned().unwrap_or_default();
        // Before anything is computed from it.
        let checked = check(&bundle.spec.manifests).map_err(|e| e.to_string());
        let ruled = match checked.and(ruled) {
            Ok(ruled) => ruled,
            Err(why) => return self.leave(bundle, &told, rejected(&old, &why, bundle.metadata.generation, pass.now)),
        };
        let standing = self.standings(&key, &ruled, pass);
        let (verdict, next) = self.place(bundle, &ruled, &told, &standing, pass);
        let rendered = match self.render(bundle, &next, pass) {
            Ok(rendered) => rendered,
            Err(why) => return self.leave(bundle, &told, rejected(&old, &why, bundle.metadata.generation, pass.now)),
        };
        let waits = self.waits(&key, &ruled, &next, &rendered, &told, pass);
        let divided = demand(&bundle.spec).0.is_some();
        let mut lines = BTreeMap::new();
        let mut decision = Decision { status: old.clone(), desired: BTreeMap::new(), told: BTreeMap::new() };
        for name in pass.judged.keys().map(ClusterName::as_str) {
            let report = pass.reports.get(name).and_then(|r| r.get(&key)).cloned();
            let assigned = next.get(name).filter(|_| !waits.contains_key(name) || told.contains_key(name));
            let mut revision = String::new();
            if let (Some(assigned), Some(fresh)) = (assigned, rendered.get(name)) {
                let desired = self.hold(&key, name, fresh, &waits, &told);
                revision = desired.revision.clone();
                let leaving = assigned
                    .leaving
                    .then(|| told.get(name).and_then(|t| t.leaving.clone()).unwrap_or_else(|| pass.now.to_string()));
                decision
                    .told
                    .insert(name.to_owned(), Told { replicas: assigned.replicas, revision: revision.clone(), leaving });
                decision.desired.insert(name.to_owned(), desired);
            }
            let line = Line {
                replicas: assigned.map(|a| a.replicas),
                divided,
                leaving: assigned.is_some_and(|a| a.leaving),
                standing: standing.get(name).copied(),
                was_lost: self.lost.contains(&(key.clone(), name.to_owned())),
                revision,
                report,
                waits: waits.get(name).cloned(),
                why: verdict.why.get(name).cloned(),
            };
            lines.insert(name.to_owned(), line);
        }
        let hold = pass
            .storm
            .then_some("more than half of the members are silent and the hub has just started: nothing is moved");
        let accepted = only_where_allowed(bundle);
        decision.status =
            status(&old, &lines, verdict.unplaced, (&accepted, hold), bundle.metadata.generation, pass.now);
        decision
    }

    fn standings(&mut self, key: &Key, ruled: &Ruled, pass: &Pass) -> BTreeMap<String, Standing> {
        let mut all = BTreeMap::new();
        for (name, judged) in &pass.judged {
            let mark = (key.clone(), name.to_string());
            let standing = gather::standing(judged, ruled, self.lost.contains(&mark), pass.storm);
            let runs = self.told.get(key).is_some_and(|t| t.contains_key(name.as_str()));
            match standing {
                Standing::Lost if runs => drop(self.lost.insert(mark)),
                Standing::Ready => drop(self.lost.remove(&mark)),
                _ => {}
            }
            all.insert(name.to_string(), standing);
        }
        all
    }

    /// Solves, and takes the next safe step towards the answer.
    fn place(
        &self,
        bundle: &Bundle,
        ruled: &Ruled,
        told: &BTreeMap<String, Told>,
        standing: &BTreeMap<String, Standing>,
        pass: &mut Pass,
    ) -> (Verdict, BTreeMap<String, Assigned>) {
        let (replicas, each) = demand(&bundle.spec);
        let key = key_of(bundle);
        if bundle.spec.suspend {
            let same =
                told.iter().map(|(c, t)| (c.clone(), Assigned { replicas: t.replicas, leaving: t.leaving.is_some() }));
            return (Verdict::default(), same.collect());
        }
        // What is on its way out of a cluster that is not trusted yet does not count as running there.
        let counts = |c: &str, t: &Told| t.leaving.is_none() || standing.get(c) == Some(&Standing::Ready);
        let current: BTreeMap<String, i32> =
            told.iter().filter(|(c, t)| counts(c, t)).map(|(c, t)| (c.clone(), t.replicas)).collect();
        let demand = Demand {
            uid: bundle.metadata.uid.clone().unwrap_or_default(),
            replicas,
            each,
            rules: ruled.rules.clone(),
            current,
        };
        let report = |c: &str| pass.reports.get(c).and_then(|r| r.get(&key));
        let members: Vec<Member> = pass
            .members
            .iter()
            .map(|m| {
                let stuck = report(&m.name).map_or(0, |r| r.unschedulable);
                let standing = standing.get(&m.name).copied().unwrap_or(Standing::Suspect);
                Member { standing, free: at_least(m.free, &each, stuck), ..m.clone() }
            })
            .collect();
        let verdict = solve(&demand, &members);
        let seen: BTreeMap<String, Seen> = told
            .iter()
            .map(|(c, t)| {
                let alive = standing.get(c) == Some(&Standing::Ready);
                let report = report(c).filter(|r| alive && r.revision == t.revision);
                let ready =
                    report.map_or(0, |r| if r.ready { t.replicas.max(r.ready_replicas) } else { r.ready_replicas });
                (c.clone(), Seen { ready, applied: report.is_some_and(|r| r.applied) })
            })
            .collect();
        let gone = |c: &str| !ruled.rules.failback.enabled && standing.get(c) == Some(&Standing::Stabilising);
        let all: BTreeMap<String, i32> =
            told.iter().filter(|(c, _)| !gone(c)).map(|(c, t)| (c.clone(), t.replicas)).collect();
        let next = transition(&all, &verdict.placed, &seen, standing, ruled.rules.failover.keep_last_ready);
        for member in &mut pass.members {
            let more =
                next.get(&member.name).map_or(0, |a| a.replicas) - told.get(&member.name).map_or(0, |t| t.replicas);
            member.free = member.free.plus(&each, -more.max(0));
        }
        (verdict, next)
    }

    fn render(
        &self,
        bundle: &Bundle,
        next: &BTreeMap<String, Assigned>,
        pass: &Pass,
    ) -> Result<BTreeMap<String, DesiredBundle>, String> {
        let mut rendered = BTreeMap::new();
        let divided = demand(&bundle.spec).0.is_some();
        // A Bundle that can be placed nowhere is checked all the same.
        if next.is_empty() {
            render(bundle, "", &Default::default(), &BTreeMap::new(), None).map_err(|e| e.to_string())?;
        }
        for (name, assigned) in next {
            let Some(judged) = pass.judged.get(name.as_str()) else { continue };
            let (spec, labels) = (&judged.cluster.spec, judged.cluster.labels());
            let replicas = divided.then_some(assigned.replicas);
            let mut desired = render(bundle, name, spec, labels, replicas).map_err(|e| e.to_string())?;
            desired.epoch = self.epoch;
            rendered.insert(name.clone(), desired);
        }
        Ok(rendered)
    }

    fn waits(
        &self,
        key: &Key,
        ruled: &Ruled,
        next: &BTreeMap<String, Assigned>,
        rendered: &BTreeMap<String, DesiredBundle>,
        told: &BTreeMap<String, Told>,
        pass: &Pass,
    ) -> BTreeMap<String, String> {
        let steps = next.iter().filter(|(_, a)| !a.leaving).filter_map(|(name, _)| {
            let (judged, desired) = (pass.judged.get(name.as_str())?, rendered.get(name)?);
            let report = pass.reports.get(name).and_then(|r| r.get(key));
            let done = report.is_some_and(|r| r.revision == desired.revision && r.applied && r.ready);
            let differs = told.get(name).is_none_or(|t| t.revision != desired.revision);
            Some((name.as_str(), Step { spec: &judged.cluster.spec, done, differs }))
        });
        waiting(ruled.rules.rollout.as_ref(), &steps.collect())
    }

    /// What a cluster is sent: what was rendered, or, while it waits, what it was sent before, untouched.
    fn hold(
        &self,
        key: &Key,
        cluster: &str,
        fresh: &DesiredBundle,
        waits: &BTreeMap<String, String>,
        told: &BTreeMap<String, Told>,
    ) -> DesiredBundle {
        if !waits.contains_key(cluster) {
            return fresh.clone();
        }
        let revision = told.get(cluster).map(|t| t.revision.clone()).unwrap_or_default();
        let before = self.sent.get(&(key.clone(), cluster.to_owned())).filter(|d| d.revision == revision);
        before.cloned().unwrap_or_else(|| DesiredBundle { revision, suspend: true, ..fresh.clone() })
    }

    /// A Bundle that can't be taken: members keep what they have.
    fn leave(&self, bundle: &Bundle, told: &BTreeMap<String, Told>, status: BundleStatus) -> Decision {
        let key = key_of(bundle);
        let desired = told.iter().map(|(cluster, t)| (cluster.clone(), self.again(&key, cluster, t)));
        Decision { status, desired: desired.collect(), told: told.clone() }
    }
}

/// Free room, but never so little that replicas that were told and are not stuck would seem not to fit: free room and reports do not
/// arrive at the same moment.
fn at_least(free: Resources, each: &Resources, stuck: i32) -> Resources {
    let floor = Resources::default().plus(each, -stuck);
    Resources {
        cpu_milli: free.cpu_milli.max(floor.cpu_milli),
        memory_bytes: free.memory_bytes.max(floor.memory_bytes),
        pods: free.pods.max(floor.pods),
    }
}
