//! Zones out of a topology: those that Zone objects describe, the federation's own, and those of names that lie in none. Pure.
//!
//! In: a topology and which serial zones without an object have. Out: zones by apex, and what was left out. A zone below another is
//! delegated in it: its name servers stand there, and its DS where it is signed, so that neither transfers nor validators lose the way.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use atoll_api::kinds::Soa;
use atoll_api::records;
use atoll_api::topology::{Topology, ZoneFacts};
use atoll_api::zonefile::TTL_DEFAULT;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::{Zone, catalog};
use crate::names::{absolute, ancestors, below};
use crate::sign::Keys;
use crate::table::NEGATIVE_TTL;

/// The serial of zones that no Zone describes.
pub(crate) fn serial(topology: &Topology) -> u32 {
    let generation = u32::try_from(topology.version.generation & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    topology.settings.serial.wrapping_add(generation)
}

/// Zones in the making.
pub(crate) struct Building<'t> {
    topology: &'t Topology,
    serial: u32,
    zones: HashMap<Name, Zone>,
    /// What the views of a zone say themselves, by apex and view.
    said: HashMap<Name, HashMap<String, HashSet<(Name, RecordType)>>>,
    /// What was left out, and why.
    pub(crate) bad: Vec<String>,
}

impl<'t> Building<'t> {
    /// The zones of `topology`; `own` are the federation's, `hosts` names that must lie in one.
    pub(crate) fn new<'n>(topology: &'t Topology, own: &[Name], hosts: impl Iterator<Item = &'n Name>) -> Self {
        let (zones, said) = (HashMap::new(), HashMap::new());
        let mut building = Self { topology, serial: serial(topology), zones, said, bad: Vec::new() };
        for apex in own {
            building.make(apex.clone());
        }
        building.written();
        building.endpoints();
        for host in hosts {
            let host = if host.is_wildcard() { host.base_name() } else { host.clone() };
            building.home(&host);
        }
        if let Some(zone) = own.first().and_then(|apex| building.zones.get_mut(apex)) {
            name_servers(zone, topology);
        }
        building.delegate();
        building
    }

    /// The zones.
    pub(crate) fn finish(self) -> HashMap<Name, Arc<Zone>> {
        self.zones.into_iter().map(|(name, zone)| (name, Arc::new(zone))).collect()
    }

    /// A zone of nobody's object.
    fn make(&mut self, apex: Name) {
        let brief = Soa { negative_ttl: NEGATIVE_TTL, ..Soa::default() };
        self.zones.insert(apex.clone(), Zone::new(apex, &brief, &[], self.serial));
    }

    /// The zone that a name lies in. One that lies in no zone of ours is one of its own, so that what we don't know around it stays
    /// unknown.
    fn home(&mut self, name: &Name) -> Name {
        if let Some(home) = ancestors(name).find(|n| self.zones.contains_key(n)) {
            return home;
        }
        self.make(name.clone());
        name.clone()
    }

    /// What Zone objects say.
    fn written(&mut self) {
        for (object, facts) in &self.topology.zones {
            let Some(apex) = absolute(&facts.spec.apex) else {
                self.bad.push(format!("zone `{object}`: apex `{}` is no name", facts.spec.apex));
                continue;
            };
            let own = records::own(&facts.spec, facts.file());
            self.bad.extend(own.faults.into_iter().map(|fault| format!("zone `{object}`: {fault}")));
            let keys = self.keys(object, facts);
            let mut zone = if facts.spec.catalog {
                catalog::zone(&apex, facts, &self.topology.zones)
            } else {
                Zone::with(
                    apex.clone(),
                    records::head(&apex, &facts.spec.soa, &facts.spec.ns, facts.serial, &own.records),
                )
            };
            for record in keys.iter().flat_map(|keys| keys.records(&apex)).chain(own.records) {
                zone.insert(record);
            }
            zone.object = Some((object.clone(), Arc::clone(facts)));
            zone.keys = keys;
            let sets = |records: &[Record]| records.iter().map(|r| (r.name.to_lowercase(), r.record_type())).collect();
            self.said.insert(apex.clone(), own.views.iter().map(|(view, r)| (view.clone(), sets(r))).collect());
            zone.views = own.views.into_iter().map(|(view, records)| (view, Arc::new(seen(&zone, records)))).collect();
            self.zones.insert(apex, zone);
        }
    }

    fn keys(&mut self, object: &str, facts: &ZoneFacts) -> Option<Arc<Keys>> {
        let held = self.topology.keys.get(object).filter(|_| facts.spec.dnssec.enabled)?;
        match Keys::new(&held.signing) {
            Ok(keys) => Some(Arc::new(keys)),
            Err(why) => {
                self.bad.push(format!("zone `{object}`: {why}"));
                None
            }
        }
    }

    /// What DNSEndpoints say.
    fn endpoints(&mut self) {
        for (object, facts) in &self.topology.records {
            let mut bad = Vec::new();
            for record in records::of_endpoints(&facts.endpoints, |fault| bad.push(fault)) {
                let home = self.home(&record.name);
                let Some(zone) = self.zones.get_mut(&home) else { continue };
                let what = format!("record `{} {}`", record.name, record.record_type());
                let set = (record.name.to_lowercase(), record.record_type());
                let said = self.said.get(&home);
                for (name, view) in &mut zone.views {
                    // What a view says itself stands in place of this.
                    if !said.and_then(|views| views.get(name)).is_some_and(|sets| sets.contains(&set)) {
                        Arc::make_mut(view).insert(record.clone());
                    }
                }
                if !zone.insert(record) {
                    bad.push(format!("{what}: an alias and other data can't stand together"));
                }
            }
            self.bad.extend(bad.into_iter().map(|fault| format!("DNSEndpoint `{object}`: {fault}")));
        }
    }

    /// Delegates zones in the zones above them.
    fn delegate(&mut self) {
        let parent = |apex: &Name| ancestors(apex).skip(1).find(|n| self.zones.contains_key(n));
        let children: Vec<(Name, Name)> =
            self.zones.keys().filter_map(|apex| Some((apex.clone(), parent(apex)?))).collect();
        for (child, parent) in children {
            let Some(zone) = self.zones.get(&child) else { continue };
            let mut records: Vec<Record> = zone.set(&child, RecordType::NS).unwrap_or_default();
            let names: Vec<Name> = records.iter().filter_map(|r| atoll_api::rdata::targets(&r.data)).cloned().collect();
            records.extend(names.iter().filter(|n| child.zone_of(n)).flat_map(|n| zone.addresses(n)));
            records.extend(zone.keys.iter().flat_map(|keys| keys.ds(&child)));
            let Some(above) = self.zones.get_mut(&parent) else { continue };
            for view in above.views.values_mut() {
                let view = Arc::make_mut(view);
                for record in &records {
                    view.insert(record.clone());
                }
            }
            for record in records {
                above.insert(record);
            }
        }
    }
}

/// A zone as a view has it: the view's records in place of those of the same name and type.
fn seen(zone: &Zone, records: Vec<Record>) -> Zone {
    let mut seen = zone.clone();
    for record in &records {
        let kind = record.record_type();
        let alias = kind == RecordType::CNAME;
        seen.nodes.retain(&record.name, |k| !alias && k != RecordType::CNAME && k != kind);
    }
    for record in records {
        seen.insert(record);
    }
    seen
}

/// Gives the apex's name server the addresses of our DNS servers, where nothing was written for it.
fn name_servers(zone: &mut Zone, topology: &Topology) {
    let Some(server) = below(&["ns"], zone.apex()).filter(|s| !zone.owns(s)) else { return };
    let named = |r: &Record| matches!(&r.data, RData::NS(ns) if ns.0 == server);
    if !zone.set(&zone.apex, RecordType::NS).unwrap_or_default().iter().any(named) {
        return;
    }
    let sites = topology.sites.values().filter(|s| s.kind == "dns").flat_map(|s| &s.addresses);
    for ip in sites.filter_map(|a| crate::policy::address(a)) {
        zone.insert(Record::from_rdata(server.clone(), NEGATIVE_TTL.min(TTL_DEFAULT), RData::from(ip)));
    }
}
