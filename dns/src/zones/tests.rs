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
    assert_eq!(table.bad_records().len(), 1, "{:?}", table.bad_records());
}
