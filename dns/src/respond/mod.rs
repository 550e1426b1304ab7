//! From a packet to the reply, in one straight line.
//!
//! ```text
//!   octets ── given before? ── is it a query of ours to read? ── who asks ── resolve ── encode ── does it fit? ── octets
//!                  │                                                                       └── deposit, for those who ask the same
//!                  └── octets
//! ```
//!
//! In: what came, from where, by which transport. Out: the reply, or nothing for what is no query (a reply to a reply would be a loop).
//! Never panics on what comes. Sources: RFC 1035 §4, RFC 8906 (how to answer what we don't know), RFC 7873 §5.2 (cookies).

mod given;
mod head;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use tokio::time::Instant;

use crate::answer::{Answer, ede};
use crate::authority::Authority;
use crate::budget::Begun;
use crate::client::{Origin, Seen};
use crate::counters::{Outcome, Told};
use crate::edge::Edge;
use crate::edns::{self, Opt, ReplyOpt};
use crate::explain::Trace;
use crate::forward::Trail;
use crate::gate::Gate;
use crate::geo::ecs::{self, Echo};
use crate::guard::{Cookie, Kind, Now, Verdict};
use crate::metrics::Metrics;
use crate::names::octets;
use crate::prefixes::client_net;
use crate::resolve::{Question, Shared};
use crate::tap::{self, Taps};
use crate::wire::encode::{self, encode};
use crate::wire::query::{NAME_MAX, Query, bit};
use crate::wire::render::Asked;
use crate::wire::{Client, Made, Wire};
use crate::world::World;
pub(crate) use given::Given;
use head::{Head, bare, is_meta, parse};

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
    /// What the query has cost already.
    pub(crate) begun: Option<Begun>,
}

impl Via {
    /// Datagrams.
    pub(crate) const UDP: Self =
        Self { transport: "udp", stream: false, encrypted: false, keepalive: None, begun: None };

    /// A stream that stays open for `keepalive`, where clients may ask for how long.
    pub(crate) const fn stream(transport: &'static str, encrypted: bool, keepalive: Option<u16>) -> Self {
        Self { transport, stream: true, encrypted, keepalive, begun: None }
    }
}

/// What differs between two packets: the time, read once for each batch of them, and chance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    pub(crate) edge: Now,
    /// Evenly distributed, new for every question.
    pub(crate) dice: u64,
}

/// Answers packets; clones share everything.
#[derive(Clone)]
pub(crate) struct Responder {
    pub(crate) resolver: Shared,
    pub(crate) edge: Arc<Edge>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) metrics: Metrics,
    pub(crate) wire: Arc<Wire>,
    pub(crate) taps: Taps,
    pub(crate) gate: Arc<Gate>,
}

/// Who is at the other end of a packet.
struct Peer<'k> {
    from: SocketAddr,
    via: Via,
    /// The key that signed the query.
    key: Option<&'k Name>,
    now: Now,
    seen: Seen,
    cookie: Cookie,
}

impl Responder {
    /// The time, for a batch of packets.
    pub(crate) fn moment(&self) -> Moment {
        Moment { now: Instant::now(), edge: self.edge.now(), dice: rand::random() }
    }

    /// The reply to a packet that is no more than a query, whose TSIG (of `key`) is taken off; `None` for what gets none.
    pub(crate) async fn plain(&self, packet: &[u8], from: SocketAddr, via: Via, key: Option<&Name>) -> Option<Vec<u8>> {
        let start = Instant::now();
        let Some(head) = Head::read(packet) else {
            self.metrics.dropped(via.transport, "no_query");
            return None;
        };
        let (now, world) = (self.edge.now(), self.resolver.world.load_full());
        let origin = Origin { ip: from.ip(), listener: via.transport, key };
        // Where an OPT is to be looked for is known of queries only.
        let opt = if head.code == 0 { Opt::find(packet) } else { Ok(None) };
        let cookie = opt.ok().flatten().map_or(Cookie::Absent, |o| self.edge.guard.cookie(now, from.ip(), o.cookie));
        let seen = world.table.clients.seen(&origin, opt.ok().flatten().and_then(|opt| opt.subnet));
        // RFC 7871 §7.1.2: a malformed option is FORMERR.
        let (seen, opt) = match seen {
            Ok(seen) => (seen, opt),
            Err(ecs::Malformed) => {
                (Seen { asker: world.table.clients.who(&origin), client: origin.ip, echo: None }, Err(edns::Malformed))
            }
        };
        let peer = Peer { from, via, key, now, seen, cookie };
        let (mut reply, told) = match opt.map_err(|_| ResponseCode::FormErr) {
            Ok(opt) => match self.given(packet, opt.as_ref(), &peer, start) {
                Some(given) => given,
                None => {
                    self.metrics.wire(Outcome::Miss);
                    self.reply(packet, &head, opt.as_ref(), &peer, &world).await
                }
            },
            Err(code) => (bare(&head, code), code.into()),
        };
        let verdict = match (via.stream || peer.seen.asker.spared, cookie) {
            (true, _) | (_, Cookie::Valid(_)) => Verdict::Send,
            _ => self.edge.guard.judge(now, from.ip(), Kind::of(&reply)),
        };
        match verdict {
            Verdict::Send => {}
            Verdict::Slip => {
                let opt = opt.ok().flatten();
                let said = opt.map(|opt| ReplyOpt { rcode_high: told.code().high(), ..self.said(&opt, &peer) });
                edns::truncate(&mut reply, said.as_ref(), edns::limit(opt.as_ref(), false));
            }
            Verdict::Drop => {
                self.metrics.dropped(via.transport, "rate");
                return None;
            }
        }
        let took = start.elapsed();
        self.metrics.query(via.transport, told, took);
        if !self.taps.is_off() {
            self.show(via, from, packet, &reply, took);
        }
        Some(reply)
    }

    /// Shows a query and its reply to those who look on.
    pub(crate) fn show(&self, via: Via, from: SocketAddr, query: &[u8], reply: &[u8], took: Duration) {
        let (transport, answered) = (via.transport, Instant::now());
        let seen = || tap::Seen { transport, from, query: query.to_vec(), reply: reply.to_vec(), answered, took };
        self.taps.show(rand::random(), seen);
    }

    async fn reply(
        &self,
        packet: &[u8],
        head: &Head,
        opt: Option<&Opt<'_>>,
        peer: &Peer<'_>,
        world: &World,
    ) -> (Vec<u8>, Told) {
        let limit = edns::limit(opt, peer.via.stream);
        let parsed = head.check(packet).and_then(|()| parse(packet, head));
        let query = match parsed {
            Ok(query) => query,
            Err(code) => {
                // RFC 7873 §5.4: a query without a question that asks for a cookie only.
                let cookie_only =
                    head.code == 0 && (head.questions, head.others) == (0, 0) && peer.cookie.client().is_some();
                let code = if cookie_only { ResponseCode::NoError } else { code };
                let mut reply = bare(head, code);
                let said = opt.map(|opt| ReplyOpt { rcode_high: code.high(), ..self.said(opt, peer) });
                edns::append(&mut reply, said.as_ref(), limit);
                return (reply, code.into());
            }
        };
        let asked = &query.queries[0];
        let question = Question {
            name: asked.name.to_lowercase(),
            kind: asked.query_type,
            recursion: query.metadata.recursion_desired,
            dnssec: opt.is_some_and(|opt| opt.dnssec),
            unchecked: query.metadata.checking_disabled,
            client: peer.client().net,
            dice: rand::random(),
            trail: Trail::of(&query),
            begun: peer.via.begun,
            flat: false,
        };
        let refusal = self.refusal(&query, opt, peer);
        let keep = refusal.is_none();
        let mut answer = match refusal {
            Some(answer) => answer,
            None => self.resolver.resolve(world, &peer.seen.asker, &question, &mut Trace::off()).await,
        };
        // RFC 6840 §5.8: AD for those who set AD or DO.
        answer.secure &= query.metadata.authentic_data || question.dnssec;
        let encoding = encode::Question { name: &question.name, kind: question.kind, class: asked.query_class };
        let encoded = encode(&encoding, &answer, peer.seen.asker.recursion);
        let spelled = octets(&asked.name);
        let asking = asking(&query, &spelled, opt.map(|opt| self.said(opt, peer)));
        let body = encoded.body();
        let mut reply = vec![0; body.room(limit)];
        let length = body.render(&asking, 0, 0, limit, &mut reply).unwrap_or(0);
        reply.truncate(length);
        let zone = world.table.zone_placing(&peer.seen.asker, &question.name, question.kind);
        let label = self.metrics.label(&answer, zone.map(|zone| zone.apex()));
        let mut folded = [0; NAME_MAX];
        if let Some(plain) = Query::read(packet, &mut folded).filter(|_| keep) {
            let (generation, dice, now) = (world.generation, question.dice, Instant::now());
            let made = Made { answer: &answer, generation, dice, now, label };
            self.wire.deposit(&plain, peer.client(), &made, &encoded);
        }
        (reply, Told { rcode: answer.rcode.into(), label, ede: body.ede() })
    }

    /// What is answered without looking at names.
    fn refusal(&self, query: &Message, opt: Option<&Opt<'_>>, peer: &Peer<'_>) -> Option<Answer> {
        let code = |rcode| Some(Answer { rcode, authoritative: false, ..Answer::records(Vec::new()) });
        let asked = &query.queries[0];
        if opt.is_some_and(|opt| opt.version > 0) {
            // RFC 6891 §6.1.3.
            code(ResponseCode::BADVERS)
        } else if peer.cookie == Cookie::Malformed {
            // RFC 7873 §5.2.2.
            code(ResponseCode::FormErr)
        } else if peer.seen.asker.barred {
            Some(Answer::refused(ede::PROHIBITED, "this client may not ask here"))
        } else if self.must_prove(peer.cookie, peer.via, peer.seen.asker.spared, peer.now) {
            // RFC 7873 §5.2.3.
            code(ResponseCode::BADCOOKIE)
        } else if is_meta(asked.query_type) {
            code(ResponseCode::NotImp)
        } else if asked.query_class != DNSClass::IN {
            Some(Answer::refused(ede::NOT_SUPPORTED, "only class IN is served"))
        } else if matches!(asked.query_type, RecordType::AXFR | RecordType::IXFR) {
            Some(match self.by_datagram(query, &peer.origin()) {
                Ok(soa) => Answer::records(vec![soa]),
                Err(rcode) => Answer {
                    rcode,
                    ..Answer::refused(ede::PROHIBITED, "transfers go to whom the zone allows, by TCP or TLS")
                },
            })
        } else {
            None
        }
    }

    /// Whether a client that can prove its address must do so first: under stress, by UDP.
    fn must_prove(&self, cookie: Cookie, via: Via, spared: bool, now: Now) -> bool {
        let can = matches!(cookie, Cookie::Unproven(_)) && !via.stream && !spared;
        can && self.edge.guard.is_stressed(now)
    }

    /// The OPT of a reply to `peer`, but for what belongs to the answer.
    fn said<'a>(&'a self, opt: &Opt<'_>, peer: &'a Peer<'_>) -> ReplyOpt<'a> {
        ReplyOpt { subnet: peer.seen.echo.as_ref().map(Echo::octets), ..self.opt(opt, peer.of_opt()) }
    }

    /// The same without the client's network.
    fn opt(&self, opt: &Opt<'_>, (via, ip, cookie, now): (Via, IpAddr, Cookie, Now)) -> ReplyOpt<'_> {
        ReplyOpt {
            dnssec: opt.dnssec,
            cookie: self.edge.guard.cookie_for(now, ip, cookie),
            keepalive: via.keepalive.filter(|_| opt.keepalive),
            nsid: opt.nsid.then_some(self.edge.nsid()),
            padded: opt.padding && via.encrypted,
            ..ReplyOpt::default()
        }
    }
}

impl Peer<'_> {
    fn origin(&self) -> Origin<'_> {
        Origin { ip: self.from.ip(), listener: self.via.transport, key: self.key }
    }

    fn client(&self) -> Client {
        Client { place: self.seen.asker.id, net: client_net(self.seen.client) }
    }

    /// What the OPT of a reply depends on.
    fn of_opt(&self) -> (Via, IpAddr, Cookie, Now) {
        (self.via, self.from.ip(), self.cookie, self.now)
    }
}

fn asking<'a>(query: &Message, spelled: &'a [u8], opt: Option<ReplyOpt<'a>>) -> Asked<'a> {
    let mut bits = u8::from(query.metadata.recursion_desired) * bit::RD;
    bits |= u8::from(query.metadata.checking_disabled) * bit::CD;
    Asked { id: query.metadata.id.to_be_bytes(), bits, spelled, opt }
}
