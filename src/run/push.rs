//! Agents of Push members, inside the hub: the same agent, with the kubeconfig that the hub's Secret holds.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use atoll_agents::{Credentials, Resources};
use atoll_federation::{PushMember, StartPush};
use atoll_reach::Connect;
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
        let unusable =
            |e: anyhow::Error| format!("the kubeconfig can't be used: {}", first_line(&crate::error::line(&e)));
        let kubeconfig = Kubeconfig::from_yaml(&member.kubeconfig).map_err(|e| unusable(e.into()))?;
        let reached = apis::by_kubeconfig(kubeconfig, None).await.map_err(unusable)?;
        let version = reached.client.apiserver_version().await;
        version.map_err(|e| format!("its API server does not answer: {}", crate::error::line(&e.into())))?;
        let resources = Resources {
            client: reached.client,
            api_server: reached.server,
            connect: Arc::clone(&self.connect),
            copy: copies::engine(&self.connect, &shutdown),
            metrics: self.metrics.of(&format!("agent-{name}")),
        };
        // Its relay would be this process's way to itself.
        let config = atoll_agents::Config { relay: false, ..atoll_agents::Config::default() };
        let credentials = Credentials {
            cluster: member.name,
            hub: self.hub.to_string(),
            hub_id: member.hub_id,
            chain_pem: member.chain_pem,
            key_pem: member.key_pem,
            ca_pem: member.ca_pem,
            epoch: 0,
            sites: Vec::new(),
        };
        atoll_agents::push(credentials, config, resources, shutdown).await.map_err(|e| e.to_string())
    }
}

/// A parser draws what it read below its message; a condition has one line.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
