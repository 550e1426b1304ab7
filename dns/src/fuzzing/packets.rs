//! Packets as clients send them: to the fast path, and to everything.
//!
//! In: octets. Checked: a reply exactly to what may be a query, its id, opcode, RD and question the client's, no larger than the client
//! takes, readable; what the fast path gives is what the slow path would have given.

use std::cell::RefCell;
use std::net::SocketAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::runtime::Runtime;

use super::stage::{federation, responder};
use crate::config::Config;
use crate::guard::Rate;
use crate::respond::{Given, Moment, Responder, Via};
use crate::wire::Local;

const TCP: Via = Via::stream("tcp", false, Some(100));
/// What a datagram may hold.
const UDP_BYTES_MAX: usize = 1232;
/// Who asks: strangers, members' pods, a neighbour who may transfer and update.
const ASKERS: [[u8; 4]; 4] = [[203, 0, 113, 9], [10, 1, 0, 7], [10, 2, 0, 7], [127, 0, 0, 1]];
/// Warmed for the fast path.
const KNOWN: &[&str] = &[
    "db.atoll.internal.",
    "web.shop.svc.atoll.internal.",
    "_http._tcp.web.shop.svc.clusterset.local.",
    "www.example.com.",
    "many.example.com.",
    "x.example.com.",
    "a.b.example.com.",
    "h.sub.example.com.",
    "nowhere.atoll.internal.",
    "shop.example.com.",
    "www.example.net.",
    "no.example.net.",
    "x.old.example.com.",
];
const KINDS: &[RecordType] = &[RecordType::A, RecordType::AAAA, RecordType::TXT, RecordType::SRV, RecordType::SOA];

/// A server, and what a thread of it keeps.
struct Stage {
    runtime: Runtime,
    responder: Responder,
    moment: Moment,
    local: RefCell<Local>,
}

impl Stage {
    fn new() -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        // Nobody is limited: a fuzzer asks more than any client.
        let config = Config {
            rate: Rate { per_second: 0, slip: 0 },
            recursion: vec!["10.0.0.0/8".parse().ok()?],
            ..Config::default()
        };
        let made = runtime.block_on(async {
            let responder = responder(&config, federation()?, 1 << 22).ok()?;
            Some((responder.moment(), responder))
        });
        let (moment, responder) = made?;
        let stage = Self { runtime, responder, moment, local: RefCell::default() };
        for (name, kind) in KNOWN.iter().flat_map(|name| KINDS.iter().map(move |kind| (name, *kind))) {
            for (ip, dnssec) in ASKERS.iter().flat_map(|ip| [(*ip, None), (*ip, Some(false)), (*ip, Some(true))]) {
                stage.ask(&query(name, kind, dnssec)?, (ip, 4242).into(), Via::UDP);
            }
        }
        Some(stage)
    }

    fn ask(&self, packet: &[u8], from: SocketAddr, via: Via) -> Option<Vec<u8>> {
        self.runtime.block_on(self.responder.respond(packet, from, via))
    }
}

thread_local! {
    static STAGE: Stage = Stage::new().expect("the made-up federation can be served");
}

fn query(name: &str, kind: RecordType, dnssec: Option<bool>) -> Option<Vec<u8>> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).ok()?, kind));
    if let Some(dnssec) = dnssec {
        let mut edns = Edns::new();
        edns.set_dnssec_ok(dnssec);
        message.set_edns(edns);
    }
    message.to_vec().ok()
}

/// Who sends the packet, and how, by an octet in front of it.
fn sender(how: u8) -> (SocketAddr, Via) {
    let ip = ASKERS[usize::from(how & 3)];
    ((ip, 4242).into(), if how & 4 == 0 { Via::UDP } else { TCP })
}

/// A datagram on the fast path: one octet that says who sends it, then the packet.
///
/// # Panics
/// When what comes out is not what the slow path gives, or breaks a rule.
pub fn fast(octets: &[u8]) {
    let Some((how, packet)) = octets.split_first() else { return };
    let (from, _) = sender(*how);
    STAGE.with(|stage| {
        let (mut local, mut out) = (stage.local.borrow_mut(), [0; UDP_BYTES_MAX]);
        let given = stage.responder.hit(&mut local, packet, from, stage.moment, &mut out);
        let Given::Reply(hit) = given else {
            assert!(matches!(given, Given::Slow(_)), "nobody is limited, and there is room");
            return;
        };
        let reply = &out[..hit.len];
        lawful(packet, Some(reply), Via::UDP);
        // The slow path takes longer: it is asked for one in eight.
        if packet[1] & 7 == 0 {
            let slow = stage.ask(packet, from, Via::UDP).unwrap_or_default();
            assert_eq!(slow.get(2..12), reply.get(2..12), "the header of the slow path's reply");
        }
    });
}

/// A packet to everything: one octet that says who sends it and how, then the packet.
///
/// # Panics
/// When what comes out breaks a rule.
pub fn slow(octets: &[u8]) {
    let Some((how, packet)) = octets.split_first() else { return };
    let (from, via) = sender(*how);
    STAGE.with(|stage| {
        if via.stream
            && let Some(transfer) = stage.responder.transfer(packet, from, via.transport)
        {
            for message in transfer.take(64) {
                assert!(Message::from_vec(&message).is_ok(), "a message of a transfer can't be read");
            }
            return;
        }
        lawful(packet, stage.ask(packet, from, via).as_deref(), via);
    });
}

/// The rules that every reply keeps.
fn lawful(packet: &[u8], reply: Option<&[u8]>, via: Via) {
    let is_request = packet.len() >= 12 && packet[2] & 0x80 == 0;
    assert_eq!(reply.is_some(), is_request, "a reply exactly to what may be a query");
    let Some(reply) = reply else { return };
    assert_eq!(reply.get(..2), packet.get(..2), "the id");
    assert_eq!(reply[2] & 0xf8, 0x80 | packet[2] & 0x78, "QR and opcode");
    // RFC 2136 §2.2 and RFC 1996 §3.3 know no RD.
    assert!(packet[2] & 0x78 != 0 || reply[2] & 1 == packet[2] & 1, "RD is copied");
    assert!(reply.len() <= if via.stream { usize::from(u16::MAX) } else { UDP_BYTES_MAX }, "{} octets", reply.len());
    let message = Message::from_vec(reply);
    let Ok(message) = message else { panic!("a reply can't be read: {message:?}") };
    let answered = message.metadata.response_code == ResponseCode::NoError;
    if let Some(asked) = message.queries.first().filter(|_| answered) {
        let end = 12 + asked.name.len();
        assert_eq!(reply.get(12..end), packet.get(12..end), "the question's own octets");
    }
}
