//! Our own eyes on every server: does it answer, does it know its names, does what it is asked come back to us.
//!
//! In: a member, or the upstreams. Out: what [`super::party`] and [`super::loops`] go by, and whether a member answers at all. Outside the
//! members' budgets, which may be used up just because a member does not answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::{Failed, Forwarder, To};
use crate::names::absolute;
use crate::table::Member;

/// One probe.
const PROBE_MAX: Duration = Duration::from_secs(1);
/// Between two looks at the upstreams.
const EVERY: Duration = Duration::from_secs(2);
/// Between two probes for loops on a path that is straight; one that loops is probed every time.
const LOOPS_EVERY: Duration = Duration::from_secs(30);
/// RFC 6761 §6.2: what upstreams are asked for, that nobody has.
const NOBODYS: &str = "test";

/// When a party was probed for loops.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    at: Instant,
    epoch: u64,
}

/// Watches the upstreams until `shutdown`. Those that answer are asked nothing but whether they loop.
pub(crate) async fn patrol(forwarder: Arc<Forwarder>, shutdown: CancellationToken) {
    let (Some(test), Some(root)) = (absolute(NOBODYS), absolute(".")) else { return };
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        let round = async {
            let to = forwarder.to_upstreams();
            let ill = to.servers.iter().filter(|server| to.party.is_ill(**server));
            let question = Query::query(root.clone(), RecordType::NS);
            let looks = ill.map(|server| forwarder.look(&to, *server, &question, |_| true));
            join_all(looks).await;
            forwarder.look_for_loops(&to, &test).await;
        };
        if shutdown.run_until_cancelled(round).await.is_none() {
            return;
        }
    }
}

impl Forwarder {
    /// Looks at every server of a member: whether one of them answers at all; `None` when it has none.
    pub(crate) async fn probe(&self, member: &Member) -> Option<bool> {
        if member.servers.is_empty() {
            return None;
        }
        let party = self.party(member.name.as_str());
        let to = self.to(member, &party);
        let native = member.rename.native();
        // A domain below which there is no room for the name that it must know is asked for itself.
        let known = member.kind.known(native);
        let question = known.unwrap_or_else(|| Query::query(native.clone(), RecordType::SOA));
        let looks =
            to.servers.iter().map(|server| self.look(&to, *server, &question, |reply| member.kind.knows(reply)));
        let (answers, ()) = tokio::join!(join_all(looks), self.look_for_loops(&to, native));
        Some(answers.contains(&true))
    }

    /// Looks at one server; whether it answered anything.
    async fn look(&self, to: &To<'_>, server: SocketAddr, question: &Query, knows: impl Fn(&Message) -> bool) -> bool {
        let reply = self.knock(to, server, question).await;
        let said = reply
            .as_ref()
            .ok()
            .filter(|reply| matches!(reply.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain));
        if to.party.observe(server, said.is_some(), said.map(knows)) {
            tracing::info!(whose = to.whose, %server, up = said.is_some(), "our probe of a DNS server changed");
        }
        reply.is_ok()
    }

    /// Asks one server, by TCP when there is nothing by UDP.
    async fn knock(&self, to: &To<'_>, server: SocketAddr, question: &Query) -> Result<Message, Failed> {
        let half = PROBE_MAX / 2;
        let reply = match timeout(half, self.attempt(to, server, question, false)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) | Err(_) => {
                timeout(half, self.attempt(to, server, question, true)).await.unwrap_or(Err(Failed::TimedOut))
            }
        };
        if reply.is_ok() {
            to.party.circuit.answered();
        }
        reply
    }

    /// Probes every path of `to` for loops, where it is time.
    async fn look_for_loops(&self, to: &To<'_>, domain: &Name) {
        let (now, epoch) = (Instant::now(), self.loops.epoch());
        let looping = self.loops.any(to.whose);
        let due = to.party.looked(|looked| {
            looping || looked.is_none_or(|l| l.epoch != epoch || now.saturating_duration_since(l.at) >= LOOPS_EVERY)
        });
        if !due {
            return;
        }
        to.party.look(Looked { at: now, epoch });
        join_all(to.servers.iter().map(|server| self.look_for_loop(to, *server, domain))).await;
        let looping = self.loops.any(to.whose);
        self.metrics.looping(to.whose, looping);
    }

    async fn look_for_loop(&self, to: &To<'_>, server: SocketAddr, domain: &Name) {
        let (path, number) = ((to.whose.to_owned(), server), rand::random());
        let was = self.loops.is_looping(to.whose, server);
        let Some(question) = self.loops.probe(&path, number, domain) else { return };
        let reply = self.knock(to, server, &question).await;
        self.loops.settle(number, reply.is_ok());
        match (was, self.loops.is_looping(to.whose, server)) {
            (false, true) => {
                tracing::warn!(whose = to.whose, %server, "what this DNS server is asked comes back to us: it is left out");
            }
            (true, false) => tracing::info!(whose = to.whose, %server, "this DNS server does not loop any more"),
            _ => {}
        }
    }
}
