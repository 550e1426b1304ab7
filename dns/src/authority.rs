//! What a server does for its own zones alone, in front of plain queries: signed messages, transfers, updates.
//!
//! ```text
//!   packet ── TSIG? peel ──┬── UPDATE ── update ── hub
//!                          ├── AXFR, IXFR by stream ── transfer (many messages)
//!                          └── a query ── respond as ever ── sign
//! ```
//!
//! In: a packet. Out: `None` for what is a plain query, else its reply or replies. Bounds: updates and transfers at once.

use std::net::SocketAddr;
use std::sync::Arc;

use atoll_wire::follow::Line;
use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::RecordType;
use tokio::sync::{Semaphore, watch};

use crate::answer::{Ede, ede};
use crate::client::Origin;
use crate::edns::{self, Opt, ReplyOpt};
use crate::guard::{Kind, Verdict};
use crate::respond::{Responder, Via};
use crate::sign::Signatures;
use crate::table::Table;
use crate::transfer::{self, Journals, Transfer};
use crate::tsig::{Peeled, Session, peel};
use crate::update;

const UPDATES_MAX: usize = 64;
const TRANSFERS_MAX: usize = 32;
const UPDATE: u8 = 5;

/// What it takes.
pub(crate) struct Authority {
    line: Line,
    pub(crate) signatures: Arc<Signatures>,
    journals: Journals,
    tables: watch::Sender<Arc<Table>>,
    updates: Semaphore,
    transfers: Arc<Semaphore>,
}

impl Authority {
    /// The authority for the zones of `table`.
    pub(crate) fn new(line: Line, table: Arc<Table>) -> Self {
        Self {
            line,
            signatures: Arc::new(Signatures::default()),
            journals: Journals::default(),
            tables: watch::Sender::new(table),
            updates: Semaphore::new(UPDATES_MAX),
            transfers: Arc::new(Semaphore::new(TRANSFERS_MAX)),
        }
    }

    /// The table that counts now; to be told of every swap, after it.
    pub(crate) fn swapped(&self, table: &Arc<Table>) {
        let before = Arc::clone(&self.tables.borrow());
        if Arc::ptr_eq(&before, table) {
            return;
        }
        for zone in table.zones.iter().filter(|z| z.object().is_some_and(|(_, f)| !f.spec.allow.transfer.is_empty())) {
            if let Some(old) = before.zone_of(zone.apex()).filter(|old| old.apex() == zone.apex()) {
                self.journals.note(old, zone);
            }
        }
        self.journals.keep(|apex| table.zone_of(apex).is_some_and(|zone| zone.apex() == apex));
        self.tables.send_replace(Arc::clone(table));
    }

    /// Every swap.
    pub(crate) fn tables(&self) -> watch::Receiver<Arc<Table>> {
        self.tables.subscribe()
    }
}

fn now_s() -> u64 {
    jiff::Timestamp::now().as_second().unsigned_abs()
}

impl Responder {
    /// The reply to `packet`; `None` for what gets none.
    pub(crate) async fn respond(&self, packet: &[u8], from: SocketAddr, via: Via) -> Option<Vec<u8>> {
        let is_request = packet.len() >= 12 && packet[2] & 0x80 == 0;
        let update = is_request && packet[2] >> 3 & 0x0f == UPDATE;
        if !is_request || (packet[10..12] == [0, 0] && !update) {
            return self.plain(packet, from, via, None).await;
        }
        let table = Arc::clone(&self.authority.tables.borrow());
        let mut reply = match peel(packet, &table.keys, now_s()) {
            Peeled::Plain if update => self.limited(self.update(packet, from, None).await, from, via),
            Peeled::Plain => self.plain(packet, from, via, None).await,
            Peeled::Malformed => self.limited(formerr(packet), from, via),
            Peeled::Refused(reply, word) => {
                self.metrics.dropped(via.transport, word);
                self.limited(reply, from, via)
            }
            Peeled::Signed(message, mut session) if update => {
                let reply = self.update(&message, from, Some(&session)).await;
                Some(session.sign(reply, now_s()))
            }
            Peeled::Signed(message, mut session) => {
                let reply = self.plain(&message, from, via, Some(session.name())).await?;
                let limit = edns::limit(Opt::find(&message).ok().flatten().as_ref(), via.stream);
                let fits = reply.len() + session.room() <= limit;
                Some(session.sign(if fits { reply } else { cut(&reply) }, now_s()))
            }
        }?;
        own_id(&mut reply, packet);
        Some(reply)
    }

    /// A reply to somebody whose word is not believed, as far as strangers get replies by datagrams.
    fn limited(&self, reply: Vec<u8>, from: SocketAddr, via: Via) -> Option<Vec<u8>> {
        let origin = Origin { ip: from.ip(), listener: via.transport, key: None };
        if via.stream || self.resolver.world.load().table.clients.who(&origin).spared {
            return Some(reply);
        }
        match self.edge.guard.judge(self.edge.now(), from.ip(), Kind::of(&reply)) {
            Verdict::Send => Some(reply),
            Verdict::Slip => Some(cut(&reply)),
            Verdict::Drop => {
                self.metrics.dropped(via.transport, "rate");
                None
            }
        }
    }

    /// The messages of a transfer that `packet` asks for by a stream; `None` for every other packet.
    pub(crate) fn transfer(&self, packet: &[u8], from: SocketAddr, transport: &'static str) -> Option<Transfer> {
        let query = transfer::asked(packet)?;
        let (table, now) = (Arc::clone(&self.authority.tables.borrow()), now_s());
        let session = match peel(packet, &table.keys, now) {
            Peeled::Plain => None,
            Peeled::Signed(_, session) => Some(session),
            Peeled::Refused(mut reply, _) => {
                own_id(&mut reply, packet);
                return Some(Transfer::only(reply));
            }
            Peeled::Malformed => return Some(Transfer::only(formerr(packet))),
        };
        let key = session.as_deref().map(Session::key);
        let (kind, named) = (query.queries[0].query_type, query.queries[0].name.to_lowercase());
        let ours = table.zone_of(&named).map(|zone| zone.apex());
        let origin = Origin { ip: from.ip(), listener: transport, key: session.as_deref().map(Session::name) };
        let (zone, view) = match transfer::allowed(&table, &query, &origin) {
            Ok(allowed) => allowed,
            Err(code) => {
                self.metrics.transfer(ours, kind, code);
                tracing::info!(zone = %query.queries[0].name, %from, key, %code, "transfer refused");
                return Some(Transfer::refused(&query, code, session, now_s));
            }
        };
        let Ok(slot) = Arc::clone(&self.authority.transfers).try_acquire_owned() else {
            self.metrics.transfer(ours, kind, ResponseCode::ServFail);
            return Some(Transfer::refused(&query, ResponseCode::ServFail, session, now_s));
        };
        self.metrics.transfer(ours, kind, ResponseCode::NoError);
        tracing::info!(zone = %zone.apex(), view, %from, key, serial = zone.serial(), %kind, "transfer");
        let seconds = (now & u64::from(u32::MAX)) as u32;
        let Authority { journals, signatures, .. } = self.authority.as_ref();
        let records = transfer::content((zone, view), &query, journals, signatures, seconds);
        Some(Transfer::new(&query, records, session, now_s, slot))
    }

    async fn update(&self, message: &[u8], from: SocketAddr, session: Option<&Session>) -> Vec<u8> {
        let (code, why) = match self.authority.updates.try_acquire() {
            Ok(_slot) => {
                let (line, tables) = (&self.authority.line, self.authority.tables());
                update::carry_out(message, from.ip(), session, line, tables).await
            }
            Err(_) => {
                (ResponseCode::ServFail, Some(Ede { code: ede::OTHER, text: "too many updates at once".to_owned() }))
            }
        };
        let named = atoll_api::update::read(message).ok().map(|sections| sections.zone.to_lowercase());
        let table = Arc::clone(&self.authority.tables.borrow());
        let zone = named.and_then(|name| Some(table.zone_of(&name)?.apex()).filter(|apex| **apex == name));
        self.metrics.update(zone, code);
        let mut reply = header(message, OpCode::Update, code);
        if let Ok(Some(opt)) = Opt::find(message) {
            let edes: Vec<Ede> = why.into_iter().collect();
            let said = ReplyOpt { edes: edns::Edes::Made(&edes), dnssec: opt.dnssec, ..ReplyOpt::default() };
            edns::append(&mut reply, Some(&said), edns::limit(Some(&opt), false));
        }
        reply
    }

    /// The answer to a transfer that did not come by a stream. RFC 1995 §2: "If the UDP reply does not fit, the query is responded to with
    /// a single SOA record of the server's current version to inform the client that a TCP query should be initiated": ours always is.
    pub(crate) fn by_datagram(
        &self,
        query: &Message,
        origin: &Origin<'_>,
    ) -> Result<hickory_proto::rr::Record, ResponseCode> {
        let table = self.authority.tables.borrow();
        let (zone, _) = transfer::allowed(&table, query, origin)?;
        match query.queries[0].query_type {
            RecordType::IXFR => Ok(zone.soa()),
            _ => Err(ResponseCode::Refused),
        }
    }
}

/// Gives a reply the id of the packet: the message that was signed may have had another, when somebody passed it on (RFC 8945 §4.2).
fn own_id(reply: &mut [u8], packet: &[u8]) {
    if let (Some(id), Some(own)) = (reply.first_chunk_mut::<2>(), packet.first_chunk::<2>()) {
        *id = *own;
    }
}

fn header(message: &[u8], code: OpCode, rcode: ResponseCode) -> Vec<u8> {
    let id = u16::from_be_bytes([message[0], message[1]]);
    // A header can be written.
    Message::error_msg(id, code, rcode).to_vec().unwrap_or_default()
}

/// A reply of a header that says FORMERR.
fn formerr(packet: &[u8]) -> Vec<u8> {
    let mut reply = packet[..12].to_vec();
    reply[2] = 0x80 | (reply[2] & 0x79);
    reply[3] = 1;
    reply[4..].fill(0);
    reply
}

/// Header and question of a reply, with TC (RFC 8945 §5.3: what does not fit with its signature is cut).
fn cut(reply: &[u8]) -> Vec<u8> {
    let mut at = 12;
    while let Some(length) = reply.get(at).filter(|length| **length != 0) {
        at += 1 + usize::from(*length);
    }
    let mut short = reply.get(..at + 5).unwrap_or(&reply[..12]).to_vec();
    short[2] |= 0x02;
    short[6..].iter_mut().take(6).for_each(|octet| *octet = 0);
    short
}
