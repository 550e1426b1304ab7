//! Answers that were given before to somebody who asked the same: found without being decided. Waits for nobody.
//!
//! In: a packet, whom it is from. Out: the reply, or that it has to be decided.

use std::net::SocketAddr;

use tokio::time::Instant;

use super::{Moment, Peer, Responder, Via};
use crate::client::Origin;
use crate::counters::{Outcome, Told};
use crate::edns::{self, Opt, ReplyOpt};
use crate::geo::ecs::Echo;
use crate::guard::{Cookie, Kind, Verdict};
use crate::wire::query::{NAME_MAX, Query};
use crate::wire::render::cut;
use crate::wire::{Client, Hit, Local, Stands, Terms, neighbourhood};

/// What becomes of a packet whose answer was given before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    /// The reply is in the buffer.
    Reply(Hit),
    /// Strangers get no more for the moment.
    Dropped,
}
impl Responder {
    /// The reply to a datagram in `out`, when it was given before to somebody who asked the same; `None` when it was not. Waits for
    /// nobody; allocates nothing when the thread has the answer.
    pub(crate) fn hit(
        &self,
        local: &mut Local,
        packet: &[u8],
        from: SocketAddr,
        moment: Moment,
        out: &mut [u8],
    ) -> Option<Given> {
        let mut folded = [0; NAME_MAX];
        let query = Query::read(packet, &mut folded)?;
        let ip = from.ip();
        let origin = Origin { ip, listener: Via::UDP.transport, key: None };
        let (stands, client, echo) = match query.opt.and_then(|opt| opt.subnet) {
            None => {
                let known = local.stands(ip, |generation| self.wire.stamps.stand(generation));
                let stands = known.unwrap_or_else(|| {
                    let world = self.resolver.world.load();
                    let stands = Stands::of(&world.table.clients.who(&origin));
                    local.place(ip, stands, world.generation);
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
        if stands.barred || cookie == Cookie::Malformed || self.must_prove(cookie, Via::UDP, stands.spared, moment.edge)
        {
            return None;
        }
        let subnet = echo.as_ref().map(Echo::octets);
        let opt = query.opt.map(|opt| ReplyOpt { subnet, ..self.opt(&opt, (Via::UDP, ip, cookie, moment.edge)) });
        let limit = edns::limit(query.opt.as_ref(), false);
        let client = Client { place: stands.place, net: neighbourhood(client) };
        let terms = Terms { now: moment.now, dice: moment.dice, limit, opt };
        let hit = self.wire.hit(local, &query, client, terms, out)?;
        let verdict = match (stands.spared, cookie) {
            (true, _) | (_, Cookie::Valid(_)) => Verdict::Send,
            _ => self.edge.guard.judge(moment.edge, ip, Kind::of(&out[..hit.len])),
        };
        Some(match verdict {
            Verdict::Send => Given::Reply(hit),
            Verdict::Slip => Given::Reply(Hit { len: cut(&query, opt, hit.told.rcode, limit, out), ..hit }),
            Verdict::Drop => Given::Dropped,
        })
    }

    /// The reply to a query on a stream, when it was given before to somebody who asked the same; `None` when it was not: then
    /// [`Self::respond`] has it. Waits for nobody.
    pub(crate) fn at_once(&self, packet: &[u8], from: SocketAddr, via: Via) -> Option<Vec<u8>> {
        let (start, now) = (Instant::now(), self.edge.now());
        let opt = Opt::find(packet).ok()?;
        let cookie = opt.map_or(Cookie::Absent, |o| self.edge.guard.cookie(now, from.ip(), o.cookie));
        let origin = Origin { ip: from.ip(), listener: via.transport, key: None };
        let world = self.resolver.world.load();
        let seen = world.table.clients.seen(&origin, opt.and_then(|opt| opt.subnet)).ok()?;
        let peer = Peer { from, via, now, seen, cookie };
        let (reply, told) = self.given(packet, opt.as_ref(), &peer, start)?;
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
        peer: &Peer,
        now: Instant,
    ) -> Option<(Vec<u8>, Told)> {
        let mut folded = [0; NAME_MAX];
        let query = Query::read(packet, &mut folded)?;
        let malformed = peer.cookie == Cookie::Malformed;
        if peer.seen.asker.barred
            || malformed
            || self.must_prove(peer.cookie, peer.via, peer.seen.asker.spared, peer.now)
        {
            return None;
        }
        let said = opt.map(|opt| self.said(opt, peer));
        let terms = Terms { now, dice: rand::random(), limit: edns::limit(opt, peer.via.stream), opt: said };
        let mut out = Vec::new();
        let hit = self.wire.shared(&query, peer.client(), terms, &mut out);
        let hit = hit?;
        self.metrics.wire(Outcome::Hit);
        Some((out, hit.told))
    }
}
