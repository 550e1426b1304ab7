//! Who is well: own probes of endpoints, what traffic says, and the rule by which a whole cluster is out.
//!
//! ```text
//!   probes (as checked) ──┐
//!   requests ─────────────┴─► endpoint ─► service out in its cluster, cluster out ─┐
//!   topology, hub's silence ──────────────────────────► HealthView ────────────────┴─► choice of clusters
//! ```
//!
//! In: endpoints in use, results, the topology as followed. Out: which endpoints and clusters take requests, and what the hub is told.
//! Never: sends a request of a client. Source: ejection as Envoy's outlier detection.

mod ask;
mod care;
mod outage;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use atoll_api::health::{HealthView, Probe, Rules, Source};
use atoll_api::names::ClusterName;
use atoll_api::topology::Topology;
use atoll_reach::is_starved;
use atoll_wire::follow::{Report, Snapshot};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

pub(crate) use care::Care;
pub(crate) use outage::{ClusterState, Outage, Tally};
pub(crate) use state::{EndpointState, Failure, LOOK_AFTER, Turn};
use state::{LOOK_MAX, Look, Proof};

use crate::endpoint::{Endpoint, Endpoints, InUse};
use crate::metrics::Metrics;
use crate::pool::Pool;

const TICK: Duration = Duration::from_millis(250);
/// Probes at once.
const PROBES_MAX: usize = 128;
/// Endpoints of the same service that are looked at when one fails.
const NEIGHBOURS_MAX: usize = 16;
/// And so many of the cluster's other services, one of each before a second one of any.
const OTHERS_MAX: usize = 32;
/// Suspicions that wait for a probe.
const SUSPECTS_MAX: usize = 1024;

/// What is known of everybody's health.
pub(crate) struct Health {
    endpoints: Arc<Endpoints>,
    view: ArcSwap<HealthView>,
    rules: Rules,
    /// Grows with every change that a choice of clusters may depend on.
    version: AtomicU64,
    /// Whether the hub's word on endpoints counts.
    heeds: AtomicBool,
    suspects: mpsc::Sender<Arc<Endpoint>>,
    metrics: Metrics,
}

/// What the prober's task needs.
pub(crate) struct Prober {
    pub(crate) health: Arc<Health>,
    suspects: mpsc::Receiver<Arc<Endpoint>>,
}

impl Health {
    /// Whose word counts, and what it is.
    pub(crate) fn view(&self) -> Arc<HealthView> {
        self.view.load_full()
    }

    /// Grows with every change that a choice of clusters may depend on.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether the hub's word on endpoints counts: it speaks, or we see almost nobody.
    pub(crate) fn heeds(&self) -> bool {
        self.heeds.load(Ordering::Relaxed)
    }

    /// An answer came, after `took` if that tells anything.
    pub(crate) fn ok(&self, endpoint: &Endpoint, took: Option<Duration>) {
        self.answered(endpoint, took, false);
    }

    /// The same; `error`: it is one that says that something is wrong at the endpoint.
    pub(crate) fn answered(&self, endpoint: &Endpoint, took: Option<Duration>, error: bool) {
        let care = endpoint.care();
        let error = error.then(|| care.outlier.errors.is_some() && self.may_eject(endpoint, care.outlier.percent_max));
        let turned = endpoint.state().answered(took, error, &care.outlier, Instant::now());
        if turned == Turn::Better {
            self.weigh(endpoint);
        }
    }

    /// Whether one more of its service may be left out; of each, where it is of several.
    fn may_eject(&self, endpoint: &Endpoint, percent_max: usize) -> bool {
        let (by_service, now) = (self.endpoints.by_service(), Instant::now());
        endpoint.services().iter().filter_map(|id| by_service.get(id)).all(|all| {
            let ejected = all.iter().filter(|e| e.state().is_ejected(now)).count();
            (ejected + 1) * 100 <= all.len() * percent_max
        })
    }

    /// A connect failed, or no answer came.
    pub(crate) fn failed(&self, endpoint: &Endpoint, failure: Failure) {
        if failure == Failure::Connect && is_starved() {
            return;
        }
        let care = endpoint.care();
        let turned = endpoint.state().failed(failure, &care.outlier, Instant::now());
        self.metrics.failed(endpoint.address.cluster_name());
        if turned == Turn::Worse {
            self.weigh(endpoint);
            self.leave(endpoint);
            self.look_around(endpoint);
        }
    }

    /// Nobody waits at one more endpoint of a cluster or service that is out.
    fn leave(&self, endpoint: &Endpoint) {
        let is_out = |in_use: &InUse| {
            in_use.state.outage.is_out() || in_use.services_of(endpoint).any(|service| service.outage.is_out())
        };
        if self.in_use(endpoint, is_out) == Some(true) {
            endpoint.fell();
        }
    }

    /// What is in use of the endpoint's cluster, if it has one.
    fn in_use<T>(&self, endpoint: &Endpoint, look: impl FnOnce(&InUse) -> T) -> Option<T> {
        let by_cluster = self.endpoints.by_cluster();
        endpoint.address.cluster.as_ref().and_then(|name| by_cluster.get(name)).map(look)
    }

    /// A request waits for its first octet since then: does its endpoint say anything at all?
    pub(crate) fn waited(&self, endpoint: &Arc<Endpoint>, since: Instant) {
        if !endpoint.state().is_heard_since(since) {
            self.suspect(endpoint);
            self.look_around(endpoint);
        }
    }

    /// One endpoint fails: is it alone, is its service gone there, or its cluster?
    pub(crate) fn look_around(&self, endpoint: &Endpoint) {
        self.in_use(endpoint, |in_use| {
            if in_use.state.outage.is_out() {
                return;
            }
            let now = Instant::now();
            let wanted = |e: &&Arc<Endpoint>| {
                let state = e.state();
                !state.is_failing() && !state.is_looked_at(now)
            };
            let own = in_use.services_of(endpoint).flat_map(|service| &service.endpoints);
            own.filter(wanted).take(NEIGHBOURS_MAX).for_each(|e| self.suspect(e));
            let others = in_use.services.iter().filter(|service| !service.has(endpoint));
            let mut others: Vec<_> = others.map(|service| service.endpoints.iter().filter(wanted)).collect();
            let mut left = OTHERS_MAX;
            while left > 0 && !others.is_empty() {
                others.retain_mut(|others| {
                    let next = others.next().filter(|_| left > 0);
                    next.inspect(|e| self.suspect(e)).inspect(|_| left -= 1).is_some()
                });
            }
        });
    }

    /// The endpoint is to be asked whether it is there, unless it is being asked.
    fn suspect(&self, endpoint: &Arc<Endpoint>) {
        if endpoint.state().suspect() {
            // With so many suspicions the regular probes are soon enough.
            let _ = self.suspects.try_send(Arc::clone(endpoint));
        }
    }

    /// Judges the endpoint's cluster anew.
    fn weigh(&self, endpoint: &Endpoint) {
        self.in_use(endpoint, |in_use| self.weigh_cluster(in_use));
    }

    /// Judges a cluster and its services anew.
    fn weigh_cluster(&self, in_use: &InUse) {
        let (cluster, now) = (&in_use.state.name, Instant::now());
        let failing = |all: &[Arc<Endpoint>]| all.iter().filter(|e| e.state().is_failing()).count();
        let mut tally = Tally::default();
        for service in &in_use.services {
            let (failing, of) = (failing(&service.endpoints), service.endpoints.len());
            tally.count(failing, of);
            let Some(out) = service.outage.weigh(of > 0 && failing == of, now) else { continue };
            self.version.fetch_add(1, Ordering::Release);
            if out {
                tracing::info!(%cluster, service = %service.name, of, "service is out in its cluster");
                service.endpoints.iter().for_each(|e| e.fell());
            } else {
                tracing::info!(%cluster, service = %service.name, "service is back in its cluster");
            }
        }
        (tally.failing, tally.endpoints) = (failing(&in_use.endpoints), in_use.endpoints.len());
        let Some(out) = in_use.state.outage.weigh(tally.is_ill(), now) else { return };
        self.version.fetch_add(1, Ordering::Release);
        self.metrics.cluster_out(cluster.as_str(), out);
        if out {
            let Tally { failing, endpoints, ill, services } = tally;
            tracing::warn!(%cluster, failing, of = endpoints, ill, services, "cluster is out");
            // Requests that others of its endpoints work on may still be answered.
            in_use.endpoints.iter().filter(|e| e.state().is_failing()).for_each(|e| e.fell());
        } else {
            tracing::info!(%cluster, "cluster is back");
        }
    }

    /// Judges whose word counts, and tells the hub what this replica sees.
    fn judge(&self, snapshot: &Snapshot, report: &watch::Sender<Report>) {
        let by_cluster = self.endpoints.by_cluster();
        let probes: BTreeMap<ClusterName, Probe> =
            by_cluster.iter().map(|(name, in_use)| (name.clone(), Probe::new(!in_use.state.outage.is_out()))).collect();
        let silence = snapshot.heard.map(|at| Instant::now().saturating_duration_since(at));
        if let Some(silence) = silence {
            self.metrics.hub_silent.set(silence.as_secs().cast_signed());
        }
        let view = HealthView::new(&snapshot.topology, silence, &probes, &self.rules);
        let before = self.view.load();
        if **before != view {
            if before.source() != view.source() {
                tracing::info!(source = ?view.source(), "whose word on health counts");
            }
            self.heeds.store(view.source() != Source::Probes, Ordering::Relaxed);
            self.view.store(Arc::new(view));
            self.version.fetch_add(1, Ordering::Release);
        }
        let seen: BTreeMap<String, bool> = probes.iter().map(|(name, p)| (name.to_string(), p.up())).collect();
        report.send_if_modified(|report| {
            let changed = report.probes != seen;
            if changed {
                report.probes = seen;
            }
            changed
        });
    }
}

/// What one probe found.
struct Found {
    endpoint: Arc<Endpoint>,
    what: Result<Proof, Failure>,
}

impl Prober {
    /// Nothing is known yet: the hub's last word counts.
    pub(crate) fn new(endpoints: Arc<Endpoints>, metrics: Metrics) -> Self {
        let (suspects, queue) = mpsc::channel(SUSPECTS_MAX);
        let rules = Rules::default();
        let view = HealthView::new(&Topology::default(), None, &BTreeMap::new(), &rules);
        let heeds = AtomicBool::new(view.source() != Source::Probes);
        let (view, version) = (ArcSwap::from_pointee(view), AtomicU64::new(0));
        Self { health: Arc::new(Health { endpoints, view, rules, version, heeds, suspects, metrics }), suspects: queue }
    }

    /// Probes endpoints in use until `shutdown`.
    pub(crate) async fn run(
        mut self,
        pool: Pool,
        mut topology: watch::Receiver<Snapshot>,
        report: watch::Sender<Report>,
        shutdown: CancellationToken,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut probes: JoinSet<Found> = JoinSet::new();
        let mut followed = true;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = tick.tick() => self.begin(&pool, &mut probes),
                Some(endpoint) = self.suspects.recv() => self.check(&pool, &mut probes, endpoint),
                Some(Ok(found)) = probes.join_next() => self.take(&found),
                changed = topology.changed(), if followed => followed = changed.is_ok(),
            }
            let snapshot = topology.borrow_and_update().clone();
            self.health.judge(&snapshot, &report);
        }
    }

    /// Starts the probes that are due.
    fn begin(&self, pool: &Pool, probes: &mut JoinSet<Found>) {
        let now = Instant::now();
        // Who is out comes back also by the clock.
        let by_cluster = self.health.endpoints.by_cluster();
        by_cluster.values().filter(|in_use| in_use.is_any_out()).for_each(|in_use| self.health.weigh_cluster(in_use));
        for endpoint in self.health.endpoints.all().iter() {
            if probes.len() >= PROBES_MAX {
                return;
            }
            endpoint.idle.sweep(now);
            // Nothing tells whether somebody is there who is reached by UDP.
            if endpoint.address.udp {
                continue;
            }
            let begun = endpoint.state().begin_probe(endpoint.care().check.is_some(), now);
            if let Some(look) = begun {
                start(pool, probes, Arc::clone(endpoint), look);
            }
        }
    }

    fn check(&self, pool: &Pool, probes: &mut JoinSet<Found>, endpoint: Arc<Endpoint>) {
        if endpoint.address.udp || probes.len() >= PROBES_MAX {
            return;
        }
        let begun = endpoint.state().begin_check(endpoint.care().check.is_some(), Instant::now());
        if let Some(look) = begun {
            start(pool, probes, endpoint, look);
        }
    }

    fn take(&self, found: &Found) {
        let endpoint = &found.endpoint;
        if found.what == Err(Failure::Connect) && is_starved() {
            return endpoint.state().unprobed(Instant::now());
        }
        let (turned, fell) = {
            let mut state = endpoint.state();
            let was_up = state.is_up();
            let turned = state.probed(found.what, &self.health.rules, &endpoint.care(), Instant::now());
            (turned, was_up && !state.is_up())
        };
        if fell {
            tracing::info!(endpoint = %endpoint.address, "endpoint does not answer");
            endpoint.fell();
        }
        if turned != Turn::None {
            self.health.weigh(endpoint);
        }
        if turned == Turn::Worse {
            self.health.leave(endpoint);
            self.health.look_around(endpoint);
        }
    }
}

fn start(pool: &Pool, probes: &mut JoinSet<Found>, endpoint: Arc<Endpoint>, look: Look) {
    let pool = pool.clone();
    probes.spawn(async move {
        let care = endpoint.care();
        let what = match (look, &care.check) {
            (Look::Check, Some(check)) if pool.check(&endpoint, check).await => Ok(Proof::Connection),
            (Look::Check, Some(_)) => Err(Failure::Connect),
            (Look::Ask, _) => ask::ask(&pool, &endpoint, LOOK_MAX).await,
            _ => pool.dial(&endpoint).await.map(|_| Proof::Connection).map_err(|_| Failure::Connect),
        };
        Found { endpoint, what }
    });
}
