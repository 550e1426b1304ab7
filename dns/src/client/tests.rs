//! Who asks, as cases.

use atoll_api::kinds::Location;
use serde_json::json;

use super::*;
use crate::config::{Config, View};
use crate::geo::{Map, Mmdb, write};
use crate::names::absolute;
use crate::testing::topology;

#[test]
fn an_address_may_ask_or_not_and_is_limited_or_not() {
    let ranges = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect::<Vec<IpNet>>();
    let everybody = Config { recursion: ranges(&["192.0.2.0/24"]), ..Config::default() };
    let few = Config { allow: ranges(&["10.0.0.0/8", "2001:db8::/32"]), ..everybody.clone() };
    let topology = topology();
    for (ip, barred, spared) in [
        ("127.0.0.1", true, true),
        ("::1", true, true),
        ("10.1.0.7", false, true),
        ("172.16.0.2", true, true),
        ("192.0.2.9", true, true),
        ("10.77.0.1", false, false),
        ("2001:db8::1", false, false),
        ("203.0.113.1", true, false),
    ] {
        let asker = |config: &Config| Clients::new(&topology, config, &Geo::default(), None).asker(ip.parse().unwrap());
        assert_eq!((asker(&few).barred, asker(&few).spared), (barred, spared), "{ip}");
        assert_eq!((asker(&everybody).barred, asker(&everybody).spared), (false, spared), "{ip} where all may ask");
    }
}

#[test]
fn the_source_address_says_who_asks() {
    let standing = |cluster: &str, region: &str, set: &str| {
        let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        Standing { cluster: some(cluster), region: some(region), zone: None, cluster_set: some(set) }
    };
    let config = Config {
        standing: standing("", "eu-central", ""),
        clients: vec![
            ("10.1.128.0/17".parse().unwrap(), standing("", "us-east", "dev")),
            ("192.0.2.0/24".parse().unwrap(), standing("prod-us", "", "")),
        ],
        recursion: vec!["192.0.2.0/24".parse().unwrap()],
        ..Config::default()
    };
    let topology = topology();
    let clients = Clients::new(&topology, &config, &Geo::default(), None);
    for (ip, cluster, set, region, recursion) in [
        ("10.1.0.7", Some("prod-eu"), "prod", Some("eu-central"), false),
        ("10.1.200.7", None, "dev", Some("us-east"), false),
        ("10.9.1.1", Some("dev"), "dev", Some("eu-central"), false),
        ("172.16.0.2", Some("prod-us"), "prod", Some("us-east"), false),
        ("192.0.2.9", Some("prod-us"), "prod", Some("us-east"), true),
        ("127.0.0.1", None, "prod", Some("eu-central"), false),
        ("203.0.113.1", None, "prod", Some("eu-central"), false),
    ] {
        let asker = clients.asker(ip.parse().unwrap());
        assert_eq!(
            (asker.cluster.as_deref(), asker.set.as_str(), asker.region.as_deref(), asker.recursion),
            (cluster, set, region, recursion),
            "{ip}"
        );
    }
}

#[test]
fn who_stands_alike_has_one_number_and_keeps_it() {
    let topology = topology();
    let config = |recursion: &[&str]| Config {
        recursion: recursion.iter().map(|r| r.parse().unwrap()).collect(),
        ..Config::default()
    };
    let first = Clients::new(&topology, &config(&[]), &Geo::default(), None);
    let id = |clients: &Clients, ip: &str| clients.asker(ip.parse().unwrap()).id;
    assert_eq!(id(&first, "10.1.0.7"), id(&first, "10.1.64.9"));
    let numbers = ["10.1.0.7", "10.2.0.7", "192.0.2.1"].map(|ip| id(&first, ip));
    assert!(numbers.iter().all(|n| *n > 0) && numbers[0] != numbers[1] && numbers[1] != numbers[2]);
    let mut later = topology.clone();
    let mut moved = atoll_api::topology::ClusterFacts::clone(&later.clusters["prod-eu"]);
    moved.spec.region = Some("us-west".into());
    later.clusters.insert("prod-eu".parse().unwrap(), Arc::new(moved));
    let second = Clients::new(&later, &config(&["10.2.0.0/24"]), &Geo::default(), Some(&first));
    assert_ne!(id(&second, "10.1.0.7"), numbers[0], "it stands elsewhere now");
    assert_eq!(id(&second, "192.0.2.1"), numbers[2]);
    assert_ne!(id(&second, "10.2.0.7"), numbers[1], "names that are not ours are looked up for it now");
    assert_eq!(id(&second, "10.2.1.7"), numbers[1]);
    assert!(first == Clients::new(&topology, &config(&[]), &Geo::default(), Some(&first)) && first != second);
}

/// The federation with places on earth, and files that know some addresses.
fn on_earth() -> (Topology, Geo) {
    let mut topology = topology();
    for (name, latitude, longitude) in
        [("prod-eu", "50.11", "8.68"), ("prod-us", "39.04", "-77.48"), ("dev", "52.5", "13.4")]
    {
        let mut facts = atoll_api::topology::ClusterFacts::clone(&topology.clusters[name]);
        facts.spec.location = Some(Location { latitude: latitude.into(), longitude: longitude.into() });
        topology.clusters.insert(name.parse().unwrap(), Arc::new(facts));
    }
    let database = write::database(
        "Atoll",
        &[
            ("198.51.100.0/24", json!({"country": {"iso_code": "US"}})),
            ("203.0.113.0/24", json!({"location": {"latitude": 48.8, "longitude": 2.3}})),
            ("2001:db8::/32", json!({"region": "us-east"})),
        ],
    );
    let map = Map::parse(b"203.0.113.64/26 us-east\n10.77.0.0/16 region=eu-north clusterSet=dev\n").unwrap();
    (topology, Geo { map: Arc::new(map), mmdb: Some(Arc::new(Mmdb::read(database.into()).unwrap())) })
}

#[test]
fn a_client_is_where_the_map_says_else_the_database_else_here() {
    let (topology, geo) = on_earth();
    let config = Config {
        standing: Standing { region: Some("eu-central".into()), ..Standing::default() },
        clients: vec![(
            "203.0.113.96/27".parse().unwrap(),
            Standing { region: Some("ops".into()), ..Standing::default() },
        )],
        ..Config::default()
    };
    let clients = Clients::new(&topology, &config, &geo, None);
    for (ip, region, set, outside, by) in [
        ("10.1.0.7", "eu-central", "prod", false, "range 10.1.0.0/17 of cluster prod-eu"),
        ("10.77.1.1", "eu-north", "dev", false, "configured range 10.77.0.0/16"),
        ("203.0.113.1", "eu-central", "prod", true, "the database: nearest to prod-eu"),
        ("203.0.113.70", "us-east", "prod", false, "configured range 203.0.113.64/26"),
        ("203.0.113.100", "ops", "prod", false, "configured range 203.0.113.96/27"),
        ("198.51.100.1", "us-east", "prod", true, "the database: nearest to prod-us"),
        ("2001:db8::1", "us-east", "prod", true, "the database: nearest to prod-us"),
        ("192.0.2.1", "eu-central", "prod", true, "where this replica stands"),
        ("192.168.1.1", "eu-central", "prod", false, "where this replica stands"),
        ("127.0.0.1", "eu-central", "prod", false, "where this replica stands"),
    ] {
        let asker = clients.asker(ip.parse().unwrap());
        assert_eq!((asker.region.as_deref(), asker.set.as_str(), asker.outside), (Some(region), set, outside), "{ip}");
        assert_eq!(clients.why(ip.parse().unwrap()), by, "{ip}");
        assert!(asker.id > 0, "{ip}");
    }
}

#[test]
fn a_trusted_forwarders_client_is_placed_and_told_for_whom_the_answer_is() {
    let (mut topology, geo) = on_earth();
    let config =
        Config { ecs: vec!["192.0.2.53/32".parse().unwrap(), "10.9.0.53/32".parse().unwrap()], ..Config::default() };
    let clients = Clients::new(&topology, &config, &geo, None);
    let option = |net: &str| {
        let net: IpNet = net.parse().unwrap();
        let (family, octets) = match net.network() {
            IpAddr::V4(ip) => (1, ip.octets().to_vec()),
            IpAddr::V6(ip) => (2, ip.octets().to_vec()),
        };
        let mut option = vec![0, family, net.prefix_len(), 0];
        option.extend_from_slice(&octets[..usize::from(net.prefix_len()).div_ceil(8)]);
        option
    };
    let seen = |clients: &Clients, from: &str, option: &[u8]| {
        clients.seen(&Origin { ip: from.parse().unwrap(), listener: "udp", key: None }, Some(option))
    };
    for (name, from, net, region, cluster, set, scope) in [
        ("in the database", "192.0.2.53", "203.0.113.0/24", Some("eu-central"), None, "prod", Some(26)),
        ("in a narrower range of the map", "192.0.2.53", "203.0.113.64/26", Some("us-east"), None, "prod", Some(26)),
        ("in a member", "192.0.2.53", "10.2.0.0/24", Some("us-east"), Some("prod-us"), "prod", Some(17)),
        ("in a member of another set", "192.0.2.53", "10.9.0.0/24", Some("eu-central"), None, "prod", Some(17)),
        ("a forwarder in another set keeps it", "10.9.0.53", "10.2.0.0/24", Some("us-east"), None, "dev", Some(17)),
        ("unknown, but never for everybody", "192.0.2.53", "172.20.0.0/24", None, None, "prod", Some(14)),
        ("please do not", "192.0.2.53", "0.0.0.0/0", None, None, "prod", Some(0)),
        ("not allowed to say so", "192.0.2.54", "10.2.0.0/24", None, None, "prod", None),
    ] {
        let seen = seen(&clients, from, &option(net)).unwrap();
        let asker = &seen.asker;
        assert_eq!(
            (asker.region.as_deref(), asker.cluster.as_deref(), asker.set.as_str()),
            (region, cluster, set),
            "{name}"
        );
        assert_eq!(seen.echo.map(|e| e.octets()[3]), scope, "{name}");
        assert!(asker.id > 0, "{name}: its answers are kept");
    }
    assert!(seen(&clients, "192.0.2.54", &[0, 1, 24, 0, 10]).is_err(), "malformed is malformed, whoever says it");
    // Where some answer goes by the client itself, no scope is wider than what counts as one client.
    let sticky = json!({"service": "web", "strategy": [{"policy": "sticky"}]});
    topology
        .traffic
        .insert(atoll_api::names::ServiceName::new("shop", "web"), Arc::new(serde_json::from_value(sticky).unwrap()));
    let clients = Clients::new(&topology, &config, &geo, None);
    for (net, scope) in [("10.2.0.0/24", 24), ("10.2.0.0/20", 20), ("2001:db8::/64", 56)] {
        assert_eq!(seen(&clients, "192.0.2.53", &option(net)).unwrap().echo.unwrap().octets()[3], scope, "{net}");
    }
}

#[test]
fn the_first_view_that_takes_an_asker_says_what_it_sees() {
    let name = |text: &str| absolute(text).unwrap();
    let view = |name: &str| View { name: name.to_owned(), ..View::default() };
    let config = Config {
        views: vec![
            View { tsig_keys: vec![name("ops.key")], cluster_set: Some("dev".into()), ..view("ops") },
            View { cidrs: vec!["10.1.0.0/24".parse().unwrap()], listeners: vec!["dot".into()], ..view("inner") },
            View {
                cidrs: vec!["203.0.113.0/24".parse().unwrap()],
                zones: vec![name("example.com")],
                ..view("partners")
            },
        ],
        ..Config::default()
    };
    let topology = topology();
    let clients = Clients::new(&topology, &config, &Geo::default(), None);
    let key = name("ops.key");
    for (ip, listener, key, view, set) in [
        ("10.1.0.7", "udp", None, None, "prod"),
        ("10.1.0.7", "dot", None, Some("inner"), "prod"),
        ("10.1.1.7", "dot", None, None, "prod"),
        ("10.1.0.7", "dot", Some(&key), Some("ops"), "dev"),
        ("203.0.113.5", "tcp", None, Some("partners"), "prod"),
        ("127.0.0.1", "udp", None, None, "prod"),
    ] {
        let asker = clients.who(&Origin { ip: ip.parse().unwrap(), listener, key });
        assert_eq!((clients.view(&asker).map(|v| v.name.as_str()), asker.set.as_str()), (view, set), "{ip} {listener}");
        let partners = view == Some("partners");
        assert!(clients.sees(&asker, &name("example.com")));
        assert_eq!(clients.sees(&asker, &name("atoll.internal")), !partners, "{ip} {listener}");
    }
    let table = crate::table::Table::new(&Arc::new(topology), &config, &Geo::default());
    let place = |ip: &str, asked: &str| {
        let asker = table.clients.asker(ip.parse().unwrap());
        let asked = name(asked);
        matches!(
            crate::hierarchy::place(&table, &asker, &asked, hickory_proto::rr::RecordType::A),
            crate::hierarchy::Place::Outside
        )
    };
    assert!(place("203.0.113.5", "db.atoll.internal") && place("203.0.113.5", "web.shop.svc.atoll.internal"));
    assert!(!place("203.0.113.5", "mail.example.com") && !place("192.0.2.1", "db.atoll.internal"));
}
