//! Publishes the topology: a pass at every change, a generation for every difference.
//!
//! A pass looks only at what was heard to have changed, and what it changes is the delta that followers get. The first change goes out at
//! once; after a pass there is a pause in proportion to its length, in which changes gather.
//!
//! After a start the hub keeps still until every member that it had Ready has reported, or the time to settle is over: a topology
//! without their endpoints would take them out of DNS although they are well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use atoll_api::facts::{Change, Facts, key};
use atoll_api::kinds::{SyncMode, TrafficPolicy};
use atoll_api::names::ClusterName;
use atoll_api::reverse;
use atoll_api::topology::{Settings, Site, StubFacts, Topology, Version};
use atoll_wire::delta::Shared;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::balancers;
use super::checks::Checks;
use super::ears::{Ears, Heard};
use super::fold::Fold;
use super::offers::Offers;
use super::serials::Serials;
use super::sites::Sites;
use crate::accept;
use crate::config::Config;
use crate::membership::{Judged, Membership, Phase, verdicts};
use crate::metrics::Metrics;
use crate::sessions::{Member, Part};
use crate::zones::{Known, RESIGN_S};

/// Between two passes there are so many times what the first of them took, within these bounds.
const PAUSE: u32 = 2;
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// Members are looked at so often although nothing was heard: they fall silent.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One published topology.
#[derive(Debug, Clone)]
pub struct Published {
    /// Its version.
    pub version: Version,
    /// As data planes read it.
    pub topology: Arc<Topology>,
    /// As DNS servers follow it.
    pub(crate) whole: Shared,
    /// As others do, who have no business with the zones' keys.
    pub(crate) without_keys: Shared,
}

/// Makes topologies.
pub(crate) struct Publisher {
    pub(crate) membership: Arc<Membership>,
    pub(crate) offers: Arc<Offers>,
    pub(crate) config: Arc<Config>,
    pub(crate) hub_id: String,
    pub(crate) epoch: u64,
    pub(crate) out: watch::Sender<Option<Published>>,
    pub(crate) metrics: Metrics,
}

/// What goes from pass to pass.
struct Work {
    fold: Fold,
    zones: Known,
    checks: Checks,
    serials: Serials,
    generation: u64,
    members: BTreeMap<ClusterName, Judged>,
    sites: Vec<Site>,
    /// The uid of kube-system in the hub's own API; empty where it could not be read.
    hub_uid: String,
    /// The sites as they were stored last.
    stored: Option<Vec<Site>>,
    /// In which period of signatures the zones were looked at.
    signed: i64,
    /// Whether the imports are known.
    imports: bool,
    /// Which labels of pods policies go by, by `namespace/service`.
    labels: BTreeMap<String, BTreeSet<String>>,
}

impl Publisher {
    /// Runs until cancelled.
    pub(crate) async fn run(self) {
        let mut ears = Ears::new(&self.membership);
        let namespaces: Api<Namespace> = Api::all(self.membership.client.clone());
        let system = namespaces.get_metadata_opt("kube-system").await.ok().flatten();
        let mut work = Work {
            hub_uid: system.and_then(|system| system.metadata.uid).unwrap_or_default(),
            fold: Fold::new(Arc::clone(&self.offers), self.config.loopback_members),
            zones: Known::default(),
            checks: Checks::new(Instant::now()),
            serials: Serials::begin(&self.membership.client, Timestamp::now().as_second().unsigned_abs()).await,
            generation: 0,
            members: BTreeMap::new(),
            sites: Vec::new(),
            stored: None,
            signed: 0,
            imports: false,
            labels: BTreeMap::new(),
        };
        let mut heard = Heard::all();
        loop {
            let began = Instant::now();
            self.pass(&mut work, heard, began).await;
            let ended = Instant::now();
            self.metrics.passed(ended - began);
            let rest = ((ended - began) * PAUSE).clamp(PAUSE_MIN, PAUSE_MAX);
            let due = self.due(&work, began);
            ears.next(due).await;
            sleep_until(ended + rest).await;
            heard = ears.take(due, Instant::now());
        }
    }

    /// When members are to be looked at again: the moment at which one misses its beats, soon in any case.
    fn due(&self, work: &Work, now: Instant) -> Instant {
        let missed = self.membership.sessions.missed;
        let ready = work.members.values().filter(|j| j.verdict.phase == Phase::Ready);
        let left = ready.map(|j| missed.saturating_sub(j.verdict.silent_for)).min().unwrap_or(LOOK_EVERY);
        // A moment after it, so that it is over.
        now + left.min(LOOK_EVERY) + Duration::from_millis(1)
    }

    async fn pass(&self, work: &mut Work, heard: Heard, now: Instant) {
        let m = &self.membership;
        if heard.members {
            work.members = verdicts(m, now);
            work.sites = m.sites.list(now);
            self.metrics.note(m, work.members.values());
        }
        let relabelled = self.look(work, heard, now).await;
        work.fold.finish();
        if self.out.borrow().is_none() && !self.settled(&work.members, now) {
            return;
        }
        if heard.members || relabelled || self.out.borrow().is_none() {
            self.tell_agents(work);
        }
        let before = self.out.borrow().as_ref().map(|p| p.whole.facts().digest());
        if before != Some(work.fold.facts().digest()) {
            work.generation += 1;
            work.serials.cover(work.generation).await;
            self.publish(work.fold.facts().clone(), work.fold.take(), work.generation);
        }
        let same = |stored: &Vec<Site>| {
            stored.len() == work.sites.len() && stored.iter().zip(&work.sites).all(|(a, b)| a.same_place(b))
        };
        if !work.stored.as_ref().is_some_and(same) {
            match Sites::store(&m.client, &work.sites).await {
                Ok(()) => work.stored = Some(work.sites.clone()),
                Err(error) => tracing::warn!(%error, "known sites not stored"),
            }
        }
    }

    /// Hands the fold what may be another. Returns whether other labels are wanted of members.
    async fn look(&self, work: &mut Work, heard: Heard, now: Instant) -> bool {
        let m = &self.membership;
        let mut relabelled = false;
        if heard.reports {
            work.fold.reports(m.sessions.news());
        }
        if heard.members {
            work.fold.members(&work.members);
            work.fold.sites(work.sites.iter().chain([&self.config.site()]));
            work.fold.settings(&Settings {
                hub_id: self.hub_id.clone(),
                apex: self.config.apex.clone(),
                default_set: self.config.default_set.clone(),
                revoked: m.revoked.serials().await,
                serial: work.serials.base(),
            });
        }
        if heard.traffic {
            let judged = accept::traffic::judge(m.objects.traffic.state());
            let traffic: Vec<_> = judged.iter().filter_map(accept::traffic::Judged::counts).collect();
            let labels = labels(&traffic);
            relabelled = work.labels != labels;
            work.labels = labels;
            work.fold.traffic(traffic);
        }
        if heard.members || heard.traffic {
            let before = self.out.borrow().as_ref().map(|p| Arc::clone(&p.topology));
            let checked = work.checks.look(before.as_deref(), &m.sites.said(now), now);
            work.fold.checked(checked.failing, &checked.rtt);
        }
        let wanted = work.fold.wants_imports();
        if wanted && (heard.imports || !work.imports) {
            work.fold.imports(m.objects.imports.state());
        }
        work.imports = wanted;
        let now_s = Timestamp::now().as_second();
        let signed = now_s / RESIGN_S;
        if heard.names {
            work.fold.records(m.objects.records.state());
        }
        if heard.names || heard.sites || work.signed != signed {
            // A zone that is another one now has the serial of the generation that says so.
            let next = work.serials.base().wrapping_add((work.generation + 1) as u32);
            let zones = work.zones.entries(&m.objects, &work.sites, next, now_s);
            work.fold.zones(&zones);
            work.signed = signed;
        }
        relabelled
    }

    fn settled(&self, members: &BTreeMap<ClusterName, Judged>, now: Instant) -> bool {
        let sessions = &self.membership.sessions;
        if now.saturating_duration_since(sessions.started) >= self.config.settle {
            return true;
        }
        let held = sessions.lock();
        members.iter().all(|(name, judged)| {
            let awaited = judged.cluster.spec.sync.mode != SyncMode::None && judged.verdict.ready;
            !awaited || (judged.verdict.phase != Phase::Joining && held.get(name).is_some_and(Member::has_reported))
        })
    }

    fn publish(&self, facts: Facts, change: Change, generation: u64) {
        let version = Version { epoch: self.epoch, generation };
        let topology = match &*self.out.borrow() {
            Some(before) => before.topology.after(version, &change),
            None => Topology::from_facts(version, &facts),
        };
        self.metrics.published(self.epoch, generation, facts.len());
        tracing::debug!(generation, facts = facts.len(), changed = change.upserts.len(), "topology published");
        let without_keys = without_keys(&facts, &change);
        let whole = Shared::new(facts, version, generation - 1, change);
        let without_keys = without_keys
            .map_or_else(|| whole.clone(), |(facts, change)| Shared::new(facts, version, generation - 1, change));
        self.out.send_replace(Some(Published { version, topology: Arc::new(topology), whole, without_keys }));
    }

    /// What the resolver of `own` is to ask us for.
    fn stub(&self, own: &ClusterName, members: &BTreeMap<ClusterName, Judged>, sites: &[Site]) -> StubFacts {
        let ranges = |judged: &'_ Judged| {
            let cidrs = &judged.cidrs;
            cidrs.pods.iter().chain(&cidrs.services).cloned().collect::<Vec<_>>()
        };
        let mine = members.get(own).map(ranges).unwrap_or_default();
        let theirs: Vec<String> =
            members.iter().filter(|(name, _)| *name != own).flat_map(|(_, j)| ranges(j)).collect();
        let reverse = reverse::others(mine.iter().map(String::as_str), theirs.iter().map(String::as_str)).zones;
        let dns = sites.iter().filter(|site| site.kind == "dns");
        let mut servers: Vec<String> = dns.flat_map(|site| site.addresses.iter().cloned()).collect();
        servers.sort();
        servers.dedup();
        StubFacts { apex: self.config.apex.clone(), servers, reverse }
    }

    /// Every agent keeps a relay connection to each site that wants one, the hub included, and tells the labels that policies go by.
    fn tell_agents(&self, work: &Work) {
        let (members, sites) = (&work.members, &work.sites);
        let hub = self.config.site();
        let mut facts = Facts::default();
        for site in sites.iter().chain([&hub]).filter(|s| !s.relay.is_empty()) {
            // What it serves is nothing to an agent.
            let (gateways, balancers, provided) = (None, BTreeMap::new(), BTreeMap::new());
            let site =
                Site { gateways, balancers, provided, challenges: BTreeSet::new(), asked: Vec::new(), ..site.clone() };
            facts.put(format!("{}/{}", key::SITE, site.instance), &site);
        }
        if !work.hub_uid.is_empty() {
            facts.put(key::HUB, &work.hub_uid);
        }
        for (service, keys) in &work.labels {
            facts.put(format!("{}/{service}", key::LABELS), keys);
        }
        let balancers = balancers::stated(sites);
        let by_member = members.iter().map(|(name, judged)| {
            let mut facts = facts.clone();
            for (service, state) in balancers.get(name.as_str()).into_iter().flatten() {
                facts.put(format!("{}/{service}", key::BALANCER), state);
            }
            if judged.member.stub {
                facts.put(key::STUB, &self.stub(name, members, sites));
            }
            (name.clone(), facts)
        });
        let by_member = by_member.collect();
        self.membership.sessions.set_desired(Part::Sites, by_member);
    }
}

/// The keys of the labels by which policies tell endpoints of a service apart, by `namespace/service`.
fn labels(traffic: &[Arc<TrafficPolicy>]) -> BTreeMap<String, BTreeSet<String>> {
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for policy in traffic.iter().filter(|policy| !policy.spec.subsets.is_empty()) {
        let (Some(namespace), Some(service)) = (policy.namespace(), &policy.spec.service) else { continue };
        let keys = policy.spec.subsets.iter().flat_map(|subset| subset.labels.keys().cloned());
        wanted.entry(format!("{namespace}/{service}")).or_default().extend(keys);
    }
    wanted
}

/// The topology and its change without the zones' keys; nothing where none are in either.
fn without_keys(facts: &Facts, change: &Change) -> Option<(Facts, Change)> {
    let is_key = |key: &String| key.split_once('/').is_some_and(|(word, _)| word == key::ZONE_KEYS);
    let keys: Vec<String> = facts.under(key::ZONE_KEYS).map(|(rest, _)| format!("{}/{rest}", key::ZONE_KEYS)).collect();
    if keys.is_empty() && !change.removed.iter().any(is_key) {
        return None;
    }
    let (mut facts, mut change) = (facts.clone(), change.clone());
    for key in &keys {
        facts.remove(key);
    }
    change.upserts.retain(|key, _| !is_key(key));
    change.removed.retain(|key| !is_key(key));
    Some((facts, change))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_asked_for_by_the_service_whose_policies_go_by_them() {
        let policy = |name: &str, spec: serde_json::Value| -> Arc<TrafficPolicy> {
            let object = json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "TrafficPolicy",
                "metadata": {"name": name, "namespace": "shop"}, "spec": spec});
            Arc::new(serde_json::from_value(object).unwrap())
        };
        let subset = |name: &str, labels: serde_json::Value| json!({"name": name, "labels": labels});
        let all = [
            policy("plain", json!({"service": "cart"})),
            policy(
                "web",
                json!({"service": "web", "subsets": [subset("v1", json!({"version": "1"})),
                subset("v2", json!({"version": "2", "track": "canary"}))]}),
            ),
            policy("web-too", json!({"service": "web", "subsets": [subset("arm", json!({"arch": "arm"}))]})),
        ];
        let keys = ["arch", "track", "version"].map(str::to_owned).into();
        assert_eq!(labels(&all), BTreeMap::from([("shop/web".to_owned(), keys)]));
    }

    #[test]
    fn keys_are_told_to_dns_servers_alone() {
        let mut facts = Facts::default();
        facts.put(format!("{}/example-com", key::ZONE), &1);
        assert!(without_keys(&facts, &Facts::default().diff(&facts)).is_none());
        facts.put(format!("{}/example-com", key::ZONE_KEYS), &2);
        let (without, change) = without_keys(&facts, &Facts::default().diff(&facts)).unwrap();
        assert_eq!(without.iter().map(|(k, _)| k).collect::<Vec<_>>(), ["zone/example-com"]);
        assert_eq!(change.upserts.keys().collect::<Vec<_>>(), ["zone/example-com"]);
    }
}
