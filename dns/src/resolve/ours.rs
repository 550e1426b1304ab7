//! What our own zones answer, and what answers are made of. Pure.

use atoll_api::rdata::targets;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};

use crate::answer::{Answer, Reuse, Source, ede};
use crate::hierarchy::{Below, Place};
use crate::table::Table;
use crate::zones::{Found, Zone};

/// The answer of a zone of ours.
pub(super) fn here(table: &Table, zone: &Zone, name: &Name, kind: RecordType) -> Answer {
    if zone.is_catalog() && kind != RecordType::SOA {
        return Answer::refused(ede::PROHIBITED, "a catalog is for secondaries");
    }
    match zone.find(name, kind) {
        Found::Records(records) => {
            let additionals = records.iter().filter_map(|r| targets(&r.data)).flat_map(|t| zone.addresses(t)).collect();
            Answer { additionals, ..Answer::records(records) }
        }
        Found::Alias(records, target) => Answer { next: Some(target), ..Answer::records(records) },
        // RFC 6672 §3.2, step 3C: the DNAME is copied into the answer before its name is found to be too long.
        Found::TooLong(records) => Answer { rcode: ResponseCode::YXDomain, ..Answer::records(records) },
        Found::Delegated(servers, glue) => {
            let mut answer = Answer::records(Vec::new());
            answer.authoritative = false;
            (answer.authorities, answer.additionals) = (servers, glue);
            answer
        }
        // Members come and go below the apex: what is not there may be in a moment.
        Found::NoData if Some(zone.apex()) == table.apex.as_ref() => Answer::no_data_in(zone),
        Found::NoName if Some(zone.apex()) == table.apex.as_ref() => Answer::no_name_in(zone),
        Found::NoData => Answer::no_data(zone.soa()),
        Found::NoName => Answer::no_name(zone.soa()),
    }
}

/// What the answer of a place is made of.
pub(super) fn source(place: &Place<'_>) -> Option<Source> {
    Some(match place {
        Place::Here(zone) => Source::Zone(zone.apex().clone()),
        Place::Below(Below { member, .. })
        | Place::Unaskable(member, _)
        | Place::Inner(member)
        | Place::Nowhere(member) => Source::Member(member.name.clone()),
        Place::Beside(zone, beside) => match beside.what.service() {
            Some(service) => Source::Service(service.clone()),
            None => Source::Zone(zone.apex().clone()),
        },
        Place::Host(_, policy) => Source::Host(policy.at.clone()?),
        Place::Outside => Source::Upstreams,
        Place::Unknown => return None,
    })
}

/// Who else may get the answer of a place.
pub(super) fn reuse(place: &Place<'_>, table: &Table) -> Reuse {
    let key = match place {
        Place::Beside(_, beside) => beside.what.service().map(|s| table.policy(s).reuse()),
        Place::Host(_, policy) => Some(policy.reuse()),
        Place::Unknown => return Reuse::Never,
        _ => None,
    };
    key.unwrap_or_default()
}
