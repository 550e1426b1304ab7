//! The stub: the member's own resolver is told whom to ask for the apex, for `clusterset.local` and for the other members' addresses.
//!
//! ```text
//!   hub ── desired `stub`: apex, servers, reverse zones ──► text (by the resolver's row, handed in) ──► put where it belongs:
//!          coredns    a block of ours in the Corefile, or a key of ours in ConfigMap coredns-custom where the Corefile imports it
//!          kube-dns   keys of ours in stubDomains of its ConfigMap
//!          others     a file of ours, through a trait: this crate writes no files
//! ```
//!
//! In: what the hub says, the operator's wish. Out: the configuration put in, mended when it drifts, and taken out when it is switched off or
//! when the hub says that this is no member any more; status `stub` and an Event say what was done. Never: touches a line that is not
//! marked as ours; writes what can't be read or would serve a zone twice (CoreDNS would not start); acts while the hub can't be heard.

mod coredns;
mod corefile;
mod event;
mod kube_dns;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use atoll_api::facts::{Facts, key};
use atoll_api::topology::{StubFacts, StubReport};
use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::desired::Word;

/// Between two looks: drift is mended within this.
const EVERY: Duration = Duration::from_secs(10);
/// The zone of the multi-cluster services (MCS DNS specification 1.0.0).
const CLUSTERSET: &str = "clusterset.local";

/// Writes a resolver's configuration, in its own language, without remarks.
pub type Write = Arc<dyn Fn(&StubFacts) -> Result<String, String> + Send + Sync>;

/// What is told to which resolver.
#[derive(Clone)]
pub struct Stub {
    /// False: what was told before is taken back.
    pub enabled: bool,
    /// Where it goes.
    pub place: Place,
    /// How it is said.
    pub write: Write,
    /// Whom to ask; empty: the DNS servers that the hub knows.
    pub servers: Vec<SocketAddr>,
}

/// Where a resolver's configuration is.
#[derive(Clone)]
pub enum Place {
    /// ConfigMap `kube-system/coredns`, or `coredns-custom`.
    CoreDns,
    /// ConfigMap `kube-system/kube-dns`.
    KubeDns,
    /// Somewhere on this machine.
    Here(Arc<dyn Keep>),
}

/// Keeps one piece of configuration that is ours on this machine.
#[async_trait]
pub trait Keep: Send + Sync {
    /// Where, for messages.
    fn place(&self) -> String;

    /// Puts it there and has the resolver take it. Whether anything was changed.
    ///
    /// # Errors
    /// What is there is not ours, or can't be written; the resolver does not take it.
    async fn put(&self, text: &str) -> Result<bool, String>;

    /// Takes it away. Whether anything was there.
    ///
    /// # Errors
    /// As [`Self::put`].
    async fn remove(&self) -> Result<bool, String>;
}

impl fmt::Debug for Stub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stub")
            .field("enabled", &self.enabled)
            .field("place", &self.place.name())
            .finish_non_exhaustive()
    }
}

impl Place {
    fn name(&self) -> String {
        match self {
            Self::CoreDns => "CoreDNS".to_owned(),
            Self::KubeDns => "kube-dns".to_owned(),
            Self::Here(keep) => keep.place(),
        }
    }
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StubError {
    /// It would do harm; somebody has to look at it.
    #[error("{0}")]
    Refused(String),
    /// It may work the next time.
    #[error("{0}")]
    Failed(String),
}

impl StubError {
    fn api(what: &str) -> impl FnOnce(kube::Error) -> Self {
        move |error| Self::Failed(format!("{what}: {error}"))
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    /// Something was written, now.
    changed: bool,
    /// Where, and what to know.
    place: String,
}

/// Tells the member's resolver.
pub(crate) struct Stubs {
    pub(crate) client: Client,
    pub(crate) stub: Option<Stub>,
    pub(crate) status: watch::Sender<Arc<Facts>>,
}

impl Stubs {
    /// Runs until `shutdown`. What was told stays when it ends: Atoll's DNS servers go on.
    pub(crate) async fn run(self, mut word: watch::Receiver<Word>, shutdown: CancellationToken) {
        let mut cleaned = false;
        loop {
            let now = word.borrow_and_update().clone();
            let wanted = self.stub.as_ref().filter(|stub| stub.enabled && !now.left);
            let done = match (wanted, &self.stub) {
                // Who can't hear the hub changes nothing; that this is no member any more is its word.
                _ if !now.heard && !now.left => None,
                (Some(stub), _) => {
                    now.desired.as_ref().and_then(|d| d.stub.clone()).map(|facts| (Some(stub), Some(facts)))
                }
                (None, stub) => Some((stub.as_ref(), None)).filter(|_| !cleaned),
            };
            if let Some((stub, facts)) = done {
                let result = self.act(stub, facts.as_ref()).await;
                cleaned = facts.is_none() && result.is_ok();
                self.tell(stub, facts.is_some(), result).await;
            }
            tokio::select! {
                changed = word.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(EVERY) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Puts `facts` in, or takes out what is there.
    async fn act(&self, stub: Option<&Stub>, facts: Option<&StubFacts>) -> Result<Done, StubError> {
        let (Some(stub), Some(facts)) = (stub, facts) else { return self.remove(stub).await };
        let facts = facts_for(stub, facts)?;
        let text = (stub.write)(&facts).map_err(StubError::Refused)?;
        match &stub.place {
            Place::CoreDns => coredns::put(&self.client, &text, &zones(&facts)).await,
            Place::KubeDns => kube_dns::put(&self.client, &facts).await,
            Place::Here(keep) => match keep.put(&text).await {
                Ok(changed) => Ok(Done { changed, place: keep.place() }),
                Err(why) => Err(StubError::Failed(why)),
            },
        }
    }

    /// Without a word on which resolver it was, both that may be in a cluster are looked at.
    async fn remove(&self, stub: Option<&Stub>) -> Result<Done, StubError> {
        match stub.map(|stub| &stub.place) {
            Some(Place::Here(keep)) => {
                let changed = keep.remove().await.map_err(StubError::Failed)?;
                Ok(Done { changed, place: keep.place() })
            }
            Some(Place::CoreDns) => coredns::remove(&self.client).await,
            Some(Place::KubeDns) => kube_dns::remove(&self.client).await,
            None => {
                let first = coredns::remove(&self.client).await?;
                let second = kube_dns::remove(&self.client).await?;
                Ok(if first.changed { first } else { second })
            }
        }
    }

    /// Says what was done: to the hub, to the log and, in a cluster, as an Event.
    async fn tell(&self, stub: Option<&Stub>, wanted: bool, result: Result<Done, StubError>) {
        let (reason, message, changed) = match &result {
            Ok(done) if wanted => ("Applied", format!("{} asks Atoll for Atoll's names", done.place), done.changed),
            Ok(done) => ("Removed", format!("{} asks Atoll no more", done.place), done.changed),
            Err(StubError::Refused(why)) => ("Refused", why.clone(), false),
            Err(StubError::Failed(why)) => ("Failed", why.clone(), false),
        };
        // Who never asked for it is told only of what had to be taken back.
        if stub.is_none() && !changed {
            if let Err(error) = result {
                tracing::debug!(%error, "not looked for an earlier stub");
            }
            return;
        }
        let report = StubReport { applied: wanted && result.is_ok(), reason: reason.to_owned(), message };
        let said = self.status.borrow().get::<StubReport>(key::STUB);
        let news = said.as_ref() != Some(&report);
        if news || changed {
            match &result {
                Ok(_) => tracing::info!(reason, message = report.message, "stub of the member's resolver"),
                Err(_) => tracing::warn!(reason, message = report.message, "stub of the member's resolver"),
            }
            if !matches!(stub.map(|stub| &stub.place), Some(Place::Here(_))) {
                event::write(&self.client, result.is_ok(), reason, &report.message).await;
            }
        }
        self.status.send_if_modified(|facts| news && Arc::make_mut(facts).put(key::STUB, &report));
    }
}

/// What the hub says, with the servers that the operator names; without any nobody could be asked.
fn facts_for(stub: &Stub, facts: &StubFacts) -> Result<StubFacts, StubError> {
    let mut facts = facts.clone();
    if !stub.servers.is_empty() {
        facts.servers = stub.servers.iter().map(ToString::to_string).collect();
    }
    let usable = |at: &String| at.parse::<SocketAddr>().is_ok_and(|at| !at.ip().is_unspecified() && at.port() != 0);
    // A loopback address of a DNS server elsewhere is this machine here.
    let elsewhere =
        |at: &String| !stub.servers.is_empty() || at.parse().is_ok_and(|at: SocketAddr| !at.ip().is_loopback());
    facts.servers.retain(|at| usable(at) && elsewhere(at));
    if facts.servers.is_empty() {
        let why = "no DNS server of the federation says an address that others reach: set agent.stub.servers here, or advertise.dns there";
        return Err(StubError::Failed(why.to_owned()));
    }
    Ok(facts)
}

/// Every zone that is asked of Atoll.
fn zones(facts: &StubFacts) -> Vec<&str> {
    [facts.apex.as_str(), CLUSTERSET].into_iter().chain(facts.reverse.iter().map(String::as_str)).collect()
}
