//! Own zones and what they answer: records of Zone and DNSEndpoint objects, wildcards, delegations, negative answers. Pure.
//!
//! In: a name and a type. Out: [`Found`]. Sources: RFC 1034 §4.3.2 (the algorithm), RFC 4592 (wildcards), RFC 2308 (negative answers),
//! RFC 6672 (DNAME). [`build`] makes zones out of a topology, [`next`] those after a change out of those before it, [`all`] holds them,
//! [`catalog`] makes the records of a catalog, [`nodes`] holds what stands at names.

mod all;
mod build;
mod catalog;
mod next;
mod nodes;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub(crate) use all::{Inputs, Zones};
use atoll_api::kinds::Soa;
use atoll_api::rdata::dname;
use atoll_api::records;
use atoll_api::topology::ZoneFacts;
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::names::{ancestors, below, left_of, within};
use crate::sign::Keys;
use nodes::{Node, Nodes};

/// What a zone has for a question.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Found {
    /// The records, and what they were found by when that was a wildcard.
    Records(Vec<Record>),
    /// The name is an alias of another: its CNAME, or the DNAME above it and the CNAME that follows from it.
    Alias(Vec<Record>, Name),
    /// The name would be an alias of one that is too long (RFC 6672 §2.2), by this DNAME.
    TooLong(Vec<Record>),
    /// The name is somebody else's: the name servers, and addresses of theirs that we know.
    Delegated(Vec<Record>, Vec<Record>),
    /// The name exists, but not with this type.
    NoData,
    /// No such name.
    NoName,
}

/// A zone of ours. A clone shares what does not differ.
#[derive(Debug, Clone)]
pub(crate) struct Zone {
    apex: Name,
    soa: Record,
    nodes: Nodes,
    /// What is written for it itself, without DNSEndpoints and delegations; of a view what is written for that.
    written: Nodes,
    /// The Zone object that it is of, and what that says.
    object: Option<(String, Arc<ZoneFacts>)>,
    /// With what it is signed.
    keys: Option<Arc<Keys>>,
    /// As the askers of a view see it.
    views: HashMap<String, Arc<Self>>,
}

impl Zone {
    /// A zone with nothing but its SOA and NS.
    pub(crate) fn new(apex: Name, soa: &Soa, ns: &[String], serial: u32) -> Self {
        Self::with(apex.clone(), records::head(&apex, soa, ns, serial, &[]))
    }

    /// A zone of a head (SOA first, then NS).
    fn with(apex: Name, head: Vec<Record>) -> Self {
        let soa = head.first().cloned().unwrap_or_else(|| Record::update0(apex.clone(), 0, RecordType::SOA));
        let (nodes, written) = (Nodes::default(), Nodes::default());
        let mut zone = Self { apex, soa, nodes, written, object: None, keys: None, views: HashMap::new() };
        for record in head {
            zone.insert(record);
        }
        zone.written = zone.nodes.clone();
        zone
    }

    /// The Zone object's name and what it says; a zone that nobody wrote has none.
    pub(crate) fn object(&self) -> Option<&(String, Arc<ZoneFacts>)> {
        self.object.as_ref()
    }

    /// With what it is signed.
    pub(crate) fn keys(&self) -> Option<&Arc<Keys>> {
        self.keys.as_ref()
    }

    /// Whether it lists zones, for secondaries and nobody else (RFC 9432 §7).
    pub(crate) fn is_catalog(&self) -> bool {
        self.object.as_ref().is_some_and(|(_, facts)| facts.spec.catalog)
    }

    /// The zone as the askers of a view see it.
    pub(crate) fn seen_by(&self, view: Option<&str>) -> &Self {
        view.and_then(|view| self.views.get(view)).map_or(self, Arc::as_ref)
    }

    /// The same to be shared, and the view where it has one of its own there.
    pub(crate) fn as_seen<'z>(self: &'z Arc<Self>, view: Option<&str>) -> (&'z Arc<Self>, Option<&'z str>) {
        let found = view.and_then(|view| self.views.get_key_value(view));
        found.map_or((self, None), |(view, zone)| (zone, Some(view.as_str())))
    }

    /// The views that see it in their own way.
    pub(crate) fn views(&self) -> impl Iterator<Item = &str> {
        self.views.keys().map(String::as_str)
    }

    /// The same with another serial, of a zone that nobody wrote.
    pub(crate) fn renumbered(&self, serial: u32) -> Self {
        let mut zone = self.clone();
        if let RData::SOA(soa) = &mut zone.soa.data {
            soa.serial = serial;
        }
        for nodes in [&mut zone.nodes, &mut zone.written] {
            nodes.put(&zone.apex, RecordType::SOA, std::slice::from_ref(&zone.soa));
        }
        zone
    }

    /// Tells `found` the records of each name that has others in `newer`, the SOA left out: those here and those there.
    pub(crate) fn differing(&self, newer: &Self, mut found: impl FnMut(Vec<Record>, Vec<Record>)) {
        let plain = |node: Option<Node<'_>>| {
            node.into_iter().flat_map(|node| node.records()).filter(|r| r.record_type() != RecordType::SOA).collect()
        };
        self.nodes.differing(&newer.nodes, |was, is| found(plain(was), plain(is)));
    }

    /// The serial of its SOA.
    pub(crate) fn serial(&self) -> u32 {
        match &self.soa.data {
            RData::SOA(soa) => soa.serial,
            _ => 0,
        }
    }

    /// Every record, the SOA left out.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> {
        self.nodes.iter().flat_map(|node| node.records()).filter(|r| r.record_type() != RecordType::SOA)
    }

    /// Every name with its types, in the canonical order of RFC 4034 §6.1; empty non-terminals have none.
    pub(crate) fn names(&self) -> BTreeMap<Name, Vec<RecordType>> {
        let mut names = BTreeMap::new();
        for node in self.nodes.iter() {
            let name = node.name();
            for inner in ancestors(&name).skip(1).take_while(|inner| within(inner, &self.apex)) {
                names.entry(inner).or_default();
            }
            names.insert(name, node.kinds());
        }
        names
    }

    /// Whether `name`, which lies in the zone, is there: it has records, or names below it.
    pub(crate) fn knows(&self, name: &Name) -> bool {
        self.nodes.contains(name)
    }

    /// The set of a name and a type.
    pub(crate) fn set(&self, name: &Name, kind: RecordType) -> Option<Vec<Record>> {
        self.nodes.get(name)?.set(kind)
    }

    /// Every record of a name, the SOA left out.
    pub(crate) fn at(&self, name: &Name) -> Vec<Record> {
        let records = self.nodes.get(name).into_iter().flat_map(|node| node.records());
        records.filter(|r| r.record_type() != RecordType::SOA).collect()
    }

    /// The types that stand at a name, or at the wildcard that answers for it; `None`: no such name.
    pub(crate) fn types(&self, name: &Name) -> Option<Vec<RecordType>> {
        Some(self.nodes.get(name).or_else(|| self.wildcard(name))?.kinds())
    }

    /// Whether a name is delegated, or lies below one that is.
    pub(crate) fn is_cut(&self, name: &Name) -> bool {
        self.cut(name).is_some()
    }

    /// The zone's name.
    pub(crate) fn apex(&self) -> &Name {
        &self.apex
    }

    /// The SOA for negative answers.
    pub(crate) fn soa(&self) -> Record {
        self.soa.clone()
    }

    /// Adds a record, by which the names above it are there, too; `false` where it can't stand beside what is there (RFC 1034 §3.6.2).
    pub(crate) fn insert(&mut self, mut record: Record) -> bool {
        if !within(&record.name, &self.apex) {
            return false;
        }
        let kind = record.record_type();
        let (alias, node) = (kind == RecordType::CNAME, self.nodes.get(&record.name));
        let mut set = node.and_then(|node| node.set(kind)).unwrap_or_default();
        let beside = node.is_some_and(|node| node.kinds().iter().any(|k| (*k == RecordType::CNAME) != alias));
        if beside || (alias && set.iter().any(|r| r.data != record.data)) {
            return false;
        }
        // RFC 2181 §5.2: one TTL a set; the smallest that was written.
        record.ttl = set.iter().map(|r| r.ttl).fold(record.ttl, u32::min);
        set.iter_mut().for_each(|r| r.ttl = record.ttl);
        let name = record.name.clone();
        if !set.iter().any(|r| r.data == record.data) {
            set.push(record);
        }
        self.nodes.put(&name, kind, &set)
    }

    /// Whether records stand at exactly this name.
    pub(crate) fn owns(&self, name: &Name) -> bool {
        self.nodes.get(name).is_some_and(|node| !node.is_empty())
    }

    /// Whether exactly this name has this type, or is an alias.
    pub(crate) fn has(&self, name: &Name, kind: RecordType) -> bool {
        self.nodes.get(name).is_some_and(|node| node.has(kind) || node.has(RecordType::CNAME))
    }

    /// The addresses that stand at exactly this name, for the additional section.
    pub(crate) fn addresses(&self, name: &Name) -> Vec<Record> {
        let Some(node) = self.nodes.get(name) else { return Vec::new() };
        [RecordType::A, RecordType::AAAA].into_iter().filter_map(|kind| node.set(kind)).flatten().collect()
    }

    /// What there is for `name`, which lies in the zone, and `kind`.
    pub(crate) fn find(&self, name: &Name, kind: RecordType) -> Found {
        if let Some(found) = self.above(name, kind) {
            return found;
        }
        if let Some(node) = self.nodes.get(name) {
            return at(node, kind, None);
        }
        match self.wildcard(name) {
            Some(node) => at(node, kind, Some(name)),
            None => Found::NoName,
        }
    }

    /// What stands at the wildcard that answers for a name that does not exist.
    fn wildcard(&self, name: &Name) -> Option<Node<'_>> {
        // RFC 4592 §3.3.1: the closest encloser is the longest ancestor that exists; its wildcard answers, and no other.
        let mut encloser = name.base_name();
        while !self.nodes.contains(&encloser) {
            if !within(&encloser, &self.apex) || encloser.is_root() {
                return None;
            }
            encloser = encloser.base_name();
        }
        self.nodes.get(&below(&["*"], &encloser)?)
    }

    /// The highest name above or at `name` that is delegated, and its servers.
    fn cut(&self, name: &Name) -> Option<(Name, Vec<Record>)> {
        let left = left_of(name, &self.apex)?;
        (0..left.len()).rev().find_map(|cut| {
            let owner = below(&left[cut..], &self.apex)?;
            let servers = self.nodes.get(&owner)?.set(RecordType::NS)?;
            Some((owner, servers))
        })
    }

    /// The delegation or DNAME that `name` lies below, the highest one.
    fn above(&self, name: &Name, kind: RecordType) -> Option<Found> {
        let (cut, renamed) = (self.cut(name), self.renamed(name));
        match (cut, renamed) {
            // What is delegated is no more ours to rename, and the other way round: the higher one counts.
            (Some((owner, _)), Some((at, found))) if at.iter().len() < owner.iter().len() => Some(found),
            // RFC 4035 §3.1.4.1: DS is answered above the cut.
            (Some((owner, _)), _) if kind == RecordType::DS && owner == *name => None,
            (Some((_, servers)), _) => {
                let names = servers.iter().filter_map(|r| atoll_api::rdata::targets(&r.data));
                let glue = names.flat_map(|n| self.addresses(n)).collect();
                Some(Found::Delegated(servers, glue))
            }
            (None, renamed) => renamed.map(|(_, found)| found),
        }
    }

    /// RFC 6672 §3.2: the DNAME above `name`, and what `name` is an alias of by it.
    fn renamed(&self, name: &Name) -> Option<(Name, Found)> {
        let left = left_of(name, &self.apex)?;
        (1..=left.len()).rev().find_map(|cut| {
            let owner = below(&left[cut..], &self.apex)?;
            let record = self.nodes.get(&owner)?.set(RecordType::DNAME)?.into_iter().next()?;
            let target = dname(&record.data)?;
            let found = match below(&left[..cut], &target) {
                Some(whole) => {
                    let alias = Record::from_rdata(name.clone(), record.ttl, RData::CNAME(CNAME(whole.clone())));
                    Found::Alias(vec![record, alias], whole)
                }
                None => Found::TooLong(vec![record]),
            };
            Some((owner, found))
        })
    }
}

/// What stands at one name; `owner` is put in where a wildcard's stands.
fn at(node: Node<'_>, kind: RecordType, owner: Option<&Name>) -> Found {
    let own = |mut record: Record| {
        if let Some(owner) = owner {
            record.name = owner.clone();
        }
        record
    };
    if let Some(set) = node.set(kind) {
        return Found::Records(set.into_iter().map(own).collect());
    }
    match node.set(RecordType::CNAME).and_then(|set| set.into_iter().next()) {
        Some(record) => match &record.data {
            RData::CNAME(target) => {
                let target = target.0.clone();
                Found::Alias(vec![own(record)], target)
            }
            _ => Found::NoData,
        },
        None => Found::NoData,
    }
}

#[cfg(test)]
mod tests;
