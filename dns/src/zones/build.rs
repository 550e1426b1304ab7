//! Zones made whole out of a topology: those that Zone objects describe, the federation's own, and those of names that lie in none. Pure.
//!
//! In: [`Inputs`]. Out: [`Zones`]. A zone below another is delegated in it: its name servers stand there, and its DS where it is signed, so
//! that neither transfers nor validators lose the way. What stands at a name depends on that name alone: on what its zone's object writes,
//! then the DNSEndpoints in the order of their names; a view lays over it what is written for that view. So one name can be made anew.

use std::collections::HashMap;
use std::sync::Arc;

use atoll_api::kinds::Soa;
use atoll_api::records;
use atoll_api::topology::{Topology, ZoneFacts};
use atoll_api::zonefile::TTL_DEFAULT;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::nodes::Nodes;
use super::{Inputs, Zone, Zones, catalog};
use crate::names::{absolute, ancestors, below};
use crate::sign::Keys;
use crate::table::NEGATIVE_TTL;

/// The serial of the federation's own zones where no Zone describes them.
pub(crate) fn serial(topology: &Topology) -> u32 {
    let generation = u32::try_from(topology.version.generation & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    topology.settings.serial.wrapping_add(generation)
}

/// Zones in the making.
pub(super) struct Building<'t> {
    topology: &'t Topology,
    zones: HashMap<Name, Zone>,
    /// Writers and faults.
    done: Zones,
}

impl<'t> Building<'t> {
    /// Everything in it.
    pub(super) fn new(Inputs { topology, own, hosts }: Inputs<'t>) -> Self {
        let mut building = Self { topology, zones: HashMap::new(), done: Zones::default() };
        for apex in own {
            building.zones.insert(apex.clone(), nobodys(apex, serial(topology)));
        }
        building.objects();
        let mut said = Vec::new();
        for (object, facts) in topology.records.iter() {
            let mut faults = Vec::new();
            let records = records::of_endpoints(&facts.endpoints, |fault| faults.push(fault));
            building.done.blame(&endpoint(object), None, faults.into_iter().map(|why| told(object, &why)).collect());
            said.push((object, records));
        }
        let written = said.iter().flat_map(|(_, records)| records.iter().map(|record| record.name.clone()));
        building.homes(written.chain(hosts.iter().map(host)).collect());
        for (object, records) in said {
            building.endpoints(object, records);
        }
        if let Some(zone) = own.first().and_then(|apex| building.zones.get_mut(apex)) {
            name_servers(zone, topology);
        }
        building.delegate();
        building.zones.values_mut().for_each(see);
        building
    }

    /// The zones.
    pub(super) fn finish(self) -> Zones {
        let mut done = self.done;
        self.zones.into_values().for_each(|zone| done.put(zone));
        done
    }

    /// What Zone objects say.
    fn objects(&mut self) {
        for (object, facts) in &self.topology.zones {
            let (zone, faults) = written(object, facts, self.topology);
            self.done.blame(&format!("Zone {object}"), None, faults);
            if let Some(zone) = zone {
                self.zones.insert(zone.apex.clone(), zone);
            }
        }
    }

    /// Zones for those of `names` that lie in none, so that what we don't know around them stays unknown: each is one of its own, unless
    /// another of them is above it.
    fn homes(&mut self, mut names: Vec<Name>) {
        names.sort_by_cached_key(|name| name.iter().len());
        for name in names {
            if self.home(&name).is_none() {
                self.zones.insert(name.clone(), alone(&name, self.topology));
            }
        }
    }

    /// The zone that a name lies in.
    fn home(&self, name: &Name) -> Option<Name> {
        ancestors(name).find(|n| self.zones.contains_key(n))
    }

    /// What a DNSEndpoint says.
    fn endpoints(&mut self, object: &str, records: Vec<Record>) {
        let mut conflicts: HashMap<Name, Vec<String>> = HashMap::new();
        for record in records {
            self.done.writes(object, &record.name, true);
            let Some(zone) = self.home(&record.name).and_then(|home| self.zones.get_mut(&home)) else { continue };
            let name = record.name.clone();
            if let Err(why) = add(zone, record) {
                conflicts.entry(name).or_default().push(told(object, &why));
            }
        }
        for (name, faults) in conflicts {
            self.done.blame(&endpoint(object), Some(&name), faults);
        }
    }

    /// Delegates zones in the zones above them.
    fn delegate(&mut self) {
        let parent = |apex: &Name| ancestors(apex).skip(1).find(|n| self.zones.contains_key(n));
        let children: Vec<(Name, Name)> =
            self.zones.keys().filter_map(|apex| Some((apex.clone(), parent(apex)?))).collect();
        for (child, parent) in children {
            let records = self.zones.get(&child).map(delegation).unwrap_or_default();
            let Some(above) = self.zones.get_mut(&parent) else { continue };
            for record in records {
                above.insert(record);
            }
        }
    }
}

/// A zone of nobody's object.
pub(super) fn nobodys(apex: &Name, serial: u32) -> Zone {
    let brief = Soa { negative_ttl: NEGATIVE_TTL, ..Soa::default() };
    Zone::new(apex.clone(), &brief, &[], serial)
}

/// The zone of a name that lies in none: nobody transfers it, so that its serial need not go on.
pub(super) fn alone(name: &Name, topology: &Topology) -> Zone {
    nobodys(name, topology.settings.serial)
}

/// The name that a host must have a zone for.
pub(super) fn host(name: &Name) -> Name {
    if name.is_wildcard() { name.base_name() } else { name.clone() }
}

/// The word for a DNSEndpoint among those to blame.
pub(super) fn endpoint(object: &str) -> String {
    format!("DNSEndpoint {object}")
}

/// A fault of a DNSEndpoint, for people.
pub(super) fn told(object: &str, why: &str) -> String {
    format!("DNSEndpoint `{object}`: {why}")
}

/// Adds what a DNSEndpoint says.
///
/// # Errors
/// Where it can't stand beside what is there.
pub(super) fn add(zone: &mut Zone, record: Record) -> Result<(), String> {
    let what = format!("record `{} {}`", record.name, record.record_type());
    let added = zone.insert(record);
    added.then_some(()).ok_or_else(|| format!("{what}: an alias and other data can't stand together"))
}

/// What a Zone's object says, and what of it is left out.
pub(super) fn written(object: &str, facts: &Arc<ZoneFacts>, topology: &Topology) -> (Option<Zone>, Vec<String>) {
    let fault = |why: String| format!("zone `{object}`: {why}");
    let Some(apex) = absolute(&facts.spec.apex) else {
        return (None, vec![fault(format!("apex `{}` is no name", facts.spec.apex))]);
    };
    let own = records::own(&facts.spec, facts.file());
    let mut faults: Vec<String> = own.faults.into_iter().map(fault).collect();
    let held = topology.keys.get(object).filter(|_| facts.spec.dnssec.enabled);
    let keys = match held.map(|held| Keys::new(&held.signing)) {
        None => None,
        Some(Ok(keys)) => Some(Arc::new(keys)),
        Some(Err(why)) => {
            faults.push(fault(why.to_string()));
            None
        }
    };
    let mut zone = if facts.spec.catalog {
        catalog::zone(&apex, facts, &topology.zones)
    } else {
        Zone::with(apex.clone(), records::head(&apex, &facts.spec.soa, &facts.spec.ns, facts.serial, &own.records))
    };
    for record in keys.iter().flat_map(|keys| keys.records(&apex)).chain(own.records) {
        zone.insert(record);
    }
    zone.written = zone.nodes.clone();
    zone.object = Some((object.to_owned(), Arc::clone(facts)));
    zone.keys = keys;
    zone.views = own.views.into_iter().map(|(view, records)| (view, Arc::new(overlay(&zone, records)))).collect();
    (Some(zone), faults)
}

/// What is written for a view, with nothing below it yet.
fn overlay(zone: &Zone, records: Vec<Record>) -> Zone {
    let mut own = Zone { nodes: Nodes::default(), views: HashMap::new(), ..zone.clone() };
    for record in records {
        own.insert(record);
    }
    own.written = own.nodes.clone();
    own
}

/// Lays each view over what the zone has.
pub(super) fn see(zone: &mut Zone) {
    let (nodes, mut views) = (zone.nodes.clone(), std::mem::take(&mut zone.views));
    for view in views.values_mut() {
        let written = view.written.clone();
        let mut seen = nodes.clone();
        for node in written.iter() {
            seen.overlay(&node.name(), &nodes, &written);
        }
        *view = Arc::new(Zone { nodes: seen, written, views: HashMap::new(), ..zone.clone() });
    }
    zone.views = views;
}

/// What the zone above says of `zone`.
pub(super) fn delegation(zone: &Zone) -> Vec<Record> {
    let child = &zone.apex;
    let mut records: Vec<Record> = zone.set(child, RecordType::NS).unwrap_or_default();
    let names: Vec<Name> = records.iter().filter_map(|r| atoll_api::rdata::targets(&r.data)).cloned().collect();
    records.extend(names.iter().filter(|n| child.zone_of(n)).flat_map(|n| zone.addresses(n)));
    records.extend(zone.keys.iter().flat_map(|keys| keys.ds(child)));
    records
}

/// The name of the operator's own name server.
pub(super) fn name_server(apex: &Name) -> Option<Name> {
    below(&["ns"], apex)
}

/// The addresses of our DNS servers.
pub(super) fn servers(topology: &Topology) -> impl Iterator<Item = std::net::IpAddr> {
    let sites = topology.sites.values().filter(|s| s.kind == "dns").flat_map(|s| &s.addresses);
    sites.filter_map(|a| crate::policy::address(a))
}

/// Gives the apex's name server the addresses of our DNS servers, where nothing was written for it.
fn name_servers(zone: &mut Zone, topology: &Topology) {
    let Some(server) = name_server(zone.apex()).filter(|s| !zone.owns(s)) else { return };
    let named = |r: &Record| matches!(&r.data, RData::NS(ns) if ns.0 == server);
    if !zone.set(&zone.apex, RecordType::NS).unwrap_or_default().iter().any(named) {
        return;
    }
    for ip in servers(topology) {
        zone.insert(Record::from_rdata(server.clone(), NEGATIVE_TTL.min(TTL_DEFAULT), RData::from(ip)));
    }
}
