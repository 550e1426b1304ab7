//! The gateway under test with what it follows: a hub's API in memory, and a topology that says which pods are ready.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::{Channel, gateway_api_crds};
use atoll_api::names::ServiceName;
use atoll_api::topology::{
    ClusterFacts, Endpoint, EndpointPort, Endpoints, ServiceFacts, ServicePort, Standing, Topology,
};
use atoll_apiserver::{ApiServer, Storage};
use atoll_gateway::{Config, Resources};
use atoll_reach::{Connect, Dialer, Listen as _, RelayTable, Route, Routes, System};
use atoll_wire::follow::{Report, Snapshot};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::network::Cluster;
use crate::Result;
use crate::objects::apply;

/// A gateway that serves until this goes.
pub(super) struct Stage {
    pub(super) http: SocketAddr,
    topology: watch::Sender<Snapshot>,
    report: watch::Receiver<Report>,
    _end: tokio_util::sync::DropGuard,
    _api: ApiServer,
}

impl Stage {
    /// Starts it in region `eu`, before the clusters given.
    pub(super) async fn start(clusters: &[&Cluster]) -> Result<Self> {
        let namespaces = ["default", "atoll-system", "infra", "shop"].map(Into::into).into();
        let config = atoll_apiserver::Config { namespaces, ..atoll_apiserver::Config::default() };
        let api = ApiServer::open(config, Storage::Memory).await?;
        let crds: Api<CustomResourceDefinition> = Api::all(api.client());
        for crd in gateway_api_crds(Channel::Experimental) {
            crds.create(&PostParams::default(), &crd).await?;
        }
        let all = json!({"namespaces": {"from": "All"}});
        apply(
            api.client(),
            json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "main", "namespace": "infra"}, "spec": {"gatewayClassName": "atoll",
                "listeners": [{"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": all}]}}),
        )
        .await?;
        let import = json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "web", "port": 80});
        apply(
            api.client(),
            json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"parentRefs": [{"name": "main", "namespace": "infra"}], "rules": [{"backendRefs": [import]}]}}),
        )
        .await?;

        let system = System::new(Duration::from_secs(1));
        let (topology, followed) = watch::channel(heard(clusters));
        let (report, reported) = watch::channel(Report::default());
        let connect: Arc<dyn Connect> = Arc::new(system.clone());
        let routes = Routes::default();
        routes.set(clusters.iter().map(|c| (c.name.to_owned(), Route::Direct)).collect::<HashMap<_, _>>());
        let http = system.tcp("127.0.0.1:0".parse()?).await?;
        let at = http.local_addr();
        let resources = Resources {
            topology: followed,
            dialer: Dialer::new(Arc::clone(&connect), RelayTable::default(), routes),
            report,
            connect,
            listen: Arc::new(system.clone()),
            http,
            https: system.tcp("127.0.0.1:0".parse()?).await?,
            client: api.client(),
            roots: Arc::new(rustls::RootCertStore::empty()),
            metrics: prometheus::Registry::new(),
            last_good: None,
            access: None,
            started: None,
        };
        let standing = Standing { region: Some("eu".to_owned()), ..Standing::default() };
        let end = CancellationToken::new();
        tokio::spawn(atoll_gateway::run(Config { standing, ..Config::default() }, resources, end.clone()));
        Ok(Self { http: at, topology, report: reported, _end: end.drop_guard(), _api: api })
    }

    /// The hub says who is ready now.
    pub(super) fn publish(&self, clusters: &[&Cluster]) {
        self.topology.send_replace(heard(clusters));
    }

    /// Waits until the gateway says so of a cluster; when that was.
    pub(super) async fn until(&self, cluster: &str, well: bool, within: Duration) -> Result<Instant> {
        let mut report = self.report.clone();
        let said = report.wait_for(|report| report.probes.get(cluster) == Some(&well));
        timeout(within, said).await.map_err(|_| format!("{cluster} does not become {well}"))??;
        Ok(Instant::now())
    }
}

fn heard(clusters: &[&Cluster]) -> Snapshot {
    Snapshot { topology: Arc::new(topology(clusters)), heard: Some(Instant::now()) }
}

fn topology(clusters: &[&Cluster]) -> Topology {
    let mut topology = Topology::default();
    topology.version.epoch = 1;
    topology.settings.default_set = "prod".to_owned();
    let web = ServiceName::new("shop", "web");
    for cluster in clusters {
        let facts =
            json!({"name": cluster.name, "spec": {"environment": "prod", "region": cluster.name}, "ready": true});
        let Ok(facts) = serde_json::from_value::<ClusterFacts>(facts) else { continue };
        let ready = cluster.ready();
        let ports = ready.first().map(|at| EndpointPort {
            name: "http".to_owned(),
            protocol: "TCP".to_owned(),
            port: at.port(),
        });
        let endpoints = ready.iter().map(|at| Endpoint {
            address: at.ip(),
            ready: true,
            failing: false,
            hostname: None,
            node: None,
            zone: None,
            pod: None,
            labels: BTreeMap::new(),
        });
        let endpoints =
            Endpoints { endpoints: endpoints.collect(), ports: ports.into_iter().collect(), ..Endpoints::default() };
        topology.endpoints.insert(facts.name.clone(), BTreeMap::from([(web.clone(), Arc::new(endpoints))]).into());
        topology.clusters.insert(facts.name.clone(), Arc::new(facts));
    }
    let port = ServicePort { name: "http".to_owned(), protocol: "TCP".to_owned(), port: 80, ..ServicePort::default() };
    let facts = ServiceFacts {
        clusters: clusters.iter().map(|cluster| cluster.name.to_owned()).collect(),
        ports: vec![port],
        headless: false,
    };
    topology.services.insert("prod".to_owned(), BTreeMap::from([(web, Arc::new(facts))]).into());
    topology
}
