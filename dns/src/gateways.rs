//! Addresses of gateways: for hosts that a TrafficPolicy names, and for services whose endpoints the asker can't reach. Pure.
//!
//! In: the sites of the topology, as gateways report themselves; who asks. Out: the gateways that serve the asker's set and stand in the
//! clusters that the policy puts first, where each is reached by the name that is asked for; those that stand in no member, or in none
//! that is up, when no other is left. One that a health check takes out is left out, as long as another is there.

use std::net::IpAddr;
use std::sync::Arc;

use atoll_api::routing::{Candidate, Chain, choose};
use atoll_api::topology::{ClusterFacts, Site};
use hickory_proto::rr::RecordType;

use crate::answer::{Answer, ede};
use crate::federated::{Case, given};
use crate::policy::{Policy, address};

/// Answers with gateways; `chain` orders the clusters that they stand in, the nearest where there is none.
pub(crate) fn answer(case: &Case<'_>, policy: &Policy, chain: Option<&Chain>, why: &mut Vec<String>) -> Answer {
    if !matches!(case.kind, RecordType::A | RecordType::AAAA) {
        return Answer::no_data_in(case.zone);
    }
    let (ips, reasons) = choice(case, policy, chain);
    why.extend(reasons);
    if ips.is_empty() {
        let text = format!("no gateway serves cluster set {}", case.asker.set);
        return Answer::failure(ede::NO_AUTHORITY, text);
    }
    given(case, case.name, ips, policy)
}

/// The gateways' addresses.
pub(crate) fn addresses(case: &Case<'_>, policy: &Policy) -> Vec<IpAddr> {
    choice(case, policy, None).0
}

/// The addresses of gateways that stand in one of `clusters`.
pub(crate) fn standing_in(case: &Case<'_>, policy: &Policy, clusters: &[&ClusterFacts]) -> Vec<IpAddr> {
    let there = |s: &&Arc<Site>| clusters.iter().any(|c| s.cluster.as_deref() == Some(c.name.as_str()));
    ips(case, policy, case.table.topology.gateways(&case.asker.set).filter(there))
}

/// The addresses of sites that no check takes out, each once.
fn ips<'a>(case: &Case<'_>, policy: &Policy, sites: impl Iterator<Item = &'a Arc<Site>>) -> Vec<IpAddr> {
    let failing = case.view.failing(&case.table.topology, policy.at.as_ref());
    let well = |ip: &IpAddr| failing.is_none_or(|f| !f.contains_key(&ip.to_string()));
    let mut ips: Vec<IpAddr> = sites.flat_map(|s| reached(case, s)).filter(well).collect();
    ips.sort_unstable();
    ips.dedup();
    ips
}

/// Where a gateway is reached by the name that is asked for.
fn reached(case: &Case<'_>, site: &Site) -> Vec<IpAddr> {
    let host = case.name.to_ascii();
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    site.reached_at(&host, Some(&case.asker.set)).filter_map(address).collect()
}

fn choice(case: &Case<'_>, policy: &Policy, chain: Option<&Chain>) -> (Vec<IpAddr>, Vec<String>) {
    let topology = &case.table.topology;
    let sites: Vec<&Arc<Site>> = topology.gateways(&case.asker.set).collect();
    let inside = |c: &ClusterFacts| {
        let name = c.name.as_str().to_owned();
        sites.iter().copied().filter(move |s| s.cluster.as_deref() == Some(&name))
    };
    let candidate = |c| {
        let (all, well) = (inside(c).count(), ips(case, policy, inside(c)).len());
        let ready = Candidate::new(c, case.view.health.ready(c.name.as_str()), well);
        Candidate { unready: all.saturating_sub(well), ..ready }
    };
    let all = topology.clusters.values().map(|c| candidate(c.as_ref()));
    let candidates: Vec<Candidate<'_>> = all.filter(|c| c.endpoints + c.unready > 0).collect();
    let nearest = Chain::default();
    let choice = choose(&case.route(), &candidates, chain.unwrap_or(&nearest));
    let first: Vec<&ClusterFacts> =
        choice.tiers.first().into_iter().flatten().map(|i| candidates[*i].cluster).collect();
    let chosen = standing_in(case, policy, &first);
    let mut why = choice.why;
    if !chosen.is_empty() && choice.resort.is_none() {
        let names: Vec<&str> = first.iter().map(|c| c.name.as_str()).collect();
        why.push(format!("gateways in {}", names.join(", ")));
        return (chosen, why);
    }
    why.push("gateways wherever they stand".to_owned());
    // One that stands in no member does not fall with a member.
    let outside = ips(case, policy, sites.iter().copied().filter(|s| s.cluster.is_none()));
    let anywhere = || ips(case, policy, sites.iter().copied());
    let found = if outside.is_empty() { anywhere() } else { outside };
    if !found.is_empty() {
        return (found, why);
    }
    why.push("health checks take out every gateway: all are given".to_owned());
    let mut all: Vec<IpAddr> = sites.iter().flat_map(|s| reached(case, s)).collect();
    all.sort_unstable();
    all.dedup();
    (all, why)
}
