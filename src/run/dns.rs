//! `atoll dns`: the DNS server.

use std::path::PathBuf;
use std::sync::Arc;

use atoll_dns::Files;
use atoll_reach::{Accept, Connect, RelayTable, System};
use kube::Client;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::followed::{self, Shown};
use super::places;
use super::{Part, apis, own};
use crate::admin::{self, Admin, Slot};
use crate::bind::{self, DnsPort, EncryptedPorts, Strict};
use crate::config::{self, Config};
use crate::error::Exit;
use crate::site::{self, Setup};
use crate::telemetry::Metrics;
use crate::{signals, taps, telemetry};

/// With what a DNS server is started, alone or in `atoll up`.
pub(crate) struct DnsParts {
    pub(crate) instance: String,
    /// host:port of the hub.
    pub(crate) hub: String,
    pub(crate) client: Client,
    pub(crate) port: DnsPort,
    pub(crate) encrypted: EncryptedPorts,
    pub(crate) relay: Box<dyn Accept>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) metrics: Metrics,
    /// Holds the handle while it runs.
    pub(crate) slot: Slot<atoll_dns::Server>,
}

/// Runs a DNS server until `shutdown`.
pub(crate) async fn run_dns(config: &Config, parts: DnsParts, shutdown: CancellationToken) -> anyhow::Result<()> {
    let connect: Arc<dyn Connect> = Arc::new(System::default());
    let mut tasks = JoinSet::new();
    let at = parts.port.at;
    let setup = Setup {
        kind: "dns",
        instance: parts.instance.clone(),
        hub: parts.hub,
        client: parts.client,
        relay_at: Config::advertised(&config.advertise.dns_relay, parts.relay.local_addr()),
        relay: parts.relay,
        addresses: vec![Config::advertised(&config.advertise.dns, at)],
        standing: config.standing.clone(),
        dir: parts.dir.clone(),
        connect: Arc::clone(&connect),
        follow_until: shutdown.clone(),
        relays: RelayTable::default(),
    };
    let common = site::start(setup, &mut tasks, &shutdown).await;
    let (udp, tcp) = parts.port.split()?;
    let shown = Shown::new(config.dns.tls.as_ref(), common.identity)?;
    if let Some(pair) = &config.dns.tls {
        tasks.spawn(Arc::clone(&shown).follow(pair.clone(), shutdown.clone()));
    }
    let mut cookies = None;
    if let Some(file) = &config.dns.cookie_secret_file {
        let (secrets, following) = followed::secrets(file.clone(), shutdown.clone())?;
        tasks.spawn(following);
        cookies = Some(secrets);
    }
    let mut files = Files::default();
    for (key, path, file) in
        [("dns.cidrMap", &config.dns.cidr_map, &mut files.map), ("dns.mmdb", &config.dns.mmdb, &mut files.mmdb)]
    {
        let Some(path) = path else { continue };
        let (octets, following) = places::follow(key, path.clone(), shutdown.clone());
        tasks.spawn(following);
        *file = Some(octets);
    }
    let (started, server) = oneshot::channel();
    let said = atoll_dns::Config {
        instance: parts.instance,
        standing: config.standing.clone(),
        clients: config.dns.clients.clone(),
        upstreams: config.dns.upstreams.clone(),
        recursion: config.dns.recursion.clone(),
        allow: config.dns.allow.clone(),
        rate: config.dns.rate,
        limits: config.dns.limits,
        proxies: config.dns.proxies.clone(),
        cache_bytes: config.dns.cache_bytes,
        caching: config.dns.caching,
        rebinding: config.dns.rebinding.clone(),
        ecs: config.dns.ecs.clone(),
        views: config.dns.views.clone(),
        home: None,
    };
    let taps = taps::start(&config.dns.looking, &said.instance, &mut tasks, &shutdown);
    let resources = atoll_dns::Resources {
        topology: common.topology,
        dialer: common.dialer,
        report: common.report,
        line: common.line,
        connect,
        listen: Arc::new(System::default()),
        udp,
        tcp,
        encrypted: parts.encrypted.with(shown)?,
        cookies,
        files,
        taps,
        metrics: parts.metrics.of("dns"),
        dir: parts.dir,
        started: Some(started),
    };
    let slot = Arc::clone(&parts.slot);
    let end = shutdown.child_token();
    let (ended, ()) = tokio::join!(atoll_dns::run(said, resources, end.clone()), async {
        if let Ok(server) = server.await {
            slot.store(Some(Arc::new(server)));
        }
    });
    parts.slot.store(None);
    shutdown.cancel();
    while tasks.join_next().await.is_some() {}
    Ok(ended?)
}

/// The cores that this process may run on.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Runs the DNS server until a signal.
///
/// # Errors
/// A configuration or port that can't be used.
pub(crate) async fn dns(file: Option<PathBuf>) -> anyhow::Result<()> {
    telemetry::log("info,kube_client=off");
    let config = Config::read(file.as_deref())?;
    let client = hub_api(&config, "DNS server").await?;
    let hub = config.hub.clone().unwrap_or_else(|| config.listen.hub.at.to_string());
    let dir = config.data_dir.as_deref().map(config::data_dir).transpose()?;
    let port = bind::dns(config.listen.dns, Strict::Always, config.dns.threads.unwrap_or_else(cores))?;
    let encrypted = EncryptedPorts::bind(&config.listen)?;
    let relay = bind::accept(config.listen.dns_relay, Strict::Always)?;
    let admin_port = bind::accept(config.listen.admin, Strict::Always)?;
    let shutdown = signals::shutdown()?;
    let (metrics, slot) = (Metrics::default(), Slot::<atoll_dns::Server>::default());
    let seen = Arc::clone(&slot);
    let ready: admin::Check = Box::new(move || seen.load().as_ref().is_some_and(|server| server.is_ready()));
    let dns = Some(Arc::clone(&slot));
    let admin = Admin { metrics: metrics.clone(), checks: vec![("dns", ready)], dns, ..Admin::default() };
    let admin = Part::start("admin port", &shutdown, |end| admin::serve(admin_port, admin, end));
    tracing::info!(at = %port.at, hub, "DNS server");
    let instance = site::instance("dns", config.site.as_deref());
    let dir = own(dir.as_deref(), "dns");
    let parts = DnsParts { instance, hub, client, port, encrypted, relay, dir, metrics, slot };
    let ended = run_dns(&config, parts, shutdown.child_token()).await;
    shutdown.cancel();
    admin.end().await?;
    ended
}

/// The hub's API, for DNS servers and gateways.
pub(super) async fn hub_api(config: &Config, what: &str) -> anyhow::Result<Client> {
    let reached = match &config.kubeconfig {
        Some(file) => Some(apis::by_file(file, None).await?),
        None => apis::by_account()?,
    };
    let why = || {
        format!(
            "kubeconfig is missing: the {what} reads its certificate from the hub's API; an embedded hub writes one into its dataDir"
        )
    };
    Ok(reached.ok_or_else(|| Exit::Usage(why()))?.client)
}
