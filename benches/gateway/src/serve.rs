//! Atoll's gateway as the script starts it: strict framing, limits, health and metrics on, access log off.

use std::net::SocketAddr;
use std::sync::Arc;

use atoll_api::topology::Topology;
use atoll_gateway::{Config, Resources};
use atoll_reach::{Connect, Dialer, Listen as _, RelayTable, Routes, System};
use atoll_wire::follow::{Report, Snapshot};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::hub::client;
use crate::{Result, say};

/// Serves until it is killed.
pub(crate) async fn serve(hub: &str, http: SocketAddr, https: SocketAddr) -> Result<()> {
    let system = System::default();
    let mut topology = Topology::default();
    topology.settings.default_set = "prod".to_owned();
    let (_topology, followed) = watch::channel(Snapshot { topology: Arc::new(topology), heard: Some(Instant::now()) });
    let (report, _reported) = watch::channel(Report::default());
    let connect: Arc<dyn Connect> = Arc::new(system.clone());
    let resources = Resources {
        topology: followed,
        dialer: Dialer::new(Arc::clone(&connect), RelayTable::default(), Routes::default()),
        report,
        connect,
        listen: Arc::new(system.clone()),
        http: system.tcp(http).await?,
        https: system.tcp(https).await?,
        client: client(hub)?,
        roots: Arc::new(rustls::RootCertStore::empty()),
        metrics: prometheus::Registry::new(),
        last_good: None,
        access: None,
        started: None,
    };
    say("ready", http)?;
    Ok(atoll_gateway::run(Config::default(), resources, CancellationToken::new()).await?)
}
