//! Own zones and what they answer: records of Zone and DNSEndpoint objects, wildcards, delegations, negative answers. Pure.
//!
//! In: a name and a type. Out: [`Found`]. Sources: RFC 1034 §4.3.2 (the algorithm), RFC 4592 (wildcards), RFC 2308 (negative answers).

use std::collections::{BTreeMap, HashMap};

use atoll_api::kinds::Soa;
use hickory_proto::rr::rdata::{NS, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::names::{absolute, below, left_of, within};

/// Where a record says nothing.
pub(crate) const TTL_DEFAULT: u32 = 300;

/// What a zone has for a question.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Found {
    /// The records, and what they were found by when that was a wildcard.
    Records(Vec<Record>),
    /// The name is an alias of another.
    Alias(Box<Record>, Name),
    /// The name is somebody else's: the name servers, and addresses of theirs that we know.
    Delegated(Vec<Record>, Vec<Record>),
    /// The name exists, but not with this type.
    NoData,
    /// No such name.
    NoName,
}

/// A zone of ours.
#[derive(Debug, Clone)]
pub(crate) struct Zone {
    apex: Name,
    soa: Record,
    nodes: HashMap<Name, BTreeMap<RecordType, Vec<Record>>>,
}

impl Zone {
    /// A zone with nothing but its SOA and NS.
    pub(crate) fn new(apex: Name, soa: &Soa, ns: &[String], serial: u32) -> Self {
        let mut servers: Vec<Name> = ns.iter().filter_map(|n| absolute(n)).collect();
        if servers.is_empty() {
            servers.extend(below(&["ns"], &apex));
        }
        let name = |text: &Option<String>| text.as_deref().and_then(absolute);
        let mname = name(&soa.mname).or_else(|| servers.first().cloned()).unwrap_or_else(|| apex.clone());
        let rname = name(&soa.rname).or_else(|| below(&["hostmaster"], &apex)).unwrap_or_else(|| apex.clone());
        // RFC 2308 §5: a negative answer is kept no longer than the smaller of the SOA's TTL and its minimum.
        let data = SOA::new(mname, rname, serial, 3600, 600, 604_800, soa.negative_ttl);
        let soa = Record::from_rdata(apex.clone(), soa.negative_ttl, RData::SOA(data));
        let mut zone = Self { apex: apex.clone(), soa: soa.clone(), nodes: HashMap::new() };
        zone.insert(soa);
        for server in servers {
            zone.insert(Record::from_rdata(apex.clone(), TTL_DEFAULT, RData::NS(NS(server))));
        }
        zone
    }

    /// The zone's name.
    pub(crate) fn apex(&self) -> &Name {
        &self.apex
    }

    /// The SOA for negative answers.
    pub(crate) fn soa(&self) -> Record {
        self.soa.clone()
    }

    /// Adds a record, and the inner names above it.
    pub(crate) fn insert(&mut self, record: Record) {
        let Some(left) = left_of(&record.name, &self.apex) else { return };
        for cut in 1..=left.len() {
            if let Some(inner) = below(&left[cut..], &self.apex) {
                self.nodes.entry(inner).or_default();
            }
        }
        let set = self.nodes.entry(record.name.clone()).or_default().entry(record.record_type()).or_default();
        if !set.iter().any(|r| r.data == record.data) {
            set.push(record);
        }
    }

    /// Whether records stand at exactly this name.
    pub(crate) fn owns(&self, name: &Name) -> bool {
        self.nodes.get(name).is_some_and(|sets| !sets.is_empty())
    }

    /// Whether exactly this name has this type, or is an alias.
    pub(crate) fn has(&self, name: &Name, kind: RecordType) -> bool {
        self.nodes.get(name).is_some_and(|sets| sets.contains_key(&kind) || sets.contains_key(&RecordType::CNAME))
    }

    /// The addresses that stand at exactly this name, for the additional section.
    pub(crate) fn addresses(&self, name: &Name) -> Vec<Record> {
        let sets = self.nodes.get(name).into_iter();
        let of = |kind| move |sets: &BTreeMap<RecordType, Vec<Record>>| sets.get(&kind).cloned().unwrap_or_default();
        sets.clone().flat_map(of(RecordType::A)).chain(sets.flat_map(of(RecordType::AAAA))).collect()
    }

    /// What there is for `name`, which lies in the zone, and `kind`.
    pub(crate) fn find(&self, name: &Name, kind: RecordType) -> Found {
        if let Some(cut) = self.cut_above(name, kind) {
            return cut;
        }
        if let Some(sets) = self.nodes.get(name) {
            return at(sets, kind, None);
        }
        // RFC 4592 §3.3.1: the closest encloser is the longest ancestor that exists; its wildcard answers, and no other.
        let mut encloser = name.base_name();
        while !self.nodes.contains_key(&encloser) {
            if !within(&encloser, &self.apex) || encloser.is_root() {
                return Found::NoName;
            }
            encloser = encloser.base_name();
        }
        match below(&["*"], &encloser).and_then(|wild| self.nodes.get(&wild)) {
            Some(sets) => at(sets, kind, Some(name)),
            None => Found::NoName,
        }
    }

    /// The delegation that `name` lies below, the highest one.
    fn cut_above(&self, name: &Name, kind: RecordType) -> Option<Found> {
        let left = left_of(name, &self.apex)?;
        (0..left.len()).rev().find_map(|cut| {
            let owner = below(&left[cut..], &self.apex)?;
            let servers = self.nodes.get(&owner)?.get(&RecordType::NS)?;
            // RFC 4035 §3.1.4.1: DS is answered above the cut.
            if kind == RecordType::DS && owner == *name {
                return None;
            }
            let names = servers.iter().filter_map(|r| atoll_api::rdata::targets(&r.data));
            let glue = names.flat_map(|n| self.addresses(n)).collect();
            Some(Found::Delegated(servers.clone(), glue))
        })
    }
}

/// What stands at one name; `owner` is put in where a wildcard's stands.
fn at(sets: &BTreeMap<RecordType, Vec<Record>>, kind: RecordType, owner: Option<&Name>) -> Found {
    let own = |record: &Record| {
        let mut record = record.clone();
        if let Some(owner) = owner {
            record.name = owner.clone();
        }
        record
    };
    if let Some(set) = sets.get(&kind) {
        return Found::Records(set.iter().map(own).collect());
    }
    match sets.get(&RecordType::CNAME).and_then(|set| set.first()) {
        Some(record) => match &record.data {
            RData::CNAME(target) => Found::Alias(Box::new(own(record)), target.0.clone()),
            _ => Found::NoData,
        },
        None => Found::NoData,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;
    use crate::testing::topology;

    fn n(text: &str) -> Name {
        absolute(text).unwrap()
    }

    #[test]
    fn a_zone_answers_as_rfc_1034_and_4592_say() {
        let table = Table::new(
            &std::sync::Arc::new(topology()),
            &crate::config::Config::default(),
            &crate::geo::Geo::default(),
        );
        let zone = table.zone_of(&n("example.com")).unwrap();
        let show = |found: Found| match found {
            Found::Records(set) => {
                set.iter().map(|r| format!("{} {} {}", r.name, r.ttl, r.data)).collect::<Vec<_>>().join("; ")
            }
            Found::Alias(_, target) => format!("alias {target}"),
            Found::Delegated(ns, glue) => format!("to {} with {}", ns[0].data, glue.len()),
            Found::NoData => "no data".to_owned(),
            Found::NoName => "no name".to_owned(),
        };
        for (name, kind, want) in [
            ("www.example.com", RecordType::A, "alias web.shop.svc.atoll.internal."),
            ("www.example.com", RecordType::CNAME, "www.example.com. 300 web.shop.svc.atoll.internal."),
            ("x.example.com", RecordType::A, "x.example.com. 60 192.0.2.99"),
            ("x.y.example.com", RecordType::A, "x.y.example.com. 60 192.0.2.99"),
            ("x.example.com", RecordType::AAAA, "no data"),
            ("b.example.com", RecordType::A, "no data"),
            ("c.b.example.com", RecordType::A, "no name"),
            ("a.b.example.com", RecordType::TXT, "a.b.example.com. 300 hello world"),
            ("example.com", RecordType::MX, "example.com. 300 10 mail.example.com."),
            ("example.com", RecordType::NS, "example.com. 300 ns1.example.com."),
            ("host.sub.example.com", RecordType::A, "to ns.sub.example.com. with 1"),
        ] {
            assert_eq!(show(zone.find(&n(name), kind)), want, "{name} {kind}");
        }
        assert_eq!(zone.soa().ttl, 30);
        let mut later = topology();
        later.settings.serial = u32::MAX - 2;
        let table =
            Table::new(&std::sync::Arc::new(later), &crate::config::Config::default(), &crate::geo::Geo::default());
        let own = table.zone_of(&n("atoll.internal")).unwrap().soa();
        assert!(
            own.data.to_string().contains(" 4 3600 "),
            "generation 7 after the hub's serial, wrapped: {}",
            own.data
        );
        assert_eq!(table.bad_records().len(), 1, "{:?}", table.bad_records());
    }
}
