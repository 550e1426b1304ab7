//! A gateway with everything around it: API server, topology, listeners.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::{Channel, RoutePolicy, gateway_api_crds};
use atoll_api::names::ServiceName;
use atoll_api::topology::{
    ClusterFacts, Endpoint, EndpointPort, Endpoints, ServiceFacts, ServicePort, Standing, Topology,
};
use atoll_apiserver::{ApiServer, Storage};
use atoll_gateway::{Config, LastGood, Limits, NameSettings, Resources, Server, Trusted, run};
use atoll_reach::{Connect, Dialer, Listen, RelayTable, Route, Routes, System};
use atoll_wire::follow::{Report, Snapshot};
use atoll_wire::kept::Seal;
use ipnet::IpNet;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, CustomResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::Pod;
use crate::client::{Answer, get};

const WAIT_MAX: Duration = Duration::from_secs(30);

/// How a gateway is made.
pub(crate) struct Made<'a> {
    /// Where its files are.
    pub(crate) dir: Option<&'a Path>,
    /// Who opens its ports of Gateways; nothing: the system.
    pub(crate) listen: Option<Arc<dyn Listen>>,
    /// Relay connections to the member `relayed`.
    pub(crate) relays: RelayTable,
    /// From which each Gateway gets addresses of its own.
    pub(crate) pool: Vec<IpNet>,
    pub(crate) limits: Limits,
    /// Whose word on clients counts.
    pub(crate) trusted: Trusted,
    /// Its name among gateways.
    pub(crate) instance: &'a str,
    /// Its access log.
    pub(crate) access: Option<Box<dyn std::io::Write + Send>>,
    pub(crate) traces: Option<atoll_gateway::TracesTo>,
    /// Whose connections begin with a PROXY protocol header.
    pub(crate) proxies: Vec<IpNet>,
    /// HTTP/3 is served beside HTTPS.
    pub(crate) http3: bool,
    /// Each Gateway has a Service.
    pub(crate) service: bool,
    /// The GatewayClasses of its fleet; none: all.
    pub(crate) classes: &'a [&'a str],
    /// Balancers that others own.
    pub(crate) providers: Vec<atoll_gateway::ProviderSettings>,
    /// IngressClasses beside our own.
    pub(crate) ingress_classes: Vec<String>,
    /// The ConfigMaps of ports of TCP, and of UDP.
    pub(crate) ingress_services: [Option<(String, String)>; 2],
    /// How names of backends are resolved.
    pub(crate) names: NameSettings,
}

impl Default for Made<'_> {
    fn default() -> Self {
        let times = Duration::from_secs(2);
        let limits = Limits { header_timeout: times, drain: times, ..Limits::default() };
        let (relays, trusted) = (RelayTable::default(), Trusted::default());
        Self {
            dir: None,
            listen: None,
            relays,
            pool: Vec::new(),
            limits,
            trusted,
            instance: "gateway",
            access: None,
            traces: None,
            proxies: Vec::new(),
            http3: true,
            service: false,
            classes: &[],
            providers: Vec::new(),
            ingress_classes: Vec::new(),
            ingress_services: [None, None],
            names: NameSettings::default(),
        }
    }
}

/// A gateway with everything around it.
pub(crate) struct World {
    pub(crate) api: Option<ApiServer>,
    pub(crate) client: kube::Client,
    pub(crate) topology: watch::Sender<Snapshot>,
    pub(crate) report: watch::Receiver<Report>,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) server: Server,
    metrics: prometheus::Registry,
    shutdown: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// The hub of every test.
const HUB: &str = "hub-1";

/// Files of that directory, sealed by a key that all gateways of the tests have.
pub(crate) fn last_good(dir: &Path) -> LastGood {
    LastGood { dir: dir.to_owned(), seal: Seal::new(b"the site's own secret"), hub: Some(HUB.to_owned()) }
}

impl World {
    /// A gateway in region `eu` on a new API server with a Gateway `main` in `infra` for everybody: HTTP, no host name.
    pub(crate) async fn start() -> Self {
        Self::start_as(Made::default()).await
    }

    /// The same, made otherwise.
    pub(crate) async fn start_as(made: Made<'_>) -> Self {
        let world = Self::make(made).await;
        world.apply(gateway("main", json!([listener("http", 80, "HTTP")]))).await;
        world
    }

    /// The same without a Gateway, with its files in `dir`.
    pub(crate) async fn bare(dir: Option<&Path>) -> Self {
        Self::make(Made { dir, ..Made::default() }).await
    }

    /// A gateway without a Gateway.
    pub(crate) async fn make(made: Made<'_>) -> Self {
        let config = atoll_apiserver::Config {
            namespaces: ["default", "atoll-system", "infra", "shop", "other"].map(Into::into).into(),
            ..atoll_apiserver::Config::default()
        };
        let api = ApiServer::open(config, Storage::Memory).await.unwrap();
        let crds: Api<CustomResourceDefinition> = Api::all(api.client());
        for crd in gateway_api_crds(Channel::Experimental).into_iter().chain([RoutePolicy::crd()]) {
            crds.create(&PostParams::default(), &crd).await.unwrap();
        }
        let client = api.client();
        let (topology, _) = watch::channel(Snapshot { topology: Arc::default(), heard: Some(Instant::now()) });
        Self::put_together(Some(api), client, topology, made).await
    }

    /// A gateway on what is there already, its API server dead.
    pub(crate) async fn over(client: kube::Client, topology: watch::Sender<Snapshot>, dir: Option<&Path>) -> Self {
        Self::put_together(None, client, topology, Made { dir, ..Made::default() }).await
    }

    /// Another gateway on the same API server and topology.
    pub(crate) async fn beside(&self, made: Made<'_>) -> Self {
        Self::put_together(None, self.client.clone(), self.topology.clone(), made).await
    }

    async fn put_together(
        api: Option<ApiServer>,
        client: kube::Client,
        topology: watch::Sender<Snapshot>,
        made: Made<'_>,
    ) -> Self {
        let system = System::new(Duration::from_secs(1));
        let local = "127.0.0.1:0".parse().unwrap();
        let (http, https) = (system.tcp(local).await.unwrap(), system.tcp(local).await.unwrap());
        let (http_at, https_at) = (http.local_addr(), https.local_addr());
        let connect: Arc<dyn Connect> = Arc::new(system.clone());
        let routes = Routes::default();
        let mut known: HashMap<String, Route> = ["eu", "us", "dr"].map(|name| (name.to_owned(), Route::Direct)).into();
        known.insert("relayed".to_owned(), Route::Relay);
        routes.set(known);
        let (report, reported) = watch::channel(Report::default());
        let (started, handle) = oneshot::channel();
        let metrics = prometheus::Registry::new();
        let resources = Resources {
            topology: topology.subscribe(),
            dialer: Dialer::new(Arc::clone(&connect), made.relays, routes),
            report,
            connect,
            listen: made.listen.unwrap_or_else(|| Arc::new(system)),
            http,
            https,
            client: client.clone(),
            roots: Arc::new(rustls::RootCertStore::empty()),
            metrics: metrics.clone(),
            last_good: made.dir.map(last_good),
            access: made.access,
            started: Some(started),
        };
        let standing = Standing { region: Some("eu".to_owned()), ..Standing::default() };
        let config = Config {
            instance: made.instance.to_owned(),
            standing,
            limits: made.limits,
            trusted: made.trusted,
            pool: made.pool,
            traces: made.traces,
            proxies: made.proxies,
            http3: made.http3,
            service: made.service,
            own: vec!["127.0.0.1".parse().unwrap(), "fd00::7".parse().unwrap()],
            node: Some("node-1".to_owned()),
            classes: made.classes.iter().map(|class| (*class).to_owned()).collect(),
            providers: made.providers,
            ingress_classes: made.ingress_classes,
            ingress_services: made.ingress_services,
            names: made.names,
            ..Config::default()
        };
        let shutdown = CancellationToken::new();
        let running = run(config, resources, shutdown.clone());
        let task = tokio::spawn(async move { running.await.unwrap() });
        let server = handle.await.unwrap();
        Self {
            api,
            client,
            topology,
            report: reported,
            http: http_at,
            https: https_at,
            server,
            metrics,
            shutdown,
            task: Some(task),
        }
    }

    /// A number of the metrics, of the first sample with that value of a label.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == name);
        let mut all = family.map(|family| family.get_metric()).unwrap_or_default().iter();
        let found = all.find(|metric| metric.get_label().iter().any(|l| l.value() == label));
        found.map_or(0.0, |m| m.get_counter().get_value() + m.get_gauge().get_value())
    }

    /// How many clients were cut because they did not go on with that.
    pub(crate) fn cut(&self, with: &str) -> u64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == "atoll_gateway_cut_total");
        let all = family.map(|family| family.get_metric()).unwrap_or_default();
        let counted = all.iter().filter(|metric| metric.get_label().iter().any(|label| label.value() == with));
        counted.map(|metric| metric.get_counter().get_value() as u64).sum()
    }

    /// What a gauge with those labels says, in the order of their names.
    pub(crate) fn gauge(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == name)?;
        let is_it =
            |m: &&prometheus::proto::Metric| m.get_label().iter().map(|label| label.value()).eq(labels.iter().copied());
        family.get_metric().iter().find(is_it).map(|metric| metric.get_gauge().get_value())
    }

    /// Waits until so many were cut.
    pub(crate) async fn until_cut(&self, with: &str, count: u64) {
        let started = Instant::now();
        while self.cut(with) != count {
            assert!(started.elapsed() < WAIT_MAX, "{} cut with {with}, not {count}", self.cut(with));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops the gateway and waits until it is gone.
    pub(crate) async fn stop(&mut self) {
        self.shutdown.cancel();
        tokio::time::timeout(WAIT_MAX, self.task.take().unwrap()).await.expect("it ends in time").unwrap();
    }

    /// Applies an object of any kind that we use.
    pub(crate) async fn apply(&self, object: Value) {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let (api, name) = (self.api_of(&object), object.metadata.name.clone().unwrap());
        api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await.unwrap();
    }

    /// Deletes an object of the same kind, namespace and name.
    pub(crate) async fn delete(&self, object: Value) {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let name = object.metadata.name.clone().unwrap();
        let _ = self.api_of(&object).delete(&name, &Default::default()).await.unwrap();
    }

    /// The object as the API server has it.
    pub(crate) async fn read(&self, object: Value) -> Value {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let name = object.metadata.name.clone().unwrap();
        serde_json::to_value(self.api_of(&object).get(&name).await.unwrap()).unwrap()
    }

    fn api_of(&self, object: &DynamicObject) -> Api<DynamicObject> {
        let types = object.types.clone().unwrap();
        let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
        let resource = kube::core::ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
        match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// Publishes a topology; `fresh`: the hub spoke just now.
    pub(crate) fn publish(&self, topology: Topology, fresh: bool) {
        let heard = fresh.then(Instant::now);
        self.topology.send_replace(Snapshot { topology: Arc::new(topology), heard });
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn until(&self, host: &str, path: &str, mut wanted: impl FnMut(&Answer) -> bool) -> Answer {
        let started = Instant::now();
        loop {
            let answer = get(self.http, host, path).await;
            if wanted(&answer) {
                return answer;
            }
            assert!(started.elapsed() < WAIT_MAX, "{host}{path} stays {answer:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Reads an object until its status is as wanted.
    pub(crate) async fn until_status(&self, object: Value, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let read = self.read(object.clone()).await;
            if wanted(&read["status"]) {
                return read["status"].clone();
            }
            assert!(started.elapsed() < WAIT_MAX, "status stays {:#}", read["status"]);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A Gateway in `infra` that takes routes of every namespace.
pub(crate) fn gateway(name: &str, listeners: Value) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": name, "namespace": "infra"},
        "spec": {"gatewayClassName": "atoll", "listeners": listeners}})
}

/// A listener that takes routes of every namespace.
pub(crate) fn listener(name: &str, port: u16, protocol: &str) -> Value {
    json!({"name": name, "port": port, "protocol": protocol, "allowedRoutes": {"namespaces": {"from": "All"}}})
}

/// An HTTPRoute of `shop` on the Gateway `main`.
pub(crate) fn route(name: &str, hosts: &[&str], rules: Value) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"parentRefs": [{"name": "main", "namespace": "infra"}], "hostnames": hosts, "rules": rules}})
}

/// A backend: the ServiceImport of that name.
pub(crate) fn import(name: &str) -> Value {
    json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": name, "port": 80})
}

/// A Service of `shop` in the hub's own API with one pod, and its EndpointSlice.
pub(crate) fn service(name: &str, pod: &Pod) -> [Value; 2] {
    let port = pod.address.port();
    [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": port, "protocol": "TCP"}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("{name}-1"), "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
            "endpoints": [{"addresses": [pod.address.ip()], "conditions": {"ready": true}}],
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}]}),
    ]
}

/// A topology with clusters eu and us (Active) and dr (Standby) in the set `prod`; each offers `shop/web` on the pods given.
pub(crate) fn topology(clusters: &[(&str, &[&Pod])]) -> Topology {
    let mut topology = Topology::default();
    topology.version.epoch = 1;
    topology.settings.default_set = "prod".to_owned();
    topology.settings.hub_id = HUB.to_owned();
    let web = ServiceName::new("shop", "web");
    for (name, pods) in clusters {
        let environment = if *name == "dr" { "dr" } else { "prod" };
        let facts = json!({"name": name, "spec": {"environment": environment, "region": name}, "ready": true});
        let facts: ClusterFacts = serde_json::from_value(facts).unwrap();
        let endpoints = BTreeMap::from([(web.clone(), Arc::new(offered(pods)))]);
        topology.endpoints.insert(facts.name.clone(), endpoints.into());
        topology.clusters.insert(facts.name.clone(), Arc::new(facts));
    }
    let of = clusters.iter().map(|(name, _)| (*name).to_owned()).collect();
    topology.services.insert("prod".to_owned(), BTreeMap::from([(web, Arc::new(exported(of)))]).into());
    topology
}

/// The same with another service of `shop`, which `eu` alone offers.
pub(crate) fn with_service(mut topology: Topology, name: &str, pods: &[&Pod]) -> Topology {
    let service = ServiceName::new("shop", name);
    topology.endpoints.get_mut("eu").unwrap().insert(service.clone(), Arc::new(offered(pods)));
    topology.services.get_mut("prod").unwrap().insert(service, Arc::new(exported(vec!["eu".to_owned()])));
    topology
}

/// The same where the DNS servers find that those pods of a cluster fail the health check of `web`.
pub(crate) fn with_failing(mut topology: Topology, cluster: &str, pods: &[&Pod]) -> Topology {
    let web = ServiceName::new("shop", "web");
    let all = topology.endpoints.get_mut(cluster).unwrap();
    let mut endpoints = Endpoints::clone(all.get(&web).unwrap());
    let ill = |e: &&mut Endpoint| pods.iter().any(|pod| pod.address.ip() == e.address);
    endpoints.endpoints.iter_mut().filter(ill).for_each(|e| (e.ready, e.failing) = (false, true));
    all.insert(web, Arc::new(endpoints));
    topology
}

fn offered(pods: &[&Pod]) -> Endpoints {
    let endpoints = pods.iter().map(|pod| Endpoint {
        address: pod.address.ip(),
        ready: true,
        failing: false,
        hostname: None,
        node: None,
        zone: None,
        pod: None,
        labels: BTreeMap::new(),
    });
    let port = pods.first().map_or(1, |p| p.address.port());
    let ports = vec![EndpointPort { name: "http".to_owned(), protocol: "TCP".to_owned(), port }];
    Endpoints { endpoints: endpoints.collect(), ports, ..Endpoints::default() }
}

fn exported(clusters: Vec<String>) -> ServiceFacts {
    let port = ServicePort { name: "http".to_owned(), protocol: "TCP".to_owned(), port: 80, ..ServicePort::default() };
    ServiceFacts { clusters, ports: vec![port], headless: false }
}

/// The same with a TrafficPolicy of `shop` of that name.
pub(crate) fn with_traffic(mut topology: Topology, name: &str, spec: Value) -> Topology {
    topology.traffic.insert(ServiceName::new("shop", name), Arc::new(serde_json::from_value(spec).unwrap()));
    topology
}

/// A RoutePolicy of `shop`.
pub(crate) fn policy(name: &str, target: (&str, &str), filters: Value) -> Value {
    let target = json!({"group": "gateway.networking.k8s.io", "kind": target.0, "name": target.1});
    json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "RoutePolicy", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"targetRefs": [target], "filters": filters}})
}

/// A Secret of `shop`.
pub(crate) fn secret(name: &str, data: &[(&str, &str)]) -> Value {
    let data: BTreeMap<_, _> = data.iter().copied().collect();
    json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": name, "namespace": "shop"}, "stringData": data})
}
