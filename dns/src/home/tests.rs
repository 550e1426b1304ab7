//! Whose names are whose at a node-local DNS, with and without a topology, and where its askers stand.

use std::sync::Arc;

use atoll_api::kinds::MemberDns;
use atoll_api::topology::Topology;
use hickory_proto::rr::RecordType;

use super::*;
use crate::client::Asker;
use crate::config::Config;
use crate::geo::Geo;
use crate::hierarchy::place;
use crate::table::Table;
use crate::testing::topology;

fn home(cluster: &str) -> Config {
    let dns = MemberDns { servers: vec!["10.1.128.53:53".into()], ..MemberDns::default() };
    let home = Home { cluster: cluster.parse().unwrap(), dns, apex: "atoll.internal".into() };
    Config { home: Some(home), ..Config::default() }
}

fn table(topology: Topology, config: &Config) -> Table {
    Table::new(&Arc::new(topology), config, &Geo::default())
}

fn show(table: &Table, asker: &Asker, name: &str) -> String {
    match place(table, asker, &absolute(name).unwrap(), RecordType::A) {
        Place::Here(zone) => format!("here {}", zone.apex()),
        Place::Below(b) => {
            let kind = if b.reverse { " reverse" } else { "" };
            format!("{}{kind} {} at {}", b.member.name, b.native, b.member.servers[0])
        }
        Place::Beside(_, b) => format!("{}", b.what),
        Place::Host(..) => "host".to_owned(),
        Place::Outside => "outside".to_owned(),
        Place::Unknown => "unknown".to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn names_of_its_own_member_are_its_own_and_all_others_are_as_everywhere() {
    let table = table(topology(), &home("prod-eu"));
    let asker = table.clients.asker("10.1.0.7".parse().unwrap());
    for (name, want) in [
        ("web.shop.svc.cluster.local", "prod-eu web.shop.svc.cluster.local. at 10.1.128.53:53"),
        ("cluster.local", "prod-eu cluster.local. at 10.1.128.53:53"),
        ("web.shop.svc.prod-eu.atoll.internal", "prod-eu web.shop.svc.cluster.local. at 10.1.128.53:53"),
        ("web.shop.svc.prod-us.atoll.internal", "prod-us web.shop.svc.cluster.local. at 10.2.128.10:53"),
        ("1.0.1.10.in-addr.arpa", "prod-eu reverse 1.0.1.10.in-addr.arpa. at 10.1.128.53:53"),
        ("1.0.2.10.in-addr.arpa", "prod-us reverse 1.0.2.10.in-addr.arpa. at 10.2.128.10:53"),
        ("web.shop.svc.atoll.internal", "service shop/web"),
        ("web.shop.svc.clusterset.local", "service shop/web"),
        ("shop.example.com", "host"),
        ("db.atoll.internal", "here atoll.internal."),
        ("mail.example.com", "here example.com."),
        ("example.org", "outside"),
    ] {
        assert_eq!(show(&table, &asker, name), want, "{name}");
    }
    let home = table.home.as_ref().unwrap();
    assert_eq!(home.sites, ["192.0.2.53:53".parse().unwrap()]);
}

#[test]
fn the_domains_that_its_dns_has_beside_its_own_are_its_own_too() {
    let mut config = home("mesos-1");
    config.home.as_mut().unwrap().dns = serde_json::from_value(serde_json::json!({
        "kind": "MesosDNS", "servers": ["10.7.0.1:53"], "aliases": [{"name": "l4lb", "domain": "l4lb.thisdcos.directory"}],
    }))
    .unwrap();
    let table = table(topology(), &config);
    for (name, want) in [
        ("web.marathon.mesos", "mesos-1 web.marathon.mesos. at 10.7.0.1:53"),
        ("api.l4lb.thisdcos.directory", "mesos-1 api.l4lb.thisdcos.directory. at 10.7.0.1:53"),
        ("web.shop.svc.cluster.local", "outside"),
    ] {
        assert_eq!(show(&table, &Asker::default(), name), want, "{name}");
    }
}

#[test]
fn without_a_topology_nothing_of_the_federation_is_asked_of_the_member() {
    let table = table(Topology::default(), &home("prod-eu"));
    for (name, want) in [
        ("web.shop.svc.cluster.local", "prod-eu web.shop.svc.cluster.local. at 10.1.128.53:53"),
        ("web.shop.svc.atoll.internal", "unknown"),
        ("web.shop.svc.clusterset.local", "unknown"),
        ("example.org", "outside"),
        ("1.0.1.10.in-addr.arpa", "outside"),
    ] {
        assert_eq!(show(&table, &Asker::default(), name), want, "{name}");
    }
}

#[test]
fn everybody_stands_in_the_member_and_nobody_sees_services_once_it_was_removed() {
    let here = table(topology(), &home("dev"));
    for from in ["10.9.0.7", "10.1.0.7", "127.0.0.1", "198.51.100.7"] {
        let asker = here.clients.asker(from.parse().unwrap());
        let stands = (asker.cluster.as_deref(), asker.set.as_str(), asker.region.as_deref(), asker.outside);
        assert_eq!(stands, (Some("dev"), "dev", Some("eu-central"), false), "{from}");
    }
    let gone = table(topology(), &home("gone"));
    assert_eq!(gone.clients.asker("10.1.0.7".parse().unwrap()).set, "");
}
