//! What an asker gets of a service: which clusters, and which of their addresses. Pure.
//!
//! ```text
//!   clusters that offer it ── choose (policy, health) ── tier by tier: reachable for the asker? ── addresses of the kind
//!        │                                                  └── from outside: load balancers, gateways of the tier
//!        │                                                  └── none reachable: the gateways, which relay
//!        └── nobody usable ── the all-down rule: what was good last, all, a fallback, a failure that says why
//! ```
//!
//! In: a case, the clusters that offer the service, the policy. Out: [`Pick`]. Never: an empty answer; crosses a cluster set.

use std::net::IpAddr;
use std::sync::Arc;

use atoll_api::kinds::{AllDown, AnswerKind};
use atoll_api::names::ServiceName;
use atoll_api::routing::{Candidate, Choice, Resort, choose};
use atoll_api::topology::{ClusterFacts, Endpoint, Endpoints};

use crate::answer::{Answer, ede};
use crate::federated::Case;
use crate::gateways;
use crate::policy::Policy;
use crate::view::{of_kind, reaches};

/// The clusters that serve, and what of them is given.
#[derive(Debug)]
pub(crate) enum Pick<'a> {
    /// These clusters' own addresses.
    Clusters(Vec<&'a ClusterFacts>, AnswerKind, Option<Resort>),
    /// These hosts have the addresses.
    Hosts(Vec<String>),
    /// These addresses, of gateways that stand in the chosen clusters.
    Addresses(Vec<IpAddr>),
    /// The set's gateways, wherever they stand.
    Gateways,
    /// What the policy gives when all are down.
    Fallback(Vec<IpAddr>),
    /// Nobody, and what is answered then.
    Nobody(Box<Answer>),
}

/// Picks for `service`.
pub(crate) fn pick<'a>(
    case: &Case<'a>,
    service: &ServiceName,
    clusters: &[&'a ClusterFacts],
    policy: &Policy,
    why: &mut Vec<String>,
) -> Pick<'a> {
    let candidates: Vec<Candidate<'_>> = clusters.iter().map(|c| candidate(case, service, c, policy)).collect();
    let choice = choose(&case.route(), &candidates, &policy.chain);
    let Choice { tiers, resort, fenced, why: reasons } = choice;
    why.extend(reasons);
    if tiers.is_empty() {
        return nobody(service, policy, fenced, why);
    }
    let kind = match policy.answer {
        Some(AnswerKind::Gateway) => return Pick::Gateways,
        Some(kind @ (AnswerKind::VirtualIP | AnswerKind::LoadBalancer)) => kind,
        Some(AnswerKind::Endpoints | AnswerKind::Addresses) | None => AnswerKind::Endpoints,
    };
    for tier in if policy.every { vec![tiers.concat()] } else { tiers } {
        let tier: Vec<&ClusterFacts> = tier.into_iter().map(|i| clusters[i]).collect();
        let own = within_reach(case, service, &tier, policy, (kind, resort), why);
        if !own.is_empty() {
            return Pick::Clusters(own, kind, resort);
        }
        let outward = kind == AnswerKind::LoadBalancer || case.asker.outside;
        if let Some(found) = outward.then(|| front(case, service, &tier, policy, resort, why)).flatten() {
            return found;
        }
    }
    why.push("nobody's endpoints are reachable for the asker: the gateways, which relay".to_owned());
    Pick::Gateways
}

fn candidate<'a>(case: &Case<'a>, service: &ServiceName, cluster: &'a ClusterFacts, policy: &Policy) -> Candidate<'a> {
    let name = cluster.name.as_str();
    let there = case.table.topology.endpoints_in(name, service);
    let all = there.map_or(0, |e| e.endpoints.len());
    let usable = |e: &&Endpoint| case.view.usable(&cluster.name, e, policy.at.as_ref());
    let ready = there.map_or(0, |t| t.endpoints.iter().filter(usable).count());
    Candidate {
        unready: all - ready,
        last_good: case.view.good.of(&case.asker.set, service, name).is_some(),
        ..Candidate::new(cluster, case.view.health.ready(name), ready)
    }
}

/// Those of a tier that have addresses of `kind` which the asker reaches.
fn within_reach<'a>(
    case: &Case<'a>,
    service: &ServiceName,
    tier: &[&'a ClusterFacts],
    policy: &Policy,
    (kind, resort): (AnswerKind, Option<Resort>),
    why: &mut Vec<String>,
) -> Vec<&'a ClusterFacts> {
    let has = tier.iter().copied().filter(|c| {
        let ips = addresses_in(case, service, c, policy, (kind, resort));
        !ips.is_empty() && reaches(case.table, case.view, case.asker, c, (kind, &ips), why)
    });
    has.collect()
}

/// For those outside: the tier's load balancers, the hosts that are such, gateways that stand in the tier.
fn front<'a>(
    case: &Case<'a>,
    service: &ServiceName,
    tier: &[&'a ClusterFacts],
    policy: &Policy,
    resort: Option<Resort>,
    why: &mut Vec<String>,
) -> Option<Pick<'a>> {
    let balanced = within_reach(case, service, tier, policy, (AnswerKind::LoadBalancer, resort), why);
    if !balanced.is_empty() {
        return Some(Pick::Clusters(balanced, AnswerKind::LoadBalancer, resort));
    }
    let there = tier.iter().filter_map(|c| case.table.topology.endpoints_in(c.name.as_str(), service));
    let hosts: Vec<String> =
        there.flat_map(|e| &e.load_balancer).filter(|a| a.parse::<IpAddr>().is_err()).cloned().collect();
    if !hosts.is_empty() {
        return Some(Pick::Hosts(hosts));
    }
    let gateways = gateways::standing_in(case, policy, tier);
    (!gateways.is_empty()).then(|| {
        let names: Vec<&str> = tier.iter().map(|c| c.name.as_str()).collect();
        why.push(format!("gateways in {}", names.join(", ")));
        Pick::Addresses(gateways)
    })
}

/// What is answered when the policy leaves nobody.
fn nobody<'a>(service: &ServiceName, policy: &Policy, fenced: bool, why: &mut Vec<String>) -> Pick<'a> {
    if policy.chain.all_down() == AllDown::Fallback && !policy.fallback.is_empty() {
        why.push("nothing is usable: the fallback is given (allDown Fallback)".to_owned());
        return Pick::Fallback(policy.fallback.clone());
    }
    // An empty answer would be kept as an absence, and it is none.
    let answer = if fenced {
        Answer::failure(ede::PROHIBITED, format!("service {service}: its policy lets no cluster serve this asker"))
    } else {
        Answer::failure(ede::NO_AUTHORITY, format!("service {service}: no cluster that offers it is usable"))
    };
    Pick::Nobody(Box::new(answer))
}

/// The addresses of `kind` in one cluster; where nobody is usable, those that the all-down rule takes.
fn addresses_in(
    case: &Case<'_>,
    service: &ServiceName,
    cluster: &ClusterFacts,
    policy: &Policy,
    (kind, resort): (AnswerKind, Option<Resort>),
) -> Vec<IpAddr> {
    let name = cluster.name.as_str();
    let there: Option<&Arc<Endpoints>> = case.table.topology.endpoints_in(name, service);
    let now = there.map(|t| of_kind(t, kind, |e| case.view.usable(&cluster.name, e, policy.at.as_ref())));
    let now = now.unwrap_or_default();
    match resort {
        Some(Resort::LastGood) if now.is_empty() => {
            let good = case.view.good.of(&case.asker.set, service, name);
            good.map(|t| of_kind(t, kind, |e| e.ready)).unwrap_or_default()
        }
        Some(Resort::All) => there.map(|t| of_kind(t, kind, |_| true)).unwrap_or_default(),
        _ => now,
    }
}

/// The addresses of several clusters, each once.
pub(crate) fn gather(
    case: &Case<'_>,
    service: &ServiceName,
    clusters: &[&ClusterFacts],
    policy: &Policy,
    of: (AnswerKind, Option<Resort>),
) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = clusters.iter().flat_map(|c| addresses_in(case, service, c, policy, of)).collect();
    ips.sort_unstable();
    ips.dedup();
    ips
}
