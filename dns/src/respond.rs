//! From a packet to the reply, in one straight line.
//!
//! ```text
//!   octets ── is it a query of ours to read? ── who asks ── resolve ── message ── does it fit? ── octets
//! ```
//!
//! In: what came, from where, by which transport. Out: the reply, or nothing for what is no query (a reply to a reply would be a loop).
//! Never panics on what comes. Sources: RFC 1035 §4, RFC 8906 (how to answer what we don't know), RFC 7873 §5.2 (cookies).

use std::net::SocketAddr;
use std::sync::Arc;

use hickory_proto::op::{Message, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use tokio::time::Instant;

use crate::answer::{Answer, ede};
use crate::client::Asker;
use crate::edge::Edge;
use crate::edns::{self, Opt, ReplyOpt};
use crate::explain::Trace;
use crate::guard::{Cookie, Kind, Now, Verdict};
use crate::metrics::Metrics;
use crate::resolve::{Question, Shared};
use crate::world::World;

const HEADER_BYTES: usize = 12;

/// How a query came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Via {
    /// The transport's row.
    pub(crate) transport: &'static str,
    /// Whether a reply of any size goes back, and the address is surely the client's.
    pub(crate) stream: bool,
    /// Whether nobody on the way reads along.
    pub(crate) encrypted: bool,
    /// How long the connection stays open when idle, in tenths of a second, where clients may ask that (RFC 7828).
    pub(crate) keepalive: Option<u16>,
}

/// Answers packets; clones share everything.
#[derive(Clone)]
pub(crate) struct Responder {
    pub(crate) resolver: Shared,
    pub(crate) edge: Arc<Edge>,
    pub(crate) metrics: Metrics,
}

/// Who is at the other end of a packet.
struct Peer {
    from: SocketAddr,
    via: Via,
    now: Now,
    asker: Asker,
    cookie: Cookie,
}

impl Responder {
    /// The reply to `packet`; `None` for what gets none.
    pub(crate) async fn respond(&self, packet: &[u8], from: SocketAddr, via: Via) -> Option<Vec<u8>> {
        let start = Instant::now();
        let Some(head) = Head::read(packet) else {
            self.metrics.dropped(via.transport, "no_query");
            return None;
        };
        let (now, world) = (self.edge.now(), self.resolver.world.load_full());
        let asker = world.table.clients.asker(&world.table.topology, from.ip());
        // Where an OPT is to be looked for is known of queries only.
        let opt = if head.code == 0 { Opt::find(packet) } else { Ok(None) };
        let cookie = opt.ok().flatten().map_or(Cookie::Absent, |o| self.edge.guard.cookie(now, from.ip(), o.cookie));
        let peer = Peer { from, via, now, asker, cookie };
        let (mut reply, rcode) = match opt.map_err(|_| ResponseCode::FormErr) {
            Ok(opt) => self.reply(packet, &head, opt.as_ref(), &peer, &world).await,
            Err(code) => (bare(&head, code), code),
        };
        let verdict = match (via.stream || peer.asker.spared, cookie) {
            (true, _) | (_, Cookie::Valid(_)) => Verdict::Send,
            _ => self.edge.guard.judge(now, from.ip(), Kind::of(&reply)),
        };
        match verdict {
            Verdict::Send => {}
            Verdict::Slip => {
                let opt = opt.ok().flatten();
                let said = opt.map(|opt| self.opt(&opt, &peer, rcode));
                edns::truncate(&mut reply, said.as_ref(), edns::limit(opt.as_ref(), false));
            }
            Verdict::Drop => {
                self.metrics.dropped(via.transport, "rate");
                return None;
            }
        }
        self.metrics.query(via.transport, rcode, start.elapsed());
        Some(reply)
    }

    async fn reply(
        &self,
        packet: &[u8],
        head: &Head,
        opt: Option<&Opt<'_>>,
        peer: &Peer,
        world: &World,
    ) -> (Vec<u8>, ResponseCode) {
        let limit = edns::limit(opt, peer.via.stream);
        let parsed = head.check().and_then(|()| parse(packet, head));
        let query = match parsed {
            Ok(query) => query,
            Err(code) => {
                // RFC 7873 §5.4: a query without a question that asks for a cookie only.
                let cookie_only =
                    head.code == 0 && (head.questions, head.others) == (0, 0) && peer.cookie.client().is_some();
                let code = if cookie_only { ResponseCode::NoError } else { code };
                let mut reply = bare(head, code);
                edns::append(&mut reply, opt.map(|opt| self.opt(opt, peer, code)).as_ref(), limit);
                return (reply, code);
            }
        };
        let answer = match self.refusal(&query, opt, peer) {
            Some(answer) => answer,
            None => {
                let asked = &query.queries[0];
                let question = Question {
                    name: asked.name.to_lowercase(),
                    kind: asked.query_type,
                    recursion: query.metadata.recursion_desired,
                    dnssec: opt.is_some_and(|opt| opt.dnssec),
                    dice: rand::random(),
                };
                self.resolver.resolve(world, &peer.asker, &question, &mut Trace::off()).await
            }
        };
        let rcode = answer.rcode;
        let said = opt.map(|opt| ReplyOpt { edes: &answer.edes, ..self.opt(opt, peer, rcode) });
        (edns::fit(&message(&query, &answer, peer.asker.recursion), said.as_ref(), limit), rcode)
    }

    /// What is answered without looking at names.
    fn refusal(&self, query: &Message, opt: Option<&Opt<'_>>, peer: &Peer) -> Option<Answer> {
        let code = |rcode| Some(Answer { rcode, authoritative: false, ..Answer::records(Vec::new()) });
        let asked = &query.queries[0];
        if opt.is_some_and(|opt| opt.version > 0) {
            // RFC 6891 §6.1.3.
            code(ResponseCode::BADVERS)
        } else if peer.cookie == Cookie::Malformed {
            // RFC 7873 §5.2.2.
            code(ResponseCode::FormErr)
        } else if peer.asker.barred {
            Some(Answer::refused(ede::PROHIBITED, "this client may not ask here"))
        } else if self.must_prove(peer) {
            // RFC 7873 §5.2.3.
            code(ResponseCode::BADCOOKIE)
        } else if is_meta(asked.query_type) {
            code(ResponseCode::NotImp)
        } else if asked.query_class != DNSClass::IN {
            Some(Answer::refused(ede::NOT_SUPPORTED, "only class IN is served"))
        } else if matches!(asked.query_type, RecordType::AXFR | RecordType::IXFR) {
            Some(Answer::refused(ede::PROHIBITED, "no transfers"))
        } else {
            None
        }
    }

    /// Whether a client that can prove its address must do so first: under stress, by UDP.
    fn must_prove(&self, peer: &Peer) -> bool {
        let can = matches!(peer.cookie, Cookie::Unproven(_)) && !peer.via.stream && !peer.asker.spared;
        can && self.edge.guard.is_stressed(peer.now)
    }

    /// The OPT of a reply, without extended errors.
    fn opt(&self, opt: &Opt<'_>, peer: &Peer, rcode: ResponseCode) -> ReplyOpt<'_> {
        ReplyOpt {
            rcode_high: rcode.high(),
            dnssec: opt.dnssec,
            cookie: self.edge.guard.cookie_for(peer.now, peer.from.ip(), peer.cookie),
            keepalive: peer.via.keepalive.filter(|_| opt.keepalive),
            nsid: opt.nsid.then_some(self.edge.nsid()),
            padded: opt.padding && peer.via.encrypted,
            ..ReplyOpt::default()
        }
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

/// The answer as a message, without its OPT.
fn message(query: &Message, answer: &Answer, recursion: bool) -> Message {
    let asked = &query.queries[0];
    let mut message = Message::response(query.metadata.id, OpCode::Query);
    message.metadata = Metadata::response_from_request(&query.metadata);
    message.metadata.response_code = answer.rcode;
    message.metadata.authoritative = answer.authoritative;
    message.metadata.recursion_available = recursion;
    message.queries = vec![asked.clone()];
    message.answers.clone_from(&answer.answers);
    message.authorities.clone_from(&answer.authorities);
    message.additionals.clone_from(&answer.additionals);
    for record in message.answers.iter_mut().chain(&mut message.authorities) {
        own_case(&mut record.name, &asked.name);
    }
    message
}

/// The question's own spelling: clients that mix cases compare it octet by octet.
fn own_case(name: &mut Name, asked: &Name) {
    if name == asked {
        *name = asked.clone();
    }
}
