//! A local copy of the topology, for DNS servers and gateways: kept current from the hub, kept on disk for when it is dead.
//!
//! In: a way to connect to the hub, what this site says of itself. Out: a watch of [`Snapshot`]s. The stream is opened again with
//! bounded back-off for ever; a hub with an older epoch is not believed. Never decides health: it says when the hub was
//! last heard, [`atoll_api::health`] says what follows.
//!
//! A snapshot is published for every word of the hub's; whoever builds tables from it compares the `topology` by
//! [`Arc::ptr_eq`] and rebuilds only when that is another.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::facts::Facts;
use atoll_api::topology::{Site, Topology, Version};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::delta::{Receiver, Refused};
use crate::v1::{self, feed_client::FeedClient, feed_event::Event};

mod last_good;
mod line;
mod saver;

pub use line::Line;
use saver::Saver;

/// How often a site reports itself.
pub const REPORT_EVERY: Duration = Duration::from_secs(5);
/// So long after the hub's last word its view still counts.
pub const FRESH: Duration = Duration::from_secs(15);
/// A stream on which nothing was heard for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(15);
const CONNECT_MAX: Duration = Duration::from_secs(10);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Whom and where.
#[derive(Debug, Clone, Default)]
pub struct Follow {
    /// The id of the hub that issued our certificate; a last good topology of another hub is not used.
    pub hub_id: Option<String>,
    /// Where the last good topology is kept; `None`: nowhere.
    pub dir: Option<PathBuf>,
}

/// What a site tells the hub: itself, and which members it reaches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Itself.
    pub site: Site,
    /// Member → whether it answers from here.
    pub probes: BTreeMap<String, bool>,
    /// Target of a health check ([`atoll_api::health::Target::key`]) → whether it is well from here.
    pub checks: BTreeMap<String, bool>,
    /// Member → round-trip time from here in milliseconds.
    pub rtt_ms: BTreeMap<String, u32>,
}

/// The topology as it is known here.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The last good one; empty before the first.
    pub topology: Arc<Topology>,
    /// When the hub last spoke; `None`: never since this process started.
    pub heard: Option<Instant>,
}

impl Snapshot {
    /// Whether there is any: the hub spoke, or there was a last good one.
    pub fn is_known(&self) -> bool {
        self.heard.is_some() || self.topology.version != Version::default()
    }

    /// Whether the hub's view still counts.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.heard.is_some_and(|at| now.saturating_duration_since(at) <= FRESH)
    }
}

/// Why a connection to the hub ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("connect: {0}")]
    Connect(String),
    #[error("no connection within {} s", CONNECT_MAX.as_secs())]
    ConnectTimeout,
    #[error("no answer within {} s", CONNECT_MAX.as_secs())]
    Unanswered,
    #[error("stream: {0}")]
    Stream(#[from] Box<tonic::Status>),
    #[error("the hub closed the stream")]
    Closed,
    #[error("nothing heard for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("digest differs from the hub's")]
    Digest,
}

/// Starts from the last good topology and follows the hub. The future is to be spawned by its owner, runs until `shutdown`, and
/// saves what is unsaved when it ends. `connect` is called for every attempt. Who has nothing to report gives `None`: a node-local DNS.
pub async fn follow<C, F, E>(
    config: Follow,
    connect: C,
    report: impl Into<Option<watch::Receiver<Report>>>,
    shutdown: CancellationToken,
) -> (watch::Receiver<Snapshot>, Line, impl Future<Output = ()> + Send)
where
    C: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Result<Channel, E>> + Send,
    E: std::fmt::Display + Send,
{
    let report = report.into();
    let loaded = last_good::load(&config).await;
    let (receiver, topology) = match loaded {
        Some((version, facts)) => {
            let topology = Topology::from_facts(version, &facts);
            tracing::info!(epoch = version.epoch, generation = version.generation, "last good topology loaded");
            (Receiver::with(facts, version.epoch), topology)
        }
        None => (Receiver::default(), Topology::default()),
    };
    let (sender, watch) = watch::channel(Snapshot { topology: Arc::new(topology), heard: None });
    let (connected, line) = line::new();
    let mut follower = Follower { saver: Saver::new(config), receiver, sender, connected };
    let run = async move {
        shutdown.run_until_cancelled(follower.run(connect, report)).await;
        follower.saver.finish(&follower.receiver).await;
    };
    (watch, line, run)
}

struct Follower {
    saver: Saver,
    receiver: Receiver,
    sender: watch::Sender<Snapshot>,
    connected: watch::Sender<Option<Channel>>,
}

impl Follower {
    async fn run<C, F, E>(&mut self, connect: C, report: Option<watch::Receiver<Report>>)
    where
        C: Fn() -> F + Sync,
        F: Future<Output = Result<Channel, E>>,
        E: std::fmt::Display,
    {
        let mut backoff = BACKOFF_MIN;
        loop {
            let before = self.sender.borrow().heard;
            let lost = match timeout(CONNECT_MAX, connect()).await {
                Err(_) => Lost::ConnectTimeout,
                Ok(Err(e)) => Lost::Connect(e.to_string()),
                Ok(Ok(channel)) => {
                    self.connected.send_replace(Some(channel.clone()));
                    self.converse(channel, &report).await
                }
            };
            self.connected.send_replace(None);
            self.saver.finish(&self.receiver).await;
            // A hub that spoke starts the back-off anew.
            if self.sender.borrow().heard != before {
                backoff = BACKOFF_MIN;
            }
            tracing::warn!(error = %lost, again_ms = backoff.as_millis() as u64, "not connected to the hub");
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn converse(&mut self, channel: Channel, report: &Option<watch::Receiver<Report>>) -> Lost {
        let client = FeedClient::new(channel);
        let Some(report) = report else {
            return self.listen(client, String::new()).await.err().unwrap_or(Lost::Closed);
        };
        let have = self.receiver.version();
        let ended = tokio::select! {
            ended = self.listen(client.clone(), report.borrow().site.instance.clone()) => ended,
            ended = tell(client, report.clone(), have) => ended,
        };
        ended.err().unwrap_or(Lost::Closed)
    }

    async fn listen(&mut self, mut client: FeedClient<Channel>, instance: String) -> Result<(), Lost> {
        let asked = timeout(CONNECT_MAX, client.follow(v1::FollowRequest { instance }));
        let mut events = asked.await.map_err(|_| Lost::Unanswered)?.map_err(Box::new)?.into_inner();
        let mut silent_at = Instant::now() + SILENCE_MAX;
        loop {
            let event = tokio::select! {
                event = events.message() => event.map_err(Box::new)?,
                () = sleep_until(silent_at) => return Err(Lost::Silent),
                () = self.saver.step(&self.receiver) => continue,
            };
            silent_at = Instant::now() + SILENCE_MAX;
            match event.ok_or(Lost::Closed)?.event {
                Some(Event::Delta(delta)) => self.take(delta)?,
                Some(Event::Alive(alive)) => self.alive(&alive)?,
                // A word that only a newer hub knows.
                None => {}
            }
        }
    }

    fn take(&mut self, delta: v1::Delta) -> Result<(), Lost> {
        let change = self.receiver.take(delta)?;
        let Some(version) = self.receiver.version() else { return Ok(()) };
        let heard = Some(Instant::now());
        if let Some(change) = change {
            let topology = Arc::new(self.sender.borrow().topology.after(version, &change));
            self.sender.send_replace(Snapshot { topology, heard });
            self.saver.unsaved = true;
        } else {
            self.sender.send_modify(|s| s.heard = heard);
        }
        Ok(())
    }

    fn alive(&mut self, alive: &v1::Acknowledged) -> Result<(), Lost> {
        if alive.epoch < self.receiver.epoch() {
            return Err(Refused::OlderEpoch { have: self.receiver.epoch(), got: alive.epoch }.into());
        }
        if !self.receiver.agrees(&alive.digest) {
            return Err(Lost::Digest);
        }
        self.sender.send_modify(|s| s.heard = Some(Instant::now()));
        Ok(())
    }
}

/// Reports at once, at every change, and every 5 s.
async fn tell(
    mut client: FeedClient<Channel>,
    mut report: watch::Receiver<Report>,
    have: Option<Version>,
) -> Result<(), Lost> {
    loop {
        let site_report = {
            let now = report.borrow_and_update();
            let mut site = Facts::default();
            site.put("site", &now.site);
            v1::SiteReport {
                site_json: site.json("site").map(|json| bytes::Bytes::copy_from_slice(json)).unwrap_or_default(),
                probes: now.probes.clone().into_iter().collect(),
                checks: now.checks.clone().into_iter().collect(),
                rtt_ms: now.rtt_ms.clone().into_iter().collect(),
                have: have.map(|v| v1::Version { epoch: v.epoch, generation: v.generation }),
            }
        };
        timeout(CONNECT_MAX, client.report(site_report)).await.map_err(|_| Lost::Unanswered)?.map_err(Box::new)?;
        let pause = sleep(REPORT_EVERY);
        tokio::select! {
            () = pause => {}
            changed = report.changed() => {
                if changed.is_err() {
                    // Nobody changes it any more; go on saying what is so.
                    sleep(REPORT_EVERY).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
