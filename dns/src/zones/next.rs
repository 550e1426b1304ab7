//! Zones out of those before: only the names that a change concerns are made anew, the rest is shared. Pure.
//!
//! ```text
//!   Zone objects that differ ── names whose own records differ ─┐
//!   DNSEndpoints that differ ── names that they write otherwise ─┴─► each name anew: object, DNSEndpoints, views
//! ```
//!
//! In: the zones before and what they were made of, what they are to be made of. Out: what [`super::build`] makes of that, or nothing
//! where a change reaches further than the names it writes: zones that come and go, delegations, keys, hosts, our own servers. That is
//! seldom, and then all is made anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use atoll_api::kinds::DnsEndpointRecord;
use atoll_api::records::{self, absolute};
use atoll_api::topology::{RecordsFacts, Topology, ZoneFacts};
use hickory_proto::rr::{Name, Record, RecordType};

use super::build::{add, alone, delegation, endpoint, host, name_server, serial, servers, told, written};
use super::{Inputs, Zone, Zones};
use crate::names::ordered;

/// What a DNSEndpoint says at each name.
type Said = BTreeMap<Name, Vec<Record>>;

/// The zones after a change; `None`: they are to be made whole.
pub(super) fn next(zones: &Zones, before: Inputs<'_>, inputs: Inputs<'_>) -> Option<Zones> {
    let (old, new) = (before.topology, inputs.topology);
    let same = before.own == inputs.own
        && before.hosts == inputs.hosts
        && old.settings.serial == new.settings.serial
        && old.keys == new.keys
        && servers(old).eq(servers(new));
    if !same {
        return None;
    }
    let mut step = Step { inputs, next: zones.clone(), open: BTreeMap::new(), said: HashMap::new() };
    let mut names = BTreeSet::new();
    step.objects(old, &mut names)?;
    step.endpoints(old, &mut names);
    for name in names {
        step.name(&name)?;
    }
    step.close(zones)
}

struct Step<'t> {
    inputs: Inputs<'t>,
    next: Zones,
    /// Zones that are being changed.
    open: BTreeMap<Name, Zone>,
    /// What DNSEndpoints that differ say now.
    said: HashMap<&'t str, Said>,
}

impl<'t> Step<'t> {
    /// Takes what Zone objects say now; the names at which that differs are told, in the zone of which all is done but those.
    fn objects(&mut self, old: &Topology, names: &mut BTreeSet<Name>) -> Option<()> {
        let new = self.inputs.topology;
        if !old.zones.keys().eq(new.zones.keys()) {
            return None;
        }
        for ((object, was), is) in old.zones.iter().zip(new.zones.values()) {
            if !Arc::ptr_eq(was, is) && was != is {
                self.object(object, was, is, names)?;
            }
        }
        Some(())
    }

    fn object(&mut self, object: &str, was: &ZoneFacts, is: &Arc<ZoneFacts>, names: &mut BTreeSet<Name>) -> Option<()> {
        let alike = was.spec.apex == is.spec.apex && was.spec.dnssec.enabled == is.spec.dnssec.enabled;
        if !alike || was.spec.catalog || is.spec.catalog {
            return None;
        }
        let apex = absolute(&is.spec.apex)?;
        let zone = Arc::clone(self.next.at(&apex)?);
        zone.object().filter(|(name, _)| name == object)?;
        let (fresh, faults) = written(object, is, self.inputs.topology);
        let fresh = fresh?;
        self.next.blame(&format!("Zone {object}"), None, faults);
        let mut differ = BTreeSet::new();
        let mut next = Zone { soa: fresh.soa.clone(), object: fresh.object.clone(), ..Zone::clone(&zone) };
        zone.written.differing(&fresh.written, |was, is| differ.extend(was.or(is).map(|node| node.name())));
        differ.iter().for_each(|name| next.written.take(name, &fresh.written));
        // A view that is new lies over what is there.
        next.views.retain(|view, _| fresh.views.contains_key(view));
        for (view, own) in &fresh.views {
            let known = zone.views.get(view);
            let mut seen = Zone::clone(known.unwrap_or(&zone));
            let before = known.map(|known| known.written.clone()).unwrap_or_default();
            before.differing(&own.written, |was, is| differ.extend(was.or(is).map(|node| node.name())));
            (seen.written, seen.views) = (own.written.clone(), HashMap::new());
            next.views.insert(view.clone(), Arc::new(seen));
        }
        // What lies below a cut stands beside what the zone there says.
        let inside = |name: &Name| self.next.around(name).next().is_some_and(|home| *home.apex() == apex);
        if !differ.iter().all(inside) {
            return None;
        }
        names.extend(differ);
        self.open.insert(apex, next);
        Some(())
    }

    /// Takes what DNSEndpoints say now; the names at which that differs are told.
    fn endpoints(&mut self, old: &Topology, names: &mut BTreeSet<Name>) {
        let new: &'t Topology = self.inputs.topology;
        let mut changed: Vec<(String, Option<Arc<RecordsFacts>>)> = Vec::new();
        old.records.differing(&new.records, |object, was, _| changed.push((object.clone(), was.cloned())));
        for (object, was) in changed {
            let said = |facts: Option<&Arc<RecordsFacts>>, faults: &mut Vec<String>| {
                let endpoints = facts.map(|facts| facts.endpoints.as_slice()).unwrap_or_default();
                by_name(records::of_endpoints(endpoints, |why| faults.push(told(&object, &why))))
            };
            let (before, mut faults) = (said(was.as_ref(), &mut Vec::new()), Vec::new());
            let found = new.records.get_key_value(&object);
            let now = said(found.map(|(_, facts)| facts), &mut faults);
            self.next.blame(&endpoint(&object), None, faults);
            for name in before.keys().chain(now.keys()).filter(|name| !alike(before.get(name), now.get(name))) {
                self.next.writes(&object, name, now.contains_key(name));
                self.next.blame(&endpoint(&object), Some(name), Vec::new());
                names.insert(name.clone());
            }
            if let Some((object, _)) = found {
                self.said.insert(object, now);
            }
        }
    }

    /// Makes anew what stands at a name.
    fn name(&mut self, name: &Name) -> Option<()> {
        let writers = self.next.writers(name);
        let Some(home) = self.next.around(name).next().map(|zone| zone.apex().clone()) else {
            // A zone of its own, unless it comes to stand above another.
            if writers.is_empty() {
                return Some(());
            }
            if self.next.has_below(name) {
                return None;
            }
            self.next.put(alone(name, self.inputs.topology));
            return self.name(name);
        };
        let zone = match self.open.remove(&home) {
            Some(zone) => zone,
            None => Zone::clone(self.next.at(&home)?),
        };
        let is_alone = zone.object().is_none() && !self.inputs.own.contains(&home);
        if is_alone && home == *name && writers.is_empty() {
            // It goes with its name, unless others lie in it.
            let needed = zone.nodes.len() > 1 || self.inputs.hosts.iter().any(|h| home.zone_of(&host(h)));
            if needed {
                return None;
            }
            self.next.all.remove(&ordered(&home)[..]);
            return Some(());
        }
        let mut zone = zone;
        zone.nodes.take(name, &zone.written.clone());
        for object in writers {
            let mut faults = Vec::new();
            for record in self.said_at(&object, name) {
                faults.extend(add(&mut zone, record).err().map(|why| told(&object, &why)));
            }
            self.next.blame(&endpoint(&object), Some(name), faults);
        }
        for view in zone.views.values_mut() {
            let view = Arc::make_mut(view);
            let own = view.written.clone();
            view.nodes.overlay(name, &zone.nodes, &own);
        }
        self.open.insert(home, zone);
        Some(())
    }

    /// What a DNSEndpoint says at a name.
    fn said_at(&self, object: &str, name: &Name) -> Vec<Record> {
        if let Some(said) = self.said.get(object) {
            return said.get(name).cloned().unwrap_or_default();
        }
        let Some(facts) = self.inputs.topology.records.get(object) else { return Vec::new() };
        let here = |endpoint: &&DnsEndpointRecord| absolute(&endpoint.dns_name).as_ref() == Some(name);
        let endpoints: Vec<DnsEndpointRecord> = facts.endpoints.iter().filter(here).cloned().collect();
        records::of_endpoints(&endpoints, |_| ())
    }

    /// Puts the changed zones in place, unless others depend on what changed in them.
    fn close(mut self, before: &Zones) -> Option<Zones> {
        for (apex, mut zone) in std::mem::take(&mut self.open) {
            if !before.at(&apex).is_none_or(|was| self.is_own_affair(was, &zone)) {
                return None;
            }
            let (soa, object) = (zone.soa.clone(), zone.object.clone());
            for view in zone.views.values_mut() {
                let view = Arc::make_mut(view);
                (view.soa, view.object) = (soa.clone(), object.clone());
            }
            self.next.put(zone);
        }
        let serial = serial(self.inputs.topology);
        for apex in self.inputs.own {
            let nobodys = self.next.at(apex).filter(|zone| zone.object().is_none() && zone.serial() != serial);
            if let Some(zone) = nobodys.map(|zone| zone.renumbered(serial)) {
                self.next.put(zone);
            }
        }
        Some(self.next)
    }

    /// Whether no other zone, and no other name of its own, follows from what changed in a zone.
    fn is_own_affair(&self, was: &Zone, is: &Zone) -> bool {
        let apex = is.apex();
        let below = self.next.around(apex).nth(1).is_some();
        if below && !alike(Some(&delegation(was)), Some(&delegation(is))) {
            return false;
        }
        let server = name_server(apex).filter(|_| self.inputs.own.first() == Some(apex));
        server.is_none_or(|server| {
            let names = |zone: &Zone| zone.set(apex, RecordType::NS);
            alike(names(was).as_ref(), names(is).as_ref()) && alike(Some(&was.at(&server)), Some(&is.at(&server)))
        })
    }
}

/// Whether both are there or not, with the same times to live, and spelled alike.
fn alike(a: Option<&Vec<Record>>, b: Option<&Vec<Record>>) -> bool {
    let show = |r: &Record| (r.name.clone(), r.ttl, r.record_type(), r.data.to_string());
    a.map(|all| all.iter().map(show).collect::<Vec<_>>()) == b.map(|all| all.iter().map(show).collect::<Vec<_>>())
}

fn by_name(records: Vec<Record>) -> Said {
    let mut said = Said::new();
    for record in records {
        said.entry(record.name.clone()).or_default().push(record);
    }
    said
}

#[cfg(test)]
mod tests;
