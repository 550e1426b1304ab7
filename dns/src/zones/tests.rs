//! The algorithm of RFC 1034 with wildcards, delegations and DNAME, on the shared topology and on zones of a few lines.

use super::*;
use crate::names::absolute;
use crate::table::Table;
use crate::testing::topology;

fn n(text: &str) -> Name {
    absolute(text).unwrap()
}

#[test]
fn a_zone_answers_as_rfc_1034_and_4592_say() {
    let table = Table::new(&Arc::new(topology()), &crate::config::Config::default(), &crate::geo::Geo::default());
    let zone = table.zone_of(&n("example.com")).unwrap();
    let show = |found: Found| match found {
        Found::Records(set) => {
            set.iter().map(|r| format!("{} {} {}", r.name, r.ttl, r.data)).collect::<Vec<_>>().join("; ")
        }
        Found::Alias(_, target) => format!("alias {target}"),
        Found::TooLong(_) => "too long".to_owned(),
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
    let table = Table::new(&Arc::new(later), &crate::config::Config::default(), &crate::geo::Geo::default());
    let own = table.zone_of(&n("atoll.internal")).unwrap().soa();
    assert!(own.data.to_string().contains(" 4 3600 "), "generation 7 after the hub's serial, wrapped: {}", own.data);
    assert_eq!(table.bad_records().count(), 1, "{:?}", table.bad_records().collect::<Vec<_>>());
}

#[test]
fn a_view_has_every_record_of_an_endpoint_but_those_that_it_says_itself() {
    let zone = serde_json::json!({"serial": 1, "spec": {"apex": "example.com", "views": {
        "inside": [{"name": "www", "type": "A", "values": ["10.0.0.1"]}]}}});
    let endpoints = serde_json::json!({"endpoints": [
        {"dnsName": "www.example.com", "recordType": "A", "targets": ["192.0.2.1"]},
        {"dnsName": "WWW.example.com", "recordType": "TXT", "targets": ["for all"]},
        {"dnsName": "two.example.com", "recordType": "A", "targets": ["192.0.2.2", "192.0.2.3"]},
        {"dnsName": "two.example.com", "recordType": "AAAA", "targets": ["2001:db8::2"]},
    ]});
    let mut topology = topology();
    topology.zones.insert("example-com".into(), Arc::new(serde_json::from_value(zone).unwrap()));
    topology.records.insert("ops/b".into(), Arc::new(serde_json::from_value(endpoints).unwrap()));
    let table = Table::new(&Arc::new(topology), &crate::config::Config::default(), &crate::geo::Geo::default());
    let zone = table.zone_of(&n("example.com")).unwrap();
    let show = |view: Option<&str>, name: &str, kind| {
        let set = zone.seen_by(view).set(&n(name), kind).unwrap_or_default();
        set.iter().map(|r| r.data.to_string()).collect::<Vec<_>>().join(" ")
    };
    for (name, kind, all, inside) in [
        ("www.example.com", RecordType::A, "192.0.2.1", "10.0.0.1"),
        ("www.example.com", RecordType::TXT, "for all", "for all"),
        ("two.example.com", RecordType::A, "192.0.2.2 192.0.2.3", "192.0.2.2 192.0.2.3"),
        ("two.example.com", RecordType::AAAA, "2001:db8::2", "2001:db8::2"),
    ] {
        let got = (show(None, name, kind), show(Some("inside"), name, kind));
        assert_eq!(got, (all.to_owned(), inside.to_owned()), "{name} {kind}");
    }
}
