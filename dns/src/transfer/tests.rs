//! Transfers of zones by their records: whole, by differences, over many messages.

use std::sync::Arc;

use atoll_api::topology::Topology;
use hickory_proto::op::{MessageType, Query};
use hickory_proto::rr::Name;
use serde_json::json;
use tokio::sync::Semaphore;

use super::*;
use crate::config::Config;
use crate::names::absolute;

fn table(serial: u32, hosts: std::ops::Range<u32>) -> Table {
    let records: Vec<_> = hosts
        .map(|i| json!({"name": format!("host-{i}"), "type": "A", "values": [format!("192.0.{}.{}", i / 250, i % 250 + 1)]}))
        .collect();
    let zone = json!({"serial": serial, "spec": {"apex": "example.com", "ns": ["ns.example.com"], "records": records,
        "allow": {"transfer": [{"cidr": "192.0.2.0/24"}, {"tsig": "k1.", "cidr": "10.0.0.0/8"}]}}});
    let mut topology = Topology::default();
    topology.settings.apex = "atoll.internal".into();
    topology.zones.insert("z".into(), Arc::new(serde_json::from_value(zone).unwrap()));
    Table::new(&Arc::new(topology), &Config::default(), &crate::geo::Geo::default())
}

fn query(name: &str, kind: RecordType, held: Option<u32>) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(absolute(name).unwrap(), kind));
    if let Some(held) = held {
        let zone = Zone::new(absolute(name).unwrap(), &atoll_api::kinds::Soa::default(), &[], held);
        message.add_authority(zone.soa());
    }
    message
}

fn apex() -> Name {
    absolute("example.com").unwrap()
}

fn messages(records: Box<dyn Iterator<Item = Record> + Send>, query: &Message) -> Vec<Vec<u8>> {
    let slot = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    Transfer::new(query, records, None, || 0, slot).collect()
}

#[test]
fn only_packets_for_transfers_are_taken_for_them() {
    for (kind, is) in
        [(RecordType::AXFR, true), (RecordType::IXFR, true), (RecordType::A, false), (RecordType::ANY, false)]
    {
        assert_eq!(asked(&query("example.com", kind, None).to_vec().unwrap()).is_some(), is, "{kind}");
    }
    let packet = query("example.com", RecordType::AXFR, None).to_vec().unwrap();
    for end in 0..packet.len() {
        assert!(asked(&packet[..end]).is_none(), "cut at {end}");
    }
}

#[test]
fn a_zone_goes_to_whom_it_allows() {
    let table = table(5, 0..1);
    for (name, ip, key, want) in [
        ("example.com", "192.0.2.9", None, Ok(5)),
        ("EXAMPLE.com", "192.0.2.9", Some("k9."), Ok(5)),
        ("example.com", "10.1.1.1", Some("K1"), Ok(5)),
        ("example.com", "10.1.1.1", None, Err(ResponseCode::Refused)),
        ("example.com", "192.0.3.9", Some("k1."), Err(ResponseCode::Refused)),
        ("sub.example.com", "192.0.2.9", None, Err(ResponseCode::NotAuth)),
        ("example.net", "192.0.2.9", None, Err(ResponseCode::NotAuth)),
        ("atoll.internal", "192.0.2.9", None, Err(ResponseCode::Refused)),
    ] {
        let key = key.map(|key| absolute(key).unwrap());
        let origin = Origin { ip: ip.parse().unwrap(), listener: "tcp", key: key.as_ref() };
        let got = allowed(&table, &query(name, RecordType::AXFR, None), &origin);
        assert_eq!(got.map(|(zone, _)| zone.serial()), want, "{name} {ip}");
    }
}

#[test]
fn a_large_zone_is_many_messages_between_two_soas() {
    let table = table(5, 0..20_000);
    let zone = table.zone_of(&apex()).unwrap();
    let query = query("example.com", RecordType::AXFR, None);
    let records = content((zone, None), &query, &Journals::default(), &Arc::default(), 0);
    let messages = messages(records, &query);
    assert!(messages.len() > 20 && messages.iter().all(|m| m.len() <= 20 * 1024), "{} messages", messages.len());
    let records: Vec<Record> = messages.iter().flat_map(|m| Message::from_vec(m).unwrap().answers).collect();
    // SOA, NS, hosts, SOA.
    assert_eq!(records.len(), 20_003);
    let soas: Vec<usize> =
        records.iter().enumerate().filter(|(_, r)| r.record_type() == RecordType::SOA).map(|(i, _)| i).collect();
    assert_eq!(soas, [0, 20_002]);
}

#[test]
fn every_message_is_signed_at_the_time_when_it_is_made() {
    use std::sync::atomic::{AtomicU64, Ordering};
    /// Each message takes a minute to send.
    static NOW: AtomicU64 = AtomicU64::new(1_800_000_000);
    let table = table(5, 0..8_000);
    let query = query("example.com", RecordType::AXFR, None);
    let records = content((table.zone_of(&apex()).unwrap(), None), &query, &Journals::default(), &Arc::default(), 0);
    let key = crate::tsig::Key::new("k1.", "hmac-sha256", "c2VjcmV0LXRoYXQtaXMtbG9uZy1lbm91Z2g=").unwrap();
    let session = Box::new(crate::tsig::Session::begin(Arc::new(key), 7));
    let slot = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let now_s = || NOW.fetch_add(60, Ordering::Relaxed);
    let messages: Vec<Vec<u8>> = Transfer::new(&query, records, Some(session), now_s, slot).collect();
    let times: Vec<u64> = messages.iter().map(|m| Message::from_vec(m).unwrap().signature.unwrap().data.time).collect();
    assert!(times.len() > 5 && times.windows(2).all(|w| w[1] == w[0] + 60), "{times:?}");
}

#[test]
fn differences_lead_from_each_known_serial_to_the_present() {
    let tables = [table(5, 0..3), table(6, 1..4), table(7, 1..9)];
    let journals = Journals::default();
    for pair in tables.windows(2) {
        journals.note(pair[0].zone_of(&apex()).unwrap(), pair[1].zone_of(&apex()).unwrap());
    }
    let zone = tables[2].zone_of(&apex()).unwrap();
    let answer = |held: u32| {
        let query = query("example.com", RecordType::IXFR, Some(held));
        let records = content((zone, None), &query, &journals, &Arc::default(), 0);
        let show = |r: Record| match r.data {
            RData::SOA(soa) => format!("#{}", soa.serial),
            RData::NS(_) => "ns".to_owned(),
            _ => r.name.to_ascii().split('.').next().unwrap().replace("host-", ""),
        };
        records.map(show).collect::<Vec<_>>()
    };
    let sorted = |words: &[String]| {
        let mut words = words.to_vec();
        words.sort();
        words.join(" ")
    };
    assert_eq!(answer(7), ["#7"], "the same");
    assert_eq!(answer(8), ["#7"], "newer than ours");
    let six = answer(6);
    assert_eq!(
        (six[..3].join(" "), sorted(&six[3..8]), six[8..].join(" ")),
        ("#7 #6 #7".into(), "4 5 6 7 8".into(), "#7".into())
    );
    assert_eq!(answer(5)[..6], ["#7", "#5", "0", "#6", "3", "#6"]);
    assert_eq!(answer(4).len(), 11, "unknown: the whole zone");
    // A change that nobody saw breaks the chain.
    let later = table(9, 1..9);
    journals.note(table(8, 1..9).zone_of(&apex()).unwrap(), later.zone_of(&apex()).unwrap());
    assert!(journals.since(later.zone_of(&apex()).unwrap(), None, 6).is_none());
    assert!(journals.since(later.zone_of(&apex()).unwrap(), None, 8).is_some());
}

#[test]
fn serials_compare_as_rfc_1982_says() {
    for (a, b, newer) in
        [(2, 1, true), (1, 2, false), (1, 1, false), (0, u32::MAX, true), (u32::MAX, 0, false), (1 << 31, 1, true)]
    {
        assert_eq!(is_newer(a, b), newer, "{a} after {b}");
    }
}
