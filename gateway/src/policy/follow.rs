//! Follows RoutePolicies and what they refer to, and swaps in what became of them.
//!
//! In: a client, the topology, the stores of what routes are made of. Out: [`super::Newest`], statuses for the leader to write, a last good
//! file. A policy or Secret that changed is in force at once; an endpoint of a filter's backend within a second. With the API server dead what
//! was last good stays, through restarts, too.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::RoutePolicy;
use atoll_api::kinds::route_policy::filters::BackendRef;
use atoll_api::topology::{Site, Topology};
use atoll_wire::follow::{Report, Snapshot as Followed};
use atoll_wire::kept;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::reflector;
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backends::Backends;
use super::judge::{Judged, World, judge};
use super::peer::At;
use super::shares::{Demand, Shares};
use super::stores::Stores;
use crate::ingress::{self, Derived};
use crate::objects::age;
use crate::plane::Plane;
use crate::status::{Update, policies};
use crate::watch::{Watched, Watches};

const FILE: &str = "policies.last-good";
const FORM: &str = "atoll-gateway-policies-1";
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
    pub(crate) statuses: watch::Sender<Vec<Update>>,
    /// This replica's name.
    pub(crate) instance: String,
    /// What the hub is told of this replica.
    pub(crate) report: watch::Sender<Report>,
    pub(crate) dir: Option<PathBuf>,
}

/// What is kept on disk.
#[derive(Default, Serialize, Deserialize)]
struct Good {
    policies: Vec<RoutePolicy>,
    /// By `namespace/name`: those that policies name.
    secrets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Where backends of filters were.
    backends: BTreeMap<String, Vec<Kept>>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    cluster: Option<String>,
    host: String,
    port: u16,
}

/// Follows until `shutdown`.
pub(crate) async fn follow(given: Follow, shutdown: CancellationToken) {
    let mut tasks = JoinSet::new();
    let (changed, changes) = watch::channel(0_u64);
    let policies = start(&given.client, watcher::Config::default(), &changed, &mut tasks);
    let secret = |kind: &str| watcher::Config::default().fields(&format!("type={kind}"));
    let opaque = start(&given.client, secret("Opaque"), &changed, &mut tasks);
    let users = start(&given.client, secret("kubernetes.io/basic-auth"), &changed, &mut tasks);
    let good = load(given.dir.clone()).await;
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
        said: Vec::new(),
        derived: Default::default(),
    };
    let _ = shutdown.run_until_cancelled(following.go(changes)).await;
    tasks.shutdown().await;
}

/// Follows one kind in `tasks`.
fn start<K>(
    client: &Client,
    config: watcher::Config,
    changed: &watch::Sender<u64>,
    tasks: &mut JoinSet<()>,
) -> Watched<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let changed = changed.clone();
    let (watched, following) = Watched::open(client, config, |_| (), move |_| changed.send_modify(|n| *n += 1));
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
    said: Vec<Judged>,
    /// What Ingresses became before, and what they are now.
    derived: [Arc<Derived>; 2],
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
        let own = plane.shares.demand(elapsed);
        let followed = self.given.topology.borrow();
        let name = &self.given.instance;
        let is_live = |site: &&Arc<Site>| site.kind == "gateway" && !site.silent && site.instance != *name;
        let mut others: Vec<&Arc<Site>> = followed.topology.sites.values().filter(is_live).collect();
        others.sort_by(|a, b| a.instance.cmp(&b.instance));
        let rank = others.iter().filter(|site| site.instance < *name).count();
        if followed.heard.is_some_and(|heard| now.duration_since(heard) < FRESH) {
            let mut all: Vec<&Demand> = others.iter().map(|site| &site.asked).collect();
            all.insert(rank, &own);
            plane.shares.divide(&all, rank);
        } else {
            plane.shares.equal(others.len() + 1, rank);
        }
        drop(followed);
        self.given.report.send_if_modified(|report| {
            let is_other = report.site.asked != own;
            if is_other {
                report.site.asked = own;
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
            _ => self.policies.store.state(),
        };
        objects.extend(self.of_ingresses(&derived));
        objects.sort_by_cached_key(|policy| age(&**policy));
        let (secrets, backends) = self.referred(&objects, listed);
        let now = Materials { objects, secrets, backends };
        if self.before.as_ref().is_none_or(|before| !before.are(&now)) {
            self.make(&now);
            if listed {
                self.save(&now).await;
            }
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
    }

    /// What the policies refer to, as it is now.
    fn referred(&self, objects: &[Arc<RoutePolicy>], listed: bool) -> (Secrets, Found) {
        let (mut secrets, mut found) = (Secrets::new(), Found::new());
        let topology = Arc::clone(&self.given.topology.borrow().topology);
        let slices = self.backends.slices_of(&services(objects));
        for policy in objects {
            let namespace = policy.namespace().unwrap_or_default();
            let set = policy.labels().get(atoll_api::kinds::CLUSTER_SET_LABEL).map(String::as_str);
            for step in &policy.spec.filters {
                if let Some(name) = step.parameters.get("secretRef").and_then(|r| r.get("name")?.as_str()) {
                    let at = format!("{namespace}/{name}");
                    let known = if listed {
                        self.secret(&namespace, name)
                    } else {
                        self.good.as_ref().and_then(|g| g.secrets.get(&at).cloned())
                    };
                    secrets.extend(known.map(|data| (at, data)));
                }
                let Some(written) = step.parameters.get("backendRef") else { continue };
                let Ok(written) = serde_json::from_value::<BackendRef>(written.clone()) else { continue };
                let key = key(&written, &namespace, set);
                let now = self.backends.find(&slices, &written, &namespace, set, &topology);
                let at = now.or_else(|why| {
                    let kept = self.good.as_ref().filter(|_| !listed).and_then(|good| good.backends.get(&key));
                    let back = |k: &Kept| At { cluster: k.cluster.clone(), host: k.host.clone(), port: k.port };
                    kept.map(|all| all.iter().map(back).collect()).ok_or(why)
                });
                found.insert(key, at);
            }
        }
        (secrets, found)
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        let at = reflector::ObjectRef::new(name).within(namespace);
        let secret = self.opaque.store.get(&at).or_else(|| self.users.store.get(&at))?;
        Some(secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect())
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
            let newest = self.policies.store.get(&reflector::ObjectRef::from_obj(&*judged.object))?;
            let missing = judged.targets.iter().find(|t| !self.given.watches.has(t)).map(|t| {
                let section = t.section.as_ref().map(|s| format!("/{s}")).unwrap_or_default();
                format!("targetRefs: {} `{}{section}` does not exist", t.kind, t.name)
            });
            let others = self.given.watches.others(owners, judged);
            policies::update(&newest, judged, &gateways(judged), missing, &others, now)
        });
        let updates: Vec<Update> = each.collect();
        let differ = |held: &[Update]| {
            held.len() != updates.len()
                || held.iter().zip(&updates).any(|(a, b)| a.version != b.version || a.status != b.status)
        };
        if differ(&self.given.statuses.borrow()) {
            self.given.statuses.send_replace(updates);
        }
    }

    async fn save(&self, Materials { objects, secrets, backends }: &Materials) {
        let Some(dir) = self.given.dir.clone() else { return };
        let plain = |policy: &Arc<RoutePolicy>| {
            let mut policy = RoutePolicy::clone(policy);
            policy.metadata.managed_fields = None;
            policy
        };
        let objects = objects.iter().filter(|policy| !ingress::is_ours(&***policy));
        let kept = |at: &At| Kept { cluster: at.cluster.clone(), host: at.host.clone(), port: at.port };
        let found =
            backends.iter().filter_map(|(key, at)| Some((key.clone(), at.as_ref().ok()?.iter().map(kept).collect())));
        let good = Good { policies: objects.map(plain).collect(), secrets: secrets.clone(), backends: found.collect() };
        let hub = self.given.topology.borrow().topology.settings.hub_id.clone();
        let Ok(body) = serde_json::to_vec(&good) else { return };
        let file = kept::encode(FORM, &hub, &serde_json::Value::Null, &body);
        match tokio::task::spawn_blocking(move || kept::write(&dir, FILE, &file)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "last good policies not written"),
            Err(broken) => tracing::warn!(%broken, "last good policies not written"),
        }
    }
}

/// What policies are made of.
struct Materials {
    objects: Vec<Arc<RoutePolicy>>,
    secrets: Secrets,
    backends: Found,
}

impl Materials {
    /// Whether the same would be made of `other`: a status is nothing to make anything of.
    fn are(&self, other: &Self) -> bool {
        let is_same = |(a, b): (&Arc<RoutePolicy>, &Arc<RoutePolicy>)| {
            let named = |p: &RoutePolicy| (p.namespace(), p.name_any());
            Arc::ptr_eq(a, b) || named(a) == named(b) && a.labels() == b.labels() && a.spec == b.spec
        };
        self.objects.len() == other.objects.len()
            && self.objects.iter().zip(&other.objects).all(is_same)
            && self.secrets == other.secrets
            && self.backends == other.backends
    }
}

type Secrets = BTreeMap<String, BTreeMap<String, Vec<u8>>>;
type Found = HashMap<String, Result<Vec<At>, String>>;

/// The Services that policies may mean.
fn services(objects: &[Arc<RoutePolicy>]) -> BTreeSet<(String, String)> {
    let of = |policy: &Arc<RoutePolicy>| {
        let namespace = policy.namespace().unwrap_or_default();
        let names = policy.spec.filters.iter().filter_map(|s| s.parameters.get("backendRef")?.get("name")?.as_str());
        names.map(|name| (namespace.clone(), name.to_owned())).collect::<Vec<_>>()
    };
    objects.iter().flat_map(of).collect()
}

fn key(written: &BackendRef, namespace: &str, set: Option<&str>) -> String {
    let (group, kind) = (written.group.as_deref().unwrap_or(""), written.kind.as_deref().unwrap_or("Service"));
    format!("{group} {kind} {namespace}/{}:{} {}", written.name, written.port, set.unwrap_or_default())
}

async fn load(dir: Option<PathBuf>) -> Option<Good> {
    let path = dir?.join(FILE);
    let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await.ok()?.ok()?;
    match kept::decode(FORM, &read, None) {
        Ok((_, body)) => serde_json::from_slice(body).ok(),
        Err(error) => {
            tracing::warn!(file = FILE, %error, "last good policies not used");
            None
        }
    }
}
