//! From a packet to the reply, in one straight line.
//!
//! ```text
//!   octets ── is it a query of ours to read? ── who asks ── resolve ── message ── does it fit? ── octets
//! ```
//!
//! In: what came, from where, by which transport. Out: the reply, or nothing for what is no query (a reply to a reply would be a loop).
//! Never panics on what comes. Sources: RFC 1035 §4, RFC 6891 (EDNS), RFC 8906 (how to answer what we don't know), RFC 8914 (EDE).

use std::net::SocketAddr;

use hickory_proto::op::{Edns, Message, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{DNSClass, Name, RecordType};
use tokio::time::Instant;

use crate::answer::{Answer, Ede, ede};
use crate::explain::Trace;
use crate::forward::UDP_BYTES_MAX;
use crate::metrics::Metrics;
use crate::resolve::{Question, Shared};

const HEADER_BYTES: usize = 12;
/// Without EDNS (RFC 1035 §2.3.4).
const PLAIN_BYTES_MAX: u16 = 512;
/// RFC 8914.
const EDE_OPTION: u16 = 15;
/// Longer texts of extended errors are cut.
const EDE_TEXT_MAX: usize = 160;

/// How a query came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Via {
    /// The transport's row.
    pub(crate) transport: &'static str,
    /// Whether a reply of any size goes back.
    pub(crate) stream: bool,
}

/// Answers packets; clones share everything.
#[derive(Clone)]
pub(crate) struct Responder {
    pub(crate) resolver: Shared,
    pub(crate) metrics: Metrics,
}

impl Responder {
    /// The reply to `packet`; `None` for what gets none.
    pub(crate) async fn respond(&self, packet: &[u8], from: SocketAddr, via: Via) -> Option<Vec<u8>> {
        let start = Instant::now();
        let Some(head) = Head::read(packet) else {
            self.metrics.dropped(via.transport, "no_query");
            return None;
        };
        let (reply, rcode) = match head.check().and_then(|()| parse(packet, &head)) {
            Err(code) => (bare(&head, code), code),
            Ok(query) => self.reply(query, from, via).await,
        };
        self.metrics.query(via.transport, rcode, start.elapsed());
        Some(reply)
    }

    async fn reply(&self, query: Message, from: SocketAddr, via: Via) -> (Vec<u8>, ResponseCode) {
        let world = self.resolver.world.load_full();
        let asker = world.table.clients.asker(&world.table.topology, from.ip());
        let asked = &query.queries[0];
        let answer = if query.edns.as_ref().is_some_and(|e| e.version() > 0) {
            // RFC 6891 §6.1.3.
            Answer { rcode: ResponseCode::BADVERS, authoritative: false, ..Answer::records(Vec::new()) }
        } else if is_meta(asked.query_type) {
            Answer { rcode: ResponseCode::NotImp, authoritative: false, ..Answer::records(Vec::new()) }
        } else if asked.query_class != DNSClass::IN {
            Answer::refused(ede::NOT_SUPPORTED, "only class IN is served")
        } else if matches!(asked.query_type, RecordType::AXFR | RecordType::IXFR) {
            Answer::refused(ede::PROHIBITED, "no transfers")
        } else {
            let question = Question {
                name: asked.name.to_lowercase(),
                kind: asked.query_type,
                recursion: query.metadata.recursion_desired,
                dnssec: query.edns.as_ref().is_some_and(|e| e.flags().dnssec_ok),
                dice: rand::random(),
            };
            self.resolver.resolve(&world, &asker, &question, &mut Trace::off()).await
        };
        let rcode = answer.rcode;
        (encode(&message(&query, answer, asker.recursion), limit(&query, via)), rcode)
    }
}

/// The header, as far as it decides what becomes of a packet.
struct Head {
    id: u16,
    code: u8,
    recursion_desired: bool,
    questions: u16,
    others: u16,
}

impl Head {
    /// `None` for what is too short, or a reply.
    fn read(packet: &[u8]) -> Option<Self> {
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
    fn check(&self) -> Result<(), ResponseCode> {
        match (self.code, self.questions, self.others) {
            (0, 1, 0) => Ok(()),
            (0, ..) => Err(ResponseCode::FormErr),
            _ => Err(ResponseCode::NotImp),
        }
    }
}

fn parse(packet: &[u8], head: &Head) -> Result<Message, ResponseCode> {
    let message = Message::from_vec(packet).map_err(|_| ResponseCode::FormErr)?;
    if message.queries.len() == 1 && message.metadata.id == head.id { Ok(message) } else { Err(ResponseCode::FormErr) }
}

/// Types that are no data (RFC 6895 §3.1): OPT and the Q and meta types that we don't serve.
fn is_meta(kind: RecordType) -> bool {
    matches!(u16::from(kind), 41 | 128..=250 | 253 | 254)
}

/// A reply of a header alone.
fn bare(head: &Head, code: ResponseCode) -> Vec<u8> {
    let mut octets = vec![0; HEADER_BYTES];
    octets[..2].copy_from_slice(&head.id.to_be_bytes());
    octets[2] = 0x80 | head.code << 3 | u8::from(head.recursion_desired);
    octets[3] = code.low();
    octets
}

/// The answer as a message.
fn message(query: &Message, answer: Answer, recursion: bool) -> Message {
    let asked = &query.queries[0];
    let mut message = Message::response(query.metadata.id, OpCode::Query);
    message.metadata = Metadata::response_from_request(&query.metadata);
    message.metadata.response_code = answer.rcode;
    message.metadata.authoritative = answer.authoritative;
    message.metadata.recursion_available = recursion;
    message.queries = vec![asked.clone()];
    message.answers = answer.answers;
    message.authorities = answer.authorities;
    message.additionals = answer.additionals;
    for record in message.answers.iter_mut().chain(&mut message.authorities) {
        own_case(&mut record.name, &asked.name);
    }
    if let Some(asked) = &query.edns {
        let mut edns = Edns::new();
        // RFC 3225 §3: the bit is copied.
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        edns.set_max_payload(UDP_BYTES_MAX);
        for ede in &answer.edes {
            edns.options_mut().insert(option(ede));
        }
        message.set_edns(edns);
    }
    message
}

/// The question's own spelling: clients that mix cases compare it octet by octet.
fn own_case(name: &mut Name, asked: &Name) {
    if name == asked {
        *name = asked.clone();
    }
}

fn option(ede: &Ede) -> EdnsOption {
    let mut octets = ede.code.to_be_bytes().to_vec();
    let text: String = ede.text.chars().take(EDE_TEXT_MAX).collect();
    octets.extend_from_slice(text.as_bytes());
    EdnsOption::Unknown(EDE_OPTION, octets)
}

/// How large a reply may be.
fn limit(query: &Message, via: Via) -> usize {
    let udp = query.edns.as_ref().map_or(PLAIN_BYTES_MAX, |e| e.max_payload().clamp(PLAIN_BYTES_MAX, UDP_BYTES_MAX));
    usize::from(if via.stream { u16::MAX } else { udp })
}

/// As octets; what does not fit is cut whole, never in the middle (RFC 2181 §9).
fn encode(message: &Message, limit: usize) -> Vec<u8> {
    let whole = message.to_vec().ok().filter(|octets| octets.len() <= limit);
    whole.or_else(|| thinner(message, limit)).unwrap_or_else(|| {
        let truncated = message.truncate();
        let mut plain = truncated.clone();
        plain.edns = None;
        truncated
            .to_vec()
            .ok()
            .filter(|octets| octets.len() <= limit)
            .or_else(|| plain.to_vec().ok())
            .unwrap_or_default()
    })
}

/// Without what is only a courtesy (RFC 2181 §9: leaving out additional records is no truncation).
fn thinner(message: &Message, limit: usize) -> Option<Vec<u8>> {
    let mut thin = message.clone();
    thin.additionals.clear();
    thin.to_vec().ok().filter(|octets| octets.len() <= limit)
}
