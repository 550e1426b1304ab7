//! The hub's life: lead, load, listen, run the controllers, end together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atoll_api::names::ClusterName;
use atoll_reach::{
    Accept as Listener, Dialer, Identity, Revocations, Role, Routes, TlsIdentity, host_and_port, probe_members,
};
use atoll_wire::v1::{
    enrolment_server::EnrolmentServer, feed_server::FeedServer, link_server::LinkServer, zones_server::ZonesServer,
};
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::Router;

use crate::accept::Accept;
use crate::approvals::Approvals;
use crate::authority::{Authority, LEAF, Revoked, keep_sites};
use crate::config::Config;
use crate::console::Console;
use crate::error::Error;
use crate::link::{EnrolmentService, FeedService, LinkService, Port, serve, server};
use crate::membership::{Membership, Pushes};
use crate::metrics::Metrics;
use crate::objects::Objects;
use crate::placement::Placement;
use crate::resources::{DataPlaneView, Hub, Resources};
use crate::services::Services;
use crate::sessions::Sessions;
use crate::topology::{Offers, Published, Publisher, Sites};
use crate::webhook::{self, Webhook};
use crate::zones::{SigningKeys, ZonesService};
use crate::{epoch, lead};

/// Runs the hub until `shutdown`. With leader election it waits for the Lease first.
///
/// # Errors
/// When its API server can't be used at the start, the CA is damaged, the listener fails, or another hub takes the lead
/// (start again then, to stand in line).
pub async fn run(config: Config, resources: Resources, shutdown: CancellationToken) -> Result<(), Error> {
    let end = shutdown.child_token();
    let mut tasks = JoinSet::new();
    let work = Box::pin(live(config, resources, end.clone(), &mut tasks));
    let ended = shutdown.run_until_cancelled(work).await;
    // Everything that was started ends before we do.
    end.cancel();
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    ended.unwrap_or(Ok(()))
}

/// Why agents inside the hub don't run, by member.
type PushErrors = Arc<Mutex<BTreeMap<ClusterName, String>>>;

/// What the parts of a leading hub share.
#[derive(Clone)]
struct Core {
    config: Arc<Config>,
    client: kube::Client,
    authority: Arc<Authority>,
    epoch: u64,
    tls: TlsIdentity,
    objects: Arc<Objects>,
    sites: Arc<Sites>,
    sessions: Arc<Sessions>,
    routes: Routes,
    push_errors: PushErrors,
    membership: Arc<Membership>,
    topology: watch::Receiver<Option<Published>>,
    hub: Hub,
    tracker: TaskTracker,
    end: CancellationToken,
}

async fn live(
    config: Config,
    mut resources: Resources,
    end: CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<(), Error> {
    lead::make_namespace(&resources.client, atoll_api::kinds::SYSTEM_NAMESPACE).await?;
    if config.leader_election {
        lead::acquire(&resources.client, &config.identity).await?;
    }
    let routes = Routes::default();
    let dialer = Dialer::new(Arc::clone(&resources.connect), resources.relays.clone(), routes.clone());
    let (core, published) = load(Arc::new(config), resources.client.clone(), routes, dialer, end, tasks).await?;
    start(&core, published, &resources, tasks)?;
    let console = resources.console.take();
    open_console(&core, console, Arc::clone(&resources.view), tasks);
    let registered = open_webhook(&core, resources.webhook.take(), tasks)?;
    let (first, sites_ready) = oneshot::channel();
    spawn_sites(&core.config, &core.authority, &core.client, first, tasks);
    let _ = sites_ready.await;
    let _ = registered.await;
    listen(core, resources, tasks).await
}

/// Takes the next epoch and reads what there is.
async fn load(
    config: Arc<Config>,
    client: kube::Client,
    routes: Routes,
    dialer: Dialer,
    end: CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<(Core, watch::Sender<Option<Published>>), Error> {
    let now = Timestamp::now();
    let authority = Arc::new(Authority::load_or_make(&client, now).await?);
    let epoch = epoch::take(&client, &authority, &config).await?;
    tracing::info!(hub = authority.hub_id(), epoch, "leading");
    let revocations = Revocations::none();
    let revoked = Arc::new(Revoked::load(client.clone(), revocations.clone(), now).await?);
    let tls = own_identity(&authority, &config, &revocations)?;
    let objects = Objects::watch(&client, tasks).await;
    let sites = Arc::new(Sites::load(&client, Instant::now()).await?);
    let sessions = Arc::new(Sessions::new(config.heartbeat));
    let push_errors = PushErrors::default();
    let membership = Arc::new(Membership {
        client: client.clone(),
        objects: Arc::clone(&objects),
        sessions: Arc::clone(&sessions),
        sites: Arc::clone(&sites),
        routes: routes.clone(),
        revoked,
        push_errors: Arc::clone(&push_errors),
    });
    let (published, topology) = watch::channel(None);
    let hub = Hub {
        hub_id: authority.hub_id().to_owned(),
        ca_pin: authority.pin(),
        ca_pem: authority.ca_pem().to_owned(),
        epoch,
        topology: topology.clone(),
        dialer,
    };
    let tracker = TaskTracker::new();
    let core = Core {
        config,
        client,
        authority,
        epoch,
        tls,
        objects,
        sites,
        sessions,
        routes,
        push_errors,
        membership,
        topology,
        hub,
        tracker,
        end,
    };
    Ok((core, published))
}

/// Starts the controllers.
fn start(
    core: &Core,
    published: watch::Sender<Option<Published>>,
    resources: &Resources,
    tasks: &mut JoinSet<()>,
) -> Result<(), Error> {
    let Core { config, client, authority, epoch, tls, objects, sessions, routes, .. } = core.clone();
    let Core { push_errors, membership, topology, hub, tracker, end, .. } = core.clone();
    tasks.spawn(Arc::clone(&membership).run());
    let offers = Arc::<Offers>::default();
    let publisher = Publisher {
        membership: Arc::clone(&membership),
        offers: Arc::clone(&offers),
        config: Arc::clone(&config),
        hub_id: hub.hub_id.clone(),
        epoch,
        out: published,
        metrics: Metrics::register(&resources.metrics)?,
    };
    tasks.spawn(publisher.run());
    tasks.spawn(Placement::new(Arc::clone(&membership), epoch).run());
    let services = Services {
        client: client.clone(),
        imports: objects.imports.clone(),
        offers,
        default_set: config.default_set.clone(),
        topology: topology.clone(),
    };
    tasks.spawn(services.run());
    let approvals =
        Approvals { client: client.clone(), objects: Arc::clone(&objects), sessions: Arc::clone(&sessions) };
    tasks.spawn(approvals.run());
    tasks.spawn(Accept { client: client.clone(), objects: Arc::clone(&objects), apex: config.apex.clone() }.run());
    tasks.spawn(SigningKeys { client: client.clone(), objects: Arc::clone(&objects) }.run());
    let pushes = Pushes {
        client: client.clone(),
        authority: Arc::clone(&authority),
        start: Arc::clone(&resources.push),
        hub: config.advertise.clone(),
        objects: Arc::clone(&objects),
        errors: push_errors,
        tasks: tracker.clone(),
    };
    tasks.spawn(pushes.run(end.child_token()));
    let of = |published: &Option<Published>| published.as_ref().map(|p| Arc::clone(&p.topology));
    tasks.spawn(probe_members(Arc::clone(&resources.connect), topology.clone(), of, routes, end.clone()));
    tasks.spawn(rotate_own(authority, config, tls));
    Ok(())
}

fn open_console(
    core: &Core,
    listener: Option<Box<dyn Listener>>,
    view: Arc<dyn DataPlaneView>,
    tasks: &mut JoinSet<()>,
) {
    let Some(listener) = listener else { return };
    let (membership, config) = (Arc::clone(&core.membership), Arc::clone(&core.config));
    let console = Console { membership, view, hub: core.hub.clone(), config };
    tasks.spawn(console.run(listener, core.end.clone()));
}

/// Serves the webhook, where there is one. It is registered once what is returned says so.
fn open_webhook(
    core: &Core,
    listener: Option<Box<dyn Listener>>,
    tasks: &mut JoinSet<()>,
) -> Result<oneshot::Receiver<()>, Error> {
    webhook::check(core.config.webhook.as_ref(), listener.is_some())?;
    let (told, registered) = oneshot::channel();
    match (core.config.webhook.clone(), listener) {
        (Some(target), Some(listener)) => {
            let (client, ca_pem) = (core.client.clone(), core.authority.ca_pem().to_owned());
            let stamps = Webhook { client, target, ca_pem, tls: core.tls.clone() };
            tasks.spawn(stamps.run(listener, told, core.end.clone()));
        }
        _ => drop(told.send(())),
    }
    Ok(registered)
}

/// What agents and data planes call.
fn services(core: &Core) -> Router {
    let clusters = &core.objects.clusters;
    let enrolment = EnrolmentService {
        authority: Arc::clone(&core.authority),
        client: core.client.clone(),
        sessions: Arc::clone(&core.sessions),
        clusters: clusters.clone(),
    };
    let link = LinkService {
        hub_id: core.hub.hub_id.clone(),
        epoch: core.epoch,
        heartbeat_ms: u32::try_from(core.config.heartbeat.as_millis()).unwrap_or(5000),
        sessions: Arc::clone(&core.sessions),
        clusters: clusters.clone(),
        tasks: core.tracker.clone(),
        shutdown: core.end.clone(),
    };
    let feed = FeedService {
        epoch: core.epoch,
        topology: core.topology.clone(),
        sites: Arc::clone(&core.sites),
        views: Arc::default(),
        tasks: core.tracker.clone(),
        shutdown: core.end.clone(),
    };
    server()
        .add_service(EnrolmentServer::new(enrolment).max_decoding_message_size(256 * 1024))
        .add_service(LinkServer::new(link))
        .add_service(FeedServer::new(feed))
        .add_service(ZonesServer::new(ZonesService::new(core.client.clone(), Arc::clone(&core.objects))))
}

/// Serves the link port until the end, until another hub leads, or until a controller breaks.
async fn listen(core: Core, mut resources: Resources, tasks: &mut JoinSet<()>) -> Result<(), Error> {
    let (services, clusters) = (services(&core), core.objects.clusters.clone());
    let mut port = Port {
        listener: resources.listener,
        tls: core.tls.clone(),
        relays: resources.relays,
        is_member: Arc::new(move |name| clusters.get(&ObjectRef::new(name)).is_some()),
    };
    if let Some(started) = resources.started.take() {
        let _ = started.send(core.hub.clone());
    }
    let (address, end) = (port.listener.local_addr(), core.end.clone());
    let serving =
        async { serve(&mut port, services, end.clone()).await.map_err(|e| Error::Listener(address.to_string(), e)) };
    let ended = tokio::select! {
        ended = serving => ended,
        lost = lead::keep(&core.client, &core.config.identity), if core.config.leader_election => Err(lost),
        broken = broken(tasks) => Err(broken),
    };
    end.cancel();
    core.tracker.close();
    let _ = tokio::time::timeout(Duration::from_secs(2), core.tracker.wait()).await;
    ended
}

/// Waits for a controller that panics, which is a bug of ours: better no hub than half of one. Others may end.
async fn broken(tasks: &mut JoinSet<()>) -> Error {
    while let Some(ended) = tasks.join_next().await {
        if let Err(broken) = ended {
            return Error::Broken(broken.to_string());
        }
    }
    std::future::pending().await
}

fn own_identity(authority: &Authority, config: &Config, revocations: &Revocations) -> Result<TlsIdentity, Error> {
    let identity = issue_own(authority, config)?;
    TlsIdentity::new(identity, revocations.clone()).map_err(|e| Error::Certificate("the hub".into(), e.to_string()))
}

fn issue_own(authority: &Authority, config: &Config) -> Result<Identity, Error> {
    let host = host_and_port(&config.advertise).map_or(config.advertise.as_str(), |(host, _)| host);
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), host.to_owned()];
    names.extend(config.names.iter().cloned());
    names.extend(config.webhook.iter().flat_map(webhook::names));
    names.retain(|n| !n.is_empty());
    let issued = authority.issue(&Role::Hub, &names, Timestamp::now())?;
    Identity::from_pem(&issued.chain_pem, issued.key_pem.as_deref().unwrap_or_default(), authority.ca_pem())
        .map_err(|e| Error::Certificate("the hub".into(), e.to_string()))
}

/// Shows a new certificate at half of each one's life.
async fn rotate_own(authority: Arc<Authority>, config: Arc<Config>, tls: TlsIdentity) {
    let half = Duration::try_from(LEAF / 2).unwrap_or(Duration::from_secs(3600));
    loop {
        tokio::time::sleep(half).await;
        let swapped = issue_own(&authority, &config)
            .and_then(|i| tls.swap(i).map_err(|e| Error::Certificate("the hub".into(), e.to_string())));
        if let Err(error) = swapped {
            tracing::error!(%error, "the hub's own certificate was not renewed");
        }
    }
}

fn spawn_sites(
    config: &Config,
    authority: &Arc<Authority>,
    client: &kube::Client,
    first: oneshot::Sender<()>,
    tasks: &mut JoinSet<()>,
) {
    let (authority, client, sites) = (Arc::clone(authority), client.clone(), config.sites.clone());
    tasks.spawn(async move { keep_sites(&authority, &client, &sites, first).await });
}
