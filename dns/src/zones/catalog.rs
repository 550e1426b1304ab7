//! Catalog zones (RFC 9432, version 2): the hub's zones as records, from which secondaries configure themselves. Pure.
//!
//! In: the catalog's object and all others. Out: a zone. A member's id is a digest of its apex, so that it never changes (§4.3: "unique …
//! SHOULD be unique throughout").

use std::collections::BTreeMap;
use std::sync::Arc;

use atoll_api::records;
use atoll_api::topology::ZoneFacts;
use hickory_proto::dnssec::DigestType;
use hickory_proto::dnssec::crypto::Digest;
use hickory_proto::rr::rdata::{PTR, TXT};
use hickory_proto::rr::{Name, RData, Record};

use super::Zone;
use crate::names::{absolute, below};

/// §4.1: a number that secondaries needn't keep.
const TTL: u32 = 0;

/// The catalog `apex` of `all`.
pub(super) fn zone(apex: &Name, facts: &ZoneFacts, all: &BTreeMap<String, Arc<ZoneFacts>>) -> Zone {
    // §4.1: "a single NS … RDATA invalid.", unless somebody wrote another.
    let written = &facts.spec.ns;
    let ns = if written.is_empty() { vec!["invalid".to_owned()] } else { written.clone() };
    let mut zone = Zone::with(apex.clone(), records::head(apex, &facts.spec.soa, &ns, facts.serial, &[]));
    let mut put = |owner: Option<Name>, data: RData| {
        if let Some(owner) = owner {
            zone.insert(Record::from_rdata(owner, TTL, data));
        }
    };
    put(below(&["version"], apex), RData::TXT(TXT::new(vec!["2".to_owned()])));
    for member in all.values().filter(|f| !f.spec.catalog).filter_map(|f| absolute(&f.spec.apex)) {
        put(below(&[id(&member).as_str(), "zones"], apex), RData::PTR(PTR(member)));
    }
    zone
}

/// 128 bits of a digest, as hexadecimal digits.
fn id(apex: &Name) -> String {
    let digest = Digest::new(apex.to_ascii().as_bytes(), DigestType::SHA256);
    let octets = digest.as_ref().map(AsRef::as_ref).unwrap_or_default();
    octets.iter().take(16).map(|octet| format!("{octet:02x}")).collect()
}
