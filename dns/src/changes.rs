//! What differs between two worlds, as far as answers are made of it. Pure.
//!
//! In: the world before and the one after. Out: [`Changes`]. What is seldom (members, zones, hosts or sites that come and go, what is said
//! of a member) voids everything; what happens all the time (endpoints, services, health, records) voids what is made of it. A
//! part of the topology that is new must be looked at here: the compiler asks for it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use atoll_api::kinds::{DnsEndpointRecord, Record};
use atoll_api::names::{ClusterName, ServiceName};
use atoll_api::topology::{
    ByService, ClusterFacts, RecordsFacts, ServiceFacts, Settings, Site, Topology, TrafficFacts, ZoneFacts,
};
use hickory_proto::rr::{Name, RecordType};

use crate::answer::Source;
use crate::client::Asker;
use crate::hierarchy::{Place, place};
use crate::names::{absolute, below};
use crate::table::Table;
use crate::wire::Changes;
use crate::world::World;

/// What differs.
pub(crate) fn changes(before: &World, after: &World) -> Changes {
    let mut changes = Changes::default();
    if !Arc::ptr_eq(&before.table, &after.table) {
        tables(&before.table, &after.table, &mut changes);
    }
    if changes.everything {
        return changes;
    }
    let ready = |world: &World, name: &ClusterName| world.health.ready(name.as_str());
    let names = after.table.topology.clusters.keys();
    let mut turned: HashSet<&ClusterName> = names.filter(|n| ready(before, n) != ready(after, n)).collect();
    if turned.iter().any(|name| has_gateway(&after.table.topology, name)) {
        changes.everything = true;
        return changes;
    }
    turned.extend(before.relayed.symmetric_difference(&after.relayed));
    if !turned.is_empty() {
        let services = after.table.topology.services.values().flat_map(|set| set.iter());
        let theirs =
            services.filter(|(_, facts)| facts.clusters.iter().any(|c| turned.iter().any(|t| t.as_str() == c)));
        changes.sources.extend(theirs.map(|(name, _)| Source::Service(name.clone())));
        let traffic = &after.table.topology.traffic;
        let hosts = traffic.iter().filter(|(_, facts)| !facts.hosts.is_empty());
        changes.sources.extend(hosts.flat_map(|(name, facts)| ruled(name, facts)));
    }
    if before.health.source() != after.health.source() {
        // Whose word counts is said in what is decided by it.
        let services = after.table.topology.services.values().flat_map(|set| set.iter());
        changes.sources.extend(services.map(|(name, _)| Source::Service(name.clone())));
        let traffic = after.table.topology.traffic.iter();
        changes.sources.extend(traffic.flat_map(|(name, facts)| ruled(name, facts)));
    } else if after.health.trusts_own_eyes() {
        let traffic = after.table.topology.traffic.iter();
        let seen = traffic.filter(|(name, _)| before.own.get(*name) != after.own.get(*name));
        changes.sources.extend(seen.flat_map(|(name, facts)| ruled(name, facts)));
    }
    changes.sources.extend(before.down.symmetric_difference(&after.down).cloned().map(Source::Member));
    changes
}

/// Whether a gateway stands in `cluster`: any answer may lead there.
fn has_gateway(topology: &Topology, cluster: &ClusterName) -> bool {
    topology.sites.values().any(|s| s.kind == "gateway" && s.cluster.as_deref() == Some(cluster.as_str()))
}

fn tables(before: &Table, after: &Table, changes: &mut Changes) {
    let (old, new) = (&before.topology, &after.topology);
    let Topology {
        version,
        settings,
        clusters,
        services,
        endpoints,
        zones,
        keys,
        records,
        traffic,
        sites,
        rtt,
        failing,
        // Gateways' concern.
        balancers: _,
        unread: _,
    } = new.as_ref();
    changes.version = old.version != *version;
    changes.clients = before.clients != after.clients;
    let same = same_settings(&old.settings, settings)
        && same_clusters(&old.clusters, clusters)
        && same_sites(&old.sites, sites)
        && same_hosts(&old.traffic, traffic)
        && before.zones.same_names(&after.zones)
        && old.keys == *keys
        && same_files(&old.zones, zones);
    if !same {
        changes.everything = true;
        return;
    }
    differing(&old.traffic, traffic, |name, was, is| {
        for facts in [was, is].into_iter().flatten() {
            changes.sources.extend(ruled(name, facts));
        }
    });
    differing(&old.failing, failing, |name, _, _| {
        changes.sources.extend(traffic.get(name).into_iter().flat_map(|facts| ruled(name, facts)));
    });
    if old.rtt != *rtt {
        let far = traffic.iter().filter(|(_, facts)| facts.strategy.iter().any(|step| step.policy == "latency"));
        changes.sources.extend(far.flat_map(|(name, facts)| ruled(name, facts)));
    }
    let (mut named, mut moved) = (false, Vec::new());
    differing(&old.services, services, |_, was, is| {
        let none = ByService::default();
        was.unwrap_or(&none).differing(is.unwrap_or(&none), |name, was, is| {
            named |= !same_offer(was, is);
            moved.push(name.clone());
        });
    });
    differing(&old.endpoints, endpoints, |_, was, is| {
        let none = ByService::default();
        was.unwrap_or(&none).differing(is.unwrap_or(&none), |name, _, _| moved.push(name.clone()));
    });
    changes.sources.extend(moved.into_iter().map(Source::Service));
    if named {
        // Which namespaces there are is said by the zones.
        let zones = [&after.apex, &after.clusterset].into_iter().flatten();
        changes.sources.extend(zones.cloned().map(Source::Zone));
    }
    let mut names: HashSet<Name> = HashSet::new();
    differing(&old.zones, zones, |_, was, is| {
        changes
            .sources
            .extend([was, is].into_iter().flatten().filter_map(|f| absolute(&f.spec.apex)).map(Source::Zone));
        differing(&zone_names(was), &zone_names(is), |name, _, _| names.extend(Some(name.clone())));
    });
    old.records.differing(records, |_, was, is| {
        differing(&owners(was), &owners(is), |name, _, _| names.extend(absolute(name)));
    });
    for name in &names {
        written(after, name, changes);
    }
}

/// What a policy decides on.
fn ruled<'a>(name: &ServiceName, facts: &'a TrafficFacts) -> impl Iterator<Item = Source> + use<'a> {
    let service = facts.service.as_ref().map(|s| ServiceName::new(name.namespace.clone(), s.clone()));
    let hosts = (!facts.hosts.is_empty()).then(|| Source::Host(name.clone()));
    service.map(Source::Service).into_iter().chain(hosts)
}

/// What a zone's object says of each name.
fn zone_names(facts: Option<&Arc<ZoneFacts>>) -> BTreeMap<Name, Vec<&Record>> {
    let mut names: BTreeMap<Name, Vec<&Record>> = BTreeMap::new();
    let Some((facts, apex)) = facts.and_then(|f| Some((f, absolute(&f.spec.apex)?))) else { return names };
    for record in &facts.spec.records {
        let owner = match record.name.as_str() {
            "@" | "" => Some(apex.clone()),
            relative => absolute(relative).and_then(|n| below(&n.iter().collect::<Vec<_>>(), &apex)),
        };
        if let Some(owner) = owner {
            names.entry(owner).or_default().push(record);
        }
    }
    names
}

/// What a DNSEndpoint says of each name.
fn owners(facts: Option<&Arc<RecordsFacts>>) -> BTreeMap<&str, Vec<&DnsEndpointRecord>> {
    let mut names: BTreeMap<&str, Vec<&DnsEndpointRecord>> = BTreeMap::new();
    for record in facts.into_iter().flat_map(|f| &f.endpoints) {
        names.entry(record.dns_name.as_str()).or_default().push(record);
    }
    names
}

/// A record of ours at `name` came, went or changed: its zone's answers are void, and those of whoever had the name beneath it.
fn written(table: &Table, name: &Name, changes: &mut Changes) {
    let zone = table.zone_of(name).map(|z| z.apex().clone());
    changes.sources.extend(zone.map(Source::Zone));
    // A type that nobody has: the place without the record.
    match place(table, &Asker::default(), name, RecordType::NULL) {
        Place::Here(_) if table.host(name).is_none() && !shadows(table, name) => {}
        _ => changes.everything = true,
    }
}

/// Whether a member or the federation itself would have `name`, were it not written.
fn shadows(table: &Table, name: &Name) -> bool {
    let within = |zone: &Name| zone.zone_of(name) && zone != name;
    let apex = table.apex.as_ref().filter(|apex| within(apex));
    let word = apex.and_then(|apex| name.iter().nth(name.iter().len().checked_sub(apex.iter().len() + 1)?));
    let word = word.and_then(|w| std::str::from_utf8(w).ok()).unwrap_or_default();
    let theirs = matches!(word, "svc" | "region" | "env") || table.members.contains_key(word);
    theirs || table.clusterset.as_ref().is_some_and(within) || name.parse_arpa_name().is_ok()
}

/// Whether tables of both have the same members, policies, keys and clients; zones have a word of their own.
pub(crate) fn same_ground(a: &Topology, b: &Topology) -> bool {
    let same_nodes = || a.clusters.values().zip(b.clusters.values()).all(|(a, b)| a.nodes == b.nodes);
    a.settings == b.settings
        && same_clusters(&a.clusters, &b.clusters)
        && same_nodes()
        && same_sites(&a.sites, &b.sites)
        && same_arcs(&a.keys, &b.keys)
        && same_arcs(&a.traffic, &b.traffic)
}

/// Whether both say the same of own zones.
pub(crate) fn same_words(a: &Topology, b: &Topology) -> bool {
    let mut same = same_arcs(&a.zones, &b.zones);
    a.records.differing(&b.records, |_, _, _| same = false);
    same
}

/// The same keys with the same values, which are mostly the very same.
fn same_arcs<K: Ord, T: PartialEq>(a: &BTreeMap<K, Arc<T>>, b: &BTreeMap<K, Arc<T>>) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && a.1.same(b.1))
}

/// Everything but the number that goes on.
fn same_settings(a: &Settings, b: &Settings) -> bool {
    let Settings { hub_id: _, apex, default_set, revoked: _, serial: _ } = b;
    a.apex == *apex && a.default_set == *default_set
}

/// Everything but what has a word of its own: health, and who stands where.
fn same_clusters(a: &BTreeMap<ClusterName, Arc<ClusterFacts>>, b: &BTreeMap<ClusterName, Arc<ClusterFacts>>) -> bool {
    let same = |(a, b): (&Arc<ClusterFacts>, &Arc<ClusterFacts>)| {
        let ClusterFacts { name, spec, labels, cidrs, nodes: _, dns, ready: _, dns_ready: _, overlaps } = b.as_ref();
        let told = a.name == *name && a.spec == *spec && a.labels == *labels;
        Arc::ptr_eq(a, b) || (told && a.cidrs == *cidrs && a.dns == *dns && a.overlaps == *overlaps)
    };
    a.len() == b.len() && a.keys().eq(b.keys()) && a.values().zip(b.values()).all(same)
}

fn same_sites(a: &BTreeMap<String, Arc<Site>>, b: &BTreeMap<String, Arc<Site>>) -> bool {
    let same = |a: &Arc<Site>, b: &Arc<Site>| Arc::ptr_eq(a, b) || a.same_place(b);
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && same(a.1, b.1))
}

/// Whether the same hosts have a policy, whatever it says.
fn same_hosts(a: &BTreeMap<ServiceName, Arc<TrafficFacts>>, b: &BTreeMap<ServiceName, Arc<TrafficFacts>>) -> bool {
    let hosts = |traffic: &BTreeMap<ServiceName, Arc<TrafficFacts>>| -> Vec<String> {
        traffic.values().flat_map(|facts| facts.hosts.clone()).collect()
    };
    hosts(a) == hosts(b)
}

/// Whether the names that zone files and views say are the same: they are not looked at one by one.
fn same_files(a: &BTreeMap<String, Arc<ZoneFacts>>, b: &BTreeMap<String, Arc<ZoneFacts>>) -> bool {
    let said = |facts: &Arc<ZoneFacts>| (facts.file().map(str::to_owned), facts.spec.views.clone());
    let mut same = true;
    differing(a, b, |_, was, is| same &= was.map(said) == is.map(said));
    same
}

fn same_offer(a: Option<&Arc<ServiceFacts>>, b: Option<&Arc<ServiceFacts>>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a.clusters == b.clusters)
}

/// Something that is mostly the very same.
trait Same {
    fn same(&self, other: &Self) -> bool;
}

impl<T: PartialEq> Same for Arc<T> {
    fn same(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other) || self == other
    }
}

impl<T: PartialEq> Same for Vec<T> {
    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

impl<T: Eq> Same for ByService<T> {
    // Clones are compared by address first.
    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

/// Tells `found` every key whose values differ, in order.
fn differing<K: Ord, V: Same>(
    a: &BTreeMap<K, V>,
    b: &BTreeMap<K, V>,
    mut found: impl FnMut(&K, Option<&V>, Option<&V>),
) {
    let (mut old, mut new) = (a.iter().peekable(), b.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let was = if order.is_le() { old.next() } else { None };
        let is = if order.is_ge() { new.next() } else { None };
        match (was, is) {
            (Some((key, was)), Some((_, is))) if !was.same(is) => found(key, Some(was), Some(is)),
            (Some((key, was)), None) => found(key, Some(was), None),
            (None, Some((key, is))) => found(key, None, Some(is)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
