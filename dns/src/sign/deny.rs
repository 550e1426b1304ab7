//! What is said of a name that is not there, or not with a type (RFC 9824: compact denial). Pure.
//!
//! One NSEC stands at the very name and ends right behind it, so it denies nothing else and nobody can walk the zone. Its types are
//! those of the name; where answers are decided at the moment of asking, every type that may be is named but the one that isn't, for
//! whoever keeps the NSEC (RFC 8198) denies by it what is not named.

use hickory_proto::dnssec::rdata::{DNSSECRData, NSEC};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::zones::Zone;

/// RFC 9824 §3.4: the name does not exist.
pub(super) const NXNAME: u16 = 128;
/// What federated, host and members' names may have: A, PTR, HINFO, MX, TXT, AAAA, LOC, SRV, NAPTR, SSHFP, TLSA, SVCB, HTTPS, CAA.
const MAYBE: [u16; 14] = [1, 12, 13, 15, 16, 28, 29, 33, 35, 44, 52, 64, 65, 257];

/// Denies `kind` at `name`; `there`: the name exists; `fixed`: what it has is written in the zone.
pub(super) fn denial(zone: &Zone, name: &Name, kind: RecordType, there: bool, fixed: bool) -> Record {
    let written = zone.types(name);
    let types: Vec<RecordType> = match (there, fixed) {
        (false, _) => vec![RecordType::from(NXNAME)],
        (true, true) => written.unwrap_or_default(),
        (true, false) => written.unwrap_or_default().into_iter().chain(MAYBE.map(RecordType::from)).collect(),
    };
    // At a cut only what is the parent's stands here, unless the name is the zone's own.
    let cut = *name != *zone.apex() && zone.is_cut(name);
    let ours = |t: &RecordType| !cut || matches!(t, RecordType::NS | RecordType::DS);
    let never = |t: &RecordType| *t == RecordType::CNAME || *t == kind;
    nsec(zone, name, types.into_iter().filter(|t| ours(t) && !never(t)))
}

/// Denies the DS of a delegation.
pub(super) fn no_ds(zone: &Zone, cut: &Name) -> Record {
    nsec(zone, cut, [RecordType::NS])
}

fn nsec(zone: &Zone, name: &Name, types: impl IntoIterator<Item = RecordType>) -> Record {
    let mut types: Vec<RecordType> = types.into_iter().chain([RecordType::NSEC, RecordType::RRSIG]).collect();
    types.sort_unstable_by_key(|t| u16::from(*t));
    types.dedup();
    // RFC 9824 §3.1: "the next domain name … the immediate lexicographic successor": one octet of zero in front.
    let successor = name.prepend_label([0].as_slice()).unwrap_or_else(|_| zone.apex().clone());
    record(name, &successor, types, zone.soa().ttl)
}

/// An NSEC.
pub(super) fn record(name: &Name, next: &Name, types: Vec<RecordType>, ttl: u32) -> Record {
    Record::from_rdata(name.clone(), ttl, RData::DNSSEC(DNSSECRData::NSEC(NSEC::new(next.clone(), types))))
}
