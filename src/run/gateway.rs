//! `atoll gateway`: the gateway.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use atoll_gateway::{LastGood, Limits};
use atoll_reach::{Accept, Connect, Listen, RelayTable, System, host_and_port};
use atoll_wire::kept::Seal;
use kube::Client;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Part, dns::hub_api, own};
use crate::admin::{self, Admin, Slot};
use crate::config::{self, Config};
use crate::error::Exit;
use crate::handover::{self, Place};
use crate::site::{self, Setup};
use crate::telemetry::Metrics;
use crate::{descriptors, signals, telemetry};

/// A key is made of at least so much.
const SEAL_KEY_BYTES_MIN: usize = 32;

/// With what a gateway is started, alone or in `atoll up`.
pub(crate) struct GatewayParts {
    pub(crate) instance: String,
    /// host:port of the hub.
    pub(crate) hub: String,
    pub(crate) client: Client,
    pub(crate) http: Box<dyn Accept>,
    pub(crate) https: Box<dyn Accept>,
    pub(crate) relay: Box<dyn Accept>,
    /// Agents' relay connections.
    pub(crate) relays: RelayTable,
    /// Opens the ports of Gateways.
    pub(crate) listen: Arc<dyn Listen>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) metrics: Metrics,
    /// It is told to end soon, and is to be sent nothing new.
    pub(crate) leaves: CancellationToken,
    /// Holds the handle while it runs.
    pub(crate) slot: Slot<atoll_gateway::Server>,
}

/// Runs a gateway until `shutdown`.
pub(crate) async fn run_gateway(
    config: &Config,
    parts: GatewayParts,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let connect: Arc<dyn Connect> = Arc::new(System::default());
    let mut tasks = JoinSet::new();
    let addresses = addresses(config, parts.http.local_addr());
    let setup = Setup {
        kind: "gateway",
        instance: parts.instance.clone(),
        hub: parts.hub,
        client: parts.client.clone(),
        relay_at: Config::advertised(&config.advertise.gateway_relay, parts.relay.local_addr()),
        relay: parts.relay,
        addresses: addresses.clone(),
        standing: config.standing.clone(),
        dir: parts.dir.clone(),
        connect: Arc::clone(&connect),
        follow_until: shutdown.clone(),
        relays: parts.relays,
    };
    // Agents' relay connections last as long as requests that are still open.
    let site_end = CancellationToken::new();
    let _ends = site_end.clone().drop_guard();
    let common = site::start(setup, &mut tasks, &site_end).await;
    let (report, leaves, ends) = (common.report.clone(), parts.leaves, shutdown.clone());
    tasks.spawn(async move {
        // Who ends because another process goes on in its place does not leave.
        if ends.run_until_cancelled(leaves.cancelled()).await.is_some() {
            report.send_modify(|report| report.site.leaving = true);
        }
    });
    let seal = seal(config.gateway.seal_key.as_deref(), &common.secrecy)?;
    let (started, server) = oneshot::channel();
    let service = config.gateway.service;
    let said = atoll_gateway::Config {
        instance: parts.instance,
        standing: config.standing.clone(),
        clients: config.gateway.clients.clone(),
        addresses,
        pool: config.gateway.addresses.clone(),
        service: config.gateway.service,
        own: if service { pod_addresses(parts.http.local_addr(), variable("ATOLL_POD_IPS"))? } else { Vec::new() },
        node: variable("ATOLL_NODE"),
        classes: config.gateway.classes.clone(),
        http3: config.gateway.http3,
        limits: limits(&config.gateway.limits),
        trusted: config.gateway.trusted.clone(),
        proxies: config.gateway.proxies.clone(),
        access_log: config.gateway.access_log.clone(),
        count_routes: config.gateway.count_routes,
        traces: config.gateway.traces.clone(),
        providers: config.gateway.providers.clone(),
        acme: config.gateway.acme.clone(),
        ingress_classes: config.gateway.ingress_classes.clone(),
        default_certificate: config.gateway.default_certificate.clone(),
        ingress_services: config.gateway.ingress_services.clone(),
        names: config.gateway.names.clone(),
    };
    let resources = atoll_gateway::Resources {
        topology: common.topology,
        dialer: common.dialer,
        report: common.report,
        connect,
        listen: parts.listen,
        http: parts.http,
        https: parts.https,
        client: parts.client,
        roots: roots(),
        metrics: parts.metrics.of("gateway"),
        last_good: parts.dir.map(|dir| LastGood { dir, seal, hub: common.hub_id }),
        access: config.gateway.access_log.as_ref().map(|log| access(&log.path)).transpose()?,
        started: Some(started),
    };
    let slot = Arc::clone(&parts.slot);
    let (ended, ()) = tokio::join!(atoll_gateway::run(said, resources, shutdown.child_token()), async {
        if let Ok(server) = server.await {
            slot.store(Some(Arc::new(server)));
        }
    });
    parts.slot.store(None);
    shutdown.cancel();
    site_end.cancel();
    while tasks.join_next().await.is_some() {}
    Ok(ended?)
}

/// With what last good files are sealed: the operator's key, else the site's own.
fn seal(path: Option<&Path>, own: &[u8]) -> anyhow::Result<Seal> {
    let Some(path) = path else { return Ok(Seal::new(own)) };
    let at = || format!("gateway.sealKeyFile: `{}`", path.display());
    let key = std::fs::read(path).with_context(at)?;
    if key.len() < SEAL_KEY_BYTES_MIN {
        return Err(anyhow!("{}: {} octets, at least {SEAL_KEY_BYTES_MIN} are needed", at(), key.len()));
    }
    Ok(Seal::new(&key))
}

/// The bounds as far as descriptors go: whoever has none left neither answers probes nor hears the hub.
fn limits(wanted: &Limits) -> Limits {
    let connections_max = descriptors::connections(wanted.connections_max);
    if connections_max < wanted.connections_max {
        let (wanted, taken) = (wanted.connections_max, connections_max);
        tracing::warn!(
            wanted,
            taken,
            "gateway.limits.connections is more than this process's descriptors allow, fewer are taken: raise the hard limit of open files"
        );
    }
    Limits { connections_max, ..wanted.clone() }
}

/// What the access log is written to: the end of a file, or stdout.
fn access(path: &Path) -> anyhow::Result<Box<dyn Write + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdout()));
    }
    let opened = OpenOptions::new().create(true).append(true).open(path);
    Ok(Box::new(opened.with_context(|| format!("gateway.accessLog.path: `{}`", path.display()))?))
}

/// Whom this machine trusts; what can't be read or parsed is nobody.
fn roots() -> Arc<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    let (trusted, ignored) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    tracing::debug!(trusted, ignored, "authorities of this machine");
    Arc::new(roots)
}

/// What DNS gives for hosts that this gateway serves: as written, else as advertised, else where it listens if others can reach that.
fn addresses(config: &Config, at: SocketAddr) -> Vec<String> {
    if !config.advertise.addresses.is_empty() {
        return config.advertise.addresses.iter().map(ToString::to_string).collect();
    }
    if let Some((host, _)) = config.advertise.http.as_deref().and_then(host_and_port) {
        return vec![host.to_owned()];
    }
    if at.ip().is_unspecified() { Vec::new() } else { vec![at.ip().to_string()] }
}

/// What the pod is told of itself.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|said| !said.is_empty())
}

/// Where Services find this process: the addresses of its pod, `said` with commas between them, else where it listens.
fn pod_addresses(at: SocketAddr, said: Option<String>) -> anyhow::Result<Vec<IpAddr>> {
    let usage = || Exit::Usage("gateway.service: which address this pod has is not known".to_owned());
    match said {
        Some(said) => {
            let each = said.split(',').map(|ip| ip.trim().parse());
            let all: Result<Vec<IpAddr>, _> = each.collect();
            all.with_context(|| format!("ATOLL_POD_IPS: `{said}` is not addresses with commas between them"))
                .with_context(usage)
        }
        None if at.ip().is_unspecified() => {
            Err(anyhow!("set ATOLL_POD_IPS to status.podIPs, as the chart does, or listen.http to one address"))
                .with_context(usage)
        }
        None => Ok(vec![at.ip()]),
    }
}

/// Runs the gateway until a signal, or until the next one has its place. `take_over`: in the place of one that runs.
///
/// # Errors
/// A configuration or port that can't be used; a running gateway that refuses, and goes on.
pub(crate) async fn gateway(file: Option<PathBuf>, take_over: bool) -> anyhow::Result<()> {
    // The library of HTTP/2 warns of each client that does what it should not: those are counted.
    telemetry::log("info,kube_client=off,h2=error");
    let config = Config::read(file.as_deref())?;
    let client = hub_api(&config, "gateway").await?;
    let hub = config.hub.clone().unwrap_or_else(|| config.listen.hub.at.to_string());
    let dir = config.data_dir.as_deref().map(config::data_dir).transpose()?;
    let place = Place::find(place_of(&config, dir.as_deref()), take_over).await?;
    let http = place.accept(config.listen.http)?;
    let https = place.accept(config.listen.https)?;
    let relay = place.relay(config.listen.gateway_relay)?;
    let admin_port = place.accept(config.listen.admin)?;
    let shutdown = signals::shutdown()?;
    let (metrics, slot) = (Metrics::default(), Slot::<atoll_gateway::Server>::default());
    let seen = Arc::clone(&slot);
    let has_table = move || seen.load().as_ref().is_some_and(|server| server.is_ready());
    let (is_wanted, ends, table) = (place.is_wanted(), shutdown.clone(), has_table.clone());
    let ready: admin::Check = Box::new(move || table() && is_wanted() && !ends.is_cancelled());
    let gateway = Some(Arc::clone(&slot));
    let admin = Admin { metrics: metrics.clone(), checks: vec![("gateway", ready)], gateway, ..Admin::default() };
    // It says that it is not ready for as long as it drains.
    let admin = Part::start("admin port", &CancellationToken::new(), |end| admin::serve(admin_port, admin, end));
    tracing::info!(http = %http.local_addr(), https = %https.local_addr(), hub, "gateway");
    let instance = site::instance("gateway", config.site.as_deref());
    let dir = own(dir.as_deref(), "gateway");
    let (listen, relays, leaves) = (place.ports(), RelayTable::default(), place.leaves());
    // It takes what the next process hands back for as long as this one drains.
    let (agents, told) = (relays.clone(), shutdown.clone());
    let place = Part::start("handover", &CancellationToken::new(), |end| place.hold(has_table, agents, told, end));
    let parts = GatewayParts { instance, hub, client, http, https, relay, relays, listen, dir, metrics, leaves, slot };
    let ended = run_gateway(&config, parts, shutdown.child_token()).await;
    shutdown.cancel();
    let held = place.end().await;
    admin.end().await?;
    ended.and(held)
}

/// Where gateways with this configuration find one another.
fn place_of(config: &Config, dir: Option<&Path>) -> Option<PathBuf> {
    handover::path(config.gateway.handover.as_deref(), own(dir, "gateway").as_deref())
}

/// Tells the gateway with this configuration to say that it is not ready, and waits until balancers have seen that.
///
/// # Errors
/// No gateway runs there.
pub(crate) async fn leave(file: Option<PathBuf>, wait: Duration) -> anyhow::Result<()> {
    let config = Config::read(file.as_deref())?;
    let dir = config.data_dir.as_deref().map(config::data_dir).transpose()?;
    let nowhere = || Exit::Usage("set dataDir or gateway.handover, where the running gateway is found".to_owned());
    handover::leave(&place_of(&config, dir.as_deref()).ok_or_else(nowhere)?).await?;
    tokio::time::sleep(wait).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{pod_addresses, seal};

    #[test]
    fn files_are_sealed_with_the_key_of_a_file_of_32_octets_or_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let said = || seal(Some(&path), b"own").map_err(|e| format!("{e:#}"));
        assert!(said().unwrap_err().contains("gateway.sealKeyFile: `"));
        std::fs::write(&path, "short").unwrap();
        assert!(said().unwrap_err().ends_with("5 octets, at least 32 are needed"));
        std::fs::write(&path, [7; 32]).unwrap();
        let file = said().unwrap().encode("x-1", "hub", b"body".to_vec());
        assert_eq!(said().unwrap().decode("x-1", file.clone(), None).unwrap(), b"body");
        assert!(seal(None, b"own").unwrap().decode("x-1", file, None).is_err());
    }

    #[test]
    fn services_find_the_pod_by_what_it_is_told_else_by_where_it_listens() {
        let said = |at: &str, said: Option<&str>| {
            let found = pod_addresses(at.parse().unwrap(), said.map(str::to_owned));
            found.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")).ok()
        };
        assert_eq!(said("0.0.0.0:80", Some("10.1.0.7, fd00::7")).as_deref(), Some("10.1.0.7 fd00::7"));
        assert_eq!(said("10.1.0.8:80", None).as_deref(), Some("10.1.0.8"));
        assert_eq!(said("0.0.0.0:80", None), None);
        assert_eq!(said("10.1.0.8:80", Some("pod-7")), None);
    }
}
