//! One agent's link, from its Hello to its end.
//!
//! Reading and writing go on beside each other, so that a slow agent delays only itself. What an agent says is taken into
//! [`Sessions`]; what it is to do is sent as deltas. Source: the proto's comments.

use std::sync::Arc;
use std::time::Duration;

use atoll_api::names::ClusterName;
use atoll_reach::Peer;
use atoll_wire::delta::{Refused, Sender};
use atoll_wire::v1::{self, from_agent, to_agent};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::sessions::Sessions;

const HELLO_MAX: Duration = Duration::from_secs(10);
/// An agent that says nothing for so long is gone: its heartbeats come every 5 s.
const SILENCE_MAX: Duration = Duration::from_secs(30);

type Out = mpsc::Sender<Result<v1::ToAgent, Status>>;

/// One link.
pub(super) struct Session {
    pub(super) name: ClusterName,
    pub(super) peer: Peer,
    pub(super) hub_id: String,
    pub(super) epoch: u64,
    pub(super) heartbeat_ms: u32,
    pub(super) sessions: Arc<Sessions>,
    pub(super) end: CancellationToken,
}

/// What the reading half tells the writing half.
#[derive(Debug, Default, Clone)]
struct Shared {
    /// Counts requests for the full set.
    resync: u64,
    /// Digest of what was sent, for acknowledgements.
    digest: [u8; 32],
}

impl Session {
    /// Runs the link; the agent hears why it ended.
    pub(super) async fn run(self, mut inbound: Streaming<v1::FromAgent>, out: Out) {
        let hello = match self.hello(&mut inbound).await {
            Ok(hello) => hello,
            Err(status) => {
                let _ = out.send(Err(status)).await;
                return;
            }
        };
        let id = self.sessions.connect(&self.name, hello.agent_version, self.peer.clone(), self.end.clone());
        tracing::info!(cluster = %self.name, "agent connected");
        let shared = watch::Sender::new(Shared::default());
        let ended = tokio::select! {
            ended = self.read(&mut inbound, &out, &shared) => ended,
            ended = self.write(&out, &shared) => ended,
            () = self.end.cancelled() => Err(Status::aborted("another link of this member has opened, or the hub stops")),
        };
        self.sessions.disconnect(&self.name, id);
        let why = ended.err();
        tracing::info!(cluster = %self.name, why = why.as_ref().map(Status::message), "agent disconnected");
        if let Some(status) = why {
            let _ = timeout(HELLO_MAX, out.send(Err(status))).await;
        }
    }

    async fn hello(&self, inbound: &mut Streaming<v1::FromAgent>) -> Result<v1::Hello, Status> {
        let first =
            timeout(HELLO_MAX, inbound.message()).await.map_err(|_| Status::deadline_exceeded("no hello"))??;
        let Some(from_agent::Message::Hello(hello)) = first.and_then(|m| m.message) else {
            return Err(Status::invalid_argument("the first message must be a hello"));
        };
        if hello.epoch > self.epoch {
            return Err(Status::failed_precondition(format!(
                "this hub has epoch {}, but the agent has obeyed epoch {}: it is not the leader, or was restored",
                self.epoch, hello.epoch
            )));
        }
        Ok(hello)
    }

    async fn read(
        &self,
        inbound: &mut Streaming<v1::FromAgent>,
        out: &Out,
        shared: &watch::Sender<Shared>,
    ) -> Result<(), Status> {
        loop {
            let message = timeout(SILENCE_MAX, inbound.message()).await;
            let message = message.map_err(|_| Status::deadline_exceeded("no heartbeat for 30 s"))??;
            let Some(message) = message else { return Ok(()) };
            let asks = match message.message {
                Some(from_agent::Message::Heartbeat(beat)) => {
                    let digest = shared.borrow().digest;
                    let heard = v1::Acknowledged { epoch: self.epoch, digest: digest.to_vec().into() };
                    // A full queue means that enough is on its way.
                    let _ = out.try_send(Ok(to(to_agent::Message::Acknowledged(heard))));
                    self.beat(&beat)
                }
                Some(from_agent::Message::Facts(delta)) => self.facts(delta)?,
                Some(from_agent::Message::Status(delta)) => self.status(delta)?,
                Some(from_agent::Message::Resync(_)) => {
                    shared.send_modify(|s| s.resync += 1);
                    Vec::new()
                }
                Some(from_agent::Message::Hello(_)) => return Err(Status::invalid_argument("a second hello")),
                // A word that only a newer agent knows.
                None => Vec::new(),
            };
            for what in asks {
                let resync = v1::Resync { what: what.into() };
                let _ = out.try_send(Ok(to(to_agent::Message::Resync(resync))));
            }
        }
    }

    /// Takes a heartbeat; says what does not agree.
    fn beat(&self, beat: &v1::Heartbeat) -> Vec<&'static str> {
        let mut members = self.sessions.lock();
        let Some(member) = members.get_mut(&self.name) else { return Vec::new() };
        let (now, missed) = (Instant::now(), self.sessions.missed);
        let before = (member.beat.is_good(now, missed), member.beat.is_dns_good(now, missed));
        member.beat.take(beat.api_ok, beat.dns_ok, beat.reason.chars().take(500).collect(), now, missed);
        let turned = before != (member.beat.is_good(now, missed), member.beat.is_dns_good(now, missed));
        let mut asks = Vec::new();
        if !member.facts.agrees(&beat.facts_digest) {
            asks.push("facts");
        }
        if !member.status.agrees(&beat.status_digest) {
            asks.push("status");
        }
        drop(members);
        if turned {
            self.sessions.touch();
        }
        asks
    }

    fn facts(&self, delta: v1::Delta) -> Result<Vec<&'static str>, Status> {
        self.taken("facts", self.sessions.report(&self.name, delta))
    }

    fn status(&self, delta: v1::Delta) -> Result<Vec<&'static str>, Status> {
        let taken = self.sessions.lock().get_mut(&self.name).map(|member| member.status.take(delta));
        if matches!(taken, Some(Ok(Some(_)))) {
            self.sessions.touch();
        }
        self.taken("status", taken.map(|taken| taken.map(drop)))
    }

    fn taken(&self, what: &'static str, taken: Option<Result<(), Refused>>) -> Result<Vec<&'static str>, Status> {
        match taken {
            None => Err(Status::permission_denied("no member any more")),
            Some(Ok(())) => Ok(Vec::new()),
            Some(Err(Refused::TooMuch)) => Err(Status::resource_exhausted(format!("{what}: {}", Refused::TooMuch))),
            Some(Err(refused)) => {
                tracing::debug!(cluster = %self.name, what, %refused, "asking for the full set");
                Ok(vec![what])
            }
        }
    }

    async fn write(&self, out: &Out, shared: &watch::Sender<Shared>) -> Result<(), Status> {
        let welcome = v1::Welcome { hub_id: self.hub_id.clone(), epoch: self.epoch, heartbeat_ms: self.heartbeat_ms };
        self.send(out, to_agent::Message::Welcome(welcome)).await?;
        let mut sender = Sender::new(self.epoch);
        let (mut changes, mut asked) = (self.sessions.desired_changes(), shared.subscribe());
        let mut resync = 0;
        loop {
            let wanted = asked.borrow_and_update().resync;
            if wanted != resync {
                sender.forget();
                resync = wanted;
            }
            changes.mark_unchanged();
            let desired = self.sessions.lock().get(&self.name).and_then(crate::sessions::Member::desired);
            for delta in desired.map(|d| sender.update(&d)).unwrap_or_default() {
                self.send(out, to_agent::Message::Desired(delta)).await?;
            }
            let digest = sender.digest();
            shared.send_if_modified(|s| {
                s.digest = digest;
                false
            });
            let gone = tokio::select! {
                changed = changes.changed() => changed.is_err(),
                changed = asked.changed() => changed.is_err(),
            };
            if gone {
                return Ok(());
            }
        }
    }

    async fn send(&self, out: &Out, message: to_agent::Message) -> Result<(), Status> {
        let sent = timeout(SILENCE_MAX, out.send(Ok(to(message)))).await;
        sent.map_err(|_| Status::deadline_exceeded("the agent does not read"))?.map_err(|_| Status::cancelled("closed"))
    }
}

fn to(message: to_agent::Message) -> v1::ToAgent {
    v1::ToAgent { message: Some(message) }
}
