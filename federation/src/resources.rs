//! What the root hands the hub, and what it gets back.

use std::sync::Arc;

use async_trait::async_trait;
use atoll_reach::{Accept, Connect, Dialer, RelayTable};
use kube::Client;
use serde::Serialize;
use tokio::sync::{oneshot, watch};

use crate::membership::StartPush;
use crate::topology::Published;

/// Everything with which a hub reaches the world.
pub struct Resources {
    /// Its own API server, with all of our CRDs (and the standard ones) applied.
    pub client: Client,
    /// The link port: enrolment, links, feeds, relay connections.
    pub listener: Box<dyn Accept>,
    /// Where the API server calls the webhook, with TLS by the hub's CA; `None` where the API server stamps itself.
    pub webhook: Option<Box<dyn Accept>>,
    /// The console, plain HTTP: loopback, or behind something that authenticates.
    pub console: Option<Box<dyn Accept>>,
    /// Dials members directly.
    pub connect: Arc<dyn Connect>,
    /// Relay connections of agents that arrive at the link port.
    pub relays: RelayTable,
    /// Where the hub's metrics are registered.
    pub metrics: prometheus::Registry,
    /// Starts agents inside this process.
    pub push: Arc<dyn StartPush>,
    /// What the console shows of DNS and gateway.
    pub view: Arc<dyn DataPlaneView>,
    /// Told once the hub is up: it leads, listens, and the sites' certificates are in their Secrets.
    pub started: Option<oneshot::Sender<Hub>>,
}

/// A hub that is up, for the root.
#[derive(Clone)]
pub struct Hub {
    /// Its id, as in certificates.
    pub hub_id: String,
    /// The pin of join tokens.
    pub ca_pin: [u8; 32],
    /// Its CA certificate.
    pub ca_pem: String,
    /// Its epoch.
    pub epoch: u64,
    /// The topology; `None` until the hub has settled.
    pub topology: watch::Receiver<Option<Published>>,
    /// Reaches into members, directly or by way of their agents.
    pub dialer: Dialer,
}

/// What DNS and gateway answer now, as far as this process can ask them.
#[async_trait]
pub trait DataPlaneView: Send + Sync {
    /// Ports and addresses, for people: (what, address).
    fn ports(&self) -> Vec<(String, String)>;
    /// A few names or hosts and what is answered.
    async fn answers(&self) -> Vec<Answer>;
}

/// One answer that the console shows.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    /// `DNS` or `gateway`.
    pub from: String,
    /// The name or URL that was asked.
    pub asked: String,
    /// What came back, for people.
    pub answer: String,
    /// Whether it is as it should be.
    pub ok: bool,
}

/// Shows nothing: for hubs that run alone.
pub struct NoView;

#[async_trait]
impl DataPlaneView for NoView {
    fn ports(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    async fn answers(&self) -> Vec<Answer> {
        Vec::new()
    }
}
