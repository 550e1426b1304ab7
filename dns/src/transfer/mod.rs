//! Zone transfers out: whole (RFC 5936) or as differences (RFC 1995), to whom the Zone allows, by streams alone.
//!
//! ```text
//!   AXFR, IXFR ── zone of that name ── allowed (address, key)? ── whole | differences | SOA ── stream of messages, each signed
//!   world swapped ── journal (differences by serial) ── notify ──► secondaries
//! ```
//!
//! In: a question by stream. Out: messages of some 16 KiB, made as they are sent, so that a zone of any size takes no memory but its own.
//! The zone is that of one moment, whatever changes meanwhile, and as the peer's view has it. Sources: RFC 5936, RFC 1995, RFC 1982 (serials).

mod journal;
mod messages;
pub(crate) mod notify;

use std::sync::Arc;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
pub(crate) use journal::Journals;
pub(crate) use messages::Transfer;

use crate::client::Origin;
use crate::sign::{self, Signatures};
use crate::table::Table;
use crate::zones::Zone;

/// The question of a packet, where it is for a transfer.
pub(crate) fn asked(packet: &[u8]) -> Option<Message> {
    let query = packet.len() >= 12 && packet[2] & 0xf8 == 0 && packet[4..6] == [0, 1];
    if !query || !ends_in_transfer(packet) {
        return None;
    }
    let message = Message::from_vec(packet).ok()?;
    let is_transfer = |kind| matches!(kind, RecordType::AXFR | RecordType::IXFR);
    (message.metadata.op_code == OpCode::Query && is_transfer(message.queries.first()?.query_type)).then_some(message)
}

/// Whether the type behind the first name is a transfer's: no other packet is parsed for it.
pub(crate) fn ends_in_transfer(packet: &[u8]) -> bool {
    let mut at = 12;
    while let Some(length) = packet.get(at).filter(|length| **length != 0) {
        at += 1 + usize::from(*length);
    }
    matches!(packet.get(at + 1..at + 3), Some([0, 251 | 252]))
}

/// The zone to transfer, as the peer's view has it, and the view; or that this peer may not have it.
pub(crate) fn allowed<'t>(
    table: &'t Table,
    query: &Message,
    origin: &Origin<'_>,
) -> Result<(&'t Arc<Zone>, Option<&'t str>), ResponseCode> {
    let name = query.queries[0].name.to_lowercase();
    let asker = table.clients.who(origin);
    // RFC 5936 §2.2.1: NOTAUTH by a server that is no authority for the zone; what a view does not show is not there for it.
    let zone = table.zone_for(&asker, &name).filter(|zone| *zone.apex() == name).ok_or(ResponseCode::NotAuth)?;
    let (_, facts) = zone.object().ok_or(ResponseCode::Refused)?;
    let key = origin.key.map(Name::to_ascii);
    let admitted = facts.spec.allow.transfer.iter().any(|peer| peer.admits(origin.ip, key.as_deref()));
    if !admitted {
        return Err(ResponseCode::Refused);
    }
    let view = table.clients.view(&asker).map(|view| view.name.as_str());
    Ok(zone.as_seen(view))
}

/// What is sent for a question that is allowed.
pub(crate) fn content(
    (zone, view): (&Arc<Zone>, Option<&str>),
    query: &Message,
    journals: &Journals,
    signatures: &Arc<Signatures>,
    now_s: u32,
) -> Box<dyn Iterator<Item = Record> + Send> {
    let soa = zone.soa();
    if query.queries[0].query_type == RecordType::IXFR {
        let held = query.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(soa.serial),
            _ => None,
        });
        // RFC 1995 §2: "If an IXFR query with the same or newer version number … is received, … a single SOA".
        if held.is_some_and(|held| !is_newer(zone.serial(), held)) {
            return Box::new(std::iter::once(soa));
        }
        if let Some(steps) = held.filter(|_| zone.keys().is_none()).and_then(|held| journals.since(zone, view, held)) {
            return Box::new(std::iter::once(soa.clone()).chain(steps).chain(std::iter::once(soa)));
        }
    }
    let records: Box<dyn Iterator<Item = Record> + Send> = if zone.keys().is_some() {
        Box::new(sign::signed(Arc::clone(zone), Arc::clone(signatures), now_s))
    } else {
        let zone = Arc::clone(zone);
        let names: Vec<_> = zone.names().into_keys().collect();
        Box::new(names.into_iter().flat_map(move |name| zone.at(&name)))
    };
    Box::new(std::iter::once(soa.clone()).chain(records).chain(std::iter::once(soa)))
}

/// RFC 1982 §3.2: whether `a` comes after `b`.
pub(crate) fn is_newer(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}

#[cfg(test)]
mod tests;
