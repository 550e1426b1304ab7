//! Watches: one a kind, read from memory, opened again for ever.
//!
//! In: a client, and the last good objects. Out: [`Objects`] and a signal at every change. A kind that was not listed in this life
//! yet stands as it was last good; an API server that is dead changes nothing. Never writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atoll_api::kinds::gateway::{
    BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet, ReferenceGrant, TCPRoute, TLSRoute,
    UDPRoute,
};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::objects::Objects;
use crate::tls::AUTHORITY_KEY;

/// Which definition is looked at.
const HTTP_ROUTES: &str = "metadata.name=httproutes.gateway.networking.k8s.io";
const BACKOFF_MIN: Duration = Duration::from_millis(300);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The watches of all kinds.
pub(crate) struct Watches {
    definitions: Kind<CustomResourceDefinition>,
    classes: Kind<GatewayClass>,
    gateways: Kind<Gateway>,
    sets: Kind<ListenerSet>,
    routes: Kind<HTTPRoute>,
    grpc: Kind<GRPCRoute>,
    tls: Kind<TLSRoute>,
    tcp: Kind<TCPRoute>,
    udp: Kind<UDPRoute>,
    policies: Kind<BackendTLSPolicy>,
    grants: Kind<ReferenceGrant>,
    secrets: Kind<Secret>,
    configs: Kind<ConfigMap>,
    services: Kind<Service>,
    slices: Kind<EndpointSlice>,
    namespaces: Kind<Namespace>,
    changed: watch::Receiver<u64>,
}

/// One kind: its store, whether it was listed in this life, and what was last good.
struct Kind<K: Resource + 'static>
where
    K::DynamicType: Eq + std::hash::Hash + Clone,
{
    store: Store<K>,
    listed: Arc<AtomicBool>,
    before: Vec<Arc<K>>,
}

impl<K: Resource + Clone + 'static> Kind<K>
where
    K::DynamicType: Eq + std::hash::Hash + Clone,
{
    fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    /// In order of namespace and name, so that the same objects make the same table.
    fn objects(&self) -> Vec<Arc<K>> {
        let mut all = if self.is_listed() { self.store.state() } else { self.before.clone() };
        all.sort_by_cached_key(|k| (k.namespace(), k.name_any()));
        all
    }
}

impl Watches {
    /// Starts the watches in `tasks`, each until `shutdown`.
    pub(crate) fn start(
        client: &Client,
        before: Objects,
        tasks: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) -> Arc<Self> {
        let (changed, changes) = watch::channel(0);
        let mut start = Start { client, tasks, changed, shutdown };
        let all = watcher::Config::default;
        Arc::new(Self {
            definitions: start.follow(Vec::new(), all().fields(HTTP_ROUTES)),
            classes: start.follow(before.classes, all()),
            gateways: start.follow(before.gateways, all()),
            sets: start.follow(before.sets, all()),
            routes: start.follow(before.routes, all()),
            grpc: start.follow(before.grpc, all()),
            tls: start.follow(before.tls, all()),
            tcp: start.follow(before.tcp, all()),
            udp: start.follow(before.udp, all()),
            policies: start.follow(before.policies, all()),
            grants: start.follow(before.grants, all()),
            secrets: start.follow(before.secrets, all().fields("type=kubernetes.io/tls")),
            configs: start.follow_part(before.configs, all(), only_authority),
            services: start.follow(before.services, all()),
            slices: start.follow(before.slices, all()),
            namespaces: start.follow(before.namespaces, all()),
            changed: changes,
        })
    }

    /// Tells of every change of any kind.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// Whether every kind was listed in this life.
    pub(crate) fn are_listed(&self) -> bool {
        self.definitions.is_listed()
            && self.classes.is_listed()
            && self.gateways.is_listed()
            && self.sets.is_listed()
            && self.routes.is_listed()
            && self.grpc.is_listed()
            && self.tls.is_listed()
            && self.tcp.is_listed()
            && self.udp.is_listed()
            && self.policies.is_listed()
            && self.grants.is_listed()
            && self.secrets.is_listed()
            && self.configs.is_listed()
            && self.services.is_listed()
            && self.slices.is_listed()
            && self.namespaces.is_listed()
    }

    /// What is known now.
    pub(crate) fn objects(&self) -> Objects {
        Objects {
            definitions: self.definitions.objects(),
            classes: self.classes.objects(),
            gateways: self.gateways.objects(),
            sets: self.sets.objects(),
            routes: self.routes.objects(),
            grpc: self.grpc.objects(),
            tls: self.tls.objects(),
            tcp: self.tcp.objects(),
            udp: self.udp.objects(),
            policies: self.policies.objects(),
            grants: self.grants.objects(),
            secrets: self.secrets.objects(),
            configs: self.configs.objects(),
            services: self.services.objects(),
            slices: self.slices.objects(),
            namespaces: self.namespaces.objects(),
        }
    }
}

struct Start<'a> {
    client: &'a Client,
    tasks: &'a mut JoinSet<()>,
    changed: watch::Sender<u64>,
    shutdown: &'a CancellationToken,
}

/// Of a ConfigMap nothing else is looked at.
fn only_authority(map: &mut ConfigMap) {
    map.binary_data = None;
    if let Some(data) = &mut map.data {
        data.retain(|key, _| key == AUTHORITY_KEY);
    }
}

impl Start<'_> {
    fn follow<K>(&mut self, before: Vec<Arc<K>>, config: watcher::Config) -> Kind<K>
    where
        K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
        K::DynamicType: Default + Eq + std::hash::Hash + Clone + Send + Sync,
    {
        self.follow_part(before, config, |_| ())
    }

    /// Follows a kind of which `trim` leaves only what is looked at.
    fn follow_part<K>(&mut self, before: Vec<Arc<K>>, config: watcher::Config, trim: fn(&mut K)) -> Kind<K>
    where
        K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
        K::DynamicType: Default + Eq + std::hash::Hash + Clone + Send + Sync,
    {
        let (store, writer) = reflector::store::<K>();
        let listed = Arc::new(AtomicBool::new(false));
        let api: Api<K> = Api::all(self.client.clone());
        let (changed, seen, shutdown) = (self.changed.clone(), Arc::clone(&listed), self.shutdown.clone());
        let kind = K::kind(&K::DynamicType::default()).into_owned();
        self.tasks.spawn(async move {
            let events = watcher(api, config).backoff(Again::default()).modify(|object| {
                object.meta_mut().managed_fields = None;
                trim(object);
            });
            let events = reflector::reflector(writer, events);
            let mut events = std::pin::pin!(events);
            while let Some(Some(event)) = shutdown.run_until_cancelled(events.next()).await {
                match event {
                    // The store swaps its content only once a list is complete.
                    Ok(Event::Init | Event::InitApply(_)) => {}
                    Ok(Event::InitDone) => {
                        seen.store(true, Ordering::Release);
                        changed.send_modify(|n| *n += 1);
                    }
                    Ok(Event::Apply(_) | Event::Delete(_)) => changed.send_modify(|n| *n += 1),
                    // A kind that is not served has no objects; it is asked for again, so that one that comes later is seen. Definitions
                    // may be hidden from us: then all fields are thought to be there.
                    Err(watcher::Error::InitialListFailed(kube::Error::Api(status)))
                        if status.code == 404 || status.code == 403 && kind == "CustomResourceDefinition" =>
                    {
                        if !seen.swap(true, Ordering::AcqRel) {
                            tracing::warn!(kind, "the API server does not show this kind");
                            changed.send_modify(|n| *n += 1);
                        }
                    }
                    Err(error) => tracing::warn!(kind, %error, "watch interrupted, goes on"),
                }
            }
        });
        Kind { store, listed, before }
    }
}

/// How long a watch that broke waits: twice as long each time, up to a bound that keeps a hub that is back from being missed for long.
#[derive(Default)]
struct Again {
    last: Duration,
}

impl Iterator for Again {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.last = (self.last * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
        Some(self.last)
    }
}

impl Backoff for Again {
    fn reset(&mut self) {
        self.last = Duration::ZERO;
    }
}
