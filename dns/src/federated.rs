//! Services of a cluster set: which cluster's addresses an asker gets. Pure.
//!
//! ```text
//!   service ── offered in the asker's set, inside the scope ── choose (policy, health) ── reachable for the asker ── addresses
//!                                                                     └── none reachable: the gateways, which relay
//! ```
//!
//! In: the table, the view of health and reach, who asks, dice. Out: an [`Answer`] and why. Never: crosses a cluster set; a service
//! that the asker's set hasn't got does not exist for it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use atoll_api::health::HealthView;
use atoll_api::kinds::AnswerKind;
use atoll_api::names::{ClusterName, ServiceName};
use atoll_api::routing::{Candidate, Choice, choose};
use atoll_api::topology::{ClusterFacts, Endpoint, Endpoints, ServiceFacts};
use hickory_proto::rr::rdata::{SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::answer::{Answer, ede};
use crate::client::Asker;
use crate::gateways;
use crate::hierarchy::{Beside, Scope, What};
use crate::names::below;
use crate::policy::{Policy, TTL};
use crate::table::Table;
use crate::zones::Zone;

/// Addresses in one answer: more do not make it better, only larger.
pub(crate) const ADDRESSES_MAX: usize = 16;
/// MCS DNS specification, "Schema version".
const SCHEMA_VERSION: &str = "1.0.0";

/// How the members are now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) health: &'a HealthView,
    /// Members whose addresses nobody outside reaches.
    pub(crate) relayed: &'a BTreeSet<ClusterName>,
}

/// One question, with everything that its answer depends on.
pub(crate) struct Case<'a> {
    pub(crate) table: &'a Table,
    pub(crate) view: View<'a>,
    pub(crate) asker: &'a Asker,
    pub(crate) zone: &'a Zone,
    pub(crate) name: &'a Name,
    pub(crate) kind: RecordType,
    /// The asker's neighbourhood.
    pub(crate) client: u64,
    pub(crate) dice: u64,
}

/// A service as the asker's set has it.
struct Offer<'a> {
    facts: &'a ServiceFacts,
    clusters: Vec<&'a ClusterFacts>,
}

/// Answers a name of the federation; `why` is told what was decided.
pub(crate) fn answer(case: &Case<'_>, beside: &Beside, why: &mut Vec<String>) -> Answer {
    let no_name = || Answer::no_name_in(case.zone);
    let no_data = || Answer::no_data_in(case.zone);
    let exists = |yes: bool| if yes { no_data() } else { no_name() };
    match &beside.what {
        What::Nothing => no_name(),
        What::Version if case.kind == RecordType::TXT => {
            let data = RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()]));
            Answer::records(vec![Record::from_rdata(case.name.clone(), TTL, data)])
        }
        What::Version => no_data(),
        What::Inner => exists(scope_exists(case, &beside.scope)),
        What::Namespace(namespace) => {
            let services = case.table.topology.services.get(&case.asker.set).into_iter().flatten();
            let mut inside = services.filter(|(name, _)| name.namespace == *namespace);
            exists(inside.any(|(name, _)| offer(case, &beside.scope, name).is_some()))
        }
        What::Service(service) => with(case, beside, service, why, |offer, why| match case.kind {
            RecordType::A | RecordType::AAAA => addresses(case, service, offer, why),
            _ => no_data(),
        }),
        What::Protocol(service, protocol) => with(case, beside, service, why, |offer, _| {
            exists(offer.facts.ports.iter().any(|p| !p.name.is_empty() && p.protocol.eq_ignore_ascii_case(protocol)))
        }),
        What::Port(service, port, protocol) => with(case, beside, service, why, |offer, why| {
            let found = offer.facts.ports.iter().find(|p| p.name == *port && p.protocol.eq_ignore_ascii_case(protocol));
            match (found, case.kind, &beside.base) {
                (None, ..) => no_name(),
                (Some(port), RecordType::SRV, Some(base)) => srv(case, service, offer, port, base, why),
                _ => no_data(),
            }
        }),
        What::Cluster(service, cluster) => with(case, beside, service, why, |offer, _| {
            exists(offer.facts.headless && offer.clusters.iter().any(|c| c.name.as_str() == cluster))
        }),
        What::Endpoint(service, host, cluster) => with(case, beside, service, why, |offer, _| {
            let offers = offer.facts.headless && offer.clusters.iter().any(|c| c.name.as_str() == cluster);
            let there = case.table.topology.endpoints_in(cluster, service).filter(|_| offers);
            let ready = there.into_iter().flat_map(|e| &e.endpoints).filter(|e| e.ready && host_of(e) == *host);
            let ips: Vec<IpAddr> = ready.map(|e| e.address).collect();
            if ips.is_empty() { no_name() } else { given(case, case.name, ips, TTL) }
        }),
    }
}

fn with(
    case: &Case<'_>,
    beside: &Beside,
    service: &ServiceName,
    why: &mut Vec<String>,
    then: impl FnOnce(&Offer<'_>, &mut Vec<String>) -> Answer,
) -> Answer {
    match offer(case, &beside.scope, service) {
        Some(offer) => then(&offer, why),
        None => {
            why.push(format!("{service}: cluster set {} has no such service", case.asker.set));
            Answer::no_name_in(case.zone)
        }
    }
}

fn scope_exists(case: &Case<'_>, scope: &Scope) -> bool {
    let mut clusters = case.table.topology.clusters.values();
    *scope == Scope::Set || clusters.any(|c| in_scope(c, scope))
}

fn in_scope(cluster: &ClusterFacts, scope: &Scope) -> bool {
    match scope {
        Scope::Set => true,
        Scope::Region(region) => cluster.spec.region.as_ref().is_some_and(|r| r.eq_ignore_ascii_case(region)),
        Scope::Environment(environment) => cluster.spec.environment.eq_ignore_ascii_case(environment),
    }
}

fn offer<'a>(case: &Case<'a>, scope: &Scope, service: &ServiceName) -> Option<Offer<'a>> {
    let topology = &case.table.topology;
    let facts: &Arc<ServiceFacts> = topology.services.get(&case.asker.set)?.get(service)?;
    let named = facts.clusters.iter().filter_map(|name| topology.clusters.get(name.as_str()));
    let clusters: Vec<&ClusterFacts> = named.map(Arc::as_ref).filter(|c| in_scope(c, scope)).collect();
    (!clusters.is_empty()).then_some(Offer { facts, clusters })
}

/// The clusters that serve, and what of them is given.
enum Pick<'a> {
    /// These clusters' own addresses.
    Clusters(Vec<&'a ClusterFacts>, AnswerKind),
    /// The set's gateways.
    Gateways,
    /// Nobody, and that is what is wanted.
    Nobody,
    /// Nobody, because all are down.
    Down,
}

fn pick<'a>(
    case: &Case<'a>,
    service: &ServiceName,
    offer: &Offer<'a>,
    policy: &Policy,
    why: &mut Vec<String>,
) -> Pick<'a> {
    let topology = &case.table.topology;
    let ready = |c: &ClusterFacts| topology.endpoints_in(c.name.as_str(), service).map_or(0, |e| e.ready());
    let candidates: Vec<Candidate<'_>> =
        offer.clusters.iter().map(|c| Candidate::new(c, case.view.health.ready(c.name.as_str()), ready(c))).collect();
    let Choice { tiers, why: reasons, .. } =
        choose(&case.asker.route(topology, case.client, case.dice), &candidates, &policy.chain);
    why.extend(reasons);
    if tiers.is_empty() {
        let wanted = candidates.iter().any(|c| c.endpoints > 0) || candidates.iter().all(|c| c.ready);
        return if wanted { Pick::Nobody } else { Pick::Down };
    }
    let kind = match policy.answer {
        Some(AnswerKind::Gateway) => return Pick::Gateways,
        Some(kind @ (AnswerKind::VirtualIP | AnswerKind::LoadBalancer)) => kind,
        Some(AnswerKind::Endpoints | AnswerKind::Addresses) | None => AnswerKind::Endpoints,
    };
    for tier in tiers {
        let clusters = tier.into_iter().map(|i| offer.clusters[i]);
        let usable: Vec<&ClusterFacts> = clusters
            .filter(|c| match topology.endpoints_in(c.name.as_str(), service) {
                Some(e) => reaches(case, c, e, kind, why) && !of_kind(e, kind).is_empty(),
                None => false,
            })
            .collect();
        if !usable.is_empty() {
            return Pick::Clusters(usable, kind);
        }
    }
    why.push("nobody's endpoints are reachable for the asker: the gateways, which relay".to_owned());
    Pick::Gateways
}

/// Whether the asker reaches addresses of `cluster`.
fn reaches(
    case: &Case<'_>,
    cluster: &ClusterFacts,
    there: &Endpoints,
    kind: AnswerKind,
    why: &mut Vec<String>,
) -> bool {
    let own = case.asker.cluster.as_deref();
    if own == Some(cluster.name.as_str()) || kind == AnswerKind::LoadBalancer {
        return true;
    }
    if case.view.relayed.contains(&cluster.name) {
        why.push(format!("{}: passed over, its addresses are reached by relay only", cluster.name));
        return false;
    }
    // An address that the asker's own cluster also has leads the asker to its own cluster.
    let mine =
        |ip: &IpAddr| case.table.owners(*ip).is_some_and(|(_, names)| names.iter().any(|n| Some(n.as_str()) == own));
    let clash = own.is_some() && of_kind(there, kind).iter().any(mine);
    if clash {
        why.push(format!("{}: passed over, its addresses overlap with the asker's own cluster", cluster.name));
    }
    !clash
}

fn of_kind(there: &Endpoints, kind: AnswerKind) -> Vec<IpAddr> {
    match kind {
        AnswerKind::VirtualIP => there.cluster_ips.clone(),
        AnswerKind::LoadBalancer => there.load_balancer.iter().filter_map(|a| a.parse().ok()).collect(),
        _ => there.endpoints.iter().filter(|e| e.ready).map(|e| e.address).collect(),
    }
}

fn addresses(case: &Case<'_>, service: &ServiceName, offer: &Offer<'_>, why: &mut Vec<String>) -> Answer {
    let policy = case.table.policy(service);
    why.push(format!("policy {}", policy.name));
    match pick(case, service, offer, policy, why) {
        Pick::Clusters(clusters, kind) => {
            let names: Vec<&str> = clusters.iter().map(|c| c.name.as_str()).collect();
            why.push(format!("{kind:?} of {}", names.join(", ")));
            given(case, case.name, gather(case, service, &clusters, kind), policy.ttl)
        }
        Pick::Gateways => gateways::answer(case, policy, None, why),
        Pick::Nobody => Answer::no_data_in(case.zone),
        Pick::Down => down(service),
    }
}

fn down(service: &ServiceName) -> Answer {
    Answer::failure(ede::NO_AUTHORITY, format!("service {service}: every cluster that offers it is down"))
}

fn gather(case: &Case<'_>, service: &ServiceName, clusters: &[&ClusterFacts], kind: AnswerKind) -> Vec<IpAddr> {
    let there = clusters.iter().filter_map(|c| case.table.topology.endpoints_in(c.name.as_str(), service));
    let mut ips: Vec<IpAddr> = there.flat_map(|e| of_kind(e, kind)).collect();
    ips.sort_unstable();
    ips.dedup();
    ips
}

/// Addresses of the family that was asked for, a different one first each time.
pub(crate) fn given(case: &Case<'_>, owner: &Name, ips: Vec<IpAddr>, ttl: u32) -> Answer {
    let records = family(owner, ips, case.kind, case.dice, ttl);
    if records.is_empty() {
        return Answer::no_data_in(case.zone);
    }
    Answer { rotates: true, ..Answer::records(records) }
}

fn family(owner: &Name, ips: Vec<IpAddr>, kind: RecordType, dice: u64, ttl: u32) -> Vec<Record> {
    let mut ips: Vec<IpAddr> = ips.into_iter().filter(|ip| ip.is_ipv4() == (kind == RecordType::A)).collect();
    if let Some(turn) = usize::try_from(dice).unwrap_or(0).checked_rem(ips.len()) {
        ips.rotate_left(turn);
    }
    ips.into_iter().take(ADDRESSES_MAX).map(|ip| Record::from_rdata(owner.clone(), ttl, RData::from(ip))).collect()
}

/// The name of a headless service's endpoint: its host name, else its address with dashes.
fn host_of(endpoint: &Endpoint) -> String {
    let dashed = || endpoint.address.to_string().replace(['.', ':'], "-");
    endpoint.hostname.clone().unwrap_or_else(dashed)
}

fn srv(
    case: &Case<'_>,
    service: &ServiceName,
    offer: &Offer<'_>,
    port: &atoll_api::topology::ServicePort,
    base: &Name,
    why: &mut Vec<String>,
) -> Answer {
    let policy = case.table.policy(service);
    why.push(format!("policy {}", policy.name));
    let record = |target: Name, number: u16| {
        Record::from_rdata(case.name.clone(), policy.ttl, RData::SRV(SRV::new(0, 100, number, target)))
    };
    let both = |owner: &Name, ips: &[IpAddr]| {
        let kinds = [RecordType::A, RecordType::AAAA].into_iter();
        kinds.flat_map(|kind| family(owner, ips.to_vec(), kind, case.dice, policy.ttl)).collect::<Vec<_>>()
    };
    let (clusters, kind) = match pick(case, service, offer, policy, why) {
        Pick::Clusters(clusters, kind) => (clusters, kind),
        Pick::Gateways => {
            let mut answer = Answer::records(vec![record(base.clone(), port.port)]);
            answer.additionals = both(base, &gateways::addresses(case, None));
            return answer;
        }
        Pick::Nobody => return Answer::no_data_in(case.zone),
        Pick::Down => return down(service),
    };
    let number =
        |c: &ClusterFacts| match kind {
            AnswerKind::Endpoints => case.table.topology.endpoints_in(c.name.as_str(), service).and_then(|e| {
                e.ports.iter().find(|p| p.name == port.name && p.protocol == port.protocol).map(|p| p.port)
            }),
            _ => None,
        };
    let number = |c: &ClusterFacts| number(c).unwrap_or(port.port);
    let mut answer = Answer::records(Vec::new());
    if offer.facts.headless {
        for cluster in &clusters {
            let there = case.table.topology.endpoints_in(cluster.name.as_str(), service);
            let ready = there.into_iter().flat_map(|e| &e.endpoints).filter(|e| e.ready);
            for endpoint in ready.take(ADDRESSES_MAX - answer.answers.len().min(ADDRESSES_MAX)) {
                let Some(target) = below(&[host_of(endpoint).as_str(), cluster.name.as_str()], base) else { continue };
                answer.additionals.extend(both(&target, &[endpoint.address]));
                answer.answers.push(record(target, number(cluster)));
            }
        }
        return answer;
    }
    // One target has one port: clusters whose pods listen elsewhere are left to the next answer.
    let Some(first) = clusters.first().map(|c| number(c)) else { return Answer::no_data_in(case.zone) };
    let alike: Vec<&ClusterFacts> = clusters.into_iter().filter(|c| number(c) == first).collect();
    answer.answers.push(record(base.clone(), first));
    answer.additionals = both(base, &gather(case, service, &alike, kind));
    answer
}

#[cfg(test)]
mod tests;
