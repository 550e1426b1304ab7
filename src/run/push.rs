//! Agents of Push members, inside the hub: the same agent, with the kubeconfig that the hub's Secret holds.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use atoll_agents::{Credentials, Resources};
use atoll_federation::{PushMember, StartPush};
use atoll_reach::{Connect, Identity};
use kube::config::Kubeconfig;
use tokio_util::sync::CancellationToken;

use super::{apis, copies};
use crate::telemetry::Metrics;

/// Starts them.
pub(crate) struct Push {
    /// Where the hub's link port is for this process itself.
    pub(crate) hub: SocketAddr,
    pub(crate) connect: Arc<dyn Connect>,
    pub(crate) metrics: Metrics,
}

#[async_trait]
impl StartPush for Push {
    async fn run(&self, member: PushMember, shutdown: CancellationToken) -> Result<(), String> {
        let name = member.name.to_string();
        let said = |error: &dyn std::fmt::Display| format!("cluster `{name}`: {error}");
        let kubeconfig = Kubeconfig::from_yaml(&member.kubeconfig).map_err(|e| said(&format!("kubeconfig: {e}")))?;
        let reached = apis::by_kubeconfig(kubeconfig, None).await;
        let reached = reached.map_err(|e| said(&format!("kubeconfig: {}", crate::error::line(&e))))?;
        let version = reached.client.apiserver_version().await;
        version.map_err(|e| said(&format!("its API server does not answer: {e}")))?;
        self.hand_over(&member, &reached.client).await.map_err(|e| said(&e))?;
        let resources = Resources {
            client: reached.client,
            api_server: reached.server,
            connect: Arc::clone(&self.connect),
            copy: copies::engine(&self.connect, &shutdown),
            metrics: self.metrics.of(&format!("agent-{name}")),
        };
        // Its relay would be this process's way to itself.
        let config =
            atoll_agents::Config { hub: self.hub.to_string(), relay: false, ..atoll_agents::Config::default() };
        atoll_agents::run(config, resources, shutdown).await.map_err(|e| said(&e))
    }
}

impl Push {
    /// Puts the certificate where an agent looks for it, and leaves the epoch that was obeyed there.
    async fn hand_over(&self, member: &PushMember, client: &kube::Client) -> Result<(), String> {
        let identity =
            Identity::from_pem(&member.chain_pem, &member.key_pem, &member.ca_pem).map_err(|e| e.to_string())?;
        let hub_id = identity.bearer().hub.clone();
        let held = Credentials::load(client).await.map_err(|e| e.to_string())?;
        if let Some(other) = held.as_ref().filter(|h| h.cluster != member.name && h.hub_id == hub_id) {
            return Err(format!("that cluster is joined as `{}` already", other.cluster));
        }
        let held = held.filter(|h| h.hub_id == hub_id);
        let credentials = Credentials {
            cluster: member.name.clone(),
            hub: self.hub.to_string(),
            hub_id,
            chain_pem: member.chain_pem.clone(),
            key_pem: member.key_pem.clone(),
            ca_pem: member.ca_pem.clone(),
            epoch: held.as_ref().map_or(0, |h| h.epoch),
            sites: Vec::new(),
        };
        credentials.save(client).await.map_err(|e| e.to_string())
    }
}
