//! Addresses of gateways: for hosts that a TrafficPolicy names, and for services whose endpoints the asker can't reach. Pure.
//!
//! In: the sites of the topology, who asks. Out: the gateways that serve the asker's set and stand in the clusters that the policy puts
//! first; those that stand in no member, or in none that is up, when no other is left.

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
    let (ips, reasons) = choice(case, chain);
    why.extend(reasons);
    if ips.is_empty() {
        let text = format!("no gateway serves cluster set {}", case.asker.set);
        return Answer::failure(ede::NO_AUTHORITY, text);
    }
    given(case, case.name, ips, policy.ttl)
}

/// The gateways' addresses.
pub(crate) fn addresses(case: &Case<'_>, chain: Option<&Chain>) -> Vec<IpAddr> {
    choice(case, chain).0
}

fn choice(case: &Case<'_>, chain: Option<&Chain>) -> (Vec<IpAddr>, Vec<String>) {
    let topology = &case.table.topology;
    let sites: Vec<&Arc<Site>> = topology.gateways(&case.asker.set).collect();
    let at = |c: &ClusterFacts| sites.iter().filter(|s| s.cluster.as_deref() == Some(c.name.as_str())).count();
    let candidates: Vec<Candidate<'_>> = topology
        .clusters
        .values()
        .map(|c| Candidate::new(c, case.view.health.ready(c.name.as_str()), at(c)))
        .filter(|c| c.endpoints > 0)
        .collect();
    let nearest = Chain::default();
    let choice = choose(&case.asker.route(topology, case.client, case.dice), &candidates, chain.unwrap_or(&nearest));
    let ips = |sites: &mut dyn Iterator<Item = &&Arc<Site>>| -> Vec<IpAddr> {
        let mut ips: Vec<IpAddr> = sites.flat_map(|s| &s.addresses).filter_map(|a| address(a)).collect();
        ips.sort_unstable();
        ips.dedup();
        ips
    };
    let first: Vec<&str> = choice.tiers.first().into_iter().flatten().map(|i| candidates[*i].name()).collect();
    let inside = ips(&mut sites.iter().filter(|s| s.cluster.as_deref().is_some_and(|c| first.contains(&c))));
    let mut why = choice.why;
    if !inside.is_empty() && choice.resort.is_none() {
        why.push(format!("gateways in {}", first.join(", ")));
        return (inside, why);
    }
    why.push("gateways wherever they stand".to_owned());
    // One that stands in no member does not fall with a member.
    let outside = ips(&mut sites.iter().filter(|s| s.cluster.is_none()));
    if outside.is_empty() { (ips(&mut sites.iter()), why) } else { (outside, why) }
}
