//! Hosts that a TrafficPolicy names: gateways, fixed addresses, or what stands behind a service. Pure.
//!
//! In: a case, the policy. Out: an [`Answer`] and why. A fixed address belongs to a cluster, which the strategy chooses, or to none; then
//! it is given when no other is left. Never: an empty answer because something is down.

use std::net::IpAddr;

use atoll_api::kinds::{AllDown, AnswerKind, FixedAddress};
use atoll_api::routing::{Candidate, Resort, choose};
use hickory_proto::rr::RecordType;

use crate::answer::{Answer, ede};
use crate::federated::{Case, alias, given, of_service};
use crate::gateways;
use crate::policy::Policy;

/// Answers for a host.
pub(crate) fn answer(case: &Case<'_>, policy: &Policy, why: &mut Vec<String>) -> Answer {
    why.push(format!("policy {}", policy.name()));
    if !matches!(case.kind, RecordType::A | RecordType::AAAA) {
        return Answer::no_data_in(case.zone);
    }
    match (policy.answer, &policy.backend) {
        (Some(AnswerKind::Addresses), _) => fixed(case, policy, why),
        (Some(AnswerKind::Endpoints | AnswerKind::VirtualIP | AnswerKind::LoadBalancer), Some(backend)) => {
            of_service(case, backend, policy, why)
        }
        _ => gateways::answer(case, policy, Some(&policy.chain), why),
    }
}

fn fixed(case: &Case<'_>, policy: &Policy, why: &mut Vec<String>) -> Answer {
    let failing = case.view.failing(&case.table.topology, policy.at.as_ref());
    let well = |a: &&FixedAddress| failing.is_none_or(|f| !f.contains_key(&a.address));
    let of = |cluster: &str| {
        let cluster = cluster.to_owned();
        policy.addresses.iter().filter(move |a| a.cluster.as_deref() == Some(&cluster))
    };
    for a in policy.addresses.iter().filter(|a| !well(a)) {
        why.push(format!("{}: left out, its health check fails", a.address));
    }
    let members = case.table.topology.clusters.values().filter(|c| of(c.name.as_str()).next().is_some());
    let candidates: Vec<Candidate<'_>> = members
        .map(|c| {
            let (name, ready) = (c.name.as_str(), case.view.health.ready(c.name.as_str()));
            let (all, up) = (of(name).count(), of(name).filter(well).count());
            Candidate { unready: all - up, last_good: ready, ..Candidate::new(c, ready, up) }
        })
        .collect();
    let choice = choose(&case.route(), &candidates, &policy.chain);
    why.extend(choice.why);
    let free: Vec<&FixedAddress> = policy.addresses.iter().filter(|a| a.cluster.is_none()).collect();
    let unbound: Vec<&FixedAddress> = free.iter().copied().filter(|a| well(a)).collect();
    let chosen = choice.tiers.first().into_iter().flatten();
    let chosen: Vec<&FixedAddress> =
        chosen.flat_map(|i| of(candidates[*i].name())).filter(|a| choice.resort.is_some() || well(a)).collect();
    if choice.resort.is_none() && !chosen.is_empty() {
        return addresses(case, &chosen, policy);
    }
    if !unbound.is_empty() {
        why.push("addresses that belong to no cluster".to_owned());
        return addresses(case, &unbound, policy);
    }
    all_down(case, policy, if chosen.is_empty() { &free } else { &chosen }, choice.fenced, why)
}

/// Nothing that is well is left; `any` is what there is all the same.
fn all_down(case: &Case<'_>, policy: &Policy, any: &[&FixedAddress], fenced: bool, why: &mut Vec<String>) -> Answer {
    let rule = policy.chain.all_down();
    why.push(format!("nothing is usable (allDown {rule:?})"));
    if rule == AllDown::Fallback && !policy.fallback.is_empty() {
        return given(case, case.name, policy.fallback.clone(), policy);
    }
    if matches!(rule, AllDown::LastGood | AllDown::All) && !any.is_empty() && !fenced {
        return addresses(case, any, policy).resorted(match rule {
            AllDown::All => Some(Resort::All),
            _ => Some(Resort::LastGood),
        });
    }
    let name = policy.name();
    if fenced {
        return Answer::failure(ede::PROHIBITED, format!("TrafficPolicy `{name}` lets no cluster serve this asker"));
    }
    Answer::failure(ede::NO_AUTHORITY, format!("TrafficPolicy `{name}`: none of its addresses is usable"))
}

/// Addresses as they are, else the host that has them.
fn addresses(case: &Case<'_>, chosen: &[&FixedAddress], policy: &Policy) -> Answer {
    let mut ips: Vec<IpAddr> = chosen.iter().filter_map(|a| a.address.parse().ok()).collect();
    ips.sort_unstable();
    ips.dedup();
    if !ips.is_empty() {
        return given(case, case.name, ips, policy);
    }
    let hosts: Vec<String> = chosen.iter().map(|a| a.address.clone()).collect();
    alias(case, &hosts, policy)
}
