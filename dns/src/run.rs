//! Starts the DNS server, keeps its world current, and ends it.
//!
//! In: [`Config`], [`Resources`], a token. Out: queries answered until the token ends; then every task is awaited. The world is made anew
//! at every word of the hub's, every change of a probe, and every second for the time that passes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use atoll_api::topology::Version;
use atoll_wire::follow::Snapshot;
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authority::Authority;
use crate::checks;
use crate::client::Asker;
use crate::clock::Clock;
use crate::config::{Ask, Config, Rebinding, Resources};
use crate::edge::{Edge, keep_secrets};
use crate::error::Error;
use crate::explain::{Trace, document};
use crate::forward::{self, Forwarder};
use crate::gate::Gate;
use crate::geo::{self, Geo};
use crate::health::{self, Probes};
use crate::lookup::Lookups;
use crate::metrics::Metrics;
use crate::names::absolute;
use crate::outside::Guard;
use crate::prefixes::client_net;
use crate::resolve::{Question, Resolver, Shared};
use crate::respond::Responder;
use crate::tap::Taps;
use crate::transfer::notify;
use crate::transport::{Sockets, TRANSPORTS};
use crate::view::Findings;
use crate::wire::{BYTES_MAX, Wire};
use crate::world::World;

/// How often the world is looked at when nothing else happens: health changes by silence, routes by probes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Answers queries until `shutdown`.
///
/// # Errors
/// When it can't start, see [`Error`]. Nothing that happens later ends it.
pub async fn run(config: Config, resources: Resources, shutdown: CancellationToken) -> Result<(), Error> {
    let Resources {
        mut topology,
        dialer,
        report,
        line,
        connect,
        listen,
        udp,
        tcp,
        metrics,
        dir: _,
        started,
        cookies,
        encrypted,
        files,
        taps,
    } = resources;
    let metrics = Metrics::new(&metrics)?;
    let tasks = TaskTracker::new();
    let config = Arc::new(config);
    let upstreams = config.upstreams.clone();
    let direct = Arc::clone(&connect);
    let tell = Arc::clone(&listen);
    let forwarder = Forwarder::new(dialer, listen, connect, upstreams, metrics.clone(), &tasks, &shutdown);
    let forwarder = Arc::new(forwarder);
    let (probes, probed) = watch::channel(Arc::new(Probes::default()));
    let snapshot = topology.borrow_and_update().clone();
    let (world, _) =
        World::new(None, &snapshot, &probed.borrow(), forwarder.dialer(), (&config, &Geo::default()), Instant::now());
    let lookups =
        Lookups::new(&config.caching, Arc::clone(&forwarder), metrics.clone(), (tasks.clone(), shutdown.clone()));
    let authority = Arc::new(Authority::new(line, Arc::clone(&world.table)));
    let gate = Arc::new(Gate::new(&metrics));
    gate.follow(None, &world, &forwarder);
    let resolver: Shared = Arc::new(Resolver {
        world: ArcSwap::from_pointee(world),
        lookups,
        guard: guard(&config.rebinding),
        signatures: Arc::clone(&authority.signatures),
    });
    let edge = Arc::new(Edge::new(&config, encrypted.certificate.clone()));
    let mut sockets = Sockets { udp, tcp: Some(tcp), encrypted };
    let wire = Arc::new(Wire::new(config.cache_bytes.unwrap_or(BYTES_MAX), Instant::now()));
    let responder = Responder {
        resolver: Arc::clone(&resolver),
        edge: Arc::clone(&edge),
        authority: Arc::clone(&authority),
        metrics: metrics.clone(),
        wire: Arc::clone(&wire),
        taps: Taps::new(taps, &metrics),
        gate: Arc::clone(&gate),
    };
    for transport in TRANSPORTS {
        for serving in (transport.serve)(&mut sockets, &responder, &shutdown)? {
            tasks.spawn(serving);
        }
    }
    let (tables, end, counting) = (authority.tables(), shutdown.clone(), metrics.clone());
    tasks.spawn(async move {
        end.run_until_cancelled(notify::run(tables, tell, counting)).await;
    });
    let end = shutdown.clone();
    tasks.spawn(async move {
        end.run_until_cancelled(keep_secrets(&edge, cookies)).await;
    });
    let (found, own) = watch::channel(Arc::default());
    let (geo, places) = watch::channel(Geo::default());
    tasks.spawn(geo::follow(files, geo, shutdown.clone()));
    // Targets are probed by the federation's own servers: there may be thousands of nodes.
    if config.home.is_none() {
        tasks.spawn(checks::run(Arc::clone(&resolver), direct, found, report.clone(), shutdown.clone()));
    }
    tasks.spawn(health::run(Arc::clone(&resolver), metrics.clone(), probes, report, shutdown.clone()));
    tasks.spawn(forward::patrol(Arc::clone(&forwarder), shutdown.clone()));
    let heard = Heard { probed, own, places };
    tracing::info!(instance = config.instance, "DNS answers");
    if let Some(started) = started {
        // Whoever waited may have given up.
        let _ = started.send(Server { resolver: Arc::clone(&resolver) });
    }
    let kept = Kept {
        resolver: &resolver,
        authority: &authority,
        wire: &wire,
        forwarder: &forwarder,
        gate: &gate,
        metrics: &metrics,
        config: &config,
    };
    shutdown.run_until_cancelled(keep_current(kept, topology, heard)).await;
    shutdown.cancelled().await;
    tasks.close();
    tasks.wait().await;
    Ok(())
}

fn guard(rebinding: &Rebinding) -> Guard {
    let names = rebinding.names.iter().filter_map(|name| absolute(name)).collect();
    Guard::new(rebinding.guard, names, rebinding.ranges.clone())
}

/// What this replica finds out by itself.
struct Heard {
    probed: watch::Receiver<Arc<Probes>>,
    /// What health checks take out.
    own: watch::Receiver<Arc<Findings>>,
    /// What files say.
    places: watch::Receiver<Geo>,
}

/// What a swap of the world reaches.
struct Kept<'a> {
    resolver: &'a Resolver,
    authority: &'a Authority,
    wire: &'a Wire,
    forwarder: &'a Forwarder,
    gate: &'a Gate,
    metrics: &'a Metrics,
    config: &'a Config,
}

/// Swaps the world whenever something in it changed.
async fn keep_current(
    kept: Kept<'_>,
    mut topology: watch::Receiver<Snapshot>,
    Heard { mut probed, mut own, mut places }: Heard,
) {
    let Kept { resolver, authority, wire, forwarder, gate, metrics, config } = kept;
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut clock = Clock::default();
    let (mut followed, mut probing, mut checking, mut reading) = (true, true, true, true);
    loop {
        let snapshot = topology.borrow_and_update().clone();
        let probes = Arc::clone(&probed.borrow_and_update());
        let before = resolver.world.load_full();
        let probes = probes.with(Arc::clone(&own.borrow_and_update()));
        let geo = places.borrow_and_update().clone();
        let here = (config, &geo);
        let now = Instant::now();
        let (mut world, mut changes) = World::new(Some(&before), &snapshot, &probes, forwarder.dialer(), here, now);
        if clock.jumped(now.saturating_duration_since(world.started), jiff::Timestamp::now().as_second()) {
            tracing::warn!("the wall clock has jumped: what was kept with signatures is signed anew");
            changes.everything = true;
            world.generation = before.generation + 1;
        }
        if !Arc::ptr_eq(&world.table, &before.table) {
            for why in world.table.newly_bad(&before.table) {
                tracing::warn!(why, "left out");
            }
            let sites = world.table.home.as_ref().map_or(&[][..], |home| &home.sites);
            forwarder.keep(sites, |name| world.table.members.get(name).map(|member| &**member));
        }
        if world.health.source() != before.health.source() {
            tracing::info!(source = ?world.health.source(), "whose word on health counts has changed");
        }
        metrics.degraded(world.health.trusts_own_eyes());
        gate.follow(Some(&before), &world, forwarder);
        let generation = world.generation;
        let table = Arc::clone(&world.table);
        resolver.world.store(Arc::new(world));
        // After the world: what is still decided in the old one has the old generation, and is void when it is kept.
        wire.stamps.bump(&changes, generation);
        authority.swapped(&table);
        // Who has gone changes nothing any more; what it said last stays.
        tokio::select! {
            changed = topology.changed(), if followed => followed = changed.is_ok(),
            changed = probed.changed(), if probing => probing = changed.is_ok(),
            changed = own.changed(), if checking => checking = changed.is_ok(),
            changed = places.changed(), if reading => reading = changed.is_ok(),
            _ = tick.tick() => {}
        }
    }
}

/// A handle on the running server, for the console, the admin port and commands.
#[derive(Clone)]
pub struct Server {
    resolver: Shared,
}

impl Server {
    /// Whether it has a topology, be it the last good one: true for good once it is. A member's node-local DNS is ready without one.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let world = self.resolver.world.load();
        world.table.apex.is_some() || world.table.home.is_some()
    }

    /// The version of the topology that it answers by.
    #[must_use]
    pub fn version(&self) -> Version {
        self.resolver.world.load().table.topology.version
    }

    /// The whole decision on a question, and its answer. What is wrong with the question is said under `error`.
    pub async fn explain(&self, ask: Ask) -> Value {
        let world = self.resolver.world.load_full();
        let Some(name) = absolute(&ask.name) else { return json!({"error": format!("`{}` is no name", ask.name)}) };
        let qtype = if ask.qtype.is_empty() { "A".to_owned() } else { ask.qtype.to_ascii_uppercase() };
        let Ok(kind) = qtype.parse::<RecordType>() else { return json!({"error": format!("`{qtype}` is no type")}) };
        let (asker, by, ip) = asker(&world, &ask);
        let (client, dice) = (client_net(ip), rand::random());
        let name_asked = name.clone();
        let question = Question {
            name: name_asked,
            kind,
            recursion: true,
            dnssec: false,
            unchecked: false,
            client,
            dice,
            trail: None,
            begun: None,
            flat: false,
        };
        let mut trace = Trace::on();
        let answer = self.resolver.resolve(&world, &asker, &question, &mut trace).await;
        document(&world, (&asker, &by), (&name, &qtype), &answer, trace)
    }
}

/// Who asks, by which word, and the address that stands for its neighbourhood.
fn asker(world: &World, ask: &Ask) -> (Arc<Asker>, String, IpAddr) {
    let clients = &world.table.clients;
    let from = |ip: IpAddr| (clients.asker(ip), clients.why(ip), ip);
    let loopback = IpAddr::from([127, 0, 0, 1]);
    match (&ask.ecs, &ask.from) {
        (Some(net), _) => from(net.addr()),
        (None, Some(region)) => {
            let asker = clients.in_region(&world.table.topology, region);
            (Arc::new(asker), format!("region {region} as asked"), loopback)
        }
        (None, None) => from(loopback),
    }
}
