//! RFC 2136, sentence by sentence, and the properties of every update.

use proptest::prelude::*;

use super::*;
use crate::records::{absolute, of_endpoints, record, to_endpoints};

fn n(text: &str) -> Name {
    absolute(text).unwrap()
}

fn rr(name: &str, kind: &str, ttl: u32, value: &str) -> Record {
    record(n(name), kind, ttl, value).unwrap()
}

fn of(class: DNSClass, mut record: Record) -> Record {
    record.dns_class = class;
    record.ttl = 0;
    record
}

fn empty(class: DNSClass, name: &str, kind: RecordType) -> Record {
    let mut record = Record::update0(n(name), 0, kind);
    record.dns_class = class;
    record
}

fn fixed() -> Vec<Record> {
    vec![
        rr("example.com", "NS", 300, "ns1.example.com"),
        rr("www.example.com", "A", 300, "192.0.2.80"),
        rr("alias.example.com", "CNAME", 300, "www.example.com"),
    ]
}

fn own() -> Vec<Record> {
    vec![
        rr("a.example.com", "A", 60, "192.0.2.1"),
        rr("a.example.com", "A", 60, "192.0.2.2"),
        rr("a.example.com", "TXT", 60, "heritage=external-dns"),
        rr("c.example.com", "CNAME", 60, "a.example.com"),
    ]
}

fn show(records: &[Record]) -> String {
    let mut lines: Vec<String> = records.iter().map(|r| format!("{} {} {}", r.name, r.ttl, r.data)).collect();
    lines.sort();
    lines.join("; ")
}

#[test]
fn prerequisites_are_those_of_rfc_2136_section_3_2() {
    let (apex, fixed, own) = (n("example.com"), fixed(), own());
    let zone = Content { apex: &apex, fixed: &fixed, own: &own };
    let with_ttl = Record::from_rdata(n("a.example.com"), 5, own[0].data.clone());
    for (name, prerequisite, code) in [
        ("name in use", empty(DNSClass::ANY, "a.example.com", RecordType::ANY), None),
        ("fixed name in use", empty(DNSClass::ANY, "www.example.com", RecordType::ANY), None),
        ("name not in use", empty(DNSClass::ANY, "x.example.com", RecordType::ANY), Some(ResponseCode::NXDomain)),
        ("set exists", empty(DNSClass::ANY, "a.example.com", RecordType::TXT), None),
        ("set is not there", empty(DNSClass::ANY, "a.example.com", RecordType::MX), Some(ResponseCode::NXRRSet)),
        ("no name wanted", empty(DNSClass::NONE, "x.example.com", RecordType::ANY), None),
        ("name unwanted", empty(DNSClass::NONE, "A.example.com", RecordType::ANY), Some(ResponseCode::YXDomain)),
        ("no set wanted", empty(DNSClass::NONE, "a.example.com", RecordType::MX), None),
        ("set unwanted", empty(DNSClass::NONE, "a.example.com", RecordType::A), Some(ResponseCode::YXRRSet)),
        ("set as it is", of(DNSClass::IN, own[2].clone()), None),
        ("half a set", of(DNSClass::IN, own[0].clone()), Some(ResponseCode::NXRRSet)),
        ("with a TTL", with_ttl, Some(ResponseCode::FormErr)),
        ("outside", empty(DNSClass::ANY, "example.net", RecordType::ANY), Some(ResponseCode::NotZone)),
        ("class CH", empty(DNSClass::CH, "a.example.com", RecordType::A), Some(ResponseCode::FormErr)),
        ("ANY with data", of(DNSClass::ANY, own[0].clone()), Some(ResponseCode::FormErr)),
    ] {
        assert_eq!(apply(&zone, &[prerequisite], &[]).err().map(|r| r.code), code, "{name}");
    }
    let both = [of(DNSClass::IN, own[1].clone()), of(DNSClass::IN, own[0].clone())];
    assert_eq!(apply(&zone, &both, &[]), Ok(own.clone()), "a whole set, in any order");
}

#[test]
fn updates_are_those_of_rfc_2136_section_3_4() {
    let (apex, fixed, own) = (n("example.com"), fixed(), own());
    let zone = Content { apex: &apex, fixed: &fixed, own: &own };
    let rest = "a.example.com. 60 heritage=external-dns; c.example.com. 60 a.example.com.";
    for (name, update, want) in [
        (
            "another address",
            rr("a.example.com", "A", 30, "192.0.2.3"),
            Ok(format!(
                "a.example.com. 30 192.0.2.1; a.example.com. 30 192.0.2.2; a.example.com. 30 192.0.2.3; {rest}"
            )),
        ),
        (
            "beside a fixed one",
            rr("www.example.com", "A", 60, "192.0.2.81"),
            Ok(format!("{}; www.example.com. 60 192.0.2.81", show(&own))),
        ),
        ("an alias where data is", rr("a.example.com", "CNAME", 60, "b.example.com"), Ok(show(&own))),
        (
            "an alias instead of another",
            rr("c.example.com", "CNAME", 60, "b.example.com"),
            Ok(show(&own).replace("c.example.com. 60 a.", "c.example.com. 60 b.")),
        ),
        ("data where an alias is", rr("c.example.com", "A", 60, "192.0.2.9"), Ok(show(&own))),
        ("data where a fixed alias is", rr("alias.example.com", "A", 60, "192.0.2.9"), Ok(show(&own))),
        ("a set goes", empty(DNSClass::ANY, "a.example.com", RecordType::A), Ok(rest.to_owned())),
        (
            "a name goes",
            empty(DNSClass::ANY, "a.example.com", RecordType::ANY),
            Ok("c.example.com. 60 a.example.com.".into()),
        ),
        ("a record goes", of(DNSClass::NONE, own[0].clone()), Ok(format!("a.example.com. 60 192.0.2.2; {rest}"))),
        ("one that is not there", of(DNSClass::NONE, rr("q.example.com", "A", 0, "192.0.2.1")), Ok(show(&own))),
        ("the apex keeps its NS", empty(DNSClass::ANY, "example.com", RecordType::ANY), Ok(show(&own))),
        ("the last NS stays", of(DNSClass::NONE, fixed[0].clone()), Ok(show(&own))),
        ("a fixed record", of(DNSClass::NONE, fixed[1].clone()), Err(ResponseCode::Refused)),
        ("a fixed set", empty(DNSClass::ANY, "www.example.com", RecordType::ANY), Err(ResponseCode::Refused)),
        ("outside", rr("example.net", "A", 60, "192.0.2.1"), Err(ResponseCode::NotZone)),
        ("type ANY added", empty(DNSClass::IN, "x.example.com", RecordType::ANY), Err(ResponseCode::FormErr)),
        ("nothing added", empty(DNSClass::IN, "x.example.com", RecordType::A), Err(ResponseCode::FormErr)),
        ("class CH", of(DNSClass::CH, own[0].clone()), Err(ResponseCode::FormErr)),
        ("AXFR deleted", empty(DNSClass::ANY, "x.example.com", RecordType::AXFR), Err(ResponseCode::FormErr)),
    ] {
        let got = apply(&zone, &[], &[update]).map(|own| show(&own)).map_err(|r| r.code);
        assert_eq!(got, want, "{name}");
    }
    let halfway = [rr("new.example.com", "A", 60, "192.0.2.1"), of(DNSClass::NONE, fixed[1].clone())];
    assert!(apply(&zone, &[], &halfway).is_err(), "all or nothing");
}

fn any_record() -> impl Strategy<Value = Record> {
    let names = prop_oneof![
        Just("example.com"),
        Just("a.example.com"),
        Just("www.example.com"),
        Just("c.example.com"),
        Just("x.y")
    ];
    let values = prop_oneof![
        Just(("A", "192.0.2.1")),
        Just(("A", "192.0.2.80")),
        Just(("CNAME", "a.example.com")),
        Just(("NS", "ns1.example.com")),
        Just(("TXT", "\\# 3 02ff00")),
        Just(("TYPE65400", "\\# 1 00")),
    ];
    let class = prop_oneof![Just(DNSClass::IN), Just(DNSClass::ANY), Just(DNSClass::NONE), Just(DNSClass::CH)];
    (names, values, class, any::<bool>(), 0_u32..3).prop_map(|(name, (kind, value), class, bare, ttl)| {
        let mut record =
            if bare { Record::update0(n(name), ttl, text::kind(kind).unwrap()) } else { rr(name, kind, ttl, value) };
        record.dns_class = class;
        record
    })
}

proptest! {
    #[test]
    fn whatever_is_updated_stays_lawful(
        prerequisites in prop::collection::vec(any_record(), 0..3),
        updates in prop::collection::vec(any_record(), 0..8),
    ) {
        let (apex, fixed, own) = (n("example.com"), fixed(), own());
        let zone = Content { apex: &apex, fixed: &fixed, own: &own };
        if let Ok(next) = apply(&zone, &prerequisites, &updates) {
            for record in &next {
                prop_assert!(apex.zone_of(&record.name) && record.dns_class == DNSClass::IN);
                let beside = fixed.iter().chain(&next).filter(|r| r.name == record.name);
                let alone = record.record_type() != RecordType::CNAME || beside.count() == 1;
                prop_assert!(alone, "{} is an alias and more", record.name);
            }
            // Nothing is lost on the way into an object and back.
            let mut stored = of_endpoints(&to_endpoints(&next), |why| panic!("{why}"));
            for record in &mut stored {
                record.ttl = next.iter().find(|r| r.data == record.data && r.name == record.name).map_or(0, |r| r.ttl);
            }
            prop_assert_eq!(show(&stored), show(&next));
        }
    }
}
