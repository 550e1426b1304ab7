//! Folds objects and reports into the facts of the topology, part by part: what a change touches is folded anew, nothing else. Pure but for
//! warnings.
//!
//! What a member says is taken for its own names only, and addresses that can't be a pod's (loopback, link-local, multicast,
//! unspecified) are left out, for any member may be hostile. Exports never leave their cluster set.
//!
//! Whatever the order of changes, the facts are those that a fold of everything would give (a property in the tests).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use atoll_api::facts::{Change, Facts, key};
use atoll_api::kinds::{DNSEndpoint, ServiceImport, TrafficPolicy};
use atoll_api::names::{ClusterName, ServiceName};
use atoll_api::topology::{
    BalancerFacts, ClusterFacts, Endpoints, FailingFacts, MemberService, RecordsFacts, ServiceFacts, Settings, Site,
    ZoneFacts, ZoneKeys,
};
use kube::ResourceExt as _;

use super::held::Held;
use super::ledger::Ledger;
use super::offers::{BySet, Export, Offers, Standing, Touched, at};
use super::remembered::Remembered;
use crate::membership::Judged;
use crate::sessions::Report;
use crate::zones::Entry;

/// Endpoints of one service in one member, at most.
const ENDPOINTS_MAX: usize = 10_000;

/// The facts, and what they are made of.
pub(crate) struct Fold {
    ledger: Ledger,
    offers: Arc<Offers>,
    /// Members may have loopback addresses.
    loopback: bool,
    touched: Touched,
    /// Every cluster set that ever was.
    sets: BTreeSet<String>,
    members: BTreeMap<ClusterName, Standing>,
    remembered: Remembered,
    records: Held<DNSEndpoint>,
    traffic: Held<TrafficPolicy>,
    failing: BTreeMap<ServiceName, FailingFacts>,
    /// What health checks take out of a service: `cluster/address`.
    out: BTreeMap<ServiceName, BTreeSet<String>>,
}

impl Fold {
    pub(crate) fn new(offers: Arc<Offers>, loopback: bool) -> Self {
        Self {
            ledger: Ledger::default(),
            offers,
            loopback,
            touched: Touched::default(),
            sets: BTreeSet::new(),
            members: BTreeMap::new(),
            remembered: Remembered::default(),
            records: Held::default(),
            traffic: Held::default(),
            failing: BTreeMap::new(),
            out: BTreeMap::new(),
        }
    }

    /// Takes what members report.
    pub(crate) fn reports(&mut self, reports: Vec<Report>) {
        self.offers.report(reports, &mut self.touched);
        self.stand();
    }

    /// Takes who is a member and how it does.
    pub(crate) fn members(&mut self, members: &BTreeMap<ClusterName, Judged>) {
        self.ledger.replace(key::CLUSTER, members.iter().map(|(name, j)| (name.to_string(), cluster(name, j))));
        let sets = members.iter().map(|(name, j)| (name.clone(), j.cluster.spec.set().to_owned())).collect();
        self.offers.admit(&sets, &mut self.touched);
        self.sets.extend(sets.into_values());
        self.stand();
    }

    /// Looks who is silent. What was remembered of a member goes in the same generation in which its report comes.
    fn stand(&mut self) {
        let members = self.offers.standing();
        if members != self.members {
            self.members = members;
            self.remembered.members(&self.members, &mut self.touched.exports);
        }
    }

    /// Whether imports have to be known: somebody is silent of whom they say what it exports.
    pub(crate) fn wants_imports(&self) -> bool {
        self.members.values().any(|m| m.is_silent)
    }

    /// Takes what a hub that has just started knows of the exports of members that have not reported yet.
    pub(crate) fn imports(&mut self, imports: Vec<Arc<ServiceImport>>) {
        self.remembered.imports(imports, &self.members, &mut self.touched.exports);
    }

    /// Takes the zones.
    pub(crate) fn zones(&mut self, zones: &[Entry]) {
        let facts = |e: &Entry| ZoneFacts { spec: e.zone.spec.clone(), file: e.file.clone(), serial: e.serial };
        self.ledger.replace(key::ZONE, zones.iter().map(|e| (e.zone.name_any(), facts(e))));
        let keyed = zones.iter().filter(|e| e.keys != ZoneKeys::default());
        self.ledger.replace(key::ZONE_KEYS, keyed.map(|e| (e.zone.name_any(), &e.keys)));
    }

    /// Takes the records.
    pub(crate) fn records(&mut self, records: Vec<Arc<DNSEndpoint>>) {
        for (name, object) in self.records.look(records) {
            let key = at(key::RECORDS, &name);
            match object {
                Some(object) => self.ledger.put(
                    key,
                    &RecordsFacts {
                        endpoints: object.spec.endpoints.clone(),
                        revision: object.metadata.generation.unwrap_or_default(),
                    },
                ),
                None => self.ledger.remove(&key),
            }
        }
    }

    /// Takes the policies; those that make no sense are left out by the caller.
    pub(crate) fn traffic(&mut self, traffic: Vec<Arc<TrafficPolicy>>) {
        for (name, object) in self.traffic.look(traffic) {
            let key = at(key::TRAFFIC, &name);
            match object {
                Some(object) => self.ledger.put(key, &object.spec),
                None => self.ledger.remove(&key),
            }
        }
        self.take_out();
    }

    /// Takes what health checks take out, by policy, and round-trip times by region.
    pub(crate) fn checked(
        &mut self,
        failing: BTreeMap<ServiceName, FailingFacts>,
        rtt: &BTreeMap<String, BTreeMap<ClusterName, u32>>,
    ) {
        let some = failing.iter().filter(|(_, failing)| !failing.is_empty());
        self.ledger.replace(key::FAILING, some.map(|(p, failing)| (format!("{}/{}", p.namespace, p.name), failing)));
        let regions = rtt.iter().filter(|(region, _)| !region.contains('/'));
        self.ledger.replace(key::RTT, regions.map(|(region, rtt)| (region.clone(), rtt)));
        self.failing = failing;
        self.take_out();
    }

    /// Takes the sites.
    pub(crate) fn sites<'a>(&mut self, sites: impl IntoIterator<Item = &'a Site>) {
        self.ledger.replace(key::SITE, sites.into_iter().map(|site| (site.instance.clone(), site)));
    }

    /// Takes what holds for all.
    pub(crate) fn settings(&mut self, settings: &Settings) {
        self.ledger.put(key::SETTINGS.into(), settings);
    }

    /// Folds what was touched.
    pub(crate) fn finish(&mut self) {
        let Touched { exports, endpoints, gone } = std::mem::take(&mut self.touched);
        for cluster in &gone {
            for word in [key::ENDPOINTS, key::BALANCER] {
                for key in self.ledger.below(&format!("{word}/{cluster}")) {
                    self.ledger.remove(&key);
                }
            }
        }
        let mut of: Option<(ClusterName, Option<Facts>)> = None;
        for (cluster, service) in endpoints {
            let (_, facts) = match of.take() {
                Some(same) if same.0 == cluster => of.insert(same),
                _ => of.insert((cluster.clone(), self.offers.facts(&cluster))),
            };
            let found = facts.as_ref().and_then(|facts| self.endpoints(&cluster, &service, facts));
            let key = |word: &str| format!("{word}/{cluster}/{}/{}", service.namespace, service.name);
            match found {
                Some(found) => self.ledger.put(key(key::ENDPOINTS), &found),
                None => self.ledger.remove(&key(key::ENDPOINTS)),
            }
            match facts.as_ref().and_then(|facts| facts.get::<BalancerFacts>(&at(key::BALANCER, &service))) {
                Some(asked) => self.ledger.put(key(key::BALANCER), &asked),
                None => self.ledger.remove(&key(key::BALANCER)),
            }
        }
        for name in &exports {
            self.service(name);
        }
        self.offers.tell(&exports);
    }

    /// What was changed since the last time.
    pub(crate) fn take(&mut self) -> Change {
        self.ledger.take()
    }

    /// The facts as they are.
    pub(crate) fn facts(&self) -> &Facts {
        self.ledger.facts()
    }

    /// A name in every set.
    fn service(&mut self, name: &ServiceName) {
        let exports: BySet = self.offers.exports(name);
        for set in &self.sets {
            let found = exports.get(set).and_then(|exports| service(exports));
            let found = self.remembered.with(name, set, found);
            let key = format!("{}/{set}/{}/{}", key::SERVICE, name.namespace, name.name);
            match found {
                Some(found) => self.ledger.put(key, &found),
                None => self.ledger.remove(&key),
            }
        }
    }

    /// A service's endpoints in one member, as it reports them.
    fn endpoints(&self, cluster: &ClusterName, name: &ServiceName, facts: &Facts) -> Option<Endpoints> {
        let mut found: Endpoints = facts.get(&at(key::ENDPOINTS, name))?;
        if let Some(service) = facts.get::<MemberService>(&at(key::SERVICE, name)) {
            if found.cluster_ips.is_empty() {
                found.cluster_ips = service.cluster_ips;
            }
            if found.load_balancer.is_empty() {
                found.load_balancer = service.load_balancer;
            }
        }
        found.endpoints.retain(|e| is_pods(e.address, self.loopback));
        found.cluster_ips.retain(|a| is_pods(*a, self.loopback));
        found.nodes.values_mut().for_each(|all| all.retain(|a| is_pods(*a, self.loopback)));
        found.endpoints.truncate(ENDPOINTS_MAX);
        if let Some(out) = self.out.get(name) {
            for endpoint in found.endpoints.iter_mut().filter(|e| e.ready) {
                endpoint.failing = out.contains(&format!("{cluster}/{}", endpoint.address));
                endpoint.ready = !endpoint.failing;
            }
        }
        Some(found)
    }

    /// Finds out anew what health checks take out of services, and touches those where that is another.
    fn take_out(&mut self) {
        let mut out: BTreeMap<ServiceName, BTreeSet<String>> = BTreeMap::new();
        for (policy, failing) in &self.failing {
            let service = self.traffic.get(policy).and_then(|object| object.spec.service.clone());
            let Some(service) = service else { continue };
            let name = ServiceName::new(policy.namespace.clone(), service);
            out.entry(name).or_default().extend(failing.keys().cloned());
        }
        let names: BTreeSet<&ServiceName> = self.out.keys().chain(out.keys()).collect();
        for name in names.into_iter().filter(|name| self.out.get(*name) != out.get(*name)) {
            let there = self.offers.with_endpoints(name).into_iter().map(|cluster| (cluster, name.clone()));
            self.touched.endpoints.extend(there);
        }
        self.out = out;
    }
}

fn cluster(name: &ClusterName, judged: &Judged) -> ClusterFacts {
    ClusterFacts {
        name: name.clone(),
        spec: judged.cluster.spec.clone(),
        labels: judged.cluster.labels().clone(),
        cidrs: judged.cidrs.clone(),
        nodes: judged.member.nodes.clone(),
        dns: judged.dns.clone(),
        ready: judged.verdict.ready,
        dns_ready: judged.verdict.dns_ready,
        overlaps: judged.verdict.overlaps,
    }
}

/// Whether an address can be a pod's or a service's.
fn is_pods(address: IpAddr, loopback: bool) -> bool {
    let link_local = match address {
        IpAddr::V4(a) => a.is_link_local() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_unicast_link_local() || a.to_ipv4_mapped().is_some(),
    };
    !(link_local || address.is_unspecified() || address.is_multicast() || (address.is_loopback() && !loopback))
}

/// A service of a set, as its oldest valid export has it (KEP-1645); nothing where none is valid.
fn service(exports: &[Export]) -> Option<ServiceFacts> {
    let valid: Vec<(&Export, &MemberService)> =
        exports.iter().filter(|e| e.facts.valid).filter_map(|e| Some((e, e.service.as_ref()?))).collect();
    let (_, oldest) = valid.first()?;
    Some(ServiceFacts {
        clusters: valid.iter().map(|(e, _)| e.cluster.to_string()).collect(),
        ports: oldest.ports.clone(),
        headless: oldest.cluster_ips.is_empty(),
    })
}

#[cfg(test)]
mod tests;
