//! The link: one long stream to the hub.
//!
//! In: facts and status as they are now, the health of the member. Out: what the hub wants ([`Word`]). Everything is sent
//! anew at each connection, changes after that; a heartbeat with digests lets each side notice that they differ. Older
//! epochs are refused, and the newest is stored in the member before its orders are followed.

use std::sync::Arc;
use std::time::Duration;

use atoll_api::facts::Facts;
use atoll_reach::{Connect, TlsIdentity};
use atoll_wire::delta::{Receiver, Sender};
use atoll_wire::v1::from_agent::Message as Say;
use atoll_wire::v1::link_client::LinkClient;
use atoll_wire::v1::to_agent::Message as Hear;
use atoll_wire::v1::{Delta, FromAgent, Heartbeat, Hello, Resync, ToAgent, Welcome};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::credentials::Shared;
use crate::desired::{Desired, Word};
use crate::error::AgentError;
use crate::health::Health;
use crate::hub;

/// The hub's silence after which the connection is given up, and nothing in the member is changed any more.
const SILENCE_MAX: Duration = Duration::from_secs(12);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Heartbeats, unless the hub says otherwise; never outside of these bounds.
const HEARTBEAT_MS: std::ops::RangeInclusive<u64> = 250..=5_000;
const QUEUE_LEN_MAX: usize = 64;

/// What the link needs of the others.
pub(crate) struct Link {
    pub(crate) shared: Shared,
    pub(crate) tls: TlsIdentity,
    pub(crate) connect: Arc<dyn Connect>,
    pub(crate) version: String,
    pub(crate) facts: watch::Receiver<Arc<Facts>>,
    pub(crate) status: watch::Receiver<Arc<Facts>>,
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) rotated: watch::Receiver<u64>,
    pub(crate) word: watch::Sender<Word>,
    pub(crate) up: prometheus::IntGauge,
}

impl Link {
    /// Keeps the link until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let instance = format!("{:016x}", rand::random::<u64>());
        let mut desired = Receiver::new(self.shared.get().epoch);
        let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
        while !shutdown.is_cancelled() {
            let started = Instant::now();
            let ended = tokio::select! {
                ended = self.connect_once(&instance, &mut desired) => ended,
                () = shutdown.cancelled() => break,
            };
            self.up.set(0);
            self.word.send_modify(|word| word.heard = false);
            match ended {
                Ok(why) => tracing::info!(why, "link ended, opening it anew"),
                Err(error) => {
                    tracing::warn!(%error, "no link to the hub");
                    let left = error.says_gone();
                    self.word.send_if_modified(|word| std::mem::replace(&mut word.left, left) != left);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.after(started.elapsed())) => {}
                () = shutdown.cancelled() => {}
            }
        }
        self.word.send_modify(|word| word.heard = false);
    }

    async fn connect_once(&mut self, instance: &str, desired: &mut Receiver) -> Result<&'static str, AgentError> {
        let hub = self.shared.get().hub;
        // A renewal from here on is one that this connection does not show yet.
        self.rotated.mark_unchanged();
        let mut client = LinkClient::new(hub::channel(&self.connect, &self.tls, &hub).await?);
        let (say, queue) = mpsc::channel(QUEUE_LEN_MAX);
        let hello =
            Hello { agent_version: self.version.clone(), instance: instance.to_owned(), epoch: desired.epoch() };
        let fail = |status: tonic::Status| hub::failure(&hub, &status);
        say.try_send(FromAgent { message: Some(Say::Hello(hello)) }).expect("the queue is empty");
        let open = tokio::time::timeout(SILENCE_MAX, client.open(ReceiverStream::new(queue)));
        let mut hear = open.await.map_err(|_| silent(&hub))?.map_err(fail)?.into_inner();
        let first = tokio::time::timeout(SILENCE_MAX, hear.message()).await.map_err(|_| silent(&hub))?.map_err(fail)?;
        let Some(ToAgent { message: Some(Hear::Welcome(welcome)) }) = first else {
            return Err(AgentError::Nonsense { hub, what: "no welcome".to_owned() });
        };
        self.obey(&hub, &welcome, desired.epoch()).await?;
        self.up.set(1);
        tracing::info!(hub, epoch = welcome.epoch, "link open");
        self.word.send_modify(|word| (word.heard, word.left) = (true, false));
        let mut talk = Talk {
            say,
            facts: Sender::new(0),
            status: Sender::new(0),
            period: Duration::from_millis(
                u64::from(welcome.heartbeat_ms).clamp(*HEARTBEAT_MS.start(), *HEARTBEAT_MS.end()),
            ),
        };
        self.talk(&hub, &mut talk, desired, &mut hear).await
    }

    /// Remembers the hub's epoch, in the member first: orders of an older one are refused for ever after.
    async fn obey(&self, hub: &str, welcome: &Welcome, have: u64) -> Result<(), AgentError> {
        let stored = self.shared.get();
        let have = have.max(stored.epoch);
        if welcome.epoch < have {
            let message = format!("its epoch {} is older than {have}, which was obeyed already", welcome.epoch);
            return Err(AgentError::Refused { hub: hub.to_owned(), message });
        }
        if welcome.hub_id != stored.hub_id {
            return Err(AgentError::Nonsense { hub: hub.to_owned(), what: "another hub's id".to_owned() });
        }
        if welcome.epoch > stored.epoch {
            self.shared.change(|credentials| credentials.epoch = welcome.epoch).await?;
        }
        Ok(())
    }

    async fn talk(
        &mut self,
        hub: &str,
        talk: &mut Talk,
        desired: &mut Receiver,
        hear: &mut tonic::Streaming<ToAgent>,
    ) -> Result<&'static str, AgentError> {
        let mut beat = tokio::time::interval(talk.period);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        self.facts.mark_changed();
        self.status.mark_changed();
        loop {
            let said = tokio::select! {
                message = hear.message() => {
                    let message = message.map_err(|status| hub::failure(hub, &status))?;
                    let Some(ToAgent { message: Some(message) }) = message else { return Ok("the hub closed it") };
                    heard = Instant::now();
                    self.take(hub, talk, desired, message).await?
                }
                _ = beat.tick() => {
                    let health = self.health.borrow_and_update().clone();
                    talk.heartbeat(&health).await
                }
                Ok(()) = self.facts.changed() => {
                    let facts = Arc::clone(&self.facts.borrow_and_update());
                    let deltas = talk.facts.update(&facts);
                    talk.all(deltas.into_iter().map(Say::Facts)).await
                }
                Ok(()) = self.status.changed() => {
                    let status = Arc::clone(&self.status.borrow_and_update());
                    let deltas = talk.status.update(&status);
                    talk.all(deltas.into_iter().map(Say::Status)).await
                }
                // Word of a change does not wait for the next beat; changes come at most once a round of checks.
                Ok(()) = self.health.changed() => {
                    let health = self.health.borrow_and_update().clone();
                    talk.heartbeat(&health).await
                }
                Ok(()) = self.rotated.changed() => return Ok("the certificate was renewed"),
                () = tokio::time::sleep_until(heard + SILENCE_MAX) => return Err(silent(hub)),
            };
            if !said {
                return Ok("the hub stopped listening");
            }
        }
    }

    /// One message of the hub's. False when nothing can be said any more.
    async fn take(
        &mut self,
        hub: &str,
        talk: &mut Talk,
        desired: &mut Receiver,
        message: Hear,
    ) -> Result<bool, AgentError> {
        match message {
            Hear::Desired(delta) => self.take_desired(hub, talk, desired, delta).await,
            Hear::Resync(resync) => {
                match resync.what.as_str() {
                    "facts" => {
                        talk.facts.forget();
                        self.facts.mark_changed();
                    }
                    "status" => {
                        talk.status.forget();
                        self.status.mark_changed();
                    }
                    other => tracing::warn!(what = other, "the hub wants something unknown again"),
                }
                Ok(true)
            }
            Hear::Acknowledged(ack) if desired.version().is_some() && !desired.agrees(&ack.digest) => {
                tracing::info!("what the hub wants differs from what is held, asking for all of it");
                Ok(talk.resync().await)
            }
            Hear::Acknowledged(_) | Hear::Welcome(_) => Ok(true),
        }
    }

    async fn take_desired(
        &mut self,
        hub: &str,
        talk: &mut Talk,
        desired: &mut Receiver,
        delta: Delta,
    ) -> Result<bool, AgentError> {
        match desired.take(delta) {
            Ok(None) => Ok(true),
            Ok(Some(_)) => {
                let parsed = Arc::new(Desired::of(desired.facts()));
                self.word.send_modify(|word| word.desired = Some(parsed));
                Ok(true)
            }
            Err(refused) if refused.wants_resync() => {
                tracing::warn!(%refused, "orders refused, asking for all of them");
                Ok(talk.resync().await)
            }
            Err(refused) => Err(AgentError::Nonsense { hub: hub.to_owned(), what: refused.to_string() }),
        }
    }
}

/// Our half of the conversation.
struct Talk {
    say: mpsc::Sender<FromAgent>,
    facts: Sender,
    status: Sender,
    period: Duration,
}

impl Talk {
    async fn one(&self, message: Say) -> bool {
        let send = self.say.send(FromAgent { message: Some(message) });
        matches!(tokio::time::timeout(SILENCE_MAX, send).await, Ok(Ok(())))
    }

    async fn all(&self, messages: impl Iterator<Item = Say>) -> bool {
        for message in messages {
            if !self.one(message).await {
                return false;
            }
        }
        true
    }

    async fn heartbeat(&self, health: &Health) -> bool {
        let beat = Heartbeat {
            api_ok: health.api_ok,
            dns_ok: health.dns_ok,
            reason: health.reason.clone(),
            facts_digest: self.facts.digest().to_vec().into(),
            status_digest: self.status.digest().to_vec().into(),
        };
        self.one(Say::Heartbeat(beat)).await
    }

    async fn resync(&self) -> bool {
        self.one(Say::Resync(Resync { what: "desired".to_owned() })).await
    }
}

fn silent(hub: &str) -> AgentError {
    AgentError::Unreachable { hub: hub.to_owned(), cause: format!("silent for {} s", SILENCE_MAX.as_secs()) }
}
