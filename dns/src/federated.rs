//! Services of a cluster set: which cluster's addresses an asker gets. Pure.
//!
//! ```text
//!   service ── offered in the asker's set, inside the scope ── choose (policy, health) ── reachable for the asker ── addresses
//!                                                                     └── none reachable: the gateways, which relay
//! ```
//!
//! In: the table, the view of health and reach, who asks, dice. Out: an [`Answer`] and why. Never: crosses a cluster set; a service
//! that the asker's set hasn't got does not exist for it.

use std::net::IpAddr;
use std::sync::Arc;

use atoll_api::kinds::AnswerKind;
use atoll_api::names::ServiceName;
use atoll_api::routing;
use atoll_api::topology::{ClusterFacts, Endpoint, ServiceFacts};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{CNAME, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::answer::{Answer, Reuse, ede};
use crate::client::Asker;
use crate::gateways;
use crate::hierarchy::{Beside, Scope, What};
use crate::names::{absolute, below};
use crate::policy::{Policy, TTL};
use crate::serve::{Pick, gather, pick};
use crate::table::Table;
use crate::view::View;
use crate::wire::slot;
use crate::zones::Zone;

/// MCS DNS specification, "Schema version".
const SCHEMA_VERSION: &str = "1.0.0";

/// KEP-2149: "cluster.clusterset.k8s.io"; a subdomain (RFC 1123) of lower-case letters.
const ID_LABEL: &str = "cluster.clusterset.k8s.io";

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

impl<'a> Case<'a> {
    /// The asker, as routing wants it.
    pub(crate) fn route(&self) -> routing::Asker<'a> {
        self.asker.route(&self.table.topology, self.client, self.dice)
    }

    fn is_ready(&self, cluster: &ClusterFacts) -> bool {
        self.view.health.ready(cluster.name.as_str())
    }
}

/// A service as the asker's set has it.
struct Offer<'a> {
    facts: &'a ServiceFacts,
    clusters: Vec<&'a ClusterFacts>,
}

impl Offer<'_> {
    fn policy<'t>(&self, case: &Case<'t>, service: &ServiceName) -> &'t Policy {
        if self.facts.headless { case.table.headless_policy(service, case.zone) } else { case.table.policy(service) }
    }

    /// Whether hosts stand below `end`: the id of one of its clusters, or the end of one.
    fn has_below(&self, end: &str) -> bool {
        let ends = |id: &str| id.strip_suffix(end).is_some_and(|left| left.is_empty() || left.ends_with('.'));
        self.facts.headless && self.clusters.iter().any(|c| ends(id(c)))
    }
}

/// What a cluster is called in names of its set (KEP-2149: `cluster.clusterset.k8s.io`): what its Cluster is labelled with, else its name.
fn id(cluster: &ClusterFacts) -> &str {
    let labelled = cluster.labels.get(ID_LABEL).map(String::as_str);
    let good = |id: &&str| !id.is_empty() && id.split('.').all(|label| (1..=63).contains(&label.len()));
    labelled.filter(good).unwrap_or(cluster.name.as_str())
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
            let services = case.table.topology.services.get(&case.asker.set).into_iter().flat_map(|set| set.iter());
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
        What::Cluster(service, end) => with(case, beside, service, why, |offer, _| exists(offer.has_below(end))),
        What::Endpoint(service, host, cluster) => with(case, beside, service, why, |offer, _| {
            let own = offer.clusters.iter().find(|c| offer.facts.headless && id(c) == cluster);
            let there = own.and_then(|c| case.table.topology.endpoints_in(c.name.as_str(), service));
            let policy = case.table.policy(service);
            let usable = |e: &&Endpoint| own.is_some_and(|c| case.view.usable(&c.name, e, policy.at.as_ref()));
            let ready = there.into_iter().flat_map(|e| &e.endpoints).filter(usable).filter(|e| host_of(e) == *host);
            let ips: Vec<IpAddr> = ready.map(|e| e.address).collect();
            match ips.is_empty() {
                true => exists(offer.has_below(&format!("{host}.{cluster}"))),
                false => given(case, case.name, ips, policy),
            }
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

fn addresses(case: &Case<'_>, service: &ServiceName, offer: &Offer<'_>, why: &mut Vec<String>) -> Answer {
    let policy = offer.policy(case, service);
    why.push(format!("policy {}", policy.name()));
    let answer = served(case, service, offer, policy, why);
    // MCS DNS 1.0.0, 2.4.1: "If there are no ready endpoints for the headless Service, the answer should be NXDOMAIN".
    let empty = offer.facts.headless && answer.rcode == ResponseCode::NoError && answer.answers.is_empty();
    let none = offer.clusters.iter().all(|c| nobody_is_ready(case, c, service));
    if empty && none { Answer::no_name_in(case.zone) } else { answer }
}

fn nobody_is_ready(case: &Case<'_>, cluster: &ClusterFacts, service: &ServiceName) -> bool {
    let there = case.table.topology.endpoints_in(cluster.name.as_str(), service);
    !there.is_some_and(|there| there.endpoints.iter().any(|e| e.ready))
}

/// The answer of a service that stands behind a host.
pub(crate) fn of_service(case: &Case<'_>, service: &ServiceName, policy: &Policy, why: &mut Vec<String>) -> Answer {
    match offer(case, &Scope::Set, service) {
        Some(offer) => served(case, service, &offer, policy, why),
        None => {
            let text = format!("service {service}: cluster set {} has no such service", case.asker.set);
            Answer::failure(ede::NO_AUTHORITY, text)
        }
    }
}

fn served(case: &Case<'_>, service: &ServiceName, offer: &Offer<'_>, policy: &Policy, why: &mut Vec<String>) -> Answer {
    match pick(case, service, &offer.clusters, policy, why) {
        Pick::Clusters(clusters, kind, resort) => {
            let names: Vec<&str> = clusters.iter().map(|c| c.name.as_str()).collect();
            why.push(format!("{kind:?} of {}", names.join(", ")));
            let ips = gather(case, service, &clusters, policy, (kind, resort));
            given(case, case.name, ips, policy).resorted(resort)
        }
        Pick::Hosts(hosts) => alias(case, &hosts, policy),
        Pick::Addresses(ips) => given(case, case.name, ips, policy),
        Pick::Gateways => gateways::answer(case, policy, None, why),
        Pick::Fallback(ips) => given(case, case.name, ips, policy).because(ede::STALE, "the policy's fallback"),
        // Kubernetes DNS specification 2.4.1: a headless service without ready endpoints has no addresses.
        Pick::Nobody(_) if offer.facts.headless && offer.clusters.iter().all(|c| case.is_ready(c)) => {
            Answer::no_data_in(case.zone)
        }
        Pick::Nobody(answer) => *answer,
    }
}

/// An alias to one of `hosts`, where the addresses are.
pub(crate) fn alias(case: &Case<'_>, hosts: &[String], policy: &Policy) -> Answer {
    let mut names: Vec<Name> = hosts.iter().filter_map(|h| absolute(h)).filter(|n| n != case.name).collect();
    names.sort_unstable();
    names.dedup();
    let slots = u16::try_from(names.len()).unwrap_or(u16::MAX).max(1);
    let Some(target) = names.into_iter().nth(usize::try_from(case.dice % u64::from(slots)).unwrap_or(0)) else {
        return Answer::failure(ede::NO_AUTHORITY, "no host that has the addresses is a name");
    };
    let record = Record::from_rdata(case.name.clone(), case.view.ttl(policy.ttl), RData::CNAME(CNAME(target.clone())));
    let reuse = if slots > 1 { Reuse::Slots(slots) } else { Reuse::Place };
    Answer { next: Some(target), reuse, ..Answer::records(vec![record]) }
}

/// Addresses of the family that was asked for, a different one first each time; where they are more than one answer holds, others by the
/// dice.
pub(crate) fn given(case: &Case<'_>, owner: &Name, ips: Vec<IpAddr>, policy: &Policy) -> Answer {
    let (records, reuse) = family(case, owner, ips, case.kind, policy);
    if records.is_empty() {
        return Answer::no_data_in(case.zone);
    }
    Answer { rotates: true, reuse, ..Answer::records(records) }
}

/// The records of one family, as many as one answer holds, and who else may get these.
fn family(case: &Case<'_>, owner: &Name, ips: Vec<IpAddr>, kind: RecordType, policy: &Policy) -> (Vec<Record>, Reuse) {
    let wanted = |ip: &IpAddr| match kind {
        RecordType::A => ip.is_ipv4(),
        RecordType::AAAA => ip.is_ipv6(),
        _ => false,
    };
    let mut ips: Vec<IpAddr> = ips.into_iter().filter(wanted).collect();
    // Each slot begins elsewhere, so that all of them together give every address. A policy that goes by the dice itself has its own slots.
    let slots = if policy.reuse() == Reuse::Place { ips.len().div_ceil(policy.limit) } else { 1 };
    let slots = u16::try_from(slots).unwrap_or(u16::MAX);
    let (turn, reuse) = match slots {
        0 | 1 => (usize::try_from(case.dice).unwrap_or(0).checked_rem(ips.len()).unwrap_or(0), Reuse::Place),
        _ => (usize::from(slot(case.dice, slots)) * ips.len() / usize::from(slots), Reuse::Slots(slots)),
    };
    ips.rotate_left(turn);
    let ttl = case.view.ttl(policy.ttl);
    let records = ips.into_iter().take(policy.limit).map(|ip| Record::from_rdata(owner.clone(), ttl, RData::from(ip)));
    (records.collect(), reuse)
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
    let policy = offer.policy(case, service);
    why.push(format!("policy {}", policy.name()));
    let ttl = case.view.ttl(policy.ttl);
    let record = |target: Name, number: u16| {
        Record::from_rdata(case.name.clone(), ttl, RData::SRV(SRV::new(0, 100, number, target)))
    };
    let both = |owner: &Name, ips: &[IpAddr]| {
        let kinds = [RecordType::A, RecordType::AAAA].into_iter();
        kinds.flat_map(|kind| family(case, owner, ips.to_vec(), kind, policy).0).collect::<Vec<_>>()
    };
    // Where the addresses are not the endpoints' own, what is dialed is the service's port.
    let in_front = |ips: &[IpAddr]| {
        let mut answer = Answer::records(vec![record(base.clone(), port.port)]);
        answer.additionals = both(base, ips);
        answer
    };
    let (clusters, kind, resort) = match pick(case, service, &offer.clusters, policy, why) {
        Pick::Clusters(clusters, kind, resort) => (clusters, kind, resort),
        Pick::Gateways => return in_front(&gateways::addresses(case, policy)),
        Pick::Addresses(ips) | Pick::Fallback(ips) => return in_front(&ips),
        Pick::Hosts(hosts) => {
            // RFC 2782: the target is no alias.
            let targets = hosts.iter().filter_map(|h| absolute(h));
            return Answer::records(targets.map(|target| record(target, port.port)).collect());
        }
        Pick::Nobody(_) if offer.facts.headless && offer.clusters.iter().all(|c| case.is_ready(c)) => {
            return Answer::no_data_in(case.zone);
        }
        Pick::Nobody(answer) => return *answer,
    };
    let number = |cluster: &ClusterFacts| {
        let there = case.table.topology.endpoints_in(cluster.name.as_str(), service);
        let own = there.and_then(|e| {
            e.ports.iter().find(|p| p.name == port.name && p.protocol.eq_ignore_ascii_case(&port.protocol))
        });
        if kind == AnswerKind::Endpoints { own.map_or(port.port, |p| p.port) } else { port.port }
    };
    let mut answer = Answer::records(Vec::new());
    if offer.facts.headless {
        for cluster in &clusters {
            let there = case.table.topology.endpoints_in(cluster.name.as_str(), service);
            let usable = |e: &&Endpoint| case.view.usable(&cluster.name, e, policy.at.as_ref());
            let ready = there.into_iter().flat_map(|e| &e.endpoints).filter(usable);
            for endpoint in ready.take(policy.limit - answer.answers.len().min(policy.limit)) {
                let host = host_of(endpoint);
                let labels: Vec<&str> = std::iter::once(host.as_str()).chain(id(cluster).split('.')).collect();
                let Some(target) = below(&labels, base) else { continue };
                answer.additionals.extend(both(&target, &[endpoint.address]));
                let record = record(target, number(cluster));
                // A host with addresses of both families is one target.
                if !answer.answers.contains(&record) {
                    answer.answers.push(record);
                }
            }
        }
        return answer;
    }
    // One target has one port: clusters whose pods listen elsewhere are left to the next answer.
    let Some(first) = clusters.first().map(|c| number(c)) else { return Answer::no_data_in(case.zone) };
    let alike: Vec<&ClusterFacts> = clusters.into_iter().filter(|c| number(c) == first).collect();
    answer.answers.push(record(base.clone(), first));
    answer.additionals = both(base, &gather(case, service, &alike, policy, (kind, resort)));
    answer.resorted(resort)
}

#[cfg(test)]
mod tests;
