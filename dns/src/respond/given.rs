//! Answers that were given before to somebody who asked the same, and failures that need no asking: found without being decided.
//!
//! In: a packet, whom it is from. Out: the reply, or leave to have it decided. Waits for nobody.

use std::net::{IpAddr, SocketAddr};

use tokio::time::Instant;

use super::{Moment, Peer, Responder, Via};
use crate::client::Origin;
use crate::counters::{Outcome, Told};
use crate::edns::{self, Edes, Opt, ReplyOpt};
use crate::geo::ecs::Echo;
use crate::guard::{Cookie, Kind, Verdict};
use crate::lookup::Landed;
use crate::prefixes::client_net;
use crate::share::Pass;
use crate::wire::query::{Folded, NAME_MAX, Query};
use crate::wire::render::{Asked, cut, failure};
use crate::wire::{Client, Hit, Local, Made, Stands, Terms};

/// Question, extended errors and options of a failure.
const FAILURE_BYTES_MAX: usize = 2048;

/// What becomes of a packet whose answer was given before.
#[derive(Debug)]
pub(crate) enum Given {
    /// The reply is in the buffer.
    Reply(Hit),
    /// Strangers get no more for the moment.
    Dropped,
    /// It has to be decided, and may be.
    Slow(Pass),
    /// There is no room to have it decided, nor a reply to say so.
    Shed,
}

/// A plain query of somebody who may ask it.
struct Posed<'p> {
    query: Query<'p>,
    ip: IpAddr,
    stands: Stands,
    client: Client,
    echo: Option<Echo>,
    cookie: Cookie,
    moment: Moment,
}

impl Responder {
    /// The reply to a datagram in `out`, when it was given before to somebody who asked the same, or nobody would answer; else whether it
    /// may be decided. Waits for nobody; allocates nothing when the thread has the answer.
    pub(crate) fn hit(
        &self,
        local: &mut Local,
        packet: &[u8],
        from: SocketAddr,
        moment: Moment,
        out: &mut [u8],
    ) -> Given {
        let mut folded = [0; NAME_MAX];
        let Some(posed) = self.pose(local, packet, from, moment, &mut folded) else {
            return self.gate.admit_odd().map_or(Given::Shed, Given::Slow);
        };
        let terms = self.terms(&posed);
        let hit = match self.wire.hit(local, &posed.query, posed.client, terms, out) {
            Some(hit) => hit,
            None => {
                let recursion = posed.stands.recursion;
                let fail =
                    |edes: Edes<'_>, told| fail(&posed.query, terms.opt, (edes, told), recursion, terms.limit, out);
                match self.gate.admit(&posed.query, &self.resolver.lookups, moment.now, fail) {
                    Ok(pass) => return Given::Slow(pass),
                    Err(None) => return Given::Shed,
                    Err(Some(hit)) => hit,
                }
            }
        };
        self.give(&posed, terms, hit, out)
    }

    /// The reply to a datagram whose answer a thread had from a member, in `out`; it is kept for those who ask the same. `generation` is
    /// that of the world in which it was asked. `None` where the query is no plain one any more.
    pub(crate) fn landed(
        &self,
        local: &mut Local,
        (packet, from): (&[u8], SocketAddr),
        (landed, label, generation): (Landed, u16, u64),
        moment: Moment,
        out: &mut [u8],
    ) -> Option<Given> {
        let mut folded = [0; NAME_MAX];
        let posed = self.pose(local, packet, from, moment, &mut folded)?;
        let (terms, (encoded, landing)) = (self.terms(&posed), landed.encode(posed.stands.recursion));
        let made = Made { answer: landing.made_of(), generation, dice: moment.dice, now: moment.now, label };
        self.wire.deposit(&posed.query, posed.client, &made, &encoded);
        let body = encoded.body();
        let len = body.render(&Asked::of(&posed.query, terms.opt), 0, 0, terms.limit, out)?;
        let told = Told { rcode: body.rcode(), label, ede: body.ede() };
        Some(self.give(&posed, terms, Hit { len, told }, out))
    }

    /// A datagram as a plain query of somebody who may ask it.
    fn pose<'p>(
        &self,
        local: &mut Local,
        packet: &'p [u8],
        from: SocketAddr,
        moment: Moment,
        folded: &'p mut Folded,
    ) -> Option<Posed<'p>> {
        let query = Query::read(packet, folded)?;
        let ip = from.ip();
        let origin = Origin { ip, listener: Via::UDP.transport, key: None };
        let (stands, client, echo) = match query.opt.and_then(|opt| opt.subnet) {
            None => {
                let known = local.places.find(ip, |generation| self.wire.stamps.stand(generation));
                let stands = known.unwrap_or_else(|| {
                    let world = self.resolver.world.load();
                    let stands = Stands::of(&world.table.clients.who(&origin));
                    local.places.keep(ip, stands, world.generation);
                    stands
                });
                (stands, ip, None)
            }
            subnet => {
                let seen = self.resolver.world.load().table.clients.seen(&origin, subnet).ok()?;
                (Stands::of(&seen.asker), seen.client, seen.echo)
            }
        };
        let cookie = query.opt.map_or(Cookie::Absent, |o| self.edge.guard.cookie(moment.edge, ip, o.cookie));
        let client = Client { place: stands.place, net: client_net(client) };
        let posed = Posed { query, ip, stands, client, echo, cookie, moment };
        let may = !stands.barred
            && cookie != Cookie::Malformed
            && !self.must_prove(cookie, Via::UDP, stands.spared, moment.edge);
        may.then_some(posed)
    }

    /// What a reply to it is rendered with.
    fn terms<'a>(&'a self, posed: &'a Posed<'_>) -> Terms<'a> {
        let Posed { query, ip, echo, cookie, moment, .. } = posed;
        let subnet = echo.as_ref().map(Echo::octets);
        let opt = query.opt.map(|opt| ReplyOpt { subnet, ..self.opt(&opt, (Via::UDP, *ip, *cookie, moment.edge)) });
        Terms { now: moment.now, dice: moment.dice, limit: edns::limit(query.opt.as_ref(), false), opt }
    }

    /// Whether what is in `out` goes to its client.
    fn give(&self, posed: &Posed<'_>, terms: Terms<'_>, hit: Hit, out: &mut [u8]) -> Given {
        let verdict = match (posed.stands.spared, posed.cookie) {
            (true, _) | (_, Cookie::Valid(_)) => Verdict::Send,
            _ => self.edge.guard.judge(posed.moment.edge, posed.ip, Kind::of(&out[..hit.len])),
        };
        match verdict {
            Verdict::Send => Given::Reply(hit),
            Verdict::Slip => {
                let len = cut(&posed.query, terms.opt, hit.told.rcode, terms.limit, out);
                Given::Reply(Hit { len, ..hit })
            }
            Verdict::Drop => Given::Dropped,
        }
    }

    /// The reply to a query on a stream, when it was given before to somebody who asked the same, or nobody would answer; else `None`:
    /// then [`Self::respond`] has it. Waits for nobody.
    pub(crate) fn at_once(&self, packet: &[u8], from: SocketAddr, via: Via) -> Option<Vec<u8>> {
        let (start, now) = (Instant::now(), self.edge.now());
        let opt = Opt::find(packet).ok()?;
        let cookie = opt.map_or(Cookie::Absent, |o| self.edge.guard.cookie(now, from.ip(), o.cookie));
        let origin = Origin { ip: from.ip(), listener: via.transport, key: None };
        let world = self.resolver.world.load();
        let seen = world.table.clients.seen(&origin, opt.and_then(|opt| opt.subnet)).ok()?;
        let peer = Peer { from, via, key: None, now, seen, cookie };
        let given = self.given(packet, opt.as_ref(), &peer, start);
        let (reply, told) = given.or_else(|| self.shut(packet, opt.as_ref(), &peer, start))?;
        let took = start.elapsed();
        self.metrics.query(via.transport, told, took);
        if !self.taps.is_off() {
            self.show(via, from, packet, &reply, took);
        }
        Some(reply)
    }

    /// What was given before to somebody who asked the same.
    pub(super) fn given(
        &self,
        packet: &[u8],
        opt: Option<&Opt<'_>>,
        peer: &Peer<'_>,
        now: Instant,
    ) -> Option<(Vec<u8>, Told)> {
        let mut folded = [0; NAME_MAX];
        let query = self.plainly(packet, peer, &mut folded)?;
        let said = opt.map(|opt| self.said(opt, peer));
        let terms = Terms { now, dice: rand::random(), limit: edns::limit(opt, peer.via.stream), opt: said };
        let mut out = Vec::new();
        let hit = self.wire.shared(&query, peer.client(), terms, &mut out);
        let hit = hit?;
        self.metrics.wire(Outcome::Hit);
        Some((out, hit.told))
    }

    /// The failure of a query on a stream whose member answers nothing.
    fn shut(&self, packet: &[u8], opt: Option<&Opt<'_>>, peer: &Peer<'_>, now: Instant) -> Option<(Vec<u8>, Told)> {
        let mut folded = [0; NAME_MAX];
        let query = self.plainly(packet, peer, &mut folded)?;
        let (said, limit) = (opt.map(|opt| self.said(opt, peer)), edns::limit(opt, true));
        let mut out = vec![0; limit.min(FAILURE_BYTES_MAX)];
        let fail = |edes: Edes<'_>, told| fail(&query, said, (edes, told), peer.seen.asker.recursion, limit, &mut out);
        let hit = self.gate.shut(&query, &self.resolver.lookups, now, fail)??;
        out.truncate(hit.len);
        Some((out, hit.told))
    }

    /// The query in `packet`, where it is a plain one of somebody who may ask.
    fn plainly<'p>(&self, packet: &'p [u8], peer: &Peer<'_>, folded: &'p mut Folded) -> Option<Query<'p>> {
        let query = Query::read(packet, folded)?;
        let asker = &peer.seen.asker;
        let proven = !self.must_prove(peer.cookie, peer.via, asker.spared, peer.now);
        (!asker.barred && peer.cookie != Cookie::Malformed && proven).then_some(query)
    }
}

/// Writes a failure that says why.
fn fail(
    query: &Query<'_>,
    opt: Option<ReplyOpt<'_>>,
    (edes, told): (Edes<'_>, Told),
    recursion: bool,
    limit: usize,
    out: &mut [u8],
) -> Option<Hit> {
    let len = failure(query, opt.map(|opt| ReplyOpt { edes, ..opt }), recursion, limit, out)?;
    Some(Hit { len, told })
}
