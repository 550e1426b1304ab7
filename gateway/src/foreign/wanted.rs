//! What a balancer that others own is told: the Gateways of its classes with the routes that attach there, the Services of its classes, and the
//! endpoints of both, of those clusters that the gateway itself would ask first. Pure.
//!
//! In: objects, topology, the provider's classes. Out: [`Wanted`]. What a field names and is not there is refused here, before anybody is told.

use std::collections::{BTreeMap, BTreeSet};

use atoll_api::kinds::CLUSTER_SET_LABEL;
use atoll_api::kinds::gateway::{
    BackendObjectReference, BackendRef, GATEWAY_GROUP, Gateway, HTTPRouteRule, Listener, ParentReference,
    SecretObjectReference,
};
use atoll_api::names::ServiceName;
use atoll_api::provider::{Backend, Certificate, Frontend, Owner, PROVIDER_CONTROLLER, Push, Refused, Route, Server};
use atoll_api::routing::{Asker, Candidate, Chain, choose};
use atoll_api::topology::{Topology, is_balancer_of};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use serde_json::Value;

use crate::objects::{Name, Objects, name_of};
use crate::table::{
    From as Who, IMPORT_GROUP, Part, To, Wants, allows, import_parts, local_parts, permits, pick_port, service_port,
};

/// The highest weight of a server.
const WEIGHT_MAX: f64 = 256.0;
/// Before the names of classes in Services.
pub(super) const CLASS_PREFIX: &str = "atoll.dev/";

/// What is told, and what is not even told.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Wanted {
    pub(super) push: Push,
    pub(super) refused: Vec<Refused>,
    /// GatewayClasses, Gateways and Services that are the provider's.
    pub(super) classes: Vec<String>,
    pub(super) gateways: Vec<Name>,
    pub(super) services: Vec<Name>,
    /// Routes with the parents by which they attach, by kind and name.
    pub(super) routes: BTreeMap<(&'static str, Name), BTreeSet<ParentReference>>,
}

/// Gathers it. `classes`: the provider's.
pub(super) fn wanted(objects: &Objects, topology: &Topology, provider: &str, classes: &[String]) -> Wanted {
    let push = Push { version: "v1".to_owned(), provider: provider.to_owned(), ..Push::default() };
    let mut gather = Gather { objects, topology, wanted: Wanted { push, ..Wanted::default() } };
    let ours = objects.classes.iter().filter(|class| class.spec.controller_name == PROVIDER_CONTROLLER);
    let ours = ours.map(|class| class.name_any()).filter(|name| classes.contains(name));
    gather.wanted.classes = ours.collect();
    for gateway in objects.gateways.iter() {
        if gather.wanted.classes.contains(&gateway.spec.gateway_class_name) {
            gather.gateway(gateway);
        }
    }
    for service in objects.services.iter() {
        if classes.iter().any(|class| is_balancer_of(service, &format!("{CLASS_PREFIX}{class}"))) {
            gather.service(service);
        }
    }
    gather.wanted
}

struct Gather<'a> {
    objects: &'a Objects,
    topology: &'a Topology,
    wanted: Wanted,
}

/// A rule on its way: whose it is, and the cluster set whose services it reaches.
struct Rule<'a> {
    owner: &'a Owner,
    field: String,
    set: &'a str,
}

impl Gather<'_> {
    fn refuse(&mut self, owner: &Owner, field: impl Into<String>, message: impl Into<String>) {
        self.wanted.refused.push(Refused { owner: owner.clone(), field: field.into(), message: message.into() });
    }

    fn gateway(&mut self, gateway: &Gateway) {
        let owner = owner("Gateway", gateway);
        self.wanted.gateways.push(name_of(gateway));
        let set = gateway.labels().get(CLUSTER_SET_LABEL).cloned();
        let set = set.unwrap_or_else(|| self.topology.settings.default_set.clone());
        for (at, listener) in gateway.spec.listeners.iter().enumerate() {
            let field = format!("spec.listeners[{at}]");
            let certificates = listener.tls.iter().flat_map(|tls| &tls.certificate_refs).enumerate();
            let certificates = certificates
                .filter_map(|(n, reference)| {
                    self.certificate(&owner, &format!("{field}.tls.certificateRefs[{n}]"), reference)
                })
                .collect();
            let frontend = Frontend {
                owner: owner.clone(),
                field,
                name: listener.name.clone(),
                protocol: listener.protocol.clone(),
                port: u16::try_from(listener.port).unwrap_or_default(),
                hostname: listener.hostname.clone().filter(|host| !host.is_empty()),
                addresses: gateway.spec.addresses.iter().map(|a| a.value.clone()).filter(|a| !a.is_empty()).collect(),
                certificates,
                routes: self.routes(gateway, listener, &set),
                ..Frontend::default()
            };
            self.wanted.push.frontends.push(frontend);
        }
    }

    fn certificate(&mut self, owner: &Owner, field: &str, reference: &SecretObjectReference) -> Option<String> {
        let at = reference.namespace.as_deref().unwrap_or(&owner.namespace);
        let name = format!("{at}/{}", reference.name);
        let to = To { group: "", kind: "Secret", namespace: at, name: &reference.name };
        if !permits(&self.objects.grants, Who { kind: "Gateway", namespace: &owner.namespace }, to) {
            self.refuse(owner, field, format!("Secret `{name}`: no ReferenceGrant there permits it"));
            return None;
        }
        let data = self.objects.secrets.get(at, &reference.name).and_then(|secret| secret.data.clone());
        let text = |key: &str| String::from_utf8(data.as_ref()?.get(key)?.0.clone()).ok();
        let (Some(chain), Some(key)) = (text("tls.crt"), text("tls.key")) else {
            self.refuse(owner, field, format!("Secret `{name}`: does not exist, or is not of type kubernetes.io/tls"));
            return None;
        };
        let known = self.wanted.push.certificates.iter().any(|known| known.name == name);
        if !known {
            let certificate =
                Certificate { name: name.clone(), owner: owner.clone(), field: field.to_owned(), chain, key };
            self.wanted.push.certificates.push(certificate);
        }
        Some(name)
    }

    /// The routes that attach to a listener.
    fn routes(&mut self, gateway: &Gateway, listener: &Listener, set: &str) -> Vec<Route> {
        let (mut all, objects) = (Vec::new(), self.objects);
        match listener.protocol.as_str() {
            "HTTP" | "HTTPS" => {
                for route in objects.routes.iter() {
                    if !self.attaches("HTTPRoute", &name_of(&**route), &route.spec.parent_refs, gateway, listener) {
                        continue;
                    }
                    let owner = owner("HTTPRoute", &**route);
                    let own = listener.hostname.iter().filter(|_| route.spec.hostnames.is_empty());
                    let hostnames: Vec<String> = route.spec.hostnames.iter().chain(own).cloned().collect();
                    for (at, rule) in route.spec.rules.iter().enumerate() {
                        let refs: Vec<BackendRef> = rule
                            .backend_refs
                            .iter()
                            .map(|b| BackendRef { target: b.target.clone(), weight: b.weight })
                            .collect();
                        let meant = Rule { owner: &owner, field: format!("spec.rules[{at}]"), set };
                        let backend = self.backend(&meant, &format!("{}_{at}", owner.name), &refs, Wants::Http);
                        all.push(http_rule(&owner, meant.field, &hostnames, rule, backend));
                    }
                }
            }
            "TCP" | "UDP" => {
                let (kind, wants) =
                    if listener.protocol == "TCP" { ("TCPRoute", Wants::Tcp) } else { ("UDPRoute", Wants::Udp) };
                let tcp = objects.tcp.iter().filter(|_| wants == Wants::Tcp);
                let tcp = tcp.map(|r| (owner(kind, &**r), r.spec.parent_refs.clone(), r.spec.rules.clone()));
                let udp = objects.udp.iter().filter(|_| wants == Wants::Udp);
                let udp = udp.map(|r| (owner(kind, &**r), r.spec.parent_refs.clone(), r.spec.rules.clone()));
                for (owner, parents, rules) in tcp.chain(udp).collect::<Vec<_>>() {
                    let name = (owner.namespace.clone(), owner.name.clone());
                    if !self.attaches(kind, &name, &parents, gateway, listener) {
                        continue;
                    }
                    for (at, rule) in rules.iter().enumerate() {
                        let meant = Rule { owner: &owner, field: format!("spec.rules[{at}]"), set };
                        let backend = self.backend(&meant, &format!("{}_{at}", owner.name), &rule.backend_refs, wants);
                        all.push(Route { owner: owner.clone(), field: meant.field, backend, ..Route::default() });
                    }
                }
            }
            _ => {}
        }
        all
    }

    /// Whether a route attaches to a listener by any of its parents; these are noted.
    fn attaches(
        &mut self,
        kind: &'static str,
        route: &Name,
        parents: &[ParentReference],
        gateway: &Gateway,
        listener: &Listener,
    ) -> bool {
        let own = gateway.namespace().unwrap_or_default();
        let from = listener.allowed_routes.as_ref().and_then(|a| a.namespaces.as_ref());
        let kinds = listener.allowed_routes.as_ref().map(|a| a.kinds.as_slice()).unwrap_or_default();
        let meant: Vec<&ParentReference> = parents
            .iter()
            .filter(|p| {
                p.group.as_deref().unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP
                    && p.kind.as_deref().unwrap_or("Gateway") == "Gateway"
                    && p.name == gateway.name_any()
                    && p.namespace.as_deref().unwrap_or(&route.0) == own
                    && p.section_name.as_deref().is_none_or(|name| name == listener.name)
                    && p.port.is_none_or(|port| port == listener.port)
            })
            .collect();
        let allowed = allows(from, "Same", &own, &route.0, &self.objects.namespaces)
            && (kinds.is_empty() || kinds.iter().any(|k| k.kind == kind));
        if allowed && !meant.is_empty() {
            self.wanted.routes.entry((kind, route.clone())).or_default().extend(meant.into_iter().cloned());
            return true;
        }
        false
    }

    fn service(&mut self, service: &Service) {
        let owner = owner("Service", service);
        self.wanted.services.push(name_of(service));
        let Some(facts) = atoll_api::topology::BalancerFacts::read(service) else { return };
        if let Some(odd) = &facts.odd {
            return self.refuse(&owner, "spec", odd.clone());
        }
        if facts.proxy.is_some() {
            let why = "what the balancer speaks to servers is for its own configuration";
            self.refuse(&owner, format!("metadata.annotations[{}]", atoll_api::topology::PROXY_PROTOCOL), why);
        }
        for (at, port) in facts.ports.iter().enumerate() {
            let field = format!("spec.ports[{at}]");
            let wants = if port.protocol == "UDP" { Wants::Udp } else { Wants::Tcp };
            let parts = local_parts(self.objects, &ServiceName::new(&owner.namespace, &owner.name), port, wants);
            let name = format!("{}_{}_{}", owner.namespace, owner.name, port.port);
            let servers = weighed(vec![(1, parts)]);
            let (backend, protocol) = (name.clone(), port.protocol.clone());
            self.wanted.push.backends.push(Backend {
                name,
                owner: owner.clone(),
                field: field.clone(),
                protocol,
                servers,
            });
            let route = Route { owner: owner.clone(), field: field.clone(), backend, ..Route::default() };
            self.wanted.push.frontends.push(Frontend {
                owner: owner.clone(),
                field,
                name: port.name.clone(),
                protocol: port.protocol.clone(),
                port: port.port,
                addresses: facts.wishes.iter().map(ToString::to_string).collect(),
                source_ranges: facts.ranges.iter().map(ToString::to_string).collect(),
                affinity_seconds: facts.affinity_s,
                routes: vec![route],
                ..Frontend::default()
            });
        }
    }

    /// The backend of a rule; its name. What can't be resolved is refused, and the others serve.
    fn backend(&mut self, rule: &Rule<'_>, suffix: &str, refs: &[BackendRef], wants: Wants) -> String {
        let name = format!("{}_{suffix}", rule.owner.namespace);
        if self.wanted.push.backends.iter().any(|known| known.name == name) {
            return name;
        }
        let mut found = Vec::new();
        for (at, reference) in refs.iter().enumerate() {
            let weight = u32::try_from(reference.weight.unwrap_or(1)).unwrap_or_default();
            match self.resolve(rule, &reference.target, wants) {
                Ok(parts) => found.push((weight, parts)),
                Err(why) => self.refuse(rule.owner, format!("{}.backendRefs[{at}]", rule.field), why),
            }
        }
        let protocol = match wants {
            Wants::Udp => "UDP",
            Wants::Tcp => "TCP",
            _ => "HTTP",
        };
        self.wanted.push.backends.push(Backend {
            name: name.clone(),
            owner: rule.owner.clone(),
            field: format!("{}.backendRefs", rule.field),
            protocol: protocol.to_owned(),
            servers: weighed(found),
        });
        name
    }

    fn resolve(&self, rule: &Rule<'_>, target: &BackendObjectReference, wants: Wants) -> Result<Vec<Part>, String> {
        let (group, kind) = (target.group.as_deref().unwrap_or(""), target.kind.as_deref().unwrap_or("Service"));
        let namespace = target.namespace.as_deref().unwrap_or(&rule.owner.namespace);
        let to = To { group, kind, namespace, name: &target.name };
        if !permits(&self.objects.grants, Who { kind: &rule.owner.kind, namespace: &rule.owner.namespace }, to) {
            return Err(format!("`{namespace}/{}`: no ReferenceGrant there permits it", target.name));
        }
        let service = ServiceName::new(namespace, &target.name);
        match (group, kind) {
            ("", "Service") => {
                let found = self.objects.services.get(namespace, &target.name).ok_or("the Service does not exist")?;
                let ports: Vec<_> =
                    found.spec.iter().flat_map(|s| s.ports.clone().unwrap_or_default()).map(service_port).collect();
                let port = pick_port(&ports, target.port, wants).ok_or("the Service has no such port")?;
                Ok(local_parts(self.objects, &service, port, wants))
            }
            (IMPORT_GROUP, "ServiceImport") => {
                let facts = self.topology.services.get(rule.set).and_then(|services| services.get(&service));
                let facts = facts.ok_or_else(|| format!("cluster set {} has no such service", rule.set))?;
                let port = pick_port(&facts.ports, target.port, wants).ok_or("the service has no such port")?;
                Ok(self.best(rule.set, &service, import_parts(self.topology, rule.set, &service, port, wants)))
            }
            _ => Err(format!("kind {kind} is not served")),
        }
    }

    /// The clusters that are asked first, as its TrafficPolicy says.
    fn best(&self, set: &str, service: &ServiceName, parts: Vec<Part>) -> Vec<Part> {
        let mut policies = self
            .topology
            .traffic
            .iter()
            .filter(|(at, spec)| at.namespace == service.namespace && spec.service.as_ref() == Some(&service.name));
        let chain = policies.find_map(|(_, spec)| Chain::parse(&spec.strategy, spec.all_down).ok()).unwrap_or_default();
        let known: Vec<&Part> = parts.iter().filter(|part| part.cluster.is_some()).collect();
        let candidates: Vec<Candidate<'_>> = known
            .iter()
            .filter_map(|part| {
                part.cluster.as_deref().map(|facts| Candidate::new(facts, facts.ready, part.endpoints.len()))
            })
            .collect();
        let asker =
            Asker { cluster: None, set, region: None, zone: None, location: None, rtt: None, client: 0, dice: 0 };
        let first = choose(&asker, &candidates, &chain).tiers.into_iter().next().unwrap_or_default();
        first.into_iter().map(|at| known[at].clone()).collect()
    }
}

fn owner(kind: &str, object: &impl kube::ResourceExt) -> Owner {
    let (namespace, name) = name_of(object);
    Owner { kind: kind.to_owned(), namespace, name }
}

fn http_rule(owner: &Owner, field: String, hostnames: &[String], rule: &HTTPRouteRule, backend: String) -> Route {
    let said = [
        ("timeouts", rule.timeouts.as_ref().map(json)),
        ("retry", rule.retry.as_ref().map(json)),
        ("sessionPersistence", rule.session_persistence.as_ref().map(json)),
    ];
    let settings = said.into_iter().filter_map(|(name, set)| Some((name.to_owned(), set?))).collect();
    let per_backend = rule.backend_refs.iter().flat_map(|b| &b.filters);
    Route {
        owner: owner.clone(),
        field,
        hostnames: hostnames.to_vec(),
        matches: rule.matches.iter().map(json).collect(),
        filters: rule.filters.iter().chain(per_backend).map(json).collect(),
        settings,
        backend,
    }
}

fn json(said: &impl serde::Serialize) -> Value {
    serde_json::to_value(said).unwrap_or_default()
}

/// Servers with their weights: what each reference has is divided among its endpoints, and the largest share is the highest weight.
fn weighed(refs: Vec<(u32, Vec<Part>)>) -> Vec<Server> {
    let mut shares: BTreeMap<(std::net::IpAddr, u16), (f64, Option<String>)> = BTreeMap::new();
    for (weight, parts) in refs.iter().filter(|(weight, _)| *weight > 0) {
        let all: Vec<_> = parts.iter().flat_map(|part| part.endpoints.iter().map(move |e| (part, e))).collect();
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        for (part, endpoint) in all {
            let cluster = part.name().map(ToString::to_string);
            let entry = shares.entry((endpoint.address, endpoint.port)).or_insert((0.0, cluster));
            entry.0 += f64::from(*weight) / f64::from(count);
        }
    }
    let largest = shares.values().map(|(share, _)| *share).fold(0.0, f64::max);
    let server = |((address, port), (share, cluster)): (_, (f64, _))| Server {
        address,
        port,
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 256")]
        weight: (share / largest * WEIGHT_MAX).round().clamp(1.0, WEIGHT_MAX) as u16,
        cluster,
    };
    shares.into_iter().map(server).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn all<K: serde::de::DeserializeOwned, A: FromIterator<Arc<K>>>(objects: &[Value]) -> A {
        objects.iter().map(|o| Arc::new(serde_json::from_value(o.clone()).unwrap())).collect()
    }

    fn service(name: &str, ips: &[&str], more: Value) -> [Value; 2] {
        let mut spec = json!({"ports": [{"name": "http", "port": 80, "protocol": "TCP"}]});
        more.as_object().into_iter().flatten().for_each(|(k, v)| spec[k] = v.clone());
        let endpoints: Value = ips.iter().map(|ip| json!({"addresses": [ip]})).collect();
        let slice = json!({"metadata": {"namespace": "shop", "name": format!("{name}-1"), "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}]});
        [json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec}), slice]
    }

    #[test]
    fn gateways_and_services_of_its_classes_are_told_with_routes_servers_and_weights() {
        let class =
            |name: &str, controller: &str| json!({"metadata": {"name": name}, "spec": {"controllerName": controller}});
        let gateway = |name: &str, class: &str| {
            json!({"metadata": {"namespace": "shop", "name": name},
            "spec": {"gatewayClassName": class, "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"},
                {"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "missing"}]}}]}})
        };
        let route = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": {"parentRefs": [{"name": "ours", "sectionName": "http"}],
            "hostnames": ["shop.example"], "rules": [{"backendRefs": [{"name": "a", "port": 80, "weight": 3}, {"name": "b", "port": 80},
                {"name": "none", "port": 80}]}]}});
        let balancer = json!({"type": "LoadBalancer", "loadBalancerClass": "atoll.dev/edge", "loadBalancerSourceRanges": ["10.0.0.0/8"]});
        let made = [
            service("a", &["10.0.0.1"], json!({})),
            service("b", &["10.0.0.2", "10.0.0.3"], json!({})),
            service("lb", &["10.0.0.4"], balancer),
        ];
        let objects = Objects {
            classes: all(&[
                class("edge", PROVIDER_CONTROLLER),
                class("other", PROVIDER_CONTROLLER),
                class("atoll", "atoll.dev/gateway"),
            ]),
            gateways: all(&[gateway("ours", "edge"), gateway("theirs", "other"), gateway("atolls", "atoll")]),
            routes: all(&[route]),
            services: all(&made.clone().map(|[service, _]| service)),
            slices: all(&made.map(|[_, slice]| slice)),
            ..Objects::default()
        };
        let wanted = wanted(&objects, &Topology::default(), "one", &["edge".to_owned()]);
        let frontends: Vec<String> =
            wanted.push.frontends.iter().map(|f| format!("{} {} {}", f.owner, f.protocol, f.port)).collect();
        assert_eq!(frontends, ["Gateway shop/ours HTTP 80", "Gateway shop/ours HTTPS 443", "Service shop/lb TCP 80"]);
        assert_eq!(wanted.push.frontends[0].routes[0].hostnames, ["shop.example"]);
        assert!(wanted.push.frontends[1].routes.is_empty(), "the section is another");
        assert_eq!(wanted.push.frontends[2].source_ranges, ["10.0.0.0/8"]);
        let servers: Vec<String> = wanted
            .push
            .backends
            .iter()
            .flat_map(|b| b.servers.iter().map(move |s| format!("{} {}:{} {}", b.name, s.address, s.port, s.weight)))
            .collect();
        assert_eq!(
            servers,
            [
                "shop_web_0 10.0.0.1:8080 256",
                "shop_web_0 10.0.0.2:8080 43",
                "shop_web_0 10.0.0.3:8080 43",
                "shop_lb_80 10.0.0.4:8080 256"
            ]
        );
        let refused: Vec<String> = wanted.refused.iter().map(|r| format!("{} {}", r.owner, r.field)).collect();
        assert_eq!(
            refused,
            [
                "HTTPRoute shop/web spec.rules[0].backendRefs[2]",
                "Gateway shop/ours spec.listeners[1].tls.certificateRefs[0]"
            ]
        );
        assert_eq!(wanted.routes.len(), 1);
    }
}
