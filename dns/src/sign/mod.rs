//! Signing what is answered, at the moment it is answered (RFC 4034, 4035), with denials made for the question (RFC 9824).
//!
//! ```text
//!   answer (of the resolver, DO) ── each set in a signed zone of ours ── signatures (kept) ── RRSIG
//!                                └─ nothing there ── deny ── SOA, NSEC of the very name
//! ```
//!
//! In: an answer and the zones. Out: the same with RRSIG, NSEC and DS. Whatever a signed zone answers is signed, geo and translated
//! answers too; what lies below an unsigned zone of ours is an insecure delegation, which the zone above denies a DS. Without DO nothing
//! is changed. Sources: RFC 6605 (ECDSA P-256), RFC 9824 (compact denial), RFC 7344 (CDS), docs/decisions/0001-dnssec.md.

mod deny;
mod keys;
mod signatures;
mod transfer;

use atoll_api::rdata::dname;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, Record, RecordType};
pub(crate) use keys::{Keys, decode};
pub(crate) use signatures::Signatures;
pub(crate) use transfer::signed;

use crate::answer::{Answer, Source};
use crate::client::Asker;
use crate::table::Table;
use crate::zones::Zone;

/// Signs `answer` to a question for `name` and `kind` that asked for it, as the zones are in the asker's view.
pub(crate) fn complete(
    answer: &mut Answer,
    (table, asker): (&Table, &Asker),
    (name, kind): (&Name, RecordType),
    signatures: &Signatures,
    now_s: u32,
) {
    let too_long = answer.rcode == ResponseCode::YXDomain;
    if !matches!(answer.rcode, ResponseCode::NoError | ResponseCode::NXDomain) && !too_long {
        return;
    }
    let view = table.clients.view(asker).map(|view| view.name.as_str());
    let signer = |owner: &Name| {
        let zone = table.zone_for(asker, owner).map(|zone| zone.seen_by(view));
        zone.filter(|zone| zone.keys().is_some())
    };
    let last = end(name, kind, &answer.answers);
    let home = table.zone_placing(asker, &last, kind).map(|zone| zone.seen_by(view));
    let home = home.filter(|zone| zone.keys().is_some());
    // RFC 4035 §5.3.1: validators want NS and SOA signed by the zone whose name they stand at, and members' subtrees are no zones of ours.
    if matches!(kind, RecordType::NS | RecordType::SOA) && home.is_some_and(|zone| *zone.apex() != last) {
        let before = answer.answers.len();
        answer.answers.retain(|r| r.name != last || r.record_type() != kind);
        if answer.answers.len() < before {
            answer.additionals.clear();
        }
    }
    let found = answer.answers.iter().any(|r| r.name == last && (r.record_type() == kind || kind == RecordType::ANY));
    if !found
        && !too_long
        && let Some(zone) = home
    {
        refuse(answer, zone, &last, kind);
    }
    let renamed: Vec<Name> =
        answer.answers.iter().filter(|r| dname(&r.data).is_some()).map(|r| r.name.clone()).collect();
    let seal = |records: &mut Vec<Record>, home: Option<&Zone>| {
        let sets = sets(std::mem::take(records));
        for mut set in sets {
            let first = &set[0];
            let zone = match home {
                Some(zone) if zone.apex().zone_of(&first.name) => Some(zone),
                _ => signer(&first.name),
            };
            // NS and addresses below a cut are not ours to sign (RFC 4035 §2.2); what already is signed is somebody else's.
            // RFC 6672 §5.3.1: a CNAME that follows from a DNAME "will never be signed".
            let made = |r: &Record| renamed.iter().any(|owner| *owner != r.name && owner.zone_of(&r.name));
            let plain = match first.record_type() {
                RecordType::RRSIG => false,
                RecordType::CNAME => !made(first),
                _ => true,
            };
            if let Some(zone) = zone.filter(|zone| plain && !is_below(zone, first)) {
                set.extend(signatures.of(zone, &set, now_s));
            }
            records.extend(set);
        }
    };
    // A DS, and the denial of one, is the zone's above.
    let above = home.filter(|_| kind == RecordType::DS);
    seal(&mut answer.answers, above);
    if kind == RecordType::RRSIG {
        // Who asks for signatures gets those of the denial, as who asks for ANY gets one set (RFC 8482 §4.1).
        answer.answers.retain(|r| r.record_type() != RecordType::NSEC);
    }
    seal(&mut answer.authorities, home);
    seal(&mut answer.additionals, None);
}

/// Where the chain of aliases from `name` ends.
fn end(name: &Name, kind: RecordType, answers: &[Record]) -> Name {
    let mut last = name.clone();
    if kind == RecordType::CNAME {
        return last;
    }
    for record in answers {
        match &record.data {
            RData::CNAME(target) if record.name == last => last = target.0.to_lowercase(),
            _ => {}
        }
    }
    last
}

/// Puts in place of an unsigned "no" a signed one, and beside a referral what is said of its DS.
fn refuse(answer: &mut Answer, zone: &Zone, name: &Name, kind: RecordType) {
    let cut = answer.authorities.iter().find(|r| r.record_type() == RecordType::NS).map(|r| r.name.clone());
    match cut {
        Some(cut) => {
            answer.authorities.extend(match zone.set(&cut, RecordType::DS) {
                Some(ds) => ds,
                None => vec![deny::no_ds(zone, &cut)],
            });
        }
        _ => {
            let there = answer.rcode == ResponseCode::NoError;
            let fixed = matches!(answer.sources.last(), Some(Source::Zone(_)));
            let denial = deny::denial(zone, name, kind, there, fixed);
            // RFC 9824 §3.1: the code is that of a name that exists; NXNAME says that it does not.
            answer.rcode = ResponseCode::NoError;
            if matches!(kind, RecordType::NSEC | RecordType::RRSIG) {
                answer.answers.push(denial);
                answer.authorities.clear();
            } else {
                let mut soa = zone.soa();
                soa.ttl = denial.ttl;
                answer.authorities = vec![soa, denial];
            }
        }
    }
}

fn is_below(zone: &Zone, record: &Record) -> bool {
    let kind = record.record_type();
    let at_cut = matches!(kind, RecordType::DS | RecordType::NSEC);
    record.name != *zone.apex() && !at_cut && zone.is_cut(&record.name)
}

/// Records by set, in their order.
fn sets(records: Vec<Record>) -> Vec<Vec<Record>> {
    let mut sets: Vec<Vec<Record>> = Vec::new();
    for record in records {
        let same = |set: &&mut Vec<Record>| set[0].name == record.name && set[0].record_type() == record.record_type();
        match sets.iter_mut().find(same) {
            Some(set) => set.push(record),
            None => sets.push(vec![record]),
        }
    }
    sets
}
