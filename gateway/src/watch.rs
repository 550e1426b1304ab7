//! Watches: one a kind, read from memory, opened again for ever.
//!
//! In: a client, and the last good objects. Out: [`Objects`], a signal at every change, and which objects changed. A kind that was not
//! listed in this life yet stands as it was last good; an API server that is dead changes nothing. Never writes.

mod kind;
mod known;
mod target;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_api::kinds::gateway::{
    BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet, ReferenceGrant, TCPRoute, TLSRoute,
    UDPRoute,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::runtime::watcher;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use self::kind::{Again, Watched};
use self::kind::{Touched, only_annotations, only_authorities, only_authority};
pub(crate) use self::known::Known;
use crate::ingress::{self, Derived, Settings};
use crate::metrics::Metrics;
use crate::objects::{
    Edit, GrpcRoute, HttpRoute, Kept, Kind, Name, Objects, Shelf, Slices, TcpRoute, TlsRoute, UdpRoute, name_of,
};
use crate::pods::Labelled;

/// Which definition is looked at.
const HTTP_ROUTES: &str = "metadata.name=httproutes.gateway.networking.k8s.io";
/// So long a table waits for the policies of Ingresses.
const GUARDED_MAX: Duration = Duration::from_secs(1);

/// The watches of all kinds.
pub(crate) struct Watches {
    definitions: Watched<CustomResourceDefinition>,
    classes: Watched<GatewayClass>,
    gateways: Watched<Gateway>,
    sets: Watched<ListenerSet>,
    routes: Watched<HttpRoute>,
    grpc: Watched<GrpcRoute>,
    tls: Watched<TlsRoute>,
    tcp: Watched<TcpRoute>,
    udp: Watched<UdpRoute>,
    policies: Watched<BackendTLSPolicy>,
    grants: Watched<ReferenceGrant>,
    secrets: Watched<Secret>,
    /// Those that hold nothing but authorities.
    bundles: Watched<Secret>,
    configs: Watched<ConfigMap>,
    services: Watched<Service>,
    slices: Watched<EndpointSlice>,
    namespaces: Watched<Namespace>,
    ingresses: Watched<Ingress>,
    ingress_classes: Watched<IngressClass>,
    /// Which Ingresses are ours.
    settings: Settings,
    /// What they become, and up to which of that the policies are in force.
    derived: watch::Sender<Arc<Derived>>,
    in_force: watch::Sender<Option<u64>>,
    /// What was last good, for kinds that were not listed yet.
    before: Objects,
    touched: Arc<Mutex<Touched>>,
    changed: watch::Receiver<u64>,
}

impl Watches {
    /// Starts the watches in `tasks`, each until `shutdown`.
    pub(crate) fn start(
        client: &Client,
        before: Objects,
        settings: Settings,
        metrics: &Metrics,
        tasks: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) -> Arc<Self> {
        let (changed, changes) = watch::channel(0);
        let touched = Arc::default();
        let mut start = Start { client, metrics, tasks, changed, touched: Arc::clone(&touched), shutdown };
        let all = watcher::Config::default;
        Arc::new(Self {
            definitions: start.follow_part(all().fields(HTTP_ROUTES), only_annotations),
            classes: start.follow(all()),
            gateways: start.follow(all()),
            sets: start.follow(all()),
            routes: start.follow_as::<HTTPRoute, _>(all()),
            grpc: start.follow_as::<GRPCRoute, _>(all()),
            tls: start.follow_as::<TLSRoute, _>(all()),
            tcp: start.follow_as::<TCPRoute, _>(all()),
            udp: start.follow_as::<UDPRoute, _>(all()),
            policies: start.follow(all()),
            grants: start.follow(all()),
            secrets: start.follow(all().fields("type=kubernetes.io/tls")),
            bundles: start.follow_part(all().fields("type=Opaque"), only_authorities),
            configs: start.follow_part(all(), only_authority),
            services: start.follow(all()),
            slices: start.follow(all()),
            namespaces: start.follow(all()),
            ingresses: start.follow(all()),
            ingress_classes: start.follow(all()),
            settings,
            derived: watch::Sender::default(),
            in_force: watch::Sender::new(None),
            before,
            touched,
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
            && self.bundles.is_listed()
            && self.configs.is_listed()
            && self.services.is_listed()
            && self.slices.is_listed()
            && self.namespaces.is_listed()
            && self.ingresses.is_listed()
            && self.ingress_classes.is_listed()
    }

    /// Brings `objects` up to date. Returns what that means; more than is told apart is a whole. `anew`: everything is looked at.
    pub(crate) fn update(&self, objects: &mut Objects, anew: bool) -> Vec<Edit> {
        let touched = std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner));
        if touched.whole || anew {
            let (derived, names) = (Arc::clone(&objects.derived), Arc::clone(&objects.names));
            *objects = Objects { derived, names, pods: objects.pods.clone(), ..self.objects() };
            self.derive(objects);
            return vec![Edit::Whole];
        }
        let mut edits: Vec<Edit> =
            touched.names.iter().flat_map(|(kind, name)| self.take(*kind, name, objects)).collect();
        if edits.iter().any(|edit| matches!(edit, Edit::Ingress | Edit::Whole)) {
            edits.extend(self.derive(objects));
        }
        edits
    }

    /// Looks at what Ingresses become.
    fn derive(&self, objects: &mut Objects) -> Vec<Edit> {
        let edits = ingress::derive(objects, &self.settings);
        if !Arc::ptr_eq(&self.derived.borrow(), &objects.derived) {
            for port in &objects.derived.unpassed {
                tracing::warn!(port.map, port = port.finding.what, why = port.finding.why, "a port is not passed on");
            }
            self.derived.send_replace(Arc::clone(&objects.derived));
        }
        edits
    }

    /// What Ingresses become, for whoever makes policies of it.
    pub(crate) fn derived(&self) -> watch::Receiver<Arc<Derived>> {
        self.derived.subscribe()
    }

    /// Policies are known, and those of that are in force.
    pub(crate) fn guarded(&self, generation: u64) {
        self.in_force.send_replace(Some(generation));
    }

    /// Waits until policies are known at all.
    pub(crate) async fn until_known(&self) {
        let _ = self.in_force.subscribe().wait_for(Option::is_some).await;
    }

    /// Waits a while until the policies of what Ingresses became are in force: what comes without them is refused.
    pub(crate) async fn until_guarded(&self) {
        let derived = Arc::clone(&self.derived.borrow());
        if derived.is_guarded() {
            let mut in_force = self.in_force.subscribe();
            let _ =
                tokio::time::timeout(GUARDED_MAX, in_force.wait_for(|known| *known >= Some(derived.generation))).await;
        }
    }

    fn take(&self, kind: Kind, name: &Name, objects: &mut Objects) -> Vec<Edit> {
        match kind {
            Kind::Definition => self.definitions.take(name, objects),
            Kind::Class => self.classes.take(name, objects),
            Kind::Gateway => self.gateways.take(name, objects),
            Kind::Set => self.sets.take(name, objects),
            Kind::Http => self.routes.take(name, objects),
            Kind::Grpc => self.grpc.take(name, objects),
            Kind::Tls => self.tls.take(name, objects),
            Kind::Tcp => self.tcp.take(name, objects),
            Kind::Udp => self.udp.take(name, objects),
            Kind::Policy => self.policies.take(name, objects),
            Kind::Grant => self.grants.take(name, objects),
            Kind::Secret => objects.take(name, self.secrets.known.at(name).or_else(|| self.bundle(name))),
            Kind::Config => self.configs.take(name, objects),
            Kind::Service => self.services.take(name, objects),
            Kind::Slice => self.slices.take(name, objects),
            Kind::Namespace => self.namespaces.take(name, objects),
            Kind::Ingress => self.ingresses.take(name, objects),
            Kind::IngressClass => self.ingress_classes.take(name, objects),
        }
    }

    /// One that holds authorities; of the others of its kind nothing is looked at.
    fn bundle(&self, name: &Name) -> Option<Arc<Secret>> {
        self.bundles.known.at(name).filter(|secret| secret.data.is_some())
    }

    /// Those with certificates, and those with authorities.
    fn all_secrets(&self) -> Shelf<Secret> {
        if !self.secrets.is_listed() || !self.bundles.is_listed() {
            return self.before.secrets.clone();
        }
        let (bundles, mut all) = (self.bundles.known.all(), self.secrets.known.all());
        for bundle in bundles.iter().filter(|secret| secret.data.is_some()) {
            all.set(&name_of(&**bundle), Some(Arc::clone(bundle)));
        }
        all
    }

    fn all_slices(&self) -> Slices {
        if self.slices.is_listed() {
            self.slices.known.all().iter().cloned().collect()
        } else {
            self.before.slices.clone()
        }
    }

    /// What is known now.
    fn objects(&self) -> Objects {
        Objects {
            definitions: self.definitions.objects(&self.before.definitions),
            classes: self.classes.objects(&self.before.classes),
            gateways: self.gateways.objects(&self.before.gateways),
            sets: self.sets.objects(&self.before.sets),
            routes: self.routes.objects(&self.before.routes),
            grpc: self.grpc.objects(&self.before.grpc),
            tls: self.tls.objects(&self.before.tls),
            tcp: self.tcp.objects(&self.before.tcp),
            udp: self.udp.objects(&self.before.udp),
            policies: self.policies.objects(&self.before.policies),
            grants: self.grants.objects(&self.before.grants),
            secrets: self.all_secrets(),
            configs: self.configs.objects(&self.before.configs),
            services: self.services.objects(&self.before.services),
            slices: self.all_slices(),
            namespaces: self.namespaces.objects(&self.before.namespaces),
            ingresses: self.ingresses.objects(&self.before.ingresses),
            ingress_classes: self.ingress_classes.objects(&self.before.ingress_classes),
            derived: Arc::default(),
            balancers: Arc::default(),
            over: Arc::default(),
            names: Arc::default(),
            pods: Labelled::default(),
        }
    }
}

struct Start<'a> {
    client: &'a Client,
    metrics: &'a Metrics,
    tasks: &'a mut JoinSet<()>,
    changed: watch::Sender<u64>,
    touched: Arc<Mutex<Touched>>,
    shutdown: &'a CancellationToken,
}

impl Start<'_> {
    fn follow<K>(&mut self, config: watcher::Config) -> Watched<K>
    where
        K: Kept + Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
        K::DynamicType: Default + Eq + std::hash::Hash + Clone + Send + Sync,
    {
        self.follow_as::<K, K>(config)
    }

    /// Follows a kind that is held otherwise than it is written.
    fn follow_as<W, K>(&mut self, config: watcher::Config) -> Watched<K>
    where
        W: Resource + Clone + Into<K> + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
        W::DynamicType: Default + Eq + std::hash::Hash + Clone + Send + Sync,
        K: Kept + Send + Sync,
    {
        self.follow_part(config, |_: &mut W| ())
    }

    /// Follows a kind of which `trim` leaves only what is looked at.
    fn follow_part<W, K>(&mut self, config: watcher::Config, trim: fn(&mut W)) -> Watched<K>
    where
        W: Resource + Clone + Into<K> + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
        W::DynamicType: Default + Eq + std::hash::Hash + Clone + Send + Sync,
        K: Kept + Send + Sync,
    {
        let (changed, touched) = (self.changed.clone(), Arc::clone(&self.touched));
        let told = move |object: Option<&W>| {
            let mut touched = touched.lock().unwrap_or_else(PoisonError::into_inner);
            match object {
                Some(object) => touched.one(K::KIND, name_of(object)),
                None => touched.whole(),
            }
            drop(touched);
            changed.send_modify(|n| *n += 1);
        };
        let (watched, following) = Watched::open(self.client, self.metrics, config, trim, told);
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            shutdown.run_until_cancelled(following).await;
        });
        watched
    }
}
