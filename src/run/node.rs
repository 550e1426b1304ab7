//! The node-local DNS of a member: the DNS server, following the hub with a certificate that may do nothing else, and asking the member's
//! own DNS for the member's own names.
//!
//! In: `agent.dns` of the file, the member's API. Out: answers at its address until the token ends. Its directory keeps certificate,
//! topology and where the member's DNS is, so that it starts while hub and link are gone. Never waits for the hub: the member's own names
//! are answered as soon as its DNS is known. docs/decisions/0004-node-local-dns.md says why it is so.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use atoll_api::kinds::MemberDns;
use atoll_dns::{Files, Home, Rebinding};
use atoll_reach::{Connect, System, listener};
use atoll_wire::follow::{Line, Report};
use atoll_wire::kept;
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{address, own};
use crate::admin::Slot;
use crate::bind::{self, Strict};
use crate::config::{self, Config, NodeDns};
use crate::site::{self, Followed, Node};
use crate::taps;
use crate::telemetry::Metrics;

/// The Service that every cluster's DNS has, CoreDNS included.
const NAMESPACE: &str = "kube-system";
const SERVICE: &str = "kube-dns";
/// Where it was found, for starts without the member's API.
const FILE: &str = "member-dns";
const AGAIN: Duration = Duration::from_secs(2);
const READ_MAX: Duration = Duration::from_secs(5);
/// A node's pods need no more.
const THREADS_MAX: usize = 2;

/// With what it is started.
pub(super) struct NodeParts {
    /// host:port of the hub, if anybody said it.
    pub(super) hub: Option<String>,
    /// The member's API.
    pub(super) client: Client,
    pub(super) metrics: Metrics,
    /// Holds the handle while it runs.
    pub(super) slot: Slot<atoll_dns::Server>,
}

/// Runs it until `shutdown`.
///
/// # Errors
/// An address that can't be listened on, a directory that can't be used, a certificate of another member.
pub(super) async fn node(
    config: &Config,
    said: &NodeDns,
    parts: NodeParts,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let _address = address::hold(said.listen.at.ip())?;
    let threads = config.dns.threads.unwrap_or_else(|| super::dns::cores().min(THREADS_MAX));
    let port = bind::dns(said.listen, Strict::Always, threads)?;
    let dir = own(config.data_dir.as_deref().map(config::data_dir).transpose()?.as_deref(), "node");
    tracing::info!(at = %port.at, "node-local DNS");
    let connect: Arc<dyn Connect> = Arc::new(System::default());
    let end = shutdown.child_token();
    let mut tasks = JoinSet::new();
    let ended = serve(config, said, (parts, port, dir, connect), &mut tasks, &end).await;
    end.cancel();
    while tasks.join_next().await.is_some() {}
    ended
}

async fn serve(
    config: &Config,
    said: &NodeDns,
    (parts, port, dir, connect): (NodeParts, bind::DnsPort, Option<PathBuf>, Arc<dyn Connect>),
    tasks: &mut JoinSet<()>,
    end: &CancellationToken,
) -> anyhow::Result<()> {
    let finding = member_dns(said, &parts.client, dir.as_deref());
    let Some(dns) = end.run_until_cancelled(finding).await else { return Ok(()) };
    let node = Node {
        client: parts.client,
        hub: parts.hub,
        cluster: config.agent.cluster.clone(),
        dir: dir.clone(),
        connect: Arc::clone(&connect),
    };
    let Some(Followed { cluster, topology, dialer }) = site::follow_only(node, tasks, end).await? else {
        return Ok(());
    };
    let servers: Vec<SocketAddr> = dns.servers.iter().filter_map(|at| at.parse().ok()).collect();
    let upstreams = if said.upstreams.is_empty() { servers } else { said.upstreams.clone() };
    let everybody = ["0.0.0.0/0", "::/0"].iter().filter_map(|range| range.parse().ok()).collect();
    let told = atoll_dns::Config {
        instance: format!("node-{}", config::host_name()),
        upstreams,
        recursion: everybody,
        rate: config.dns.rate,
        limits: config.dns.limits,
        cache_bytes: config.dns.cache_bytes,
        caching: config.dns.caching,
        // What the member's own DNS says of inside addresses is what pods are to reach.
        rebinding: Rebinding { guard: false, ..Rebinding::default() },
        home: Some(Home { cluster, dns, apex: config.apex.clone() }),
        ..atoll_dns::Config::default()
    };
    let taps = taps::start(&config.dns.looking, &told.instance, tasks, end);
    let (started, server) = oneshot::channel();
    let resources = atoll_dns::Resources {
        topology,
        dialer,
        report: watch::channel(Report::default()).0,
        line: Line::dead(),
        connect,
        listen: Arc::new(System::default()),
        udp: port.udp,
        tcp: listener(port.tcp)?,
        encrypted: atoll_dns::Encrypted::default(),
        cookies: None,
        files: Files::default(),
        taps,
        metrics: parts.metrics.of("dns"),
        dir,
        started: Some(started),
    };
    let slot = Arc::clone(&parts.slot);
    let (ended, ()) = tokio::join!(atoll_dns::run(told, resources, end.clone()), async {
        if let Ok(server) = server.await {
            slot.store(Some(Arc::new(server)));
        }
    });
    parts.slot.store(None);
    Ok(ended?)
}

/// The member's own DNS: as the file says, else its Service, else where that was the last time. Waits until one of them is known.
async fn member_dns(said: &NodeDns, client: &Client, dir: Option<&Path>) -> MemberDns {
    let of = |servers: Vec<String>| MemberDns {
        domain: said.domain.clone().unwrap_or_default(),
        servers,
        ..MemberDns::default()
    };
    if !said.servers.is_empty() {
        return of(said.servers.iter().map(ToString::to_string).collect());
    }
    let mut told = false;
    loop {
        let why = match timeout(READ_MAX, found(client)).await.context("no answer in time").flatten() {
            Ok(servers) => {
                if let Some(dir) = dir
                    && let Err(error) = kept::write(dir, FILE, servers.join("\n").as_bytes())
                {
                    tracing::warn!(%error, "where the member's DNS is was not kept");
                }
                return of(servers);
            }
            Err(why) => why,
        };
        let before = dir.and_then(|dir| std::fs::read_to_string(dir.join(FILE)).ok());
        if let Some(servers) = before.map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()) {
            tracing::warn!(why = format!("{why:#}"), ?servers, "the member's DNS is where it was the last time");
            return of(servers);
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(
                why = format!("{why:#}"),
                "the member's DNS is not known yet: agent.dns.servers would say it"
            );
        }
        sleep(AGAIN).await;
    }
}

async fn found(client: &Client) -> anyhow::Result<Vec<String>> {
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let service = services.get(SERVICE).await.with_context(|| format!("Service {NAMESPACE}/{SERVICE}"))?;
    let spec = service.spec.unwrap_or_default();
    let port = spec.ports.iter().flatten().find(|port| port.protocol.as_deref() == Some("UDP")).map_or(53, |p| p.port);
    let port = u16::try_from(port).unwrap_or(53);
    let addresses = spec.cluster_ips.or_else(|| spec.cluster_ip.map(|ip| vec![ip])).unwrap_or_default();
    let servers = addresses.iter().filter_map(|ip| Some(SocketAddr::new(ip.parse().ok()?, port).to_string()));
    let servers: Vec<String> = servers.collect();
    anyhow::ensure!(!servers.is_empty(), "Service {NAMESPACE}/{SERVICE} has no address");
    Ok(servers)
}
