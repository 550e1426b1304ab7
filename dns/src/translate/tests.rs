//! Translation as cases and as properties: symmetric, strict, total.

use hickory_proto::op::{Message, OpCode};
use hickory_proto::rr::rdata::{A, CNAME, MX, NAPTR, NS, PTR, SOA, SRV, SVCB};
use proptest::prelude::*;

use super::*;
use atoll_api::rdata::to_dname;

fn n(text: &str) -> Name {
    absolute(text).unwrap()
}

fn eu() -> Rename {
    Rename::new(n("prod-eu.atoll.internal"), n("cluster.local"), &[])
}

fn mesos() -> Rename {
    let aliases = [("l4lb".to_owned(), n("l4lb.thisdcos.directory")), ("deep".to_owned(), n("deep.mesos"))];
    Rename::new(n("dc1.atoll.internal"), n("mesos"), &aliases)
}

fn a(owner: &str, last: u8) -> Record {
    Record::from_rdata(n(owner), 5, RData::A(A::new(10, 0, 0, last)))
}

fn record(owner: &str, data: RData) -> Record {
    Record::from_rdata(n(owner), 5, data)
}

fn alias(owner: &str, target: &str) -> Record {
    record(owner, RData::CNAME(CNAME(n(target))))
}

fn message(code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>) -> Message {
    let mut m = Message::response(7, OpCode::Query);
    m.metadata.response_code = code;
    m.answers = answers;
    m.authorities = authorities;
    m
}

fn asked(native: &str, qtype: RecordType) -> Asked {
    Asked { native: n(native), qtype, reverse: false }
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
        ("only what is foreign", vec![a("bank.com", 6)], Ok(vec![])),
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
    let got = reply(&eu(), &Asked { native: n(owner), qtype: RecordType::PTR, reverse: true }, &m).unwrap();
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

fn label() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9_-]{1,20}".prop_map(|s| s),
        Just("l4lb".to_owned()),
        Just("deep".to_owned()),
        Just("cluster".to_owned()),
        Just("local".to_owned()),
        Just("mesos".to_owned()),
        "[a-z]{60,63}".prop_map(|s| s),
    ]
}

fn suffix() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "cluster.local",
        "mesos",
        "l4lb.thisdcos.directory",
        "deep.mesos",
        "example.com",
        "prod-eu.atoll.internal",
        "dc1.atoll.internal",
    ])
}

fn name() -> impl Strategy<Value = Name> {
    (prop::collection::vec(label(), 0..6), suffix())
        .prop_filter_map("too long", |(labels, suffix)| below(&labels, &n(suffix)))
}

fn data() -> impl Strategy<Value = RData> {
    (0_u8..9, name()).prop_map(|(which, name)| match which {
        0 => RData::CNAME(CNAME(name)),
        1 => RData::SRV(SRV::new(0, 1, 80, name)),
        2 => RData::MX(MX::new(1, name)),
        3 => RData::NS(NS(name)),
        4 => RData::PTR(PTR(name)),
        5 => RData::SOA(SOA::new(name.clone(), name, 1, 2, 3, 4, 5)),
        6 => to_dname(&name).unwrap(),
        7 => RData::SVCB(SVCB::new(1, name, vec![])),
        _ => RData::A(A::new(10, 0, 0, 1)),
    })
}

proptest! {
    #[test]
    fn translating_there_and_back_changes_nothing(name in name(), dc in any::<bool>()) {
        let rename = if dc { mesos() } else { eu() };
        if let Ok(Some(hub)) = rename.to_hub(&name) {
            prop_assert_eq!(rename.to_native(&hub), Ok(Some(name)));
        }
    }

    #[test]
    fn no_native_name_ever_leaves(
        question in name(),
        dc in any::<bool>(),
        records in prop::collection::vec((name(), data()), 0..12),
        negative in any::<bool>(),
    ) {
        let rename = if dc { mesos() } else { eu() };
        let natives: Vec<Name> = ["cluster.local", "mesos", "l4lb.thisdcos.directory"].iter().map(|t| n(t)).collect();
        // What is native to nobody here may stand in an answer as it is.
        let natives = &natives[..if dc { 3 } else { 1 }];
        let records: Vec<Record> = records.into_iter().map(|(owner, data)| Record::from_rdata(owner, 5, data)).collect();
        let code = if negative { ResponseCode::NXDomain } else { ResponseCode::NoError };
        let mut m = message(code, records.clone(), records.clone());
        m.additionals = records.clone();
        let kinds = [RecordType::A, RecordType::SRV, RecordType::CNAME];
        let own = records.first().map(|r| r.name.clone()).unwrap_or_else(|| question.clone());
        for (qtype, native) in kinds.into_iter().flat_map(|k| [(k, question.clone()), (k, own.clone())]) {
            if !rename.speaks_for(&native) {
                continue;
            }
            let Ok(got) = reply(&rename, &Asked { native, qtype, reverse: false }, &m) else { continue };
            for record in got.answers.into_iter().chain(got.additionals).chain(got.soa) {
                let mut names = vec![record.name.clone()];
                let seen = map_names(record.data, |_| (), |name| { names.push(name.clone()); Ok(name.clone()) });
                prop_assert!(seen.is_ok());
                for name in names {
                    prop_assert!(!natives.iter().any(|native| within(&name, native)), "{}", name);
                }
            }
        }
    }

    #[test]
    fn any_packet_is_translated_without_a_panic(octets in prop::collection::vec(any::<u8>(), 0..300), name in name()) {
        if let Ok(m) = Message::from_vec(&octets) {
            let _ = reply(&eu(), &Asked { native: name, qtype: RecordType::A, reverse: false }, &m);
        }
    }
}
