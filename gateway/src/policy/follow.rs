//! Follows RoutePolicies and what they refer to ([`super::materials`]), and swaps in what became of them.
//!
//! In: a client, the topology, what is known of what routes are made of. Out: [`super::Newest`], statuses for the leader to write, a last good
//! file. A policy or Secret that changed is in force at once; an endpoint of a filter's backend within a second. With the API server dead what
//! was last good stays, through restarts, too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::RoutePolicy;
use atoll_api::kinds::route_policy::filters::BackendRef;
use atoll_api::topology::{Site, Topology};
use atoll_wire::follow::{Report, Snapshot as Followed};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backends::Backends;
use super::judge::{Judged, World, judge};
use super::materials::{Found, Good, Materials, Secrets, Sources, key, load};
use super::shares::{Demand, Shares};
use super::stores::Stores;
use crate::LastGood;
use crate::ingress::Derived;
use crate::metrics::Metrics;
use crate::objects::{age, name_of};
use crate::plane::Plane;
use crate::status::{Warning, policies};
use crate::watch::{Watched, Watches};

/// So often replicas tell one another what they are asked for, and the topology is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Changes of what policies refer to are taken together for so long.
const COALESCE: Duration = Duration::from_millis(100);
/// So long the hub's word counts.
const FRESH: Duration = Duration::from_secs(15);

/// What following needs.
pub(crate) struct Follow {
    pub(crate) plane: Arc<Plane>,
    pub(crate) client: Client,
    pub(crate) watches: Arc<Watches>,
    pub(crate) topology: watch::Receiver<Followed>,
    pub(crate) statuses: watch::Sender<policies::Told>,
    /// This replica's name.
    pub(crate) instance: String,
    /// What the hub is told of this replica.
    pub(crate) report: watch::Sender<Report>,
    pub(crate) kept: Option<Arc<LastGood>>,
}

/// Follows until `shutdown`.
pub(crate) async fn follow(given: Follow, shutdown: CancellationToken) {
    let mut tasks = JoinSet::new();
    let (changed, changes) = watch::channel(0_u64);
    let metrics = &given.plane.metrics;
    let policies = start(&given.client, metrics, watcher::Config::default(), &changed, &mut tasks);
    let secret = |kind: &str| watcher::Config::default().fields(&format!("type={kind}"));
    let opaque = start(&given.client, metrics, secret("Opaque"), &changed, &mut tasks);
    let users = start(&given.client, metrics, secret("kubernetes.io/basic-auth"), &changed, &mut tasks);
    let good = load(given.kept.clone()).await;
    let backends = given.watches.backends();
    let following = Following {
        given,
        policies,
        opaque,
        users,
        good,
        backends,
        stores: Stores::default(),
        told_at: Instant::now(),
        before: None,
        saved: None,
        said: Vec::new(),
        derived: Default::default(),
        counted: BTreeMap::new(),
    };
    let _ = shutdown.run_until_cancelled(following.go(changes)).await;
    tasks.shutdown().await;
}

/// Follows one kind in `tasks`.
fn start<K>(
    client: &Client,
    metrics: &Metrics,
    config: watcher::Config,
    changed: &watch::Sender<u64>,
    tasks: &mut JoinSet<()>,
) -> Watched<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let changed = changed.clone();
    let (watched, following) =
        Watched::open(client, metrics, config, |_: &mut K| (), move |_: Option<&K>| changed.send_modify(|n| *n += 1));
    tasks.spawn(following);
    watched
}

struct Following {
    given: Follow,
    policies: Watched<RoutePolicy>,
    opaque: Watched<Secret>,
    users: Watched<Secret>,
    good: Option<Good>,
    backends: Backends,
    stores: Stores,
    /// When the others were told last.
    told_at: Instant,
    /// Of what the policies in force were made.
    before: Option<Materials>,
    /// For which hub these are on disk.
    saved: Option<String>,
    said: Vec<Judged>,
    /// What Ingresses became before, and what they are now.
    derived: [Arc<Derived>; 2],
    /// What of their filters stands in the metrics.
    counted: BTreeMap<String, i64>,
}

impl Following {
    async fn go(mut self, mut changes: watch::Receiver<u64>) {
        let (mut objects, mut topology) = (self.given.watches.changes(), self.given.topology.clone());
        let mut ingresses = self.given.watches.derived();
        let mut known: Option<Arc<Topology>> = None;
        let mut is_due = true;
        loop {
            changes.borrow_and_update();
            objects.borrow_and_update();
            drop(ingresses.borrow_and_update());
            let newest = Arc::clone(&topology.borrow_and_update().topology);
            let is_other = known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &newest));
            known = Some(newest);
            if is_due || is_other {
                self.look().await;
            } else if self.is_listed() {
                // The table may have come to know their targets meanwhile.
                self.say();
            }
            if self.told_at.elapsed() >= LOOK_EVERY {
                self.divide();
            }
            is_due = tokio::select! {
                changed = changes.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => return,
                },
                changed = ingresses.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => return,
                },
                changed = objects.changed() => {
                    // Many come together; but nothing is served before policies are known.
                    if self.before.is_some() {
                        tokio::time::sleep(COALESCE).await;
                    }
                    changed.is_ok()
                }
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
        }
    }

    /// Tells the others what is asked for here, and takes this replica's share of what is kept together.
    fn divide(&mut self) {
        let plane = Arc::clone(&self.given.plane);
        let now = Instant::now();
        let elapsed = now.duration_since(self.told_at);
        // Objects that change say nothing of what is asked for.
        if elapsed < LOOK_EVERY / 2 {
            return;
        }
        self.told_at = now;
        let asked = plane.shares.demand(elapsed);
        let followed = self.given.topology.borrow();
        let name = &self.given.instance;
        let is_live = |site: &&Arc<Site>| site.kind == "gateway" && !site.silent && site.instance != *name;
        let mut others: Vec<&Arc<Site>> = followed.topology.sites.values().filter(is_live).collect();
        others.sort_by(|a, b| a.instance.cmp(&b.instance));
        let rank = others.iter().filter(|site| site.instance < *name).count();
        if followed.heard.is_some_and(|heard| now.duration_since(heard) < FRESH) {
            // What is asked for here counts once the hub hands it on, as for all others: they must know before this replica has more.
            let (nothing, own) = (Demand::new(), followed.topology.sites.get(name));
            let mut all: Vec<&Demand> = others.iter().map(|site| &site.asked).collect();
            all.insert(rank, own.map_or(&nothing, |site| &site.asked));
            plane.shares.divide(&all, rank);
        } else {
            plane.shares.equal(others.len() + 1, rank);
        }
        drop(followed);
        self.given.report.send_if_modified(|report| {
            let is_other = report.site.asked != asked;
            if is_other {
                report.site.asked = asked;
            }
            is_other
        });
    }

    fn is_listed(&self) -> bool {
        self.policies.is_listed() && self.opaque.is_listed() && self.users.is_listed()
    }

    /// Makes the policies anew where anything that they are made of is another, and says what became of them.
    async fn look(&mut self) {
        let listed = self.is_listed();
        if !listed && (self.good.is_none() || self.before.is_some()) {
            return;
        }
        let derived = Arc::clone(&self.given.watches.derived().borrow());
        let mut objects: Vec<Arc<RoutePolicy>> = match &self.good {
            Some(good) if !listed => good.policies.iter().cloned().map(Arc::new).collect(),
            _ => self.policies.known.all().iter().cloned().collect(),
        };
        objects.extend(self.of_ingresses(&derived));
        objects.sort_by_cached_key(|policy| age(&**policy));
        let (secrets, backends) = self.referred(&objects, listed);
        let now = Materials { objects, secrets, backends };
        if self.before.as_ref().is_none_or(|before| !before.are(&now)) {
            self.make(&now);
            self.saved = None;
        }
        if listed {
            self.save(&now).await;
        }
        self.before = Some(now);
        self.given.watches.guarded(derived.generation);
        if listed {
            self.say();
        }
    }

    /// What is made of Ingresses, and what was before: the table may be either's.
    fn of_ingresses(&mut self, derived: &Arc<Derived>) -> Vec<Arc<RoutePolicy>> {
        if self.derived[1].generation != derived.generation {
            self.derived.swap(0, 1);
            self.derived[1] = Arc::clone(derived);
        }
        let mut all: Vec<Arc<RoutePolicy>> = self.derived.iter().flat_map(|d| d.policies.iter().cloned()).collect();
        all.sort_by_cached_key(|policy| age(&**policy));
        all.dedup_by_key(|policy| age(&**policy));
        all
    }

    /// Makes the policies, and swaps them in.
    fn make(&mut self, Materials { objects, secrets, backends }: &Materials) {
        let secret = |namespace: &str, name: &str| secrets.get(&format!("{namespace}/{name}")).cloned();
        let backend = |written: &BackendRef, namespace: &str, set: Option<&str>| {
            backends
                .get(&key(written, namespace, set))
                .cloned()
                .unwrap_or_else(|| Err("backendRef: it is none".to_owned()))
        };
        let shares: &Shares = &self.given.plane.shares;
        let world = World { secret: &secret, backend: &backend, stores: &self.stores, shares };
        let (policies, judged) = judge(objects, &world);
        self.given.plane.policies.store(Some(Arc::new(policies)));
        self.said = judged;
        self.count();
    }

    /// What the policies refer to, as it is now.
    fn referred(&self, objects: &[Arc<RoutePolicy>], listed: bool) -> (Secrets, Found) {
        let topology = Arc::clone(&self.given.topology.borrow().topology);
        let world = Sources {
            opaque: &self.opaque.known,
            users: &self.users.known,
            backends: &self.backends,
            topology: &topology,
            good: self.good.as_ref().filter(|_| !listed),
        };
        world.referred(objects)
    }

    /// Says what became of them, where that is something else than they bear.
    fn say(&self) {
        let snapshot = self.given.plane.snapshots.load_full();
        let gateways = |judged: &Judged| match &snapshot {
            Some(snapshot) => policies::ancestors(&snapshot.table, &judged.targets),
            None => BTreeSet::new(),
        };
        let now = jiff::Timestamp::now();
        let owners = self.given.watches.owners();
        let owners = owners.as_ref();
        let each = self.said.iter().filter_map(|judged| {
            let newest = self.policies.known.at(&name_of(&*judged.object))?;
            let missing = judged.targets.iter().find(|t| !self.given.watches.has(t)).map(|t| {
                let section = t.section.as_ref().map(|s| format!("/{s}")).unwrap_or_default();
                format!("targetRefs: {} `{}{section}` does not exist", t.kind, t.name)
            });
            let others = self.given.watches.others(owners, judged);
            let unserved = snapshot.as_ref().and_then(|s| policies::unserved(&s.table, &judged.targets));
            let accepted = policies::accepted(judged, missing, unserved);
            policies::update(&newest, &accepted, &gateways(judged), &others, now)
        });
        let told = policies::Told { updates: each.collect(), warnings: self.warnings() };
        if told.differs(&self.given.statuses.borrow()) {
            self.given.statuses.send_replace(told);
        }
    }

    /// What is to be told of Ingresses whose filters can't be made: a Secret that is not there, a value that is none.
    fn warnings(&self) -> Vec<Warning> {
        let [_, derived] = &self.derived;
        let of_now: BTreeSet<_> =
            derived.policies.iter().map(|policy| (policy.namespace(), policy.name_any())).collect();
        let is_now = |judged: &&Judged| of_now.contains(&(judged.object.namespace(), judged.object.name_any()));
        let said = self.said.iter().filter(|judged| !judged.problems.is_empty()).filter(is_now);
        said.flat_map(|judged| policies::warnings(judged, derived)).collect()
    }

    /// Counts them, by filter.
    fn count(&mut self) {
        let gauge = &self.given.plane.metrics.ingress_refused;
        let mut counted: BTreeMap<String, i64> = BTreeMap::new();
        for warning in self.warnings() {
            *counted.entry(policies::filter_of(&warning.problem.message).to_owned()).or_default() += 1;
        }
        for gone in self.counted.keys().filter(|filter| !counted.contains_key(*filter)) {
            let _ = gauge.remove_label_values(&[gone.as_str(), "true"]);
        }
        counted.iter().for_each(|(filter, count)| gauge.with_label_values(&[filter.as_str(), "true"]).set(*count));
        self.counted = counted;
    }

    /// Keeps them for the hub whose they are, which the first topology says.
    async fn save(&mut self, materials: &Materials) {
        let Some(kept) = self.given.kept.clone() else { return };
        let (known, hub) = {
            let followed = self.given.topology.borrow();
            (followed.is_known(), followed.topology.settings.hub_id.clone())
        };
        if known && self.saved.as_ref() != Some(&hub) {
            materials.save(kept, hub.clone()).await;
            self.saved = Some(hub);
        }
    }
}
