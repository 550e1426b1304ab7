//! The gateway as a whole: starts everything, builds tables when something changed, ends in order.

use std::sync::Arc;

use atoll_api::topology::Version;
use atoll_reach::Checks;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Access;
use crate::acme::{self, Acme, Answers, Standing};
use crate::balance::Dice;
use crate::balancer::Affinities;
use crate::build_loop::Builder;
use crate::choose::{Clients, Rooms};
use crate::endpoint::Endpoints;
use crate::explain;
use crate::fleet::Fleet;
use crate::foreign::Foreign;
use crate::health::Prober;
use crate::http3;
use crate::ingress::Settings;
use crate::listen::{Listening, OpenPorts, PerClient};
use crate::metrics::Metrics;
use crate::names::{Asker, Names};
use crate::objects::Objects;
use crate::plane::{Plane, Snapshots};
use crate::policy::shares::Shares;
use crate::policy::{self, Follow};
use crate::pool::Pool;
use crate::provider::Links;
use crate::quota::Quota;
use crate::retry::Budget;
use crate::table::{Memory, Ports, Slot};
use crate::tls::Keys;
use crate::traces::Traces;
use crate::watch::Watches;
use crate::{Config, Error, Resources, last_good, status, tls, views};

/// Copies of requests for mirrors that are under way at once.
const COPIES_MAX: usize = 1024;

/// A handle to a running gateway, for console, admin port and commands. Clones are the same one.
#[derive(Clone)]
pub struct Server {
    plane: Arc<Plane>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("ready", &self.is_ready()).finish()
    }
}

impl Server {
    /// Whether it has a route table, the last good one included.
    pub fn is_ready(&self) -> bool {
        self.plane.snapshots.load().is_some() && self.plane.policies.load().is_some()
    }

    /// The version of the topology that its table is made of; nothing where it has none yet.
    pub fn version(&self) -> Option<Version> {
        self.plane.snapshots.load().as_ref().map(|snapshot| snapshot.table.topology.version)
    }

    /// What a GET of `path` at `host` would go through, for somebody in region `from`; absent: where the gateway stands.
    pub async fn explain(&self, host: &str, path: &str, from: Option<&str>) -> serde_json::Value {
        explain::explain(&self.plane, host, path, from)
    }
}

impl Server {
    /// Every route with where it is served, its hosts, matches and backends.
    pub fn routes(&self) -> serde_json::Value {
        views::routes(&self.plane)
    }

    /// Every service that routes lead to, with its clusters and endpoints as they are.
    pub fn upstreams(&self) -> serde_json::Value {
        views::upstreams(&self.plane)
    }

    /// Connections of clients, the oldest first.
    pub fn connections(&self) -> serde_json::Value {
        self.plane.connections.view()
    }

    /// What it was told at its start.
    pub fn config(&self) -> serde_json::Value {
        self.plane.told.clone()
    }
}

/// Runs the gateway until `shutdown`, and then until open requests are done or the drain time is over.
///
/// # Errors
/// See [`Error`]: mistakes of the caller only. Hub or API server out of reach are waited for.
pub async fn run(config: Config, mut resources: Resources, shutdown: CancellationToken) -> Result<(), Error> {
    let metrics = Metrics::register(&resources.metrics, config.count_routes)?;
    let end = CancellationToken::new();
    let access = resources.access.take();
    let fields = config.access_log.as_ref().map_or(&[][..], |log| &log.fields);
    let access = access.map(|to| Access::start(to, fields, metrics.access_dropped.clone()));
    let (connect, dropped) = (Arc::clone(&resources.connect), metrics.spans_dropped.clone());
    let traces = config.traces.as_ref().map(|to| Traces::start(to, connect, &config.instance, dropped, end.clone()));
    let (traces, sending) = traces.unzip();
    let _ends = end.clone().drop_guard();
    let endpoints = Arc::new(Endpoints::default());
    let prober = Prober::new(Arc::clone(&endpoints), metrics.clone());
    let pool = Pool {
        dialer: resources.dialer.clone(),
        connect: Arc::clone(&resources.connect),
        checks: Arc::new(Checks::new(resources.dialer.clone(), Arc::clone(&resources.connect))),
        tracker: TaskTracker::new(),
        shutdown: end.clone(),
        metrics: metrics.clone(),
    };
    let plane = Arc::new(Plane {
        snapshots: Snapshots::default(),
        endpoints,
        health: Arc::clone(&prober.health),
        pool,
        clients: Clients::new(config.standing.clone(), config.clients.clone()),
        dice: Dice::new(),
        budget: Budget::default(),
        limits: config.limits.clone(),
        trusted: config.trusted.clone(),
        proxies: config.proxies.clone(),
        policies: policy::Newest::default(),
        shares: Shares::default(),
        rooms: Rooms::default(),
        affinities: Affinities::default(),
        outside: tls::outside(&resources.roots)?,
        metrics,
        access,
        traces,
        connections: Arc::default(),
        per_client: PerClient::new(config.limits.client_connections_max),
        told: views::told(&config),
        copies: Arc::new(Semaphore::new(COPIES_MAX)),
        tracker: TaskTracker::new(),
        drain: shutdown.clone(),
        answers: Answers::default(),
        names: Arc::new(Names::new(config.names.clone())),
        pods: Arc::default(),
        http3: http3::Heard::default(),
        ready: watch::Sender::new(false),
        end,
    });
    if let Some(started) = resources.started.take() {
        // Nobody waits for the handle: the gateway serves all the same.
        let _ = started.send(Server { plane: Arc::clone(&plane) });
    }
    let mut tasks = start(&plane, prober, config, resources, &shutdown).await;
    let sending = sending.map(tokio::spawn);
    while let Some(ended) = tasks.join_next().await {
        if let Err(broken) = ended {
            // A task that panicked is a bug of ours: better no gateway than half of one.
            tracing::error!(%broken, "a task of the gateway broke");
            shutdown.cancel();
        }
    }
    finish(&plane).await;
    if let Some(sending) = sending {
        // It ends with the plane's token, and sends what waits.
        let _ = sending.await;
    }
    Ok(())
}

/// Starts what listens, probes, watches, builds and writes, each until `shutdown`.
async fn start(
    plane: &Arc<Plane>,
    prober: Prober,
    config: Config,
    resources: Resources,
    shutdown: &CancellationToken,
) -> JoinSet<()> {
    let (http, https) = (resources.http, resources.https);
    let at = http.local_addr();
    tracing::info!(instance = config.instance, http = %at, https = %https.local_addr(), "gateway starts");
    let ports = Ports { http: at.port(), https: https.local_addr().port(), http3: config.http3, ..Ports::default() };
    // Listening everywhere says nothing of where we are reached.
    let here = Some(at.ip()).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string());
    let addresses = if config.addresses.is_empty() { here.into_iter().collect() } else { config.addresses };
    let kept = resources.last_good.map(Arc::new);
    let before = last_good::load(kept.as_ref()).await;

    let fleet = Fleet::new(config.classes);
    let services = config.ingress_services;
    let settings = Settings::new(fleet.clone(), config.ingress_classes, config.default_certificate, services);
    let mut tasks = JoinSet::new();
    let listening = Listening::new(Arc::clone(plane), resources.listen);
    tasks.spawn(listening.clone().accept(http, Slot::Http, shutdown.clone()));
    let doors = http3::Doors::new(listening.clone(), https.local_addr(), config.http3);
    tasks.spawn(listening.clone().accept(https, Slot::Https, shutdown.clone()));
    tasks.spawn(prober.run(plane.pool.clone(), resources.topology.clone(), resources.report.clone(), shutdown.clone()));
    let asker = Asker { connect: Arc::clone(&resources.connect), listen: Arc::clone(&listening.listen) };
    tasks.spawn(Arc::clone(&plane.names).follow(asker, plane.metrics.clone(), shutdown.clone()));
    if let Some(before) = &before {
        plane.names.remember(&before.names);
        plane.pods.remember(&before.pods);
    }
    tasks.spawn(Arc::clone(&plane.pods).follow(resources.client.clone(), shutdown.clone()));
    let has_last_good = before.is_some();
    let before = before.unwrap_or_default();
    let watches = Watches::start(&resources.client, before, settings, &plane.metrics, &mut tasks, shutdown);
    resources.report.send_modify(|report| {
        let site = &mut report.site;
        (site.classes, site.own, site.node) = (fleet.told(), config.own.clone(), config.node.clone());
    });
    let (statuses, newest) = watch::channel(status::Statuses::default());
    let (of_policies, newest_policies) = watch::channel(status::policies::Told::default());
    let follow = Follow {
        plane: Arc::clone(plane),
        client: resources.client.clone(),
        watches: Arc::clone(&watches),
        topology: resources.topology.clone(),
        statuses: of_policies,
        instance: config.instance.clone(),
        report: resources.report.clone(),
        kept: kept.clone(),
    };
    tasks.spawn(policy::follow(follow, shutdown.clone()));
    let name = config.instance.clone();
    let (leading, leads) = watch::channel(None);
    let standing = if config.acme.is_some() { Standing::default() } else { Standing::nothing() };
    let (standing, certificates) = watch::channel(standing);
    let sources = status::write::Sources {
        statuses: newest,
        policies: newest_policies,
        ingresses: watches.derived(),
        certificates: certificates.clone(),
        leading,
    };
    let client = resources.client.clone();
    tasks.spawn(status::write::run(resources.client, name, fleet.clone(), sources, shutdown.clone()));
    let ordered = config.acme.map(|settings| {
        let follow = acme::follow(client.clone(), Arc::clone(plane), resources.report.clone());
        let end = shutdown.clone();
        tasks.spawn(async move {
            end.run_until_cancelled(follow).await;
        });
        let (ordered, wanted) = watch::channel(None);
        let proving = settings.proving;
        let acme = Acme {
            settings,
            client: client.clone(),
            plane: Arc::clone(plane),
            fleet: fleet.clone(),
            instance: config.instance.clone(),
            topology: resources.topology.clone(),
            wanted,
            leading: leads,
            standing,
        };
        tasks.spawn(acme::run(acme, shutdown.clone()));
        (proving, ordered)
    });
    let (seen, objects) = watch::channel(None);
    for settings in config.providers {
        let links = Links {
            connect: Arc::clone(&resources.connect),
            client: client.clone(),
            roots: Arc::clone(&resources.roots),
        };
        let (objects, topology) = (objects.clone(), resources.topology.clone());
        let (client, instance, report) = (client.clone(), config.instance.clone(), resources.report.clone());
        let foreign = Foreign { settings, links, client, instance, objects, topology, report };
        tasks.spawn(foreign.run(shutdown.clone()));
    }
    drop(objects);
    let builder = Builder {
        seen,
        plane: Arc::clone(plane),
        watches,
        topology: resources.topology,
        instance: config.instance,
        report: resources.report,
        ports,
        open: OpenPorts::new(listening, at.ip()),
        doors,
        addresses,
        pool: config.pool,
        service: config.service,
        own: config.own,
        node: config.node,
        fleet,
        quota: Quota::new(config.limits.namespace),
        memory: Memory::new(Keys::new(resources.roots)),
        statuses,
        ordered,
        certificates,
        names: plane.names.found(),
        pods: plane.pods.known(),
        standing: Standing::default(),
        kept,
        has_last_good,
        objects: Objects::default(),
        saved: None,
        counted: Arc::default(),
    };
    tasks.spawn(builder.run(shutdown.clone()));
    tasks
}

/// Lets open requests finish for the drain time, then ends what is left.
async fn finish(plane: &Plane) {
    plane.tracker.close();
    plane.pool.tracker.close();
    let drained = tokio::time::timeout(plane.limits.drain, plane.tracker.wait()).await;
    if drained.is_err() {
        tracing::info!(left = plane.tracker.len(), "drain time is over");
    }
    plane.end.cancel();
    plane.tracker.wait().await;
    plane.pool.tracker.wait().await;
}
