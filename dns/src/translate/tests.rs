//! Translation as cases: symmetric, strict.

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::{A, CNAME, MX, NAPTR, NS, PTR, SOA, SRV, SVCB};

use super::*;
use crate::names::absolute;
use atoll_api::rdata::{dname, map_names, to_dname};

pub(super) fn n(text: &str) -> Name {
    absolute(text).unwrap()
}

pub(super) fn eu() -> Rename {
    Rename::new(n("prod-eu.atoll.internal"), n("cluster.local"), &[], vec!["10.0.0.0/25".parse().unwrap()])
}

pub(super) fn mesos() -> Rename {
    let aliases = [("l4lb".to_owned(), n("l4lb.thisdcos.directory")), ("deep".to_owned(), n("deep.mesos"))];
    Rename::new(n("dc1.atoll.internal"), n("mesos"), &aliases, vec![])
}

pub(super) fn a(owner: &str, last: u8) -> Record {
    Record::from_rdata(n(owner), 5, RData::A(A::new(10, 0, 0, last)))
}

fn record(owner: &str, data: RData) -> Record {
    Record::from_rdata(n(owner), 5, data)
}

fn alias(owner: &str, target: &str) -> Record {
    record(owner, RData::CNAME(CNAME(n(target))))
}

pub(super) fn message(code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>) -> Message {
    let mut m = Message::response(7, OpCode::Query);
    m.metadata.response_code = code;
    m.answers = answers;
    m.authorities = authorities;
    m
}

fn asked(native: &str, qtype: RecordType) -> Asked {
    Asked { native: n(native), qtype, trail: None }
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(|r| format!("{} {} {}", r.name, r.record_type(), r.data)).collect()
}

#[test]
fn names_are_translated_both_ways() {
    for (rename, hub, native) in [
        (eu(), "web.shop.svc.prod-eu.atoll.internal", "web.shop.svc.cluster.local"),
        (eu(), "prod-eu.atoll.internal", "cluster.local"),
        (mesos(), "web.marathon.dc1.atoll.internal", "web.marathon.mesos"),
        (mesos(), "api.l4lb.dc1.atoll.internal", "api.l4lb.thisdcos.directory"),
        (mesos(), "x.deep.dc1.atoll.internal", "x.deep.mesos"),
    ] {
        assert_eq!(rename.to_native(&n(hub)).unwrap().unwrap(), n(native), "{hub}");
        assert_eq!(rename.to_hub(&n(native)).unwrap().unwrap(), n(hub), "{native}");
    }
    assert_eq!(mesos().to_hub(&n("a.l4lb.mesos")), Err(Refused::Hidden));
    assert_eq!(eu().to_native(&n("web.prod-us.atoll.internal")), Ok(None));
    assert_eq!(mesos().outward(&n("a.cluster.local")), Err(Refused::Leak));
    assert_eq!(mesos().outward(&n("example.com")), Ok(n("example.com")));
}

#[test]
fn every_type_that_holds_a_name_is_translated() {
    let native = n("web.shop.svc.cluster.local");
    let svcb = SVCB::new(1, native.clone(), vec![]);
    for data in [
        RData::CNAME(CNAME(native.clone())),
        RData::NS(NS(native.clone())),
        RData::PTR(PTR(native.clone())),
        RData::MX(MX::new(10, native.clone())),
        RData::SRV(SRV::new(0, 1, 80, native.clone())),
        RData::NAPTR(NAPTR::new(1, 1, Box::default(), Box::default(), Box::default(), native.clone())),
        RData::SVCB(svcb.clone()),
        RData::HTTPS(hickory_proto::rr::rdata::HTTPS(svcb)),
        RData::SOA(SOA::new(native.clone(), native.clone(), 1, 2, 3, 4, 5)),
        to_dname(&native).unwrap(),
    ] {
        let kind = data.record_type();
        let m = message(ResponseCode::NoError, vec![record("x.cluster.local", data)], vec![]);
        let got = reply(&eu(), &asked("x.cluster.local", kind), &m).unwrap();
        assert_eq!(got.answers.len(), 1, "{kind}");
        let wire = got.answers[0].clone();
        let mut names = Vec::new();
        let seen = map_names(
            wire.data,
            |_| (),
            |name| {
                names.push(name.clone());
                Ok(name.clone())
            },
        );
        assert!(seen.is_ok(), "{kind}");
        assert!(
            !names.is_empty() && names.iter().all(|name| *name == n("web.shop.svc.prod-eu.atoll.internal")),
            "{kind}: {names:?}"
        );
    }
}

#[test]
fn what_a_member_may_not_say_is_left_out() {
    let q = || asked("web.cluster.local", RecordType::A);
    let opaque = Record::from_rdata(
        n("web.cluster.local"),
        5,
        RData::Unknown { code: RecordType::Unknown(17), rdata: hickory_proto::rr::rdata::NULL::with(vec![0, 0]) },
    );
    let cases = [
        (
            "an owner of nobody's",
            vec![a("web.cluster.local", 1), a("bank.com", 6)],
            Ok(vec!["web.prod-eu.atoll.internal. A 10.0.0.1"]),
        ),
        (
            "another owner of its own",
            vec![a("web.cluster.local", 1), a("b.cluster.local", 6)],
            Ok(vec!["web.prod-eu.atoll.internal. A 10.0.0.1"]),
        ),
        ("only what is foreign", vec![a("bank.com", 6)], Err(Refused::Bailiwick)),
        (
            "a chain inside, in any order",
            vec![a("b.cluster.local", 2), alias("web.cluster.local", "b.cluster.local")],
            Ok(vec![
                "web.prod-eu.atoll.internal. CNAME b.prod-eu.atoll.internal.",
                "b.prod-eu.atoll.internal. A 10.0.0.2",
            ]),
        ),
        (
            "a chain that leaves is cut where it leaves",
            vec![alias("web.cluster.local", "example.com"), a("example.com", 9)],
            Ok(vec!["web.prod-eu.atoll.internal. CNAME example.com."]),
        ),
        (
            "a chain that goes round",
            vec![alias("web.cluster.local", "b.cluster.local"), alias("b.cluster.local", "web.cluster.local")],
            Err(Refused::Chain),
        ),
    ];
    for (what, answers, want) in cases {
        let got = reply(&eu(), &q(), &message(ResponseCode::NoError, answers, vec![])).map(|t| texts(&t.answers));
        assert_eq!(got, want.map(|w| w.into_iter().map(str::to_owned).collect()), "{what}");
    }
    let m = message(ResponseCode::NoError, vec![opaque], vec![]);
    let got = reply(&eu(), &asked("web.cluster.local", RecordType::Unknown(17)), &m);
    assert_eq!(got, Err(Refused::Opaque(RecordType::Unknown(17))));
}

#[test]
fn a_negative_answer_brings_the_members_soa_in_our_names() {
    let soa = record(
        "cluster.local",
        RData::SOA(SOA::new(n("ns.dns.cluster.local"), n("hostmaster.cluster.local"), 1, 2, 3, 4, 5)),
    );
    let m = message(ResponseCode::NXDomain, vec![], vec![soa]);
    let got = reply(&eu(), &asked("no.cluster.local", RecordType::A), &m).unwrap();
    assert!(got.nxdomain);
    let soa = got.soa.unwrap();
    assert_eq!(soa.name, n("prod-eu.atoll.internal"));
    assert!(
        soa.data.to_string().starts_with("ns.dns.prod-eu.atoll.internal. hostmaster.prod-eu.atoll.internal."),
        "{}",
        soa.data
    );
    // CoreDNS gives the root's SOA for what it got from upstream: not the member's to say.
    let root = record(".", RData::SOA(SOA::new(n("a.root-servers.net"), n("nstld.verisign-grs.com"), 1, 2, 3, 4, 5)));
    let got =
        reply(&eu(), &asked("no.cluster.local", RecordType::A), &message(ResponseCode::NXDomain, vec![], vec![root]))
            .unwrap();
    assert!(got.nxdomain && got.soa.is_none());
}

#[test]
fn a_reverse_name_keeps_its_owner_and_its_target_is_translated() {
    let owner = "7.0.0.10.in-addr.arpa";
    let m =
        message(ResponseCode::NoError, vec![record(owner, RData::PTR(PTR(n("web.shop.svc.cluster.local"))))], vec![]);
    let got = reply(&eu(), &asked(owner, RecordType::PTR), &m).unwrap();
    assert_eq!(texts(&got.answers), ["7.0.0.10.in-addr.arpa. PTR web.shop.svc.prod-eu.atoll.internal."]);
}

#[test]
fn addresses_of_targets_come_along_and_nothing_else_does() {
    let mut m = message(
        ResponseCode::NoError,
        vec![record("_http._tcp.web.cluster.local", RData::SRV(SRV::new(0, 1, 80, n("web.cluster.local"))))],
        vec![],
    );
    m.additionals = vec![a("web.cluster.local", 3), a("evil.example", 4), a("other.cluster.local", 5)];
    let got = reply(&eu(), &asked("_http._tcp.web.cluster.local", RecordType::SRV), &m).unwrap();
    assert_eq!(texts(&got.additionals), ["web.prod-eu.atoll.internal. A 10.0.0.3"]);
}

#[test]
fn a_dname_is_translated_and_its_cname_made_anew() {
    let dname_at = |owner: &str, target: &str| record(owner, to_dname(&n(target)).unwrap());
    let old = "web.old.cluster.local";
    for (what, rename, question, answers, want) in [
        (
            "with the member's own CNAME",
            eu(),
            old,
            vec![
                dname_at("old.cluster.local", "new.cluster.local"),
                alias(old, "web.new.cluster.local"),
                a("web.new.cluster.local", 1),
            ],
            vec![
                "web.old.prod-eu.atoll.internal. CNAME web.new.prod-eu.atoll.internal.",
                "web.new.prod-eu.atoll.internal. A 10.0.0.1",
            ],
        ),
        (
            "without one",
            eu(),
            old,
            vec![dname_at("old.cluster.local", "new.cluster.local"), a("web.new.cluster.local", 1)],
            vec![
                "web.old.prod-eu.atoll.internal. CNAME web.new.prod-eu.atoll.internal.",
                "web.new.prod-eu.atoll.internal. A 10.0.0.1",
            ],
        ),
        (
            "with one that says something else",
            eu(),
            old,
            vec![dname_at("old.cluster.local", "new.cluster.local"), alias(old, "evil.example"), a("evil.example", 6)],
            vec!["web.old.prod-eu.atoll.internal. CNAME web.new.prod-eu.atoll.internal."],
        ),
        (
            "out of the member",
            eu(),
            old,
            vec![dname_at("old.cluster.local", "example.com")],
            vec!["web.old.prod-eu.atoll.internal. CNAME web.example.com."],
        ),
    ] {
        let got =
            reply(&rename, &asked(question, RecordType::A), &message(ResponseCode::NoError, answers, vec![])).unwrap();
        let (first, rest) = got.answers.split_first().unwrap();
        assert_eq!(first.name, n("old.prod-eu.atoll.internal"), "{what}");
        assert!(dname(&first.data).is_some(), "{what}");
        assert_eq!(texts(rest), want, "{what}");
    }
    // Between the member's own domain and an alias the renamed DNAME would say something else: the CNAME stands alone.
    let answers = vec![dname_at("mesos", "thisdcos.directory")];
    let got =
        reply(&mesos(), &asked("x.mesos", RecordType::A), &message(ResponseCode::NoError, answers, vec![])).unwrap();
    assert_eq!(texts(&got.answers[1..]), ["x.dc1.atoll.internal. CNAME x.thisdcos.directory."]);
    let answers = vec![dname_at("mesos", "l4lb.thisdcos.directory")];
    let got =
        reply(&mesos(), &asked("x.mesos", RecordType::A), &message(ResponseCode::NoError, answers, vec![])).unwrap();
    assert_eq!(texts(&got.answers[1..]), ["x.dc1.atoll.internal. CNAME x.l4lb.dc1.atoll.internal."]);
    let long = n(&["a"; 110].join("."));
    let answers = vec![record("old.cluster.local", to_dname(&long).unwrap())];
    let question = asked(&format!("{}.old.cluster.local", ["b"; 20].join(".")), RecordType::A);
    assert_eq!(reply(&eu(), &question, &message(ResponseCode::NoError, answers, vec![])), Err(Refused::TooLong));
}

#[test]
fn a_name_that_becomes_too_long_refuses_the_whole_answer() {
    // 255 octets hold it natively, not below a longer domain.
    let long = format!("{}.cluster.local", ["a"; 118].join("."));
    let answers = vec![
        record("x.cluster.local", RData::SRV(SRV::new(0, 1, 80, n("web.cluster.local")))),
        record("x.cluster.local", RData::SRV(SRV::new(0, 1, 80, n(&long)))),
    ];
    let m = message(ResponseCode::NoError, answers, vec![]);
    assert_eq!(reply(&eu(), &asked("x.cluster.local", RecordType::SRV), &m), Err(Refused::TooLong));
    let hub = format!("{}.dc1.atoll.internal", ["a"; 117].join("."));
    let deep = Rename::new(n("dc1.atoll.internal"), n("a.much.longer.domain.example"), &[], vec![]);
    assert_eq!(deep.to_native(&n(&hub)), Err(Refused::TooLong));
}

#[test]
fn signatures_other_classes_and_types_that_nobody_knows_stay_behind() {
    use hickory_proto::rr::DNSClass;
    let octets = |code, owner: &str| {
        let rdata = hickory_proto::rr::rdata::NULL::with(b"\x07cluster\x05local\x00".to_vec());
        record(owner, RData::Unknown { code: RecordType::Unknown(code), rdata })
    };
    let mut chaos = a("web.cluster.local", 9);
    chaos.dns_class = DNSClass::CH;
    let m = message(ResponseCode::NoError, vec![chaos, a("web.cluster.local", 1)], vec![]);
    let got = reply(&eu(), &asked("web.cluster.local", RecordType::A), &m).unwrap();
    assert_eq!(texts(&got.answers), ["web.prod-eu.atoll.internal. A 10.0.0.1"]);
    for code in [17, 66, 65_400] {
        let m = message(ResponseCode::NoError, vec![octets(code, "web.cluster.local")], vec![]);
        let kind = RecordType::Unknown(code);
        assert_eq!(reply(&eu(), &asked("web.cluster.local", kind), &m), Err(Refused::Opaque(kind)), "{code}");
    }
    let m = message(ResponseCode::NoError, vec![octets(46, "web.cluster.local")], vec![]);
    let got = reply(&eu(), &asked("web.cluster.local", RecordType::Unknown(46)), &m).unwrap();
    assert!(got.answers.is_empty());
}

#[test]
fn a_member_speaks_in_reverse_zones_for_its_own_ranges() {
    let ptr = |owner: &str| record(owner, RData::PTR(PTR(n("web.cluster.local"))));
    for (question, answers, want) in [
        ("7.0.0.10.in-addr.arpa", vec![ptr("7.0.0.10.in-addr.arpa")], 1),
        // RFC 2317.
        (
            "7.0.0.10.in-addr.arpa",
            vec![alias("7.0.0.10.in-addr.arpa", "7.0-25.0.0.10.in-addr.arpa"), ptr("7.0-25.0.0.10.in-addr.arpa")],
            2,
        ),
        // Another's address: that it is a CNAME is its own to say, what is there is not.
        (
            "7.0.0.10.in-addr.arpa",
            vec![alias("7.0.0.10.in-addr.arpa", "7.0.0.11.in-addr.arpa"), ptr("7.0.0.11.in-addr.arpa")],
            1,
        ),
    ] {
        let got =
            reply(&eu(), &asked(question, RecordType::PTR), &message(ResponseCode::NoError, answers, vec![])).unwrap();
        assert_eq!(got.answers.len(), want, "{:?}", texts(&got.answers));
    }
}

#[test]
fn a_referral_is_no_answer() {
    let ns = record("shop.cluster.local", RData::NS(NS(n("ns.shop.cluster.local"))));
    let m = message(ResponseCode::NoError, vec![], vec![ns]);
    assert_eq!(reply(&eu(), &asked("web.shop.cluster.local", RecordType::A), &m), Err(Refused::Referral));
}

#[test]
fn an_alias_that_can_not_name_its_domain_hides_it() {
    let aliases = [
        ("x".to_owned(), n("one.example")),
        ("X".to_owned(), n("two.example")),
        ("a.b".to_owned(), n("three.example")),
    ];
    let rename = Rename::new(n("dc1.atoll.internal"), n("mesos"), &aliases, vec![]);
    assert_eq!(rename.outward(&n("web.one.example")), Ok(n("web.x.dc1.atoll.internal")));
    for hidden in ["web.two.example", "three.example"] {
        assert_eq!(rename.outward(&n(hidden)), Err(Refused::Hidden), "{hidden}");
    }
    assert_eq!(rename.hiding().count(), 2);
}

#[test]
fn a_name_of_ours_is_never_native_not_even_in_a_domain_around_the_apex() {
    let around = Rename::new(n("eu.hub.corp.example"), n("corp.example"), &[], vec![]);
    assert_eq!(around.outward(&n("web.us.hub.corp.example")), Ok(n("web.us.hub.corp.example")));
    assert_eq!(around.outward(&n("web.corp.example")), Ok(n("web.eu.hub.corp.example")));
    assert_eq!(around.to_native(&n("web.hub.eu.hub.corp.example")), Err(Refused::Loop));
    assert!(!around.speaks_for(&n("us.hub.corp.example")));
}
