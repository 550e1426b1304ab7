//! What a change of the topology, of health or of reach makes void, as cases.

use std::collections::BTreeSet;
use std::time::Duration;

use atoll_api::health::{HealthView, Rules};
use atoll_api::topology::Endpoints;
use serde_json::{Value, json};

use super::*;
use crate::config::Config;
use crate::geo::Geo;
use crate::testing::topology;

fn world(before: Option<&World>, topology: Topology) -> World {
    let topology = Arc::new(topology);
    let config = Config::default();
    let table = before.map_or_else(
        || Table::new(&topology, &config, &Geo::default()),
        |b| b.table.next(&topology, &config, &Geo::default()),
    );
    let health = HealthView::new(&topology, Some(Duration::ZERO), &BTreeMap::new(), &Rules::default());
    let (relayed, down) = (BTreeSet::new(), BTreeSet::new());
    World {
        generation: 1,
        started: tokio::time::Instant::now(),
        table: Arc::new(table),
        health,
        silence: None,
        relayed,
        down,
        own: Arc::default(),
        good: Arc::default(),
    }
}

fn show(changes: &Changes) -> Vec<String> {
    let mut all: Vec<String> = changes
        .sources
        .iter()
        .map(|source| match source {
            Source::Zone(name) => format!("zone {name}"),
            Source::Member(name) => format!("member {name}"),
            Source::Service(name) => format!("service {name}"),
            Source::Host(name) => format!("host {name}"),
            Source::Upstreams => "upstreams".to_owned(),
        })
        .collect();
    all.extend(changes.everything.then(|| "everything".to_owned()));
    all.extend(changes.clients.then(|| "clients".to_owned()));
    all.extend(changes.version.then(|| "version".to_owned()));
    all.sort();
    all
}

type Change = fn(&mut Topology);

fn cluster(topology: &mut Topology, name: &str, change: impl FnOnce(&mut ClusterFacts)) {
    let mut facts = ClusterFacts::clone(&topology.clusters[name]);
    change(&mut facts);
    topology.clusters.insert(name.parse().unwrap(), Arc::new(facts));
}

fn records(topology: &mut Topology, change: impl FnOnce(&mut Vec<Value>)) {
    let mut all = serde_json::to_value(&*topology.records["ops/a"]).unwrap();
    change(all["endpoints"].as_array_mut().unwrap());
    topology.records.insert("ops/a".into(), Arc::new(serde_json::from_value(all).unwrap()));
}

#[test]
fn a_change_names_what_it_concerns() {
    let first = world(None, topology());
    let cases: &[(&str, Change, &[&str])] = &[
        ("nothing", |_| {}, &[]),
        ("another number", |t| t.version.generation += 1, &["version"]),
        (
            "an endpoint",
            |t| {
                let web = t.endpoints.get_mut("prod-eu").unwrap().values_mut().next().unwrap();
                *web = Arc::new(Endpoints::default());
            },
            &["service shop/web"],
        ),
        (
            "a service that is offered in one cluster less",
            |t| {
                let web = t.services.get_mut("prod").unwrap().values_mut().next().unwrap();
                *web = Arc::new(ServiceFacts { clusters: vec!["prod-eu".into()], ..ServiceFacts::clone(web) });
            },
            &["service shop/web", "zone atoll.internal.", "zone clusterset.local."],
        ),
        (
            "a new service",
            |t| {
                let name = ServiceName::new("shop", "cart");
                t.services.get_mut("prod").unwrap().insert(name, Arc::default());
            },
            &["service shop/cart", "zone atoll.internal.", "zone clusterset.local."],
        ),
        (
            "a member that is ill, without a gateway",
            |t| cluster(t, "dr", |c| c.ready = false),
            &["host shop/hosts", "service shop/web"],
        ),
        ("a member with a gateway that is ill", |t| cluster(t, "prod-eu", |c| c.ready = false), &["everything"]),
        ("a member's DNS that its agent finds ill", |t| cluster(t, "dr", |c| c.dns_ready = false), &[]),
        ("a node", |t| cluster(t, "dr", |c| c.nodes.push([192, 0, 2, 200].into())), &["clients"]),
        ("a label", |t| cluster(t, "dr", |c| drop(c.labels.insert("a".into(), "b".into()))), &["everything"]),
        ("a region", |t| cluster(t, "dr", |c| c.spec.region = Some("x".into())), &["clients", "everything"]),
        ("a member that leaves", |t| drop(t.clusters.remove("lab")), &["clients", "everything"]),
        ("an own record", |t| records(t, |all| all[0]["targets"] = json!(["192.0.2.77"])), &["zone atoll.internal."]),
        (
            "an own record more",
            |t| {
                records(t, |all| {
                    all.push(json!({"dnsName": "new.atoll.internal", "recordType": "A", "targets": ["192.0.2.1"]}))
                })
            },
            &["zone atoll.internal."],
        ),
        (
            "an own record in a member's subtree",
            |t| records(t, |all| drop(all.remove(1))),
            &["everything", "zone atoll.internal."],
        ),
        (
            "an own record where a service is",
            |t| {
                records(t, |all| {
                    all.push(
                        json!({"dnsName": "web.shop.svc.atoll.internal", "recordType": "A", "targets": ["192.0.2.1"]}),
                    );
                });
            },
            &["everything", "zone atoll.internal."],
        ),
        ("a zone that goes", |t| t.zones.clear(), &["everything"]),
        (
            "a zone's record",
            |t| {
                let mut zone = ZoneFacts::clone(&t.zones["example-com"]);
                zone.spec.records.retain(|r| r.name != "mail");
                t.zones.insert("example-com".into(), Arc::new(zone));
            },
            &["zone example.com."],
        ),
        (
            "the time to live of a host's policy",
            |t| {
                let hosts = t.traffic.values_mut().next().unwrap();
                *hosts = Arc::new(TrafficFacts { ttl_seconds: Some(9), ..TrafficFacts::clone(hosts) });
            },
            &["host shop/hosts"],
        ),
        (
            "a policy for a service",
            |t| {
                let policy = json!({"service": "web", "strategy": [{"policy": "nearest"}]});
                let policy = serde_json::from_value(policy).unwrap();
                t.traffic.insert(ServiceName::new("shop", "web"), Arc::new(policy));
            },
            &["service shop/web"],
        ),
        ("a gateway that goes", |t| drop(t.sites.remove("gw-us")), &["everything"]),
    ];
    for (case, change, want) in cases {
        let mut topology = topology();
        change(&mut topology);
        let second = world(Some(&first), topology);
        let want: Vec<String> = want.iter().map(|w| (*w).to_owned()).collect();
        assert_eq!(show(&changes(&first, &second)), want, "{case}");
    }
    let mut second = world(Some(&first), topology());
    second.down.insert("lab".parse().unwrap());
    second.relayed.insert("dr".parse().unwrap());
    assert_eq!(show(&changes(&first, &second)), ["host shop/hosts", "member lab", "service shop/web"]);
}

#[test]
fn a_table_that_is_taken_over_is_the_one_that_would_be_built() {
    let first = world(None, topology());
    let cases: &[(&str, Change)] = &[
        ("another number", |t| t.version.generation += 1),
        ("an endpoint", |t| {
            t.version.generation += 1;
            *t.endpoints.get_mut("prod-eu").unwrap().values_mut().next().unwrap() = Arc::default();
        }),
        ("health", |t| cluster(t, "prod-eu", |c| c.ready = false)),
        ("a node", |t| cluster(t, "dr", |c| c.nodes.push([192, 0, 2, 200].into()))),
        ("a record", |t| records(t, |all| all[0]["targets"] = json!(["192.0.2.77"]))),
        ("a zone that goes", |t| t.zones.clear()),
        ("a policy that goes", |t| t.traffic.clear()),
        ("a gateway that goes", |t| drop(t.sites.remove("gw-us"))),
    ];
    for (case, change) in cases {
        let mut topology = topology();
        change(&mut topology);
        let topology = Arc::new(topology);
        let next = first.table.next(&topology, &Config::default(), &Geo::default());
        let built = Table::new(&topology, &Config::default(), &Geo::default());
        let kinds = [RecordType::A, RecordType::SOA, RecordType::NS, RecordType::MX, RecordType::TXT];
        for name in [
            "atoll.internal",
            "example.com",
            "www.example.com",
            "db.atoll.internal",
            "alone.example.org",
            "ns.atoll.internal",
        ] {
            let name = absolute(name).unwrap();
            for kind in kinds {
                let found = |table: &Table| table.zone_of(&name).map(|zone| format!("{:?}", zone.find(&name, kind)));
                assert_eq!(found(&next), found(&built), "{case}: {name} {kind}");
            }
        }
        let names = |table: &Table| table.zones.iter().map(|zone| zone.apex().clone()).collect::<BTreeSet<_>>();
        assert_eq!((names(&next), next.members.len()), (names(&built), built.members.len()), "{case}");
        for ip in ["10.1.0.7", "192.0.2.200", "203.0.113.1"] {
            let asker = |table: &Table| Asker { id: 0, ..Asker::clone(&table.clients.asker(ip.parse().unwrap())) };
            assert_eq!(asker(&next), asker(&built), "{case}: {ip}");
        }
    }
}
