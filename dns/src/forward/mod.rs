//! Asking others: a question goes to a member's DNS or to upstream resolvers, by UDP or TCP, hedged, within a budget.
//!
//! ```text
//!   ask ── a slot of this member's ── servers, the good ones first ──┬─ UDP where the route is direct ── truncated? ─┐
//!                                     the next after 400 ms, or when │                                               ▼
//!                                     one fails                      └─ TCP through the dialer (direct or relay), pipelined
//! ```
//!
//! In: a question and a deadline. Out: the first reply that says yes or no, or why there is none. A reply counts when id, question and
//! address are those of the query. Never: caches, translates, waits beyond the deadline.

mod race;
mod tcp;
mod udp;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use atoll_reach::{Connect, Dialer, Listen, Route};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;
use crate::table::Member;
use tcp::Pipelines;

/// What we take by UDP at most: the size that DNS flag day 2020 recommends.
pub(crate) const UDP_BYTES_MAX: u16 = 1232;
/// Questions in flight at one member: a slow one hurts nobody else.
const MEMBER_SLOTS: usize = 256;
/// Questions in flight at the upstreams.
const UPSTREAM_SLOTS: usize = 1024;
/// How the upstreams are called in metrics.
const UPSTREAM: &str = "(upstream)";

/// Why there is no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failed {
    /// Nobody is known that could be asked.
    #[error("no DNS server is known")]
    NoServers,
    /// Too much is in flight there already.
    #[error("too many questions in flight")]
    Busy,
    /// It answered, but neither yes nor no.
    #[error("answered {0}")]
    Code(ResponseCode),
    /// It did not answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// It could not be reached.
    #[error("{0}")]
    Network(String),
    /// What it said may not be passed on.
    #[error("{0}")]
    Unusable(String),
}

impl Failed {
    fn word(&self) -> &'static str {
        match self {
            Self::NoServers => "no_servers",
            Self::Busy => "busy",
            Self::Code(_) => "code",
            Self::TimedOut => "timeout",
            Self::Network(_) => "network",
            Self::Unusable(_) => "unusable",
        }
    }
}

/// Asks.
pub(crate) struct Forwarder {
    dialer: Dialer,
    listen: Arc<dyn Listen>,
    members: Pipelines,
    upstreams: Pipelines,
    upstream_servers: Vec<SocketAddr>,
    connect: Arc<dyn Connect>,
    slots: Mutex<HashMap<String, Arc<Semaphore>>>,
    upstream_slots: Semaphore,
    recent: race::Recent,
    metrics: Metrics,
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
        let pipelines = || Pipelines::new(tasks.clone(), shutdown.clone());
        Self {
            dialer,
            listen,
            connect,
            members: pipelines(),
            upstreams: pipelines(),
            upstream_servers,
            slots: Mutex::default(),
            upstream_slots: Semaphore::new(UPSTREAM_SLOTS),
            recent: race::Recent::default(),
            metrics,
        }
    }

    /// The way into members.
    pub(crate) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Whether there are resolvers for names that are not ours.
    pub(crate) fn has_upstreams(&self) -> bool {
        !self.upstream_servers.is_empty()
    }

    /// Asks a member. Its reply is not truncated.
    ///
    /// # Errors
    /// See [`Failed`].
    pub(crate) async fn member(&self, member: &Member, question: &Query, deadline: Instant) -> Result<Message, Failed> {
        let slots = self.slots_of(member.name.as_str());
        let asked = async {
            let _slot = slots.try_acquire().map_err(|_| Failed::Busy)?;
            let reply = self.probe(member, question, deadline).await?;
            self.doubted(member, question, reply, deadline).await
        };
        let reply = asked.await;
        self.count(member.name.as_str(), &reply);
        reply
    }

    /// What a member that says that a name is not there means by it, where its kind says so of names that are.
    async fn doubted(
        &self,
        member: &Member,
        question: &Query,
        reply: Message,
        deadline: Instant,
    ) -> Result<Message, Failed> {
        if reply.metadata.response_code != ResponseCode::NXDomain {
            return Ok(reply);
        }
        for doubt in member.kind.doubts(question, member.rename.native()) {
            let further = self.probe(member, &doubt.question, deadline).await?;
            if let Some(settled) = doubt.settle(&reply, &further) {
                return Ok(settled);
            }
        }
        Ok(reply)
    }

    /// Asks a member whether it is there: outside its budget, which may be used up just because it is not.
    ///
    /// # Errors
    /// See [`Failed`].
    pub(crate) async fn probe(&self, member: &Member, question: &Query, deadline: Instant) -> Result<Message, Failed> {
        let attempt = |server, again| self.ask_member(member, server, question, again);
        race::race(&member.servers, &self.recent, deadline, attempt).await
    }

    /// Asks the upstreams.
    ///
    /// # Errors
    /// See [`Failed`].
    pub(crate) async fn upstream(&self, question: &Query, dnssec: bool, deadline: Instant) -> Result<Message, Failed> {
        let asked = async {
            let _slot = self.upstream_slots.try_acquire().map_err(|_| Failed::Busy)?;
            let attempt = |server, again| self.ask_upstream(server, question, dnssec, again);
            race::race(&self.upstream_servers, &self.recent, deadline, attempt).await
        };
        let reply = asked.await;
        self.count(UPSTREAM, &reply);
        reply
    }

    /// Forgets members that are gone.
    pub(crate) fn keep(&self, known: impl Fn(&str) -> bool) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| known(name));
        self.members.keep(known);
    }

    fn count(&self, member: &str, reply: &Result<Message, Failed>) {
        self.metrics.forward(member, reply.as_ref().err().map_or("ok", Failed::word));
    }

    fn slots_of(&self, member: &str) -> Arc<Semaphore> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(member.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(MEMBER_SLOTS))))
    }

    /// One attempt; `again` by TCP, should nothing come through by UDP.
    async fn ask_member(
        &self,
        member: &Member,
        server: SocketAddr,
        question: &Query,
        again: bool,
    ) -> Result<Message, Failed> {
        let cluster = member.name.as_str();
        if !member.tcp_only && !again && self.dialer.route(cluster) == Route::Direct {
            let reply = udp::exchange(&*self.listen, server, query(question, false)).await?;
            if !reply.metadata.truncation {
                return Ok(reply);
            }
        }
        let dial = || async move {
            let host = server.ip().to_string();
            self.dialer.dial(cluster, &host, server.port()).await.map_err(atoll_reach::DialError::into_io)
        };
        self.members.exchange(cluster, server, query(question, false), dial).await
    }

    async fn ask_upstream(
        &self,
        server: SocketAddr,
        question: &Query,
        dnssec: bool,
        again: bool,
    ) -> Result<Message, Failed> {
        if !again {
            let reply = udp::exchange(&*self.listen, server, query(question, dnssec)).await?;
            if !reply.metadata.truncation {
                return Ok(reply);
            }
        }
        let dial = || async move { self.connect.connect(&server.ip().to_string(), server.port()).await };
        self.upstreams.exchange(UPSTREAM, server, query(question, dnssec), dial).await
    }
}

fn query(question: &Query, dnssec: bool) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(question.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES_MAX);
    edns.set_dnssec_ok(dnssec);
    message.set_edns(edns);
    message
}

/// Whether `reply` answers `query`: RFC 5452 §9.1, beside the address, which the socket checks.
fn answers(query: &Message, reply: &Message) -> bool {
    let same = reply.metadata.id == query.metadata.id
        && reply.metadata.message_type == MessageType::Response
        && reply.metadata.op_code == OpCode::Query;
    // A server that could not read the question may leave it out.
    let failed = reply.queries.is_empty() && reply.metadata.response_code != ResponseCode::NoError;
    same && (failed || reply.queries == query.queries)
}
