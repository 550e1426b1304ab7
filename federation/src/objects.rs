//! The objects that the hub works on, as its API server last said: one watch a kind, read from memory.
//!
//! In: a client. Out: [`Objects`] and a signal at every change. Never writes.

use std::sync::Arc;

use atoll_api::kinds::{
    Assignment, Bundle, Catalog, Cluster, DNSEndpoint, PlacementPolicy, Registry, ReplicationApproval,
    ReplicationPolicy, ReplicationRequest, SYSTEM_NAMESPACE, ServiceImport, TrafficPolicy, Zone,
};
use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::core::ClusterResourceScope;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Kinds whose changes are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    Clusters,
    Traffic,
    /// Zones, records, and what zones refer to.
    Names,
    /// What the hub itself writes of the members' exports; nobody but the topology and its writer looks at them.
    Imports,
    Others,
}

/// A signal for each topic, and one for all but the imports.
#[derive(Debug, Default)]
struct Signals {
    topics: [watch::Sender<u64>; 5],
    any: watch::Sender<u64>,
}

impl Signals {
    fn tell(&self, topic: Topic) {
        self.topics[topic as usize].send_modify(|n| *n += 1);
        if topic != Topic::Imports {
            self.any.send_modify(|n| *n += 1);
        }
    }
}

/// Every kind that the hub follows.
pub(crate) struct Objects {
    pub(crate) clusters: Store<Cluster>,
    pub(crate) bundles: Store<Bundle>,
    pub(crate) placement_policies: Store<PlacementPolicy>,
    pub(crate) assignments: Store<Assignment>,
    pub(crate) traffic: Store<TrafficPolicy>,
    pub(crate) zones: Store<Zone>,
    pub(crate) records: Store<DNSEndpoint>,
    pub(crate) imports: Store<ServiceImport>,
    pub(crate) registries: Store<Registry>,
    pub(crate) replication_policies: Store<ReplicationPolicy>,
    pub(crate) requests: Store<ReplicationRequest>,
    pub(crate) approvals: Store<ReplicationApproval>,
    pub(crate) catalogs: Store<Catalog>,
    /// Those of `atoll-system`: TSIG and signing keys are among them.
    pub(crate) secrets: Store<Secret>,
    /// Those of `atoll-system`: zone files are among them.
    pub(crate) config_maps: Store<ConfigMap>,
    signals: Arc<Signals>,
}

impl Objects {
    /// Starts the watches in `tasks` and waits for the first list of every kind.
    pub(crate) async fn watch(client: &Client, tasks: &mut JoinSet<()>) -> Arc<Self> {
        let signals = Arc::<Signals>::default();
        let mut kinds = Kinds { client, tasks, signals: Arc::clone(&signals) };
        let objects = Self {
            clusters: kinds.follow(Topic::Clusters),
            bundles: kinds.follow(Topic::Others),
            placement_policies: kinds.follow(Topic::Others),
            assignments: kinds.follow(Topic::Others),
            traffic: kinds.follow(Topic::Traffic),
            zones: kinds.follow(Topic::Names),
            records: kinds.follow(Topic::Names),
            imports: kinds.follow(Topic::Imports),
            registries: kinds.follow(Topic::Others),
            replication_policies: kinds.follow(Topic::Others),
            requests: kinds.follow(Topic::Others),
            approvals: kinds.follow(Topic::Others),
            catalogs: kinds.follow(Topic::Others),
            secrets: kinds.follow_in(Api::namespaced(client.clone(), SYSTEM_NAMESPACE), Topic::Names),
            config_maps: kinds.follow_in(Api::namespaced(client.clone(), SYSTEM_NAMESPACE), Topic::Names),
            signals,
        };
        objects.wait().await;
        Arc::new(objects)
    }

    async fn wait(&self) {
        let (one, two) = tokio::join!(
            async {
                let _ = self.clusters.wait_until_ready().await;
                let _ = self.bundles.wait_until_ready().await;
                let _ = self.placement_policies.wait_until_ready().await;
                let _ = self.assignments.wait_until_ready().await;
                let _ = self.traffic.wait_until_ready().await;
                self.zones.wait_until_ready().await
            },
            async {
                let _ = self.records.wait_until_ready().await;
                let _ = self.imports.wait_until_ready().await;
                let _ = self.registries.wait_until_ready().await;
                let _ = self.replication_policies.wait_until_ready().await;
                let _ = self.requests.wait_until_ready().await;
                let _ = self.approvals.wait_until_ready().await;
                let _ = self.secrets.wait_until_ready().await;
                let _ = self.config_maps.wait_until_ready().await;
                self.catalogs.wait_until_ready().await
            }
        );
        if let Err(error) = one.and(two) {
            tracing::error!(%error, "a watch ended before its first list");
        }
    }

    /// Tells of every change of any kind but ServiceImports.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.signals.any.subscribe()
    }

    /// Tells of every change of these kinds.
    pub(crate) fn changes_of(&self, topic: Topic) -> watch::Receiver<u64> {
        self.signals.topics[topic as usize].subscribe()
    }
}

struct Kinds<'a> {
    client: &'a Client,
    tasks: &'a mut JoinSet<()>,
    signals: Arc<Signals>,
}

impl Kinds<'_> {
    fn follow<K>(&mut self, topic: Topic) -> Store<K>
    where
        K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
        K::DynamicType: Default + Eq + std::hash::Hash + Clone + Send + Sync,
        K::Scope: Scope,
    {
        self.follow_in(Api::all(self.client.clone()), topic)
    }

    fn follow_in<K>(&mut self, api: Api<K>, topic: Topic) -> Store<K>
    where
        K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
        K::DynamicType: Default + Eq + std::hash::Hash + Clone + Send + Sync,
    {
        let (reader, writer) = reflector::store::<K>();
        let signals = Arc::clone(&self.signals);
        let kind = K::kind(&K::DynamicType::default()).into_owned();
        self.tasks.spawn(async move {
            let events = reflector::reflector(writer, watcher(api, watcher::Config::default()).default_backoff());
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                match event {
                    Ok(_) => signals.tell(topic),
                    Err(error) => tracing::warn!(kind, %error, "watch interrupted, goes on"),
                }
            }
        });
        reader
    }
}

/// Any scope.
trait Scope {}
impl Scope for NamespaceResourceScope {}
impl Scope for ClusterResourceScope {}
