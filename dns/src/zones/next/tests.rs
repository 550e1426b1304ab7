//! Zones after a change are the ones that would be made whole, over histories by chance; and what a change costs among 100,000 names.

use std::cell::Cell;
use std::collections::HashSet;

use atoll_api::topology::Site;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Names that meet: inside zones, below cuts, at apexes, wildcards, outside, one above the other.
const NAMES: &[&str] = &[
    "atoll.internal",
    "ns.atoll.internal",
    "db.atoll.internal",
    "a.db.atoll.internal",
    "*.db.atoll.internal",
    "x.prod-eu.atoll.internal",
    "example.com",
    "www.example.com",
    "mail.example.com",
    "a.b.example.com",
    "sub.example.com",
    "ns.sub.example.com",
    "www.sub.example.com",
    "ns1.example.com",
    "alone.example.org",
    "below.alone.example.org",
    "other.example.net",
    "x.clusterset.local",
    "no name..",
];
/// What stands there.
const SETS: &[(&str, &[&str])] = &[
    ("A", &["192.0.2.1"]),
    ("A", &["192.0.2.2", "192.0.2.3"]),
    ("A", &["not an address"]),
    ("AAAA", &["2001:db8::1"]),
    ("TXT", &["hello"]),
    ("CNAME", &["www.example.com."]),
    ("NS", &["ns.sub.example.com."]),
    ("MX", &["10 mail.example.com."]),
];

/// One change.
#[derive(Debug, Clone)]
enum Change {
    Endpoint(usize, Vec<(usize, usize, u32)>),
    NoEndpoint(usize),
    Record(usize, Vec<(usize, usize, u32)>),
    View(usize, Vec<(usize, usize, u32)>),
    File(usize, bool),
    Zone(usize, bool),
    Server(bool),
    Generation,
}

fn sets() -> impl Strategy<Value = Vec<(usize, usize, u32)>> {
    prop::collection::vec((0..NAMES.len(), 0..SETS.len(), 1..4u32), 0..5)
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => (0..5_usize, sets()).prop_map(|(at, sets)| Change::Endpoint(at, sets)),
        2 => (0..5_usize).prop_map(Change::NoEndpoint),
        4 => (0..2_usize, sets()).prop_map(|(at, sets)| Change::Record(at, sets)),
        2 => (0..2_usize, sets()).prop_map(|(at, sets)| Change::View(at, sets)),
        1 => (0..2_usize, any::<bool>()).prop_map(|(at, there)| Change::File(at, there)),
        1 => (0..3_usize, any::<bool>()).prop_map(|(at, there)| Change::Zone(at, there)),
        1 => any::<bool>().prop_map(Change::Server),
        1 => Just(Change::Generation),
    ]
}

const ZONES: &[&str] = &["example.com", "sub.example.com", "atoll.internal"];

fn written(sets: &[(usize, usize, u32)], apex: &str) -> Vec<Value> {
    let relative = |name: &str| match name.strip_suffix(apex) {
        Some("") => Some("@".to_owned()),
        Some(left) => left.strip_suffix('.').map(str::to_owned),
        None => None,
    };
    let one = |&(name, set, ttl): &(usize, usize, u32)| {
        let (kind, values) = SETS[set];
        Some(json!({"name": relative(NAMES[name])?, "type": kind, "ttl": ttl * 10, "values": values}))
    };
    sets.iter().filter_map(one).collect()
}

impl Change {
    fn carry_out(&self, t: &mut Topology) {
        t.version.generation += 1;
        match self {
            Self::Endpoint(at, sets) => {
                let one = |&(name, set, ttl): &(usize, usize, u32)| {
                    let (kind, values) = SETS[set];
                    json!({"dnsName": NAMES[name], "recordType": kind, "recordTTL": ttl * 10, "targets": values})
                };
                let endpoints: Vec<Value> = sets.iter().map(one).collect();
                let facts = serde_json::from_value(json!({"endpoints": endpoints})).unwrap();
                t.records.insert(format!("ops/{at}"), Arc::new(facts));
            }
            Self::NoEndpoint(at) => drop(t.records.remove(format!("ops/{at}").as_str())),
            Self::Record(at, sets) => zone(t, *at, |spec| spec["records"] = json!(written(sets, ZONES[*at]))),
            Self::View(at, sets) => zone(t, *at, |spec| {
                let records = written(sets, ZONES[*at]);
                spec["views"] = if records.is_empty() { json!({}) } else { json!({"inside": records}) };
            }),
            Self::File(at, there) => zone(t, *at, |spec| {
                spec["zoneFile"] =
                    if *there { json!({"text": "deep.file 30 A 192.0.2.9\nwww 30 TXT file\n"}) } else { json!(null) };
            }),
            Self::Zone(at, false) => drop(t.zones.remove(ZONES[*at])),
            Self::Zone(at, true) => zone(t, *at, |_| ()),
            Self::Server(there) => {
                let addresses = if *there { vec!["192.0.2.53".to_owned()] } else { Vec::new() };
                let site = Site { instance: "d".into(), kind: "dns".into(), addresses, ..Site::default() };
                t.sites.insert("d".into(), Arc::new(site));
            }
            Self::Generation => {}
        }
    }
}

/// Changes what a Zone says; makes it where it is not there.
fn zone(t: &mut Topology, at: usize, how: impl FnOnce(&mut Value)) {
    let name = ZONES[at];
    let new = || json!({"serial": 0, "spec": {"apex": name, "ns": [format!("ns1.{name}")]}});
    let mut all = t.zones.get(name).map_or_else(new, |facts| serde_json::to_value(&**facts).unwrap());
    how(&mut all["spec"]);
    all["serial"] = json!(t.version.generation);
    t.zones.insert(name.to_owned(), Arc::new(serde_json::from_value(all).unwrap()));
}

fn start() -> Topology {
    let mut t = Topology::default();
    t.settings.apex = "atoll.internal".into();
    zone(&mut t, 0, |spec| spec["records"] = json!([{"name": "www", "type": "A", "values": ["192.0.2.80"]}]));
    t
}

fn own() -> Vec<Name> {
    ["atoll.internal", "clusterset.local"].map(|name| absolute(name).unwrap()).to_vec()
}

fn inputs<'t>(topology: &'t Topology, own: &'t [Name], hosts: &'t HashSet<Name>) -> Inputs<'t> {
    Inputs { topology, own, hosts }
}

#[test]
fn zones_after_a_change_are_those_that_would_be_made_whole() {
    let (steps, alone) = (Cell::new(0), Cell::new(0));
    let hosts: HashSet<Name> = ["shop.example.com", "*.apps.example.net"].map(|n| absolute(n).unwrap()).into();
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(history in prop::collection::vec(change(), 1..25))| {
        let own = own();
        let mut topology = start();
        let mut zones = Zones::new(inputs(&topology, &own, &hosts));
        for (at, change) in history.iter().enumerate() {
            let mut after = topology.clone();
            change.carry_out(&mut after);
            let made = next(&zones, inputs(&topology, &own, &hosts), inputs(&after, &own, &hosts));
            steps.set(steps.get() + 1);
            alone.set(alone.get() + i32::from(made.is_some()));
            let whole = Zones::new(inputs(&after, &own, &hosts));
            zones = made.unwrap_or_else(|| whole.clone());
            zones.assert_same(&whole, &format!("step {at} of {history:?}"));
            topology = after;
        }
    });
    // Zones, servers and delegations come and go more often here than anywhere.
    assert!(alone.get() * 2 > steps.get(), "{} of {} were made anew", steps.get() - alone.get(), steps.get());
}

#[test]
fn a_change_among_a_hundred_thousand_names_touches_what_it_changes() {
    let (own, hosts) = (own(), HashSet::new());
    let record =
        |name: String, last: u8| json!({"dnsName": name, "recordType": "A", "targets": [format!("192.0.2.{last}")]});
    let mut t = start();
    for object in 0..1_000 {
        let names = (0..100).map(|n| record(format!("n{n}.o{object}.atoll.internal"), 1));
        let facts = json!({"endpoints": names.collect::<Vec<_>>()});
        t.records.insert(format!("ops/{object}"), Arc::new(serde_json::from_value(facts).unwrap()));
    }
    let began = tokio::time::Instant::now();
    let zones = Zones::new(inputs(&t, &own, &hosts));
    let whole = began.elapsed();
    let apex = Arc::clone(zones.at(&own[0]).unwrap());
    assert_eq!(apex.nodes.len(), 100_001);
    let mut after = t.clone();
    after.version.generation += 1;
    let facts = json!({"endpoints": [record("n7.o500.atoll.internal".to_owned(), 2), record("new.o500.atoll.internal".to_owned(), 2)]});
    after.records.insert("ops/500".to_owned(), Arc::new(serde_json::from_value(facts).unwrap()));
    let began = tokio::time::Instant::now();
    let made =
        next(&zones, inputs(&t, &own, &hosts), inputs(&after, &own, &hosts)).expect("it concerns its own names alone");
    let took = began.elapsed();
    let mut differ = 0;
    apex.nodes.differing(&made.at(&own[0]).unwrap().nodes, |_, _| differ += 1);
    // 99 that go, one that changes, one that comes, and the SOA.
    assert_eq!((differ, made.at(&own[0]).unwrap().nodes.len()), (102, 99_903));
    // On a machine that does nothing else: half a second and more for all of it in this profile, less than a hundredth for the change.
    assert!(took * 4 < whole, "{took:?} of {whole:?}");
}
