//! Asking others: a question goes to a member's DNS or to upstream resolvers, by UDP or TCP, hedged, within a budget.
//!
//! ```text
//!   ask ── a slot of this party's ── servers, the good ones first ──┬─ UDP where the route is direct ── not whole? ─┐
//!            (party)                 the next when one fails or     │  (udp)                                        ▼
//!                                    is slow (race)                 └─ TCP through the dialer (direct or relay), pipelined (tcp)
//!
//!   patrol ──► each server: is it well, does it know its names, does what it is asked come back to us (loops)
//! ```
//!
//! In: a question and what it may cost. Out: the first reply that says yes or no, or why there is none. A reply counts when id, question and
//! address are those of the query. Never: caches, translates, waits beyond the deadline.

mod ask;
mod case;
mod circuit;
mod failed;
mod loops;
mod party;
mod patrol;
mod ports;
mod race;
mod straight;
mod tcp;
mod times;
mod trail;
mod udp;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use atoll_reach::{Connect, Dialer, Listen, Route};
use hickory_proto::op::{Message, Query, ResponseCode};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::budget::Budget;
use crate::cache::Bits;
use crate::metrics::Metrics;
use crate::table::Member;
pub(crate) use ask::UDP_BYTES_MAX;
use ask::{Ask, Options, Reply};
pub(crate) use failed::Failed;
pub(crate) use loops::Loops;
pub(crate) use party::{Party, Slot};
pub(crate) use patrol::patrol;
pub(crate) use ports::{Ports, Ready, Received};
pub(crate) use straight::{Heard, Trip};
use tcp::{Dial, Pipelines};
pub(crate) use trail::{OPTION as TRAIL, Trail};

/// Questions in flight at one member: a slow one hurts nobody else.
const MEMBER_SLOTS: usize = 256;
/// Questions in flight at the upstreams.
const UPSTREAM_SLOTS: usize = 1024;
/// How the upstreams are called in metrics.
const UPSTREAM: &str = "(upstream)";
/// And the federation's DNS servers, which a node-local one asks.
const FEDERATION: &str = "(federation)";

/// Asks.
pub(crate) struct Forwarder {
    dialer: Dialer,
    listen: Arc<dyn Listen>,
    connect: Arc<dyn Connect>,
    pipelines: Pipelines,
    members: Mutex<HashMap<String, Arc<Party>>>,
    upstreams: Party,
    federation: Party,
    upstream_servers: Vec<SocketAddr>,
    loops: Loops,
    metrics: Metrics,
}

/// Whom a question goes to, and how.
struct To<'q> {
    whose: &'q str,
    party: &'q Party,
    servers: &'q [SocketAddr],
    /// Asked by TCP always.
    tcp_only: bool,
    /// DO, CD, AD.
    bits: Bits,
    /// What the query that asks may still cost; our own probes cost nothing.
    budget: Option<Budget>,
    /// Where the question comes from.
    trail: Option<Trail>,
}

impl To<'_> {
    /// One more question is asked.
    fn spend(&self) -> Result<(), Failed> {
        let left = self.budget.as_ref().is_none_or(Budget::take);
        if left { Ok(()) } else { Err(Failed::Exhausted) }
    }
}

impl Forwarder {
    pub(crate) fn new(
        dialer: Dialer,
        listen: Arc<dyn Listen>,
        connect: Arc<dyn Connect>,
        upstream_servers: Vec<SocketAddr>,
        metrics: Metrics,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Self {
        Self {
            dialer,
            listen,
            connect,
            pipelines: Pipelines::new(tasks.clone(), shutdown.clone()),
            members: Mutex::default(),
            upstreams: Party::new(UPSTREAM_SLOTS),
            federation: Party::new(UPSTREAM_SLOTS),
            upstream_servers,
            loops: Loops::new(rand::random()),
            metrics,
        }
    }

    /// The way into members.
    pub(crate) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Where what we ask comes back to us.
    pub(crate) fn loops(&self) -> &Loops {
        &self.loops
    }

    /// Whether there are resolvers for names that are not ours.
    pub(crate) fn has_upstreams(&self) -> bool {
        !self.upstream_servers.is_empty()
    }

    /// Asks a member. Its reply is not truncated. `trail` is what the question came with.
    ///
    /// # Errors
    /// See [`Failed`].
    pub(crate) async fn member(
        &self,
        member: &Member,
        question: &Query,
        trail: Option<Trail>,
        budget: &Budget,
    ) -> Result<Message, Failed> {
        let party = self.party(member.name.as_str());
        let mut to = To { trail, budget: Some(budget.clone()), ..self.to(member, &party) };
        to.tcp_only |= budget.by_stream;
        let asked = async {
            let reply = self.ask(&to, question, budget.deadline).await?;
            if reply.metadata.response_code != ResponseCode::NXDomain {
                return Ok(reply);
            }
            // What a member means that says that a name is not there, where its kind says so of names that are.
            for doubt in member.kind.doubts(question, member.rename.native()) {
                let further = self.ask(&to, &doubt.question, budget.deadline).await?;
                if let Some(settled) = doubt.settle(&reply, &further) {
                    return Ok(settled);
                }
            }
            Ok(reply)
        };
        let reply = asked.await;
        self.settle(&to, &reply);
        reply
    }

    /// Why `member`, or the upstreams, should not be asked now: all was left without an answer of late, and no question is due that tries.
    pub(crate) fn shut(&self, member: Option<&Member>, now: Instant) -> Option<Failed> {
        let through = match member {
            Some(member) => self.party(member.name.as_str()).circuit.lets_through(now),
            None => self.upstreams.circuit.lets_through(now),
        };
        (!through).then(Failed::unanswered)
    }

    /// Asks the upstreams. `trail` is what the question came with.
    ///
    /// # Errors
    /// See [`Failed`].
    pub(crate) async fn upstream(
        &self,
        question: &Query,
        bits: Bits,
        trail: Option<Trail>,
        budget: &Budget,
    ) -> Result<Message, Failed> {
        let to = To { bits, trail, budget: Some(budget.clone()), ..self.to_upstreams() };
        let reply = self.ask(&to, question, budget.deadline).await;
        self.settle(&to, &reply);
        reply
    }

    /// Asks the federation's DNS servers. `trail` is what the question came with.
    ///
    /// # Errors
    /// See [`Failed`].
    pub(crate) async fn federation(
        &self,
        servers: &[SocketAddr],
        question: &Query,
        bits: Bits,
        trail: Option<Trail>,
        budget: &Budget,
    ) -> Result<Message, Failed> {
        let (whose, party, deadline) = (FEDERATION, &self.federation, budget.deadline);
        let to = To { whose, party, servers, tcp_only: false, bits, budget: Some(budget.clone()), trail };
        let reply = self.ask(&to, question, deadline).await;
        self.settle(&to, &reply);
        reply
    }

    /// Whether a question that came with `trail` came back from `member`, where it would go: by way of whom.
    pub(crate) fn returned(&self, trail: Option<Trail>, member: Option<&Member>) -> Option<String> {
        let (whose, servers) = member.map_or((UPSTREAM, &self.upstream_servers), |m| (m.name.as_str(), &m.servers));
        let via = self.loops.returned(trail?, whose, servers)?;
        self.metrics.looping(whose, true);
        Some(via)
    }

    /// The members are these now, and the federation's DNS servers those.
    pub(crate) fn keep<'m>(&self, federation: &[SocketAddr], member: impl Fn(&str) -> Option<&'m Member>) {
        self.federation.keep(federation);
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, party) in members.iter() {
            party.keep(member(name).map_or(&[], |m| &m.servers));
        }
        members.retain(|name, _| member(name).is_some());
        drop(members);
        self.pipelines.keep(|name| is_plain(name) || member(name).is_some());
        self.loops.keep(|(whose, server)| is_plain(whose) || member(whose).is_some_and(|m| m.servers.contains(server)));
        self.loops.renew();
    }

    /// What became of a question is counted, and held for or against the party.
    fn settle(&self, to: &To<'_>, reply: &Result<Message, Failed>) {
        self.metrics.forward(to.whose, reply.as_ref().err().map_or("ok", Failed::word));
        match reply.as_ref().map_or_else(Failed::is_silence, |_| Some(false)) {
            Some(true) => to.party.circuit.left(Instant::now()),
            Some(false) => to.party.circuit.answered(),
            None => {}
        }
    }

    /// What is known of a member's servers, and what may be in flight there.
    pub(crate) fn party(&self, member: &str) -> Arc<Party> {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(party) = members.get(member) {
            return Arc::clone(party);
        }
        Arc::clone(members.entry(member.to_owned()).or_insert_with(|| Arc::new(Party::new(MEMBER_SLOTS))))
    }

    fn to<'q>(&self, member: &'q Member, party: &'q Party) -> To<'q> {
        let whose = member.name.as_str();
        To {
            whose,
            party,
            servers: &member.servers,
            tcp_only: member.tcp_only,
            bits: Bits::default(),
            budget: None,
            trail: None,
        }
    }

    fn to_upstreams(&self) -> To<'_> {
        let (party, servers) = (&self.upstreams, &self.upstream_servers);
        To { whose: UPSTREAM, party, servers, tcp_only: false, bits: Bits::default(), budget: None, trail: None }
    }

    /// Asks whoever of `to` answers first.
    async fn ask(&self, to: &To<'_>, question: &Query, deadline: Instant) -> Result<Message, Failed> {
        let now = Instant::now();
        let mut servers = to.party.order(to.servers, rand::random_range(0..to.servers.len().max(1)), now);
        servers.retain(|server| !self.loops.is_looping(to.whose, *server));
        if servers.is_empty() {
            return Err(self.looping(to).unwrap_or(Failed::NoServers));
        }
        let _slot = to.party.enter(now, deadline).await?;
        let attempt = |server, again| self.attempt(to, server, question, again);
        let (reply, hedges) = race::race(to.party, &servers, deadline, attempt).await;
        self.metrics.hedged(to.whose, hedges);
        // That it came back to us may have been found by this very question.
        reply.map_err(|failed| self.looping(to).unwrap_or(failed))
    }

    /// Why nobody of `to` can be asked, when what all of them are asked comes back.
    fn looping(&self, to: &To<'_>) -> Option<Failed> {
        let all = to.servers.iter().all(|server| self.loops.is_looping(to.whose, *server));
        let first = to.servers.first().filter(|_| all)?;
        Some(Failed::Loop(loops::shown(&(to.whose.to_owned(), *first))))
    }

    /// One attempt; `again` by TCP, should nothing come through by UDP.
    async fn attempt(&self, to: &To<'_>, server: SocketAddr, question: &Query, again: bool) -> Result<Message, Failed> {
        let trail = self.loops.mark(to.trail, &(to.whose.to_owned(), server));
        let spelling = to.party.spelling(server, Instant::now());
        let ask = Ask::new(question, rand::random(), Some(Options { bits: to.bits, trail }))
            .spelled(spelling, rand::random());
        let reply = self.exchange(to, server, &ask, again).await?;
        // RFC 6891 §7: who knows no EDNS says FORMERR, or NOTIMP, and brings no OPT.
        let code = reply.metadata.response_code;
        if reply.edns.is_none() && matches!(code, ResponseCode::FormErr | ResponseCode::NotImp) {
            let plain = Ask::new(question, rand::random(), None);
            return self.exchange(to, server, &plain, again).await;
        }
        Ok(reply)
    }

    async fn exchange(&self, to: &To<'_>, server: SocketAddr, ask: &Ask, again: bool) -> Result<Message, Failed> {
        let direct = is_plain(to.whose) || self.dialer.route(to.whose) == Route::Direct;
        if direct && !to.tcp_only && !again {
            to.spend()?;
            let heard = to.party.sockets.exchange(&*self.listen, server, ask).await?;
            if let Some(exact) = heard.exact {
                to.party.spelled(server, exact, Instant::now());
            }
            if let Some(reply) = heard.reply {
                return Ok(reply);
            }
        }
        to.spend()?;
        self.pipelines.exchange(to.whose, server, ask, &self.dial(to.whose, server)).await
    }

    fn dial(&self, whose: &str, server: SocketAddr) -> Dial {
        let host = server.ip().to_string();
        if is_plain(whose) {
            let connect = Arc::clone(&self.connect);
            return Arc::new(move || {
                let (connect, host) = (Arc::clone(&connect), host.clone());
                Box::pin(async move { connect.connect(&host, server.port()).await })
            });
        }
        let (dialer, cluster) = (self.dialer.clone(), whose.to_owned());
        Arc::new(move || {
            let (dialer, cluster, host) = (dialer.clone(), cluster.clone(), host.clone());
            Box::pin(async move {
                dialer.dial(&cluster, &host, server.port()).await.map_err(atoll_reach::DialError::into_io)
            })
        })
    }
}

/// Whether somebody is no member: reached by no other way than the network.
fn is_plain(whose: &str) -> bool {
    whose == UPSTREAM || whose == FEDERATION
}

/// The reply to a query for `question` with `id` that `octets` are, if any: for those who try what strangers may send.
pub(crate) fn judge(question: &Query, id: u16, octets: &[u8]) -> Option<Message> {
    match Ask::new(question, id, None).judge(&mut octets.to_vec()) {
        Reply::Ours(message, _) => Some(*message),
        Reply::Respelled | Reply::Broken | Reply::Foreign => None,
    }
}

/// Whether `octets` begin as a reply to such a query: for the same.
pub(crate) fn is_ours(question: &Query, id: u16, octets: &[u8]) -> bool {
    matches!(Ask::new(question, id, None).screen(&mut octets.to_vec()), ask::Screened::Ours(_))
}
