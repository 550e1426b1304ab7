//! Translation as properties: there and back is the identity, no native name leaves, nothing panics, whatever a member sends.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, MX, NAPTR, NS, PTR, SOA, SRV, SVCB};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;

use super::tests::{eu, mesos, message, n};
use super::*;
use crate::names::{below, within};
use atoll_api::rdata::{map_names, to_dname};

/// Random cases for each property.
const CASES: u32 = 1024;

fn label() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => "[a-z0-9_-]{1,20}".prop_map(String::into_bytes),
        4 => prop::sample::select(vec!["l4lb", "deep", "L4LB", "cluster", "local", "mesos", "svc", "dc1"])
            .prop_map(|label| label.as_bytes().to_vec()),
        1 => "[a-z]{60,63}".prop_map(String::into_bytes),
        // RFC 2181 §11: a label may hold any octets.
        1 => prop::collection::vec(any::<u8>(), 1..8),
    ]
}

fn suffix() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "cluster.local",
        "mesos",
        "l4lb.thisdcos.directory",
        "deep.mesos",
        "thisdcos.directory",
        "example.com",
        "0.0.10.in-addr.arpa",
        "prod-eu.atoll.internal",
        "dc1.atoll.internal",
    ])
}

fn name() -> impl Strategy<Value = Name> {
    (prop::collection::vec(label(), 0..6), suffix())
        .prop_filter_map("too long", |(labels, suffix)| below(&labels, &n(suffix)))
}

fn data() -> impl Strategy<Value = RData> {
    (0_u8..11, name()).prop_map(|(which, name)| match which {
        0 | 1 => RData::CNAME(CNAME(name)),
        2 => RData::SRV(SRV::new(0, 1, 80, name)),
        3 => RData::MX(MX::new(1, name)),
        4 => RData::NS(NS(name)),
        5 => RData::PTR(PTR(name)),
        6 => RData::SOA(SOA::new(name.clone(), name, 1, 2, 3, 4, 5)),
        7 => to_dname(&name).unwrap(),
        8 => RData::SVCB(SVCB::new(1, name, vec![])),
        9 => RData::NAPTR(NAPTR::new(1, 1, Box::default(), Box::default(), Box::default(), name)),
        _ => RData::A(A::new(10, 0, 0, 1)),
    })
}

/// Every name that stands in `record`.
fn names_in(record: &Record) -> Vec<Name> {
    let mut names = vec![record.name.clone()];
    let seen = map_names(
        record.data.clone(),
        |kind| kind,
        |name| {
            names.push(name.clone());
            Ok(name.clone())
        },
    );
    assert!(seen.is_ok(), "{seen:?}");
    names
}

/// Records whose owners and targets meet often: chains.
fn records() -> impl Strategy<Value = Vec<Record>> {
    (
        prop::collection::vec(name(), 1..5),
        prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), data(), any::<bool>()),
            0..12,
        ),
    )
        .prop_map(|(names, specs)| {
            let record = |(owner, target, data, linked): (prop::sample::Index, prop::sample::Index, RData, bool)| {
                let data = if linked { RData::CNAME(CNAME(target.get(&names).clone())) } else { data };
                Record::from_rdata(owner.get(&names).clone(), 5, data)
            };
            specs.into_iter().map(record).collect()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn translating_there_and_back_changes_nothing(name in name(), dc in any::<bool>()) {
        let rename = if dc { mesos() } else { eu() };
        let natives: &[&str] = if dc { &["mesos", "l4lb.thisdcos.directory"] } else { &["cluster.local"] };
        match rename.to_hub(&name) {
            Ok(Some(hub)) => {
                prop_assert!(within(&hub, rename.hub()));
                prop_assert_eq!(rename.to_native(&hub), Ok(Some(name)));
            }
            Ok(None) => prop_assert!(!natives.iter().any(|native| within(&name, &n(native))), "{}", name),
            // The only names without one: hidden, or too long.
            Err(refused) => prop_assert!(matches!(refused, Refused::Hidden | Refused::TooLong), "{}", refused),
        }
    }

    #[test]
    fn translating_back_and_there_changes_nothing(path in prop::collection::vec(label(), 0..6), dc in any::<bool>()) {
        let rename = if dc { mesos() } else { eu() };
        let Some(hub) = below(&path, rename.hub()) else { return Ok(()) };
        let Ok(Some(native)) = rename.to_native(&hub) else { return Ok(()) };
        match rename.to_hub(&native) {
            // `x.deep.mesos` can be called by the alias for `deep.mesos` only, and is.
            Ok(Some(back)) => prop_assert_eq!(back, hub),
            other => prop_assert!(matches!(other, Err(Refused::Hidden | Refused::TooLong)), "{:?}", other),
        }
    }

    #[test]
    fn no_native_name_ever_leaves(question in name(), dc in any::<bool>(), records in records(), negative in any::<bool>()) {
        let rename = if dc { mesos() } else { eu() };
        // What is native to nobody here may stand in an answer as it is; `cluster.local` never.
        let natives: &[&str] = if dc { &["cluster.local", "mesos", "l4lb.thisdcos.directory"] } else { &["cluster.local"] };
        let natives: Vec<Name> = natives.iter().map(|t| n(t)).collect();
        let code = if negative { ResponseCode::NXDomain } else { ResponseCode::NoError };
        let mut m = message(code, records.clone(), records.clone());
        m.additionals.clone_from(&records);
        let kinds = [RecordType::A, RecordType::SRV, RecordType::CNAME, RecordType::DNAME, RecordType::NS, RecordType::SOA];
        let own = records.first().map_or_else(|| question.clone(), |r| r.name.clone());
        for (qtype, native) in kinds.into_iter().flat_map(|k| [(k, question.clone()), (k, own.clone())]) {
            if !rename.speaks_for(&native) {
                continue;
            }
            let Ok(got) = reply(&rename, &Asked { native, qtype, trail: None }, &m) else { continue };
            let said = got.answers.into_iter().chain(got.additionals).chain(got.soa);
            for name in said.flat_map(|record| names_in(&record)).chain(got.next) {
                prop_assert!(!natives.iter().any(|native| within(&name, native)), "{}", name);
            }
        }
    }

    #[test]
    fn what_is_said_is_on_the_chain_from_the_question(question in name(), records in records()) {
        let rename = eu();
        if !rename.speaks_for(&question) {
            return Ok(());
        }
        let Ok(mut at) = rename.outward(&question) else { return Ok(()) };
        let m = message(ResponseCode::NoError, records, vec![]);
        let Ok(got) = reply(&rename, &Asked { native: question, qtype: RecordType::A, trail: None }, &m) else { return Ok(()) };
        for record in got.answers {
            match &record.data {
                RData::CNAME(target) => {
                    prop_assert_eq!(&record.name, &at);
                    at = target.0.clone();
                }
                RData::A(_) => prop_assert_eq!(&record.name, &at),
                // A DNAME stands above the CNAME that is made of it.
                _ => prop_assert!(within(&at, &record.name)),
            }
        }
    }

    #[test]
    fn any_packet_is_translated_without_a_panic(octets in prop::collection::vec(any::<u8>(), 0..300), name in name()) {
        if let Ok(m) = Message::from_vec(&octets) {
            let _ = reply(&eu(), &Asked { native: name, qtype: RecordType::A, trail: None }, &m);
        }
    }

    #[test]
    fn any_damaged_reply_is_translated_without_a_panic(
        records in records(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        qtype in any::<u16>(),
    ) {
        let native = records.first().map_or_else(|| n("x.cluster.local"), |r| r.name.clone());
        let mut m = message(ResponseCode::NoError, records.clone(), records.clone());
        m.additionals = records;
        let mut octets = m.to_vec().unwrap_or_default();
        for (at, octet) in damage.into_iter().filter(|_| !octets.is_empty()).collect::<Vec<_>>() {
            let len = octets.len();
            octets[at.index(len)] = octet;
        }
        if let Ok(m) = Message::from_vec(&octets) {
            let _ = reply(&mesos(), &Asked { native, qtype: RecordType::from(qtype), trail: None }, &m);
        }
    }
}
