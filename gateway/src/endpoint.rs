//! Endpoints in use: each known once by cluster, address and port, however many routes lead to it, and over every swap of the table.
//!
//! In: the upstreams of a table. Out: the same with live endpoints: their health, requests in flight, idle connections. Never dials.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use atoll_api::kinds::BalanceMethod;
use atoll_api::names::{ClusterName, ServiceName};
use atoll_api::topology::{ClusterFacts, Topology, Traffic};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::balance::hash::{Maglev, Ring, hash};
use crate::health::{Care, ClusterState, EndpointState, Outage};
use crate::pool::Idle;
use crate::table::{Upstream, UpstreamId};
use crate::tls::BackendTls;

/// Which endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    /// The member; nothing: the hub's own network.
    pub(crate) cluster: Option<ClusterName>,
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
    /// It speaks HTTP/2.
    pub(crate) h2: bool,
    /// It is reached by UDP.
    pub(crate) udp: bool,
    /// It is this pod and no other behind the same port of its node.
    pub(crate) alone: bool,
    /// How TLS is spoken to it.
    pub(crate) tls: Option<Arc<BackendTls>>,
}

impl Address {
    /// The cluster's name for logs and metrics.
    pub(crate) fn cluster_name(&self) -> &str {
        self.cluster.as_ref().map_or("", ClusterName::as_str)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(cluster) = &self.cluster {
            write!(f, "{cluster}/")?;
        }
        write!(f, "{}", SocketAddr::new(self.ip, self.port))
    }
}

/// An endpoint that some upstream leads to.
pub(crate) struct Endpoint {
    pub(crate) address: Address,
    /// Its number, the same on every replica.
    pub(crate) id: u64,
    pub(crate) in_flight: AtomicUsize,
    pub(crate) state: Mutex<EndpointState>,
    /// How it is watched, as the TrafficPolicy of a service that leads to it says.
    care: ArcSwap<Care>,
    /// Where its node listens for it, and until when that is not tried.
    door: Mutex<(Option<SocketAddr>, Option<Instant>)>,
    /// The services that it is of, without their subsets.
    services: ArcSwap<Vec<UpstreamId>>,
    pub(crate) idle: Idle,
    retired: AtomicBool,
    /// The hub says that it fails the health check of its service: it is left out alone, and says nothing of its cluster.
    left_out: AtomicBool,
    /// Requests go there: it speaks HTTP, and may be asked in it.
    http: AtomicBool,
    /// Ends what is under way there, when people disable it.
    pub(crate) end: CancellationToken,
    /// Tells those who wait that it was found to be down.
    pub(crate) down: watch::Sender<u64>,
    /// How often.
    falls: AtomicU64,
}

impl Endpoint {
    /// Whether no table leads here any more: connections are not kept.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Whether people disabled it: nothing goes there, and what is under way there ends.
    pub(crate) fn is_disabled(&self) -> bool {
        // The first costs nothing, and the second is rare.
        self.is_retired() && self.end.is_cancelled()
    }

    /// No table leads there, and people want nothing to go on there.
    pub(crate) fn disable(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.end.cancel();
        self.fell();
    }

    /// A request goes there.
    pub(crate) fn set_http(&self) {
        // Written once, read by all.
        if !self.is_http() {
            self.http.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was ever sent a request; else nobody knows what it speaks.
    pub(crate) fn is_http(&self) -> bool {
        self.http.load(Ordering::Relaxed)
    }

    /// The services that it is of, without their subsets.
    pub(crate) fn services(&self) -> Arc<Vec<UpstreamId>> {
        self.services.load_full()
    }

    /// How it is watched.
    pub(crate) fn care(&self) -> Arc<Care> {
        self.care.load_full()
    }

    /// It is watched like that from now on.
    pub(crate) fn watch_with(&self, care: &Arc<Care>) {
        self.care.store(Arc::clone(care));
    }

    /// Where its node listens for it, unless nobody answered there just now.
    pub(crate) fn door(&self, now: Instant) -> Option<SocketAddr> {
        let (door, shut_until) = *self.door.lock().unwrap_or_else(PoisonError::into_inner);
        door.filter(|_| shut_until.is_none_or(|until| now >= until))
    }

    /// Nobody answers at its node: that is not tried until then.
    pub(crate) fn shut_door(&self, until: Instant) {
        self.door.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(until);
    }

    /// Its node listens for it there from now on.
    fn set_door(&self, door: Option<SocketAddr>) {
        let mut held = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0 != door {
            *held = (door, None);
        }
    }

    /// Its state, locked.
    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, EndpointState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often it was found to be down.
    pub(crate) fn falls(&self) -> u64 {
        self.falls.load(Ordering::Acquire)
    }

    /// Tells those who wait for it that it is down, and closes idle connections.
    pub(crate) fn fell(&self) {
        self.idle.clear();
        self.falls.fetch_add(1, Ordering::Release);
        self.down.send_modify(|n| *n += 1);
    }
}

/// An upstream with live endpoints.
pub(crate) struct Live {
    /// The subset of its service that it is.
    pub(crate) subset: Option<String>,
    /// In the order of the upstream's clusters.
    pub(crate) parts: Vec<LivePart>,
    /// Whose turn it is, for who goes around.
    pub(crate) turn: AtomicUsize,
}

/// What one cluster offers.
pub(crate) struct LivePart {
    pub(crate) facts: Option<Arc<ClusterFacts>>,
    /// Of the cluster, and of the service in it; nothing for the hub's own network.
    state: Option<(Arc<ClusterState>, Arc<Outage>)>,
    pub(crate) endpoints: Vec<LiveEndpoint>,
    ring: OnceLock<Ring>,
    maglev: OnceLock<Maglev>,
}

impl LivePart {
    /// Whether it takes no requests: the cluster is out, or the service in it.
    pub(crate) fn is_out(&self) -> bool {
        self.is_cluster_out() || self.is_service_out()
    }

    /// Whether the cluster is out.
    pub(crate) fn is_cluster_out(&self) -> bool {
        self.state.as_ref().is_some_and(|(cluster, _)| cluster.outage.is_out())
    }

    /// Whether the service is out in it: none of its endpoints there is well.
    pub(crate) fn is_service_out(&self) -> bool {
        self.state.as_ref().is_some_and(|(_, service)| service.is_out())
    }

    /// How much of its part it gets: less while it was out not long ago.
    pub(crate) fn ease(&self, now: Instant) -> f64 {
        self.state.as_ref().map_or(1.0, |(cluster, service)| cluster.outage.ease(now).min(service.ease(now)))
    }

    /// The cluster's name; empty: the hub's own network.
    pub(crate) fn name(&self) -> &str {
        self.facts.as_ref().map_or("", |f| f.name.as_str())
    }

    /// Endpoints by their place, in the order in which a key goes through them, with repetitions. What that needs is made when first asked for.
    pub(crate) fn walk(&self, method: BalanceMethod, key: u64) -> Box<dyn Iterator<Item = usize> + '_> {
        let ids = || self.endpoints.iter().map(|e| e.endpoint.id).collect::<Vec<_>>();
        match method {
            BalanceMethod::Maglev => Box::new(self.maglev.get_or_init(|| Maglev::new(&ids())).walk(key)),
            _ => Box::new(self.ring.get_or_init(|| Ring::new(&ids())).walk(key)),
        }
    }
}

/// An endpoint as one upstream has it.
pub(crate) struct LiveEndpoint {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) zone: Option<String>,
    pub(crate) pod: Option<String>,
    /// The hub says that it fails the health check of its service's policy.
    pub(crate) failing: bool,
}

impl LiveEndpoint {
    /// Whether it takes requests. `heeded`: the hub's word counts.
    pub(crate) fn is_usable(&self, heeded: bool, now: Instant) -> bool {
        !(heeded && self.failing) && self.endpoint.state().is_usable(now)
    }
}

/// Endpoints of one cluster that are in use, without those that are left out alone.
pub(crate) struct InUse {
    pub(crate) state: Arc<ClusterState>,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    /// The same by service.
    pub(crate) services: Vec<ServiceInUse>,
}

/// Those of one of its services.
pub(crate) struct ServiceInUse {
    /// namespace/name:port.
    pub(crate) name: String,
    pub(crate) outage: Arc<Outage>,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
}

impl InUse {
    /// Whether it is out, or any of its services.
    pub(crate) fn is_any_out(&self) -> bool {
        self.state.outage.is_out() || self.services.iter().any(|service| service.outage.is_out())
    }

    /// The services that an endpoint is of.
    pub(crate) fn services_of<'a>(&'a self, endpoint: &'a Endpoint) -> impl Iterator<Item = &'a ServiceInUse> {
        self.services.iter().filter(move |service| service.has(endpoint))
    }
}

impl ServiceInUse {
    /// Whether an endpoint is of it.
    pub(crate) fn has(&self, endpoint: &Endpoint) -> bool {
        self.endpoints.iter().any(|e| std::ptr::eq(&**e, endpoint))
    }
}

/// Endpoints by service, without subsets.
type ByService = BTreeMap<UpstreamId, Vec<Arc<Endpoint>>>;
/// A service in a cluster, by its port.
type InCluster = (ClusterName, ServiceName, u16);

/// All endpoints in use.
#[derive(Default)]
pub(crate) struct Endpoints {
    known: Mutex<Known>,
    /// The lists are older than what is known.
    stale: AtomicBool,
    all: ArcSwap<Vec<Arc<Endpoint>>>,
    by_cluster: ArcSwap<BTreeMap<ClusterName, InUse>>,
    by_service: ArcSwap<ByService>,
}

#[derive(Default)]
struct Known {
    endpoints: HashMap<Address, Used>,
    clusters: BTreeMap<ClusterName, Arc<ClusterState>>,
    services: BTreeMap<InCluster, Arc<Outage>>,
    /// How endpoints are watched that no policy says anything of.
    usual: Arc<Care>,
}

/// An endpoint, and how many upstreams of which services lead to it.
struct Used {
    endpoint: Arc<Endpoint>,
    services: Vec<(UpstreamId, usize)>,
}

impl Known {
    fn service(&mut self, cluster: &ClusterName, id: &UpstreamId) -> Arc<Outage> {
        Arc::clone(self.services.entry((cluster.clone(), id.service().clone(), id.port())).or_default())
    }

    fn cluster(&mut self, name: &ClusterName) -> Arc<ClusterState> {
        Arc::clone(self.clusters.entry(name.clone()).or_insert_with(|| Arc::new(ClusterState::new(name.clone()))))
    }

    /// One more upstream leads to it, of that service.
    fn endpoint(&mut self, address: Address, service: &UpstreamId) -> Arc<Endpoint> {
        let make = || {
            let endpoint = Arc::new(Endpoint {
                address: address.clone(),
                id: hash(address.to_string().as_bytes()),
                in_flight: AtomicUsize::new(0),
                state: Mutex::new(EndpointState::begun(Instant::now())),
                care: ArcSwap::default(),
                door: Mutex::default(),
                services: ArcSwap::default(),
                idle: Idle::default(),
                retired: AtomicBool::new(false),
                left_out: AtomicBool::new(false),
                http: AtomicBool::new(false),
                end: CancellationToken::new(),
                down: watch::Sender::new(0),
                falls: AtomicU64::new(0),
            });
            Used { endpoint, services: Vec::new() }
        };
        let used = self.endpoints.entry(address.clone()).or_insert_with(make);
        match used.services.iter_mut().find(|(id, _)| id == service) {
            Some((_, users)) => *users += 1,
            None => used.services.push((service.clone(), 1)),
        }
        Arc::clone(&used.endpoint)
    }

    /// One fewer leads to it.
    fn release(&mut self, endpoint: &Endpoint, service: &UpstreamId, topology: &Topology) {
        let Some(used) = self.endpoints.get_mut(&endpoint.address) else { return };
        let of_service = used.services.iter_mut().filter(|(id, _)| id == service);
        of_service.for_each(|(_, users)| *users = users.saturating_sub(1));
        used.services.retain(|(_, users)| *users > 0);
        if used.services.is_empty() {
            self.endpoints.remove(&endpoint.address);
            endpoint.retired.store(true, Ordering::Relaxed);
            endpoint.idle.clear();
            let cluster = endpoint.address.cluster.as_ref().and_then(|name| topology.clusters.get(name));
            if cluster.is_some_and(|cluster| cluster.traffic(endpoint.address.ip) == Traffic::Disabled) {
                endpoint.disable();
            }
        }
    }

    fn live(&mut self, upstream: &Upstream, turn: usize) -> Live {
        let id = upstream.id.whole();
        let parts = upstream.clusters.iter().map(|part| {
            let state = part.name().map(|name| (self.cluster(name), self.service(name, &id)));
            let endpoints = part.endpoints.iter().map(|target| {
                let (cluster, ip, port) = (part.name().cloned(), target.address, target.port);
                let (h2, udp, tls) = (upstream.h2, upstream.udp, upstream.tls.clone());
                let address = Address { cluster, ip, port, h2, udp, alone: target.alone, tls };
                let endpoint = self.endpoint(address, &id);
                endpoint.set_door(target.door);
                endpoint.left_out.store(target.failing, Ordering::Relaxed);
                endpoint.watch_with(upstream.policy.as_ref().map_or(&self.usual, |policy| &policy.care));
                LiveEndpoint { endpoint, zone: target.zone.clone(), pod: target.pod.clone(), failing: target.failing }
            });
            let endpoints = endpoints.collect();
            let facts = part.cluster.clone();
            LivePart { facts, state, endpoints, ring: OnceLock::new(), maglev: OnceLock::new() }
        });
        let subset = upstream.id.subset().map(str::to_owned);
        Live { subset, parts: parts.collect(), turn: AtomicUsize::new(turn) }
    }
}

impl Endpoints {
    /// Makes upstreams live. Those that stand in `before` at the same place stay as they are; endpoints that none leads to any more are
    /// retired.
    pub(crate) fn enliven(
        &self,
        upstreams: &[Arc<Upstream>],
        before: (&[Arc<Upstream>], &[Arc<Live>]),
        topology: &Topology,
    ) -> Vec<Arc<Live>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let stays = |at: usize| before.0.get(at).zip(upstreams.get(at)).is_some_and(|(a, b)| Arc::ptr_eq(a, b));
        let live = upstreams.iter().enumerate().map(|(at, upstream)| match before.1.get(at) {
            Some(live) if stays(at) => Arc::clone(live),
            older => Arc::new(known.live(upstream, older.map_or(0, |live| live.turn.load(Ordering::Relaxed)))),
        });
        let live = live.collect();
        let gone = before.0.iter().zip(before.1).enumerate().filter(|(at, _)| !stays(*at));
        for (_, (upstream, live)) in gone {
            let id = upstream.id.whole();
            for endpoint in live.parts.iter().flat_map(|part| &part.endpoints) {
                known.release(&endpoint.endpoint, &id, topology);
            }
        }
        self.stale.store(true, Ordering::Release);
        live
    }

    /// Makes the lists anew if something changed since.
    fn refresh(&self) {
        if !self.stale.load(Ordering::Acquire) {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.stale.store(false, Ordering::Release);
        let (mut by_cluster, mut by_service) = (BTreeMap::<ClusterName, InUse>::new(), ByService::new());
        let mut in_clusters: BTreeMap<InCluster, Vec<Arc<Endpoint>>> = BTreeMap::new();
        for Used { endpoint, services } in known.endpoints.values() {
            let ids: Vec<UpstreamId> = services.iter().map(|(id, _)| id.clone()).collect();
            for id in &ids {
                by_service.entry(id.clone()).or_default().push(Arc::clone(endpoint));
            }
            if let Some(name) = &endpoint.address.cluster
                && let Some(state) = known.clusters.get(name)
            {
                let fresh = || InUse { state: Arc::clone(state), endpoints: Vec::new(), services: Vec::new() };
                let counts = Some(endpoint).filter(|e| !e.left_out.load(Ordering::Relaxed));
                by_cluster.entry(name.clone()).or_insert_with(fresh).endpoints.extend(counts.cloned());
                // Those that several kinds of upstreams lead to are one service there.
                let there: BTreeSet<_> = ids.iter().map(|id| (id.service().clone(), id.port())).collect();
                for (service, port) in there {
                    in_clusters.entry((name.clone(), service, port)).or_default().extend(counts.cloned());
                }
            }
            endpoint.services.store(Arc::new(ids));
        }
        known.clusters.retain(|name, _| by_cluster.contains_key(name));
        known.services.retain(|service, _| in_clusters.contains_key(service));
        for (at, endpoints) in in_clusters {
            let Some((outage, in_use)) = known.services.get(&at).zip(by_cluster.get_mut(&at.0)) else { continue };
            let (name, outage) = (format!("{}:{}", at.1, at.2), Arc::clone(outage));
            in_use.services.push(ServiceInUse { name, outage, endpoints });
        }
        self.all.store(Arc::new(known.endpoints.values().map(|used| Arc::clone(&used.endpoint)).collect()));
        self.by_cluster.store(Arc::new(by_cluster));
        self.by_service.store(Arc::new(by_service));
    }

    /// Every endpoint in use.
    pub(crate) fn all(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.refresh();
        self.all.load_full()
    }

    /// The same by cluster, without those of the hub's own network.
    pub(crate) fn by_cluster(&self) -> Arc<BTreeMap<ClusterName, InUse>> {
        self.refresh();
        self.by_cluster.load_full()
    }
    /// Every one by service.
    pub(crate) fn by_service(&self) -> Arc<ByService> {
        self.refresh();
        self.by_service.load_full()
    }
}
