//! What is carried over as octets is what the full parser and the pure translation say of it, whatever a member sends.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use hickory_proto::op::{Edns, OpCode, Query as Asks};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{RData, Record};
use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::fuzzing::{alike, alike_of_address};
use crate::geo::Geo;
use crate::names::{below, left_of, text};
use crate::table::{Member, Table};
use crate::testing::topology;

/// Random cases.
const CASES: u32 = 4096;

/// One of `cluster.local`.
static MEMBER: LazyLock<Arc<Member>> = LazyLock::new(|| {
    let table = Table::new(&Arc::new(topology()), &Config::default(), &Geo::default());
    Arc::clone(&table.members["prod-eu"])
});
/// The fuzzer's, without its further domain.
static SEEDED: LazyLock<Member> = LazyLock::new(|| {
    let facts = serde_json::json!({"name": "dc1", "spec": {"environment": "prod", "region": "us"}, "dns": {"kind": "Generic", "domain": "mesos"}});
    Member::called(n("dc1.atoll.internal."), &serde_json::from_value(facts).unwrap()).unwrap()
});

fn n(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// The member's name for the labels, and ours.
fn both(member: &Member, path: &[String]) -> (Name, Name) {
    (below(path, member.rename.native()).unwrap(), below(path, member.rename.hub()).unwrap().to_lowercase())
}

fn labels(text: &str) -> Vec<String> {
    text.split('.').map(str::to_owned).collect()
}

fn soa(owner: &str, server: &str, ttl: u32, minimum: u32) -> Record {
    let soa = SOA::new(n(server), n("hostmaster.cluster.local."), 1, 7200, 1800, 86_400, minimum);
    Record::from_rdata(n(owner), ttl, RData::SOA(soa))
}

fn reply(path: &[String], kind: RecordType, rcode: ResponseCode, sections: [Vec<Record>; 3], edns: bool) -> Vec<u8> {
    said(&both(&MEMBER, path).0, kind, rcode, sections, edns)
}

#[test]
fn what_members_say_all_the_time_is_carried() {
    let path = labels("web.shop.svc");
    let name = both(&MEMBER, &path).0;
    let a = |ttl, last| Record::from_rdata(name.clone(), ttl, RData::A(A::new(10, 0, 0, last)));
    let six = Record::from_rdata(name.clone(), 5, RData::AAAA(AAAA::new(1, 2, 3, 4, 5, 6, 7, 8)));
    let alias = Record::from_rdata(name.clone(), 5, RData::CNAME(CNAME(n("x.shop.svc.cluster.local."))));
    let zone = soa("cluster.local.", "ns.dns.cluster.local.", 30, 5);
    let (a4, a6, yes, no) = (RecordType::A, RecordType::AAAA, ResponseCode::NoError, ResponseCode::NXDomain);
    for (what, kind, rcode, answers, authorities, is) in [
        ("an address", a4, yes, vec![a(30, 1)], vec![], true),
        ("several, of several times to live", a4, yes, vec![a(30, 1), a(7, 2), a(u32::MAX, 3)], vec![], true),
        ("an address of IPv6", a6, yes, vec![six.clone()], vec![], true),
        ("no data", a6, yes, vec![], vec![zone.clone()], true),
        ("no name", a4, no, vec![], vec![zone.clone()], true),
        ("no name of a zone below", a4, no, vec![], vec![soa("svc.CLUSTER.local.", "Ns.cluster.local.", 9, 400)], true),
        ("no name, by a server elsewhere", a4, no, vec![], vec![soa("cluster.local.", "ns.example.com.", 9, 9)], false),
        ("no name, of another zone", a4, no, vec![], vec![soa("example.com.", "ns.cluster.local.", 9, 9)], false),
        ("no name and no SOA", a4, no, vec![], vec![], false),
        ("an alias", a4, yes, vec![alias], vec![], false),
        ("another type", a4, yes, vec![six], vec![], false),
        ("an address, and a zone", a4, yes, vec![a(30, 1)], vec![zone], false),
        ("no name, and an address", a4, no, vec![a(30, 1)], vec![], false),
        ("neither yes nor no", a4, ResponseCode::ServFail, vec![], vec![], false),
    ] {
        for edns in [false, true] {
            let octets = reply(&path, kind, rcode, [answers.clone(), authorities.clone(), vec![]], edns);
            assert_eq!(alike(&MEMBER, &path, kind, &octets), is, "{what}, with EDNS: {edns}");
            let longer = [&octets[..], &[0]].concat();
            assert!(!alike(&MEMBER, &path, kind, &longer), "{what}, and an octet");
        }
    }
}

#[test]
fn the_seeds_of_the_fuzzer_are_carried_alike_or_not_at_all() {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/translation");
    let mut carried = 0;
    for seed in std::fs::read_dir(seeds).unwrap() {
        let octets = std::fs::read(seed.unwrap().path()).unwrap();
        let Some((kind, octets)) = octets.split_first_chunk::<2>() else { continue };
        let Ok(message) = Message::from_vec(octets) else { continue };
        let Some(left) = message.queries.first().and_then(|q| left_of(&q.name, SEEDED.rename.native())) else {
            continue;
        };
        let path: Vec<String> = left.iter().filter_map(|label| text(label).map(str::to_owned)).collect();
        let kind = RecordType::from(u16::from_be_bytes(*kind));
        let mut octets = octets.to_vec();
        octets[..2].copy_from_slice(&7_u16.to_be_bytes());
        for cut in 0..octets.len() {
            assert!(cut == 0 || !alike(&SEEDED, &path, kind, &octets[..octets.len() - cut]));
            carried += usize::from(cut == 0 && alike(&SEEDED, &path, kind, &octets));
        }
    }
    assert!(carried > 0);
}

/// A reply to a question for a name.
fn said(name: &Name, kind: RecordType, rcode: ResponseCode, sections: [Vec<Record>; 3], edns: bool) -> Vec<u8> {
    let mut message = Message::response(7, OpCode::Query);
    message.metadata.response_code = rcode;
    message.queries = vec![Asks::query(name.to_lowercase(), kind)];
    let [answers, authorities, additionals] = sections;
    (message.answers, message.authorities, message.additionals) = (answers, authorities, additionals);
    if edns {
        message.set_edns(Edns::new());
    }
    message.to_vec().unwrap()
}

#[test]
fn names_of_addresses_are_carried_where_they_are_the_members_own() {
    let four = n("7.0.1.10.in-addr.arpa.");
    let six = n("7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.");
    let of = |owner: &Name, ttl, target: &str| Record::from_rdata(owner.clone(), ttl, RData::PTR(PTR(n(target))));
    let web = "web.shop.svc.cluster.local.";
    let alias = Record::from_rdata(four.clone(), 5, RData::CNAME(CNAME(n("7.0-25.0.1.10.in-addr.arpa."))));
    let text = Record::from_rdata(four.clone(), 30, RData::TXT(TXT::new(vec!["text".to_owned()])));
    let (yes, no) = (ResponseCode::NoError, ResponseCode::NXDomain);
    let (kubernetes, own) =
        (soa("in-addr.arpa.", "ns.dns.cluster.local.", 30, 5), soa("1.10.in-addr.arpa.", web, 30, 5));
    for (what, name, rcode, answers, authorities, is) in [
        ("a name", &four, yes, vec![of(&four, 30, web)], vec![], true),
        ("of IPv6", &six, yes, vec![of(&six, 30, web)], vec![], true),
        (
            "several",
            &four,
            yes,
            vec![of(&four, 30, web), of(&four, 7, "WEB-0.web.shop.svc.Cluster.local.")],
            vec![],
            true,
        ),
        ("the domain itself", &four, yes, vec![of(&four, 30, "cluster.local.")], vec![], true),
        ("somebody else's", &four, yes, vec![of(&four, 30, "www.example.com.")], vec![], false),
        ("one of another's", &four, yes, vec![of(&four, 30, web), of(&four, 30, "x.k8s.local.")], vec![], false),
        ("of another address", &four, yes, vec![of(&six, 30, web)], vec![], false),
        ("an alias (RFC 2317)", &four, yes, vec![alias], vec![], false),
        ("a text", &four, yes, vec![text], vec![], false),
        ("no name, by the zone of all addresses", &four, no, vec![], vec![kubernetes], false),
        ("no name, by its own zone", &four, no, vec![], vec![own], false),
        ("nothing", &four, yes, vec![], vec![], false),
    ] {
        for edns in [false, true] {
            let octets = said(name, RecordType::PTR, rcode, [answers.clone(), authorities.clone(), vec![]], edns);
            assert_eq!(alike_of_address(&MEMBER, name, RecordType::PTR, &octets), is, "{what}, with EDNS: {edns}");
            let longer = [&octets[..], &[0]].concat();
            assert!(!alike_of_address(&MEMBER, name, RecordType::PTR, &longer), "{what}, and an octet");
        }
    }
    // The same type at a name of the member's.
    let path = labels("_services._dns-sd._udp");
    let at = both(&MEMBER, &path).0;
    let octets = reply(&path, RecordType::PTR, yes, [vec![of(&at, 30, web)], vec![], vec![]], true);
    assert!(alike(&MEMBER, &path, RecordType::PTR, &octets));
}

fn srv(path: &[String], ttl: u32, port: u16, host: &str) -> Record {
    Record::from_rdata(both(&MEMBER, path).0, ttl, RData::SRV(SRV::new(0, 100, port, n(host))))
}

#[test]
fn services_at_a_members_own_hosts_are_carried_with_their_addresses() {
    let path = labels("_http._tcp.web.shop.svc");
    let (own, upper) = ("web.shop.svc.cluster.local.", "WEB.shop.svc.Cluster.local.");
    let a = |owner: &str, ttl, last| Record::from_rdata(n(owner), ttl, RData::A(A::new(10, 0, 0, last)));
    let six = |owner: &str| Record::from_rdata(n(owner), 30, RData::AAAA(AAAA::new(1, 2, 3, 4, 5, 6, 7, 8)));
    let s = |ttl, host: &str| srv(&path, ttl, 80, host);
    let text = Record::from_rdata(n(own), 30, RData::TXT(TXT::new(vec!["text".to_owned()])));
    for (what, answers, additionals, is) in [
        ("a service", vec![s(30, own)], vec![], true),
        ("with its host's addresses", vec![s(30, own)], vec![a(own, 30, 1), a(own, 40, 2), six(own)], true),
        ("in another spelling", vec![s(30, upper)], vec![a(own, 30, 1)], true),
        (
            "several hosts",
            vec![s(30, "a.b.cluster.local."), s(7, own)],
            vec![a(own, 9, 1), a("a.b.cluster.local.", 8, 1)],
            true,
        ),
        ("the domain itself", vec![s(30, "cluster.local.")], vec![], true),
        ("addresses that end before it", vec![s(30, own)], vec![a(own, 5, 1)], false),
        ("somebody else's host", vec![s(30, "www.example.com.")], vec![], false),
        ("no host", vec![s(30, ".")], vec![], false),
        ("a stranger's address", vec![s(30, own)], vec![a("www.example.com.", 30, 1)], false),
        ("a text of the host", vec![s(30, own)], vec![text], false),
    ] {
        for edns in [false, true] {
            let sections = [answers.clone(), vec![], additionals.clone()];
            let octets = reply(&path, RecordType::SRV, ResponseCode::NoError, sections, edns);
            assert_eq!(alike(&MEMBER, &path, RecordType::SRV, &octets), is, "{what}, with EDNS: {edns}");
        }
    }
}

fn path() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[a-zA-Z0-9_-]{1,12}", 1..5)
}

fn record() -> impl Strategy<Value = (u8, u8, u32)> {
    let ttl = prop_oneof![4 => 0_u32..100, 1 => any::<u32>()];
    (0_u8..12, 0_u8..12, ttl)
}

/// A record by numbers; low ones are ordinary.
fn made(path: &[String], kind: RecordType, (owner, data, ttl): (u8, u8, u32)) -> Record {
    let owner = match owner {
        0..=8 => both(&MEMBER, path).0,
        9 => n("other.shop.svc.cluster.local."),
        10 => both(&MEMBER, &path.iter().map(|label| label.to_ascii_uppercase()).collect::<Vec<_>>()).0,
        _ => n("www.example.com."),
    };
    let data = match data {
        0..=8 if kind == RecordType::AAAA => RData::AAAA(AAAA(Ipv6Addr::from_bits(ttl.into()))),
        0..=8 => RData::A(A(Ipv4Addr::from_bits(ttl))),
        9 => RData::CNAME(CNAME(n("x.shop.svc.cluster.local."))),
        10 => RData::TXT(TXT::new(vec!["text".to_owned()])),
        _ => RData::AAAA(AAAA(Ipv6Addr::from_bits(7))),
    };
    Record::from_rdata(owner, ttl, data)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn services_that_are_carried_are_what_the_full_way_says(
        path in path(),
        answers in prop::collection::vec((0_usize..6, 0_u32..40), 1..4),
        additionals in prop::collection::vec((0_usize..6, 20_u32..60, any::<bool>()), 0..4),
        edns in any::<bool>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        damaged in any::<bool>(),
    ) {
        let hosts = ["a.svc.cluster.local.", "A.svc.cluster.local.", "b.cluster.local.", "b.cluster.local.", "cluster.local.", "www.example.com."];
        let answers = answers.into_iter().map(|(host, ttl)| srv(&path, ttl, 80, hosts[host])).collect();
        let address = |(host, ttl, six): (usize, u32, bool)| {
            let data = if six { RData::AAAA(AAAA(Ipv6Addr::from_bits(ttl.into()))) } else { RData::A(A(Ipv4Addr::from_bits(ttl))) };
            Record::from_rdata(n(hosts[host]), ttl, data)
        };
        let additionals = additionals.into_iter().map(address).collect();
        let mut octets = reply(&path, RecordType::SRV, ResponseCode::NoError, [answers, vec![], additionals], edns);
        for (at, octet) in damage.into_iter().filter(|_| damaged) {
            let length = octets.len();
            octets[at.index(length)] = octet;
        }
        alike(&MEMBER, &path, RecordType::SRV, &octets);
    }

    #[test]
    fn names_of_addresses_that_are_carried_are_what_the_full_way_says(
        address in any::<u32>(),
        six in any::<bool>(),
        answers in prop::collection::vec((0_usize..8, 0_u32..40, any::<bool>()), 0..4),
        zone in prop::option::of((0_usize..8, any::<u32>())),
        rcode in prop::sample::select(vec![ResponseCode::NoError, ResponseCode::NoError, ResponseCode::NXDomain]),
        edns in any::<bool>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        damaged in any::<bool>(),
    ) {
        let ip: std::net::IpAddr = if six { Ipv6Addr::from_bits(address.into()).into() } else { Ipv4Addr::from_bits(address).into() };
        let name = Name::from(ip);
        let names = ["a.svc.cluster.local.", "A.svc.Cluster.local.", "cluster.local.", "www.example.com.", ".",
            "in-addr.arpa.", "1.10.in-addr.arpa.", "prod-eu.atoll.internal."];
        let pointer = |(target, ttl, elsewhere): (usize, u32, bool)| {
            let owner = if elsewhere && ttl > 35 { n("8.0.1.10.in-addr.arpa.") } else { name.clone() };
            Record::from_rdata(owner, ttl, RData::PTR(PTR(n(names[target]))))
        };
        let answers = answers.into_iter().map(pointer).collect();
        let authorities = zone.map(|(owner, ttl)| soa(names[owner], names[0], ttl, 30)).into_iter().collect();
        let mut octets = said(&name, RecordType::PTR, rcode, [answers, authorities, vec![]], edns);
        for (at, octet) in damage.into_iter().filter(|_| damaged) {
            let length = octets.len();
            octets[at.index(length)] = octet;
        }
        alike_of_address(&MEMBER, &name, RecordType::PTR, &octets);
    }

    #[test]
    fn what_is_carried_is_what_the_full_way_says(
        path in path(),
        six in any::<bool>(),
        negative in any::<bool>(),
        rcode in prop::sample::select(vec![ResponseCode::NoError, ResponseCode::NoError, ResponseCode::NXDomain]),
        answers in prop::collection::vec(record(), 1..4),
        zone in (0_usize..5, 0_usize..5, any::<u32>(), any::<u32>()),
        edns in any::<bool>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        damaged in any::<bool>(),
    ) {
        let kind = if six { RecordType::AAAA } else { RecordType::A };
        let names = ["cluster.local.", "svc.cluster.local.", "Ns.Dns.Cluster.Local.", "example.com.", "."];
        let authorities = if negative { vec![soa(names[zone.0], names[zone.1], zone.2, zone.3)] } else { vec![] };
        let answers = if negative { vec![] } else { answers.into_iter().map(|spec| made(&path, kind, spec)).collect() };
        let mut octets = reply(&path, kind, rcode, [answers, authorities, vec![]], edns);
        for (at, octet) in damage.into_iter().filter(|_| damaged) {
            let length = octets.len();
            octets[at.index(length)] = octet;
        }
        alike(&MEMBER, &path, kind, &octets);
    }
}
