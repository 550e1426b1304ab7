//! The header of a packet: whether it is a query of ours to read, and the reply that says no more. Pure.
//!
//! In: octets. Out: [`Head`], the parsed message, a bare reply. Sources: RFC 1035 §4.1.1, RFC 9619, RFC 6895 §3.1.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;

use crate::transfer::ends_in_transfer;

const HEADER_BYTES: usize = 12;

/// The header, as far as it decides what becomes of a packet.
pub(super) struct Head {
    pub(super) id: u16,
    pub(super) code: u8,
    pub(super) recursion_desired: bool,
    pub(super) questions: u16,
    pub(super) others: u16,
}

impl Head {
    /// `None` for what is too short, or a reply.
    pub(super) fn read(packet: &[u8]) -> Option<Self> {
        let head: &[u8; HEADER_BYTES] = packet.first_chunk()?;
        let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        if head[2] & 0x80 != 0 {
            return None;
        }
        Some(Self {
            id: word(0),
            code: head[2] >> 3 & 0x0f,
            recursion_desired: head[2] & 1 != 0,
            questions: word(4),
            others: word(6).saturating_add(word(8)),
        })
    }

    /// Whether it is a query that we answer: one question, nothing answered yet (RFC 9619).
    pub(super) fn check(&self, packet: &[u8]) -> Result<(), ResponseCode> {
        match (self.code, self.questions, self.others) {
            (0, 1, 0) => Ok(()),
            // RFC 1995 §3: "the authority section containing the SOA record of client's version of the zone".
            (0, 1, 1) if ends_in_transfer(packet) => Ok(()),
            (0, ..) => Err(ResponseCode::FormErr),
            _ => Err(ResponseCode::NotImp),
        }
    }
}

pub(super) fn parse(packet: &[u8], head: &Head) -> Result<Message, ResponseCode> {
    let message = Message::from_vec(packet).map_err(|_| ResponseCode::FormErr)?;
    if message.queries.len() == 1 && message.metadata.id == head.id { Ok(message) } else { Err(ResponseCode::FormErr) }
}

/// Types that are no data (RFC 6895 §3.1): OPT and the Q and meta types that we don't serve.
pub(super) fn is_meta(kind: RecordType) -> bool {
    matches!(u16::from(kind), 41 | 128..=250 | 253 | 254)
}

/// A reply of a header alone.
pub(super) fn bare(head: &Head, code: ResponseCode) -> Vec<u8> {
    let mut octets = vec![0; HEADER_BYTES];
    octets[..2].copy_from_slice(&head.id.to_be_bytes());
    octets[2] = 0x80 | head.code << 3 | u8::from(head.recursion_desired);
    octets[3] = code.low();
    octets
}
