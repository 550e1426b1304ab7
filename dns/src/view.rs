//! How the members and their endpoints are, as one query sees it: whose word counts, who is reachable, what was good last. Pure.
//!
//! In: the hub's view, our own probes and checks. Out: which endpoints are usable and which addresses an asker reaches. Never decides who
//! serves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::health::HealthView;
use atoll_api::kinds::AnswerKind;
use atoll_api::names::{ClusterName, ServiceName};
use atoll_api::topology::{ClusterFacts, Endpoint, Endpoints, FailingFacts, Topology};

use crate::client::Asker;
use crate::table::Table;

/// What was good last is given for so long: after an hour it is more likely somebody else's.
const GOOD_MAX: Duration = Duration::from_secs(3600);

/// What our own health checks take out, by policy.
pub(crate) type Findings = BTreeMap<ServiceName, FailingFacts>;

/// How everybody is now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) health: &'a HealthView,
    /// Members whose addresses nobody outside reaches.
    pub(crate) relayed: &'a BTreeSet<ClusterName>,
    /// What our own checks found: it counts when the hub is silent.
    pub(crate) own: &'a Findings,
    /// Services that nobody can serve now, and what was good of them.
    pub(crate) good: &'a LastGood,
    /// Until whose word counts may change.
    pub(crate) until: Option<Duration>,
}

impl<'a> View<'a> {
    /// What health checks take out for `policy`.
    pub(crate) fn failing(&self, topology: &'a Topology, policy: Option<&ServiceName>) -> Option<&'a FailingFacts> {
        if self.health.trusts_own_eyes() {
            self.own.get(policy?)
        } else {
            topology.failing.get(policy?).map(Arc::as_ref)
        }
    }

    /// Whether an endpoint takes requests.
    pub(crate) fn usable(&self, cluster: &ClusterName, endpoint: &Endpoint, policy: Option<&ServiceName>) -> bool {
        if !self.health.trusts_own_eyes() {
            return endpoint.ready;
        }
        let out =
            policy.and_then(|p| self.own.get(p)).is_some_and(|f| f.contains_key(&place(cluster, endpoint.address)));
        (endpoint.ready || endpoint.failing) && !out
    }

    /// A time to live that ends no later than the next moment at which the decision may be another.
    pub(crate) fn ttl(&self, ttl: u32) -> u32 {
        let left = self.until.map_or(u64::MAX, |left| left.as_secs().max(1));
        ttl.min(u32::try_from(left).unwrap_or(u32::MAX))
    }
}

/// As [`atoll_api::health::Target::place`] spells it.
pub(crate) fn place(cluster: &ClusterName, ip: IpAddr) -> String {
    format!("{cluster}/{ip}")
}

/// The addresses of one service in one cluster that an answer of `kind` would give.
pub(crate) fn of_kind(there: &Endpoints, kind: AnswerKind, usable: impl Fn(&Endpoint) -> bool) -> Vec<IpAddr> {
    match kind {
        AnswerKind::VirtualIP => there.cluster_ips.clone(),
        AnswerKind::LoadBalancer => there.load_balancer.iter().filter_map(|a| a.parse().ok()).collect(),
        _ => there.endpoints.iter().filter(|e| usable(e)).map(|e| e.address).collect(),
    }
}

/// Whether the asker reaches `ips` of `cluster`; if not, `why` is told.
pub(crate) fn reaches(
    table: &Table,
    view: View<'_>,
    asker: &Asker,
    cluster: &ClusterFacts,
    (kind, ips): (AnswerKind, &[IpAddr]),
    why: &mut Vec<String>,
) -> bool {
    let own = asker.cluster.as_deref();
    if own == Some(cluster.name.as_str()) || kind == AnswerKind::LoadBalancer {
        return true;
    }
    let mut passed = |reason: &str| {
        why.push(format!("{}: passed over, {reason}", cluster.name));
        false
    };
    if view.relayed.contains(&cluster.name) {
        return passed("its addresses are reached by relay only");
    }
    if asker.outside && ips.iter().any(|ip| is_internal(*ip)) {
        return passed("its addresses are internal and the asker comes from outside");
    }
    // An address that the asker's own cluster also has leads the asker to its own cluster.
    let mine = |ip: &IpAddr| table.owners(*ip).is_some_and(|(_, names)| names.iter().any(|n| Some(n.as_str()) == own));
    if own.is_some() && ips.iter().any(mine) {
        return passed("its addresses overlap with the asker's own cluster");
    }
    true
}

/// Addresses that mean nothing on the internet: private (RFC 1918), shared (RFC 6598), loopback, link-local, unique local (RFC 4193).
pub(crate) fn is_internal(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || shared
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified(),
    }
}

/// What was good of a service when somebody could serve it last.
#[derive(Debug, Clone)]
struct Good {
    clusters: BTreeMap<ClusterName, Arc<Endpoints>>,
    /// When that ended, as the caller's clock has it.
    since: Duration,
}

/// Services that nobody can serve now, by cluster set.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastGood {
    services: BTreeMap<(String, ServiceName), Good>,
}

impl LastGood {
    /// After a change: what nobody can serve any more is remembered as it was before, what somebody can serve is forgotten. `changed` are
    /// the services that it may be different for; `None`: all.
    pub(crate) fn next(
        &self,
        was: (&Topology, &HealthView),
        is: (&Topology, &HealthView),
        changed: Option<&BTreeSet<ServiceName>>,
        now: Duration,
    ) -> Self {
        let mut next = Self::default();
        if let Some(changed) = changed {
            let others = self.services.iter().filter(|((_, name), _)| !changed.contains(name));
            let fresh = others.filter(|(_, known)| now.saturating_sub(known.since) < GOOD_MAX);
            next.services.extend(fresh.map(|(key, known)| (key.clone(), known.clone())));
        }
        for (set, services) in &is.0.services {
            let looked_at: Vec<_> = match changed {
                Some(changed) => changed.iter().filter_map(|name| services.get_key_value(name)).collect(),
                None => services.iter().collect(),
            };
            for (name, facts) in looked_at {
                if facts.clusters.iter().any(|c| good(is, c, name).is_some()) {
                    continue;
                }
                let key = (set.clone(), name.clone());
                let known = self.services.get(&key).filter(|k| now.saturating_sub(k.since) < GOOD_MAX).cloned();
                let kept = known.or_else(|| {
                    let before = was.0.services.get(set)?.get(name)?;
                    let clusters = before.clusters.iter().filter_map(|c| good(was, c, name));
                    let clusters: BTreeMap<_, _> = clusters.collect();
                    (!clusters.is_empty()).then_some(Good { clusters, since: now })
                });
                next.services.extend(kept.map(|kept| (key, kept)));
            }
        }
        next
    }

    /// Whether nothing is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// What was good of `service` in `cluster`.
    pub(crate) fn of(&self, set: &str, service: &ServiceName, cluster: &str) -> Option<&Arc<Endpoints>> {
        // Seldom: only when nobody can serve.
        if self.services.is_empty() {
            return None;
        }
        self.services.get(&(set.to_owned(), service.clone()))?.clusters.get(cluster)
    }
}

fn good(
    (topology, health): (&Topology, &HealthView),
    cluster: &str,
    service: &ServiceName,
) -> Option<(ClusterName, Arc<Endpoints>)> {
    let (name, services) = topology.endpoints.get_key_value(cluster)?;
    let there = services.get(service)?;
    (health.ready(cluster) && there.ready() > 0).then(|| (name.clone(), Arc::clone(there)))
}
