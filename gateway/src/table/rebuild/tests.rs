//! Increments over random histories give what building everything gives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use atoll_api::kinds::gateway::{BackendTLSPolicy, Gateway, GatewayClass, ListenerSet, ReferenceGrant};
use atoll_api::topology::{
    ClusterFacts, Endpoint, EndpointPort, Endpoints, ServiceFacts, ServicePort, Topology, TrafficFacts,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::*;
use crate::acme::Standing;
use crate::fleet::Fleet;
use crate::names::{Found, Leads};
use crate::objects::{GrpcRoute, HttpRoute, Kept, Objects, TlsRoute, name_of};
use crate::table::build::Ports;
use crate::table::{Table, Upstream};

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    fn chance(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}

const NAMESPACES: &[&str] = &["infra", "shop", "other"];
const PODS: &[&str] = &["p0", "p1", "p2"];
const HOSTS: &[&str] = &["a.test", "b.test", "*.test", "x.b.test"];

fn version_of(version: usize) -> BTreeMap<String, String> {
    BTreeMap::from([("version".to_owned(), version.to_string())])
}

/// A history: the objects as they are, changed one by one.
struct History {
    dice: Dice,
    objects: Objects,
    topology: Arc<Topology>,
    secrets: Vec<Value>,
    authority: String,
    generation: i64,
}

impl History {
    fn new(seed: u64) -> Self {
        let secrets = ["a.test", "b.test"].map(|name| {
            let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
            let data = |text: String| json!(k8s_openapi::ByteString(text.into_bytes()));
            json!({"tls.crt": data(made.cert.pem()), "tls.key": data(made.signing_key.serialize_pem())})
        });
        let authority = rcgen::generate_simple_self_signed(["ca.test".to_owned()]).unwrap().cert.pem();
        let mut topology = Topology::default();
        topology.settings.default_set = "prod".to_owned();
        let mut objects = Objects::default();
        let class = json!({"metadata": {"name": "atoll"}, "spec": {"controllerName": "atoll.dev/gateway"}});
        objects.take::<GatewayClass>(&(String::new(), "atoll".to_owned()), Some(of(class)));
        let secrets = secrets.to_vec();
        Self { dice: Dice(seed), objects, topology: Arc::new(topology), secrets, authority, generation: 0 }
    }

    /// One change of one object. Returns what it means.
    fn step(&mut self) -> Vec<Edit> {
        match self.dice.below(28) {
            0..7 => self.http_route(),
            7 | 8 => self.grpc_route(),
            9 => self.tls_route(),
            10 | 11 => self.gateway(),
            12 => self.listener_set(),
            13 => self.grant(),
            14 => self.policy(),
            15 | 16 => self.secret(),
            17 => self.config(),
            18 | 19 => self.service(),
            20 | 21 => self.slice(),
            22 => self.namespace(),
            23 | 24 => self.lead(),
            25 => self.label(),
            _ => {
                self.change_topology();
                Vec::new()
            }
        }
    }

    fn put<K: Kept + serde::de::DeserializeOwned>(&mut self, namespace: &str, name: &str, body: Value) -> Vec<Edit> {
        self.generation += 1;
        let at = (namespace.to_owned(), name.to_owned());
        if self.dice.chance(4) {
            return self.objects.take::<K>(&at, None);
        }
        let mut object = json!({"metadata": {"namespace": namespace, "name": name, "generation": self.generation,
            "creationTimestamp": format!("2026-01-0{}T00:00:00Z", 1 + self.dice.below(3))}});
        for (field, value) in body.as_object().unwrap() {
            match field.as_str() {
                "labels" => object["metadata"]["labels"] = value.clone(),
                _ => object[field] = value.clone(),
            }
        }
        self.objects.take::<K>(&at, Some(of(object)))
    }

    fn hosts(&mut self) -> Vec<&'static str> {
        (0..self.dice.below(3)).map(|_| *self.dice.of(HOSTS)).collect()
    }

    fn parents(&mut self) -> Value {
        let mut parents = vec![json!({"name": self.dice.of(&["g1", "g2"]), "namespace": "infra"})];
        if self.dice.chance(3) {
            parents.push(json!({"kind": "ListenerSet", "name": "s", "namespace": self.dice.of(NAMESPACES)}));
        }
        if self.dice.chance(3) {
            parents.push(json!({"name": "g1", "namespace": "infra", "sectionName": self.dice.of(&["http", "tls"])}));
        }
        json!(parents)
    }

    fn backend(&mut self) -> Value {
        let name = *self.dice.of(&["one", "two", "absent"]);
        match self.dice.below(3) {
            0 => json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": name, "port": 80}),
            1 => json!({"name": name, "namespace": self.dice.of(NAMESPACES), "port": 80}),
            _ => json!({"name": name, "port": 80, "weight": self.dice.below(3)}),
        }
    }

    /// The same, or a subset of it.
    fn divided(&mut self) -> Value {
        let mut backend = self.backend();
        if self.dice.chance(3) {
            let subset = json!({"group": "atoll.dev", "kind": "Subset", "name": self.dice.of(&["v1", "v2", "v3"])});
            backend["filters"] = json!([{"type": "ExtensionRef", "extensionRef": subset}]);
        }
        backend
    }

    fn filters(&mut self) -> Value {
        match self.dice.below(5) {
            0 => json!([{"type": "RequestMirror", "requestMirror": {"backendRef": self.backend()}}]),
            1 => json!([{"type": "Unknown"}]),
            2 => {
                json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {"add": [{"name": "x", "value": "y"}]}}])
            }
            _ => json!([]),
        }
    }

    fn http_route(&mut self) -> Vec<Edit> {
        let (namespace, name) = (*self.dice.of(NAMESPACES), *self.dice.of(&["r1", "r2", "r3"]));
        if self.dice.chance(3) {
            return self.told::<HttpRoute>(namespace, name, |o| {
                o.bear(serde_json::from_value(json!({"parents": []})).unwrap());
            });
        }
        let rules: Vec<Value> = (0..1 + self.dice.below(3))
            .map(|_| {
                let path = json!({"type": self.dice.of(&["PathPrefix", "Exact"]), "value": self.dice.of(&["/", "/x", "/x/y"])});
                json!({"matches": [{"path": path}], "filters": self.filters(), "backendRefs": [self.divided()]})
            })
            .collect();
        let spec = json!({"parentRefs": self.parents(), "hostnames": self.hosts(), "rules": rules});
        self.put::<HttpRoute>(namespace, name, json!({"spec": spec}))
    }

    fn grpc_route(&mut self) -> Vec<Edit> {
        let namespace = *self.dice.of(NAMESPACES);
        let matches = json!([{"method": {"service": self.dice.of(&["x", "y"])}}]);
        let rules = json!([{"matches": matches, "backendRefs": [self.divided()]}]);
        let spec = json!({"parentRefs": self.parents(), "hostnames": self.hosts(), "rules": rules});
        self.put::<GrpcRoute>(namespace, "r1", json!({"spec": spec}))
    }

    fn tls_route(&mut self) -> Vec<Edit> {
        let (namespace, name) = (*self.dice.of(NAMESPACES), *self.dice.of(&["t1", "t2"]));
        let rules = json!([{"backendRefs": [self.backend()]}]);
        let spec = json!({"parentRefs": self.parents(), "hostnames": self.hosts(), "rules": rules});
        self.put::<TlsRoute>(namespace, name, json!({"spec": spec}))
    }

    fn listeners(&mut self) -> Value {
        let all = json!({"namespaces": {"from": self.dice.of(&["All", "Same"])}});
        let selected = json!({"namespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "web"}}}});
        let certificate = json!({"certificateRefs": [{"name": self.dice.of(&["c1", "c2"])}]});
        let host = Some(*self.dice.of(HOSTS)).filter(|_| self.dice.0.is_multiple_of(2));
        let mut listeners = vec![
            json!({"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": all, "hostname": host}),
            json!({"name": "pass", "port": 9000, "protocol": "TLS", "tls": {"mode": "Passthrough"}, "allowedRoutes": selected}),
        ];
        if self.dice.chance(2) {
            listeners.push(
                json!({"name": "tls", "port": 443, "protocol": "HTTPS", "tls": certificate, "allowedRoutes": all}),
            );
        }
        json!(listeners)
    }

    fn gateway(&mut self) -> Vec<Edit> {
        let name = *self.dice.of(&["g1", "g2"]);
        if self.dice.chance(2) {
            return self.told::<Gateway>("infra", name, |o| {
                o.status = Some(serde_json::from_value(json!({"addresses": [], "listeners": []})).unwrap());
            });
        }
        let spec = json!({"gatewayClassName": "atoll", "listeners": self.listeners(),
            "allowedListeners": {"namespaces": {"from": self.dice.of(&["All", "Same"])}}});
        self.put::<Gateway>("infra", name, json!({"spec": spec}))
    }

    fn listener_set(&mut self) -> Vec<Edit> {
        let namespace = *self.dice.of(NAMESPACES);
        let spec = json!({"parentRef": {"name": "g1", "namespace": "infra"}, "listeners": self.listeners()});
        self.put::<ListenerSet>(namespace, "s", json!({"spec": spec}))
    }

    fn grant(&mut self) -> Vec<Edit> {
        let (namespace, from) = (*self.dice.of(NAMESPACES), *self.dice.of(NAMESPACES));
        let spec = json!({"from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": from}],
            "to": [{"group": "", "kind": "Service"}]});
        self.put::<ReferenceGrant>(namespace, "g", json!({"spec": spec}))
    }

    fn policy(&mut self) -> Vec<Edit> {
        let (namespace, name) = (*self.dice.of(NAMESPACES), *self.dice.of(&["p1", "p2"]));
        let spec = json!({"targetRefs": [{"group": "", "kind": "Service", "name": self.dice.of(&["one", "two"])}],
            "validation": {"hostname": "backend.test", "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]}});
        self.put::<BackendTLSPolicy>(namespace, name, json!({"spec": spec}))
    }

    fn secret(&mut self) -> Vec<Edit> {
        let (namespace, name) = (*self.dice.of(NAMESPACES), *self.dice.of(&["c1", "c2"]));
        let mut data = self.dice.of(&self.secrets.clone()).clone();
        if self.dice.chance(4) {
            data["tls.key"] = json!("");
        }
        self.put::<Secret>(namespace, name, json!({"data": data}))
    }

    fn config(&mut self) -> Vec<Edit> {
        let namespace = *self.dice.of(NAMESPACES);
        let authority = self.authority.clone();
        self.put::<ConfigMap>(namespace, "ca", json!({"data": {"ca.crt": authority}}))
    }

    fn service(&mut self) -> Vec<Edit> {
        let (namespace, name) = (*self.dice.of(NAMESPACES), *self.dice.of(&["one", "two"]));
        let protocol = if self.dice.chance(3) { json!("kubernetes.io/h2c") } else { Value::Null };
        let port = json!({"name": self.dice.of(&["http", "web"]), "port": 80, "appProtocol": protocol});
        if self.dice.chance(4) {
            let ports = if self.dice.chance(2) { json!([port]) } else { json!([]) };
            let spec = json!({"type": "ExternalName", "externalName": self.dice.of(&["a.test", "B.test.", "10.0.0.1"]), "ports": ports});
            return self.put::<Service>(namespace, name, json!({"spec": spec}));
        }
        self.put::<Service>(namespace, name, json!({"spec": {"ports": [port]}}))
    }

    fn slice(&mut self) -> Vec<Edit> {
        let (namespace, name) = (*self.dice.of(NAMESPACES), *self.dice.of(&["one-1", "one-2", "two-1"]));
        let labels = json!({"kubernetes.io/service-name": self.dice.of(&["one", "two"])});
        let endpoints: Vec<Value> =
            (0..self.dice.below(3)).map(|_| json!({"addresses": [format!("10.0.0.{}", self.dice.below(4))], "targetRef": {"kind": "Pod", "name": self.dice.of(PODS)}})).collect();
        let ports = json!([{"name": self.dice.of(&["http", "web"]), "port": 8080}]);
        if self.dice.chance(4) {
            let endpoints = json!([{"addresses": [self.dice.of(&["a.test", "b.test"])]}]);
            let body = json!({"labels": labels, "addressType": "FQDN", "endpoints": endpoints, "ports": ports});
            return self.put::<EndpointSlice>(namespace, name, body);
        }
        let body = json!({"labels": labels, "addressType": "IPv4", "endpoints": endpoints, "ports": ports});
        self.put::<EndpointSlice>(namespace, name, body)
    }

    /// A pod has other labels, or none.
    fn label(&mut self) -> Vec<Edit> {
        let mut pods = self.objects.pods.clone();
        let at = (self.dice.of(NAMESPACES).to_string(), self.dice.of(PODS).to_string());
        match self.dice.below(3) {
            0 => drop(pods.remove(&at)),
            version => drop(pods.insert(at, Arc::new(version_of(version)))),
        }
        self.objects.label(pods)
    }

    /// A name leads elsewhere, or nowhere.
    fn lead(&mut self) -> Vec<Edit> {
        let mut found = Found::clone(&self.objects.names);
        let name = *self.dice.of(&["a.test", "b.test"]);
        let addresses =
            (0..self.dice.below(3)).map(|_| format!("10.2.0.{}", self.dice.below(4)).parse().unwrap()).collect();
        let refused = vec![("127.0.0.1".parse().unwrap(), "loopback"); self.dice.below(2)];
        found.insert(name.into(), Arc::new(Leads { addresses, refused }));
        if self.dice.chance(4) {
            found.remove(name);
        }
        self.objects.lead(Arc::new(found))
    }

    fn namespace(&mut self) -> Vec<Edit> {
        let name = *self.dice.of(NAMESPACES);
        let team = *self.dice.of(&["web", "db"]);
        let at = (String::new(), name.to_owned());
        let namespace = json!({"metadata": {"name": name, "labels": {"team": team}}});
        self.objects.take::<Namespace>(&at, Some(of(namespace)))
    }

    /// Only what an object says of itself is another.
    fn told<K: Kept + Clone>(&mut self, namespace: &str, name: &str, tell: impl Fn(&mut K)) -> Vec<Edit> {
        let at = (namespace.to_owned(), name.to_owned());
        let Some(mut object) = K::set(&mut self.objects, &at, None) else { return Vec::new() };
        K::set(&mut self.objects, &at, Some(Arc::clone(&object)));
        tell(Arc::make_mut(&mut object));
        let edits = self.objects.take::<K>(&name_of(&*object), Some(object));
        assert!(!edits.contains(&Edit::Whole), "a status builds nothing anew");
        edits
    }

    fn change_topology(&mut self) {
        let mut topology = Topology::clone(&self.topology);
        let service = ServiceName::new(*self.dice.of(NAMESPACES), *self.dice.of(&["one", "two"]));
        let cluster = *self.dice.of(&["eu", "us"]);
        match self.dice.below(8) {
            0 => {
                let facts = json!({"name": cluster, "ready": self.dice.chance(2), "spec": {"environment": "prod"}});
                let facts: ClusterFacts = serde_json::from_value(facts).unwrap();
                topology.clusters.insert(facts.name.clone(), Arc::new(facts));
            }
            1 => {
                let subset = |n: usize| json!({"name": format!("v{n}"), "labels": version_of(n)});
                let subsets: Vec<Value> = (1..1 + self.dice.below(3)).map(subset).collect();
                let policy = json!({"service": service.name, "strategy": [{"policy": "nearest"}], "subsets": subsets});
                let facts: Arc<TrafficFacts> = of(policy);
                topology.traffic.insert(service, facts);
            }
            2 | 3 => {
                let name = self.dice.of(&["http", "web"]).to_string();
                let port = ServicePort { name, protocol: "TCP".to_owned(), port: 80, ..ServicePort::default() };
                let clusters = vec!["eu".to_owned(), "us".to_owned()];
                let facts = ServiceFacts { clusters, ports: vec![port], headless: false };
                topology.services.entry("prod".to_owned()).or_default().insert(service, Arc::new(facts));
            }
            4 => drop(topology.services.entry("prod".to_owned()).or_default().remove(&service)),
            _ => {
                let version = self.dice.below(3);
                let endpoint = |n: usize| Endpoint {
                    address: format!("10.1.0.{n}").parse().unwrap(),
                    ready: true,
                    failing: false,
                    hostname: None,
                    node: None,
                    zone: None,
                    pod: None,
                    labels: version_of(version + n),
                };
                let endpoints = (0..self.dice.below(3)).map(endpoint).collect();
                let name = self.dice.of(&["http", "web"]).to_string();
                let ports = vec![EndpointPort { name, protocol: "TCP".to_owned(), port: 8080 }];
                let endpoints = Arc::new(Endpoints { endpoints, ports, ..Endpoints::default() });
                topology.endpoints.entry(cluster.parse().unwrap()).or_default().insert(service, endpoints);
            }
        }
        self.topology = Arc::new(topology);
    }
}

fn of<K: serde::de::DeserializeOwned>(object: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}")))
}

fn upstream(upstream: &Upstream) -> String {
    let parts: Vec<String> = upstream.clusters.iter().map(|p| format!("{:?} {:?}", p.name(), p.endpoints)).collect();
    let policy = upstream.policy.as_ref().map(|p| p.name.clone());
    let (tls, names) = (upstream.tls.is_some(), &upstream.names);
    format!("{} h2={} tls={tls:?} {policy:?} {parts:?} {names:?}", upstream.id, upstream.h2)
}

/// A table as words, upstreams by what they are and not by their places.
fn said(table: &Table) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let target =
        |at: &Result<usize, String>| at.as_ref().map(|at| upstream(&table.upstreams[*at])).map_err(Clone::clone);
    for (slot, served) in &table.slots {
        for name in served.listeners.names() {
            let probe = name.replace('*', "zz.zz");
            let listener = served.listeners.find(&probe).unwrap();
            let at = format!("{slot} {name} {} {:?}", listener.id, served.protocol);
            // Settings are kept for as long as they are used: the same ones are the same.
            let server = listener.server.as_ref().map(|s| s.alpn_protocols.clone());
            all.insert(at.clone(), format!("{:?} {server:?}", listener.mode));
            for host in listener.routes.names() {
                let probe = host.replace('*', "zz.zz");
                let level = listener.routes.levels(&probe).next().unwrap();
                let entries: Vec<String> = level
                    .iter()
                    .map(|e| {
                        let backends: Vec<_> =
                            e.rule.backends.iter().map(|b| (&b.name, b.weight, target(&b.target))).collect();
                        let mirrors: Vec<_> = e.rule.filters.iter().filter_map(|f| f.mirror()).collect();
                        let mirrors: Vec<_> = mirrors.iter().map(|m| upstream(&table.upstreams[m.upstream])).collect();
                        let (route, index, filters) = (&e.rule.route, e.rule.index, e.rule.filters.len());
                        format!(
                            "{} {:?} {route} {index} {filters} {mirrors:?} {:?} {backends:?}",
                            e.matcher, e.host_rank, e.rule.refused
                        )
                    })
                    .collect();
                all.insert(format!("{at} routes {host}"), format!("{entries:#?}"));
            }
            for host in listener.streams.names() {
                let probe = host.replace('*', "zz.zz");
                let rule = listener.streams.find(&probe).unwrap();
                let backends: Vec<_> = rule.backends.iter().map(|b| (&b.name, b.weight, target(&b.target))).collect();
                all.insert(format!("{at} streams {host}"), format!("{} {backends:?}", rule.route));
            }
        }
    }
    all
}

/// Everything that was built, as words.
fn whole(built: &Built) -> BTreeMap<String, String> {
    let mut all = said(&built.table);
    for update in &built.statuses.updates {
        let at = format!("status {} {:?}/{}", (update.resource)().kind, update.namespace, update.name);
        all.insert(at, format!("{:#}", update.status()));
    }
    all.insert("served".to_owned(), format!("{:#?}", built.served));
    all.insert("wanted".to_owned(), format!("{:?}", built.wanted));
    all.insert("names".to_owned(), format!("{:?}", built.names));
    all
}

#[test]
fn increments_give_what_building_everything_gives() {
    let (mut increments, mut seen) = (0, BTreeSet::new());
    for seed in 0..40 {
        let mut history = History::new(seed);
        let (mut step_by_step, mut anew) = (Memory::default(), Memory::default());
        let ports = Ports { http: 8080, https: 8443, ..Ports::default() };
        let (mut edits, mut ends) = (vec![Edit::Whole], BTreeMap::new());
        for step in 0..80 {
            for _ in 0..history.dice.below(3) {
                edits.extend(history.step());
            }
            let input = Input {
                objects: &history.objects,
                topology: &history.topology,
                instance: "gateway-1",
                ports: &ports,
                addresses: &["192.0.2.1".to_owned()],
                pool: &[],
                service: false,
                own: &[],
                node: None,
                fleet: &Fleet::default(),
                certificates: &Standing::nothing(),
                orders: None,
                now: "2026-01-01T00:00:00Z".parse().unwrap(),
            };
            increments += usize::from(plan(&input, &mut step_by_step.made, &edits).is_some());
            let (next, expected) = (rebuild(&input, &mut step_by_step, &edits), build(&input, &mut anew));
            if next.certified.all {
                ends.clear();
            }
            ends.extend(next.certified.listeners.iter().cloned());
            assert_eq!(ends, expected.certified.listeners.iter().cloned().collect(), "seed {seed}, step {step}");
            let (next, expected) = (whole(&next), whole(&expected));
            seen.extend(expected.keys().cloned());
            for (at, is) in &expected {
                assert_eq!(next.get(at), Some(is), "seed {seed}, step {step}, {at}, after {edits:?}");
            }
            for at in next.keys() {
                assert!(expected.contains_key(at), "seed {seed}, step {step}: {at} is still there after {edits:?}");
            }
            edits.clear();
        }
    }
    assert!(increments > 1500, "most steps are increments: {increments}");
    for kind in ["http ", "routes *", "streams", "status BackendTLSPolicy", "status ListenerSet", "status TLSRoute"] {
        assert!(seen.iter().any(|at| at.contains(kind)), "{kind} was never there");
    }
}
