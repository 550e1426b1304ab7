//! Records as a stream of messages (RFC 5936 §2.2): as many as fit, one after the other, each signed where the question was.
//!
//! In: the question, records, a clock. Out: messages, made and signed when they are asked for. Never holds more than one.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::Record;
use hickory_proto::serialize::binary::{BinEncodable as _, BinEncoder, NameEncoding};

use crate::edns::{self, ReplyOpt};
use crate::tsig::Session;

/// A message is begun anew beyond this: names compress within the first 16 KiB alone (RFC 1035 §4.1.4).
const MESSAGE_BYTES: usize = 16 * 1024;
const HEADER_BYTES: usize = 12;

/// The messages of one transfer, in their order.
pub(crate) struct Transfer {
    /// Header and question.
    head: Vec<u8>,
    records: std::iter::Peekable<Box<dyn Iterator<Item = Record> + Send>>,
    session: Option<Box<Session>>,
    /// The OPT of the first message, where the question had one (RFC 6891 §6.1.1), until it is sent.
    opt: Option<ReplyOpt<'static>>,
    /// The seconds of the era: a transfer may take longer than a signature holds.
    now_s: fn() -> u64,
    /// Holds its place among the transfers that run, until all is sent.
    _slot: Option<tokio::sync::OwnedSemaphorePermit>,
    done: bool,
}

impl Transfer {
    /// Records in answer to `query`.
    pub(crate) fn new(
        query: &Message,
        records: Box<dyn Iterator<Item = Record> + Send>,
        session: Option<Box<Session>>,
        now_s: fn() -> u64,
        slot: tokio::sync::OwnedSemaphorePermit,
    ) -> Self {
        let head = head(query, ResponseCode::NoError);
        Self { head, records: records.peekable(), session, opt: opt(query), now_s, _slot: Some(slot), done: false }
    }

    /// One message that says no.
    pub(crate) fn refused(
        query: &Message,
        code: ResponseCode,
        session: Option<Box<Session>>,
        now_s: fn() -> u64,
    ) -> Self {
        let none: Box<dyn Iterator<Item = Record> + Send> = Box::new(std::iter::empty());
        let (head, opt) = (head(query, code), opt(query));
        Self { head, records: none.peekable(), session, opt, now_s, _slot: None, done: false }
    }

    /// One message as it is.
    pub(crate) fn only(octets: Vec<u8>) -> Self {
        let none: Box<dyn Iterator<Item = Record> + Send> = Box::new(std::iter::empty());
        Self { head: octets, records: none.peekable(), session: None, opt: None, now_s: || 0, _slot: None, done: false }
    }
}

fn opt(query: &Message) -> Option<ReplyOpt<'static>> {
    query.edns.as_ref().map(|edns| ReplyOpt { dnssec: edns.flags().dnssec_ok, ..ReplyOpt::default() })
}

/// Header and question of a reply.
fn head(query: &Message, code: ResponseCode) -> Vec<u8> {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.authoritative = code == ResponseCode::NoError;
    reply.metadata.response_code = code;
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.checking_disabled = query.metadata.checking_disabled;
    reply.queries.clone_from(&query.queries);
    // A question that was read can be written.
    reply.to_vec().unwrap_or_default()
}

impl Iterator for Transfer {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.done {
            return None;
        }
        let mut octets = self.head.clone();
        let mut count = 0_u16;
        let start = u32::try_from(octets.len()).unwrap_or(0);
        let mut encoder = BinEncoder::with_offset(&mut octets, start);
        while let Some(record) = self.records.peek() {
            let full = count > 0 && encoder.offset() + size(record) > MESSAGE_BYTES;
            if full || count == u16::MAX {
                break;
            }
            let Some(record) = self.records.next() else { break };
            if record.emit(&mut encoder).is_ok() {
                count += 1;
            }
        }
        self.done = self.records.peek().is_none();
        if octets.len() >= HEADER_BYTES && count > 0 {
            octets[6..8].copy_from_slice(&count.to_be_bytes());
        }
        edns::append(&mut octets, self.opt.take().as_ref(), MESSAGE_BYTES * 2);
        Some(match &mut self.session {
            Some(session) => session.sign(octets, (self.now_s)()),
            None => octets,
        })
    }
}

/// What a record takes at most.
fn size(record: &Record) -> usize {
    let mut octets = Vec::new();
    let mut encoder = BinEncoder::new(&mut octets);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    let _ = record.data.emit(&mut encoder);
    record.name.len() + 10 + octets.len()
}
