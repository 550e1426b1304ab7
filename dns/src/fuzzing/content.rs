//! What changes a zone: UPDATE messages and zone files.
//!
//! In: octets. Checked: what an update leaves is lawful and the same after it was stored in an object; every record of a zone file can be
//! written and read again, as text and as octets, and none stands where none may.

use std::sync::LazyLock;

use atoll_api::kinds::ZoneSpec;
use atoll_api::rdata::text;
use atoll_api::records::{absolute, of_endpoints, own, record, to_endpoints};
use atoll_api::update::{Content, apply, read};
use atoll_api::zonefile::{FILE_BYTES_MAX, parse};
use hickory_proto::op::Message;
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};

/// The zone that is changed.
struct Zone {
    apex: Name,
    fixed: Vec<Record>,
    own: Vec<Record>,
    spec: ZoneSpec,
}

static ZONE: LazyLock<Zone> = LazyLock::new(|| {
    let records = |all: &[(&str, &str, &str)]| {
        let record = |(name, kind, value): &(&str, &str, &str)| record(absolute(name)?, kind, 60, value).ok();
        all.iter().filter_map(record).collect::<Vec<Record>>()
    };
    Zone {
        apex: absolute("example.com").unwrap_or_else(Name::root),
        fixed: records(&[
            ("example.com", "NS", "ns1.example.com"),
            ("www.example.com", "A", "192.0.2.80"),
            ("alias.example.com", "CNAME", "www.example.com"),
        ]),
        own: records(&[
            ("a.example.com", "A", "192.0.2.1"),
            ("a.example.com", "A", "192.0.2.2"),
            ("a.example.com", "TXT", "heritage=external-dns"),
            ("c.example.com", "CNAME", "a.example.com"),
        ]),
        spec: ZoneSpec { apex: "example.com".to_owned(), ..ZoneSpec::default() },
    }
});

/// An UPDATE without its TSIG.
///
/// # Panics
/// When what it leaves is not lawful, or not the same after it was stored.
pub fn update(octets: &[u8]) {
    let Ok(sections) = read(octets) else { return };
    let Zone { apex, fixed, own, .. } = &*ZONE;
    let zone = Content { apex, fixed, own };
    let Ok(next) = apply(&zone, &sections.prerequisites, &sections.updates) else { return };
    let all = || fixed.iter().chain(&next);
    for record in &next {
        assert!(apex.zone_of(&record.name) && record.dns_class == DNSClass::IN, "{record} is none of the zone's");
        let alone = record.record_type() != RecordType::CNAME || all().filter(|r| r.name == record.name).count() == 1;
        assert!(alone, "{} is an alias and more", record.name);
    }
    let stored = of_endpoints(&to_endpoints(&next), |why| panic!("stored and not read: {why}"));
    let shown = |records: &[Record]| {
        let mut lines: Vec<String> = records.iter().map(|r| format!("{} {}", r.name, text::show(&r.data))).collect();
        lines.sort();
        lines
    };
    assert_eq!(shown(&stored), shown(&next), "after it was stored");
}

/// A zone file.
///
/// # Panics
/// When a record of it can't be written and read again, or stands where it may not.
pub fn zone_file(octets: &[u8]) {
    let Ok(file) = std::str::from_utf8(octets) else { return };
    let Zone { apex, spec, .. } = &*ZONE;
    let parsed = parse(file, apex);
    assert!(parsed.records.len() + parsed.faults.len() <= file.len().min(FILE_BYTES_MAX) + 1, "more than there is");
    let zone = own(spec, Some(file));
    for held in &zone.records {
        assert!(apex.zone_of(&held.name), "{} lies outside the zone", held.name);
        let mut same = zone.records.iter().filter(|r| r.name == held.name);
        let alone = held.record_type() != RecordType::CNAME || same.clone().count() == 1;
        assert!(alone || same.all(|r| r.record_type() != RecordType::CNAME), "{} is an alias and more", held.name);
        let shown = text::show(&held.data);
        let again = record(held.name.clone(), &text::word(held.record_type()), held.ttl, &shown);
        assert_eq!(again.as_ref().map(|r| &r.data), Ok(&held.data), "as text: {shown}");
        let mut message = Message::query();
        message.answers = vec![held.clone()];
        // What does not fit into a message is left out when it is asked for.
        let Ok(octets) = message.to_vec() else { continue };
        let Ok(read) = Message::from_vec(&octets) else { panic!("{held} can't be read again") };
        assert_eq!(read.answers.first().map(|r| &r.data), Some(&held.data), "as octets");
    }
}
