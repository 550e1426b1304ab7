//! The objects that routes are made of, as the hub's API last said them.
//!
//! What is built from them does not know whether they came from a watch or from the last good file. A clone costs pointers. Pure.

mod edit;
mod identify;
mod route;
mod shelf;

use std::collections::BTreeSet;
use std::sync::Arc;

use atoll_api::ingress::option;
use atoll_api::kinds::gateway::{
    BackendObjectReference, BackendTLSPolicy, GRPCRouteSpec, Gateway, GatewayClass, HTTPRouteSpec, Listener,
    ListenerSet, ReferenceGrant, TCPRouteSpec, TLSRouteSpec, UDPRouteSpec,
};
use atoll_api::topology::is_balancer;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;

use crate::balancer::{self, Balancers};
use crate::ingress::{self, Derived};
use crate::names::Found;
use crate::pods::Labelled;
use crate::quota::Over;
use crate::table::is_front;
pub(crate) use edit::{Edit, Kept, Kind};
pub(crate) use identify::{Age, Identify, Seniority, age, label_parts, name_of, seniority};
pub(crate) use route::{Route, Spec};
pub(crate) use shelf::{Name, Shelf, Slices, service_of};

pub(crate) type HttpRoute = Route<HTTPRouteSpec>;
pub(crate) type GrpcRoute = Route<GRPCRouteSpec>;
pub(crate) type TlsRoute = Route<TLSRouteSpec>;
pub(crate) type TcpRoute = Route<TCPRouteSpec>;
pub(crate) type UdpRoute = Route<UDPRouteSpec>;

/// The label by which an EndpointSlice names its Service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// By which a definition says what channel it is of.
const CHANNEL: &str = "gateway.networking.k8s.io/channel";

/// The Secrets that listeners show; `own`: the namespace of the object that they are of.
pub(crate) fn shown(listeners: &[Listener], own: Option<String>) -> impl Iterator<Item = Name> {
    let refs = listeners.iter().flat_map(|l| &l.tls).flat_map(|tls| &tls.certificate_refs);
    let own = own.unwrap_or_default();
    refs.map(move |r| (r.namespace.clone().unwrap_or_else(|| own.clone()), r.name.clone()))
}

/// Everything that routes are made of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Objects {
    /// The definition of HTTPRoutes, which says what channel of the Gateway API is installed.
    pub(crate) definitions: Shelf<CustomResourceDefinition>,
    pub(crate) classes: Shelf<GatewayClass>,
    pub(crate) gateways: Shelf<Gateway>,
    pub(crate) sets: Shelf<ListenerSet>,
    pub(crate) routes: Shelf<HttpRoute>,
    pub(crate) grpc: Shelf<GrpcRoute>,
    pub(crate) tls: Shelf<TlsRoute>,
    pub(crate) tcp: Shelf<TcpRoute>,
    pub(crate) udp: Shelf<UdpRoute>,
    pub(crate) policies: Shelf<BackendTLSPolicy>,
    pub(crate) grants: Shelf<ReferenceGrant>,
    pub(crate) secrets: Shelf<Secret>,
    /// Of all of them what may be an authority.
    pub(crate) configs: Shelf<ConfigMap>,
    pub(crate) services: Shelf<Service>,
    pub(crate) slices: Slices,
    pub(crate) namespaces: Shelf<Namespace>,
    pub(crate) ingresses: Shelf<Ingress>,
    pub(crate) ingress_classes: Shelf<IngressClass>,
    /// What the Ingresses of our classes become; their Gateway and its grants stand among the others.
    pub(crate) derived: Arc<Derived>,
    /// The Services of type LoadBalancer that are served; their Gateways stand among the others.
    pub(crate) balancers: Arc<Balancers>,
    /// What is over the bounds of its namespace.
    pub(crate) over: Arc<Over>,
    /// What the names of backends lead to.
    pub(crate) names: Arc<Found>,
    /// Labels of pods, by which subsets of Services are told apart.
    pub(crate) pods: Labelled,
}

impl Objects {
    /// Whether the standard channel of the Gateway API is installed, which lacks some fields.
    pub(crate) fn lacks_experimental(&self) -> bool {
        let mut channels = self.definitions.iter().filter_map(|d| d.annotations().get(CHANNEL));
        channels.any(|channel| channel == "standard")
    }

    /// How many routes there are, of every kind.
    pub(crate) fn routes_len(&self) -> usize {
        self.derived.live.len() + self.routes.len() + self.grpc.len() + self.tls.len() + self.tcp.len() + self.udp.len()
    }

    /// A ConfigMap.
    pub(crate) fn config(&self, namespace: &str, name: &str) -> Option<&Arc<ConfigMap>> {
        self.configs.get(namespace, name)
    }

    /// Only what routes really use: Secrets and ConfigMaps that are named, Services that rules name, their EndpointSlices and pods.
    pub(crate) fn used(&self) -> Self {
        let (secrets, configs, services) = (self.named_secrets(), self.named_configs(), self.named_services());
        let at = |namespace: Option<String>, name: String| (namespace.unwrap_or_default(), name);
        let mut used = self.clone();
        used.secrets.retain(|s| secrets.contains(&at(s.namespace(), s.name_any())));
        used.configs.retain(|c| configs.contains(&at(c.namespace(), c.name_any())));
        used.services.retain(|s| is_front(s) || is_balancer(s) || services.contains(&at(s.namespace(), s.name_any())));
        let balanced = |service: &Name| self.services.at(service).is_some_and(|s| is_balancer(s));
        used.slices.retain(|service| services.contains(service) || balanced(service));
        if !used.pods.is_empty() {
            let named = |slice: &Arc<EndpointSlice>| {
                let targets = slice.endpoints.iter().filter_map(|e| e.target_ref.as_ref()?.name.clone());
                targets.map(|pod| at(slice.namespace(), pod)).collect::<Vec<_>>()
            };
            let pods: BTreeSet<Name> = used.slices.iter().flat_map(named).collect();
            used.pods =
                used.pods.iter().filter(|(pod, _)| pods.contains(*pod)).map(|(k, v)| (k.clone(), v.clone())).collect();
        }
        // They are made of Ingresses and Services again.
        used.gateways.retain(|g| !ingress::is_ours(g) && !balancer::is_ours(g));
        used.tcp.retain(|r| !ingress::is_ours(r));
        used.udp.retain(|r| !ingress::is_ours(r));
        used.grants.retain(|g| !ingress::is_ours(g));
        used
    }

    fn named_secrets(&self) -> BTreeSet<(String, String)> {
        let own = self.gateways.iter().flat_map(|g| shown(&g.spec.listeners, g.namespace()));
        let added = self.sets.iter().flat_map(|s| shown(&s.spec.listeners, s.namespace()));
        let clients = self.gateways.iter().filter_map(|g| {
            Some((g.namespace(), g.spec.tls.as_ref()?.backend.as_ref()?.client_certificate_ref.as_ref()?))
        });
        let clients = clients.map(|(own, r)| (r.namespace.clone().or(own).unwrap_or_default(), r.name.clone()));
        own.chain(added).chain(clients).chain(self.vouching_secrets()).collect()
    }

    /// Those that say whom to trust: as clients of a listener, or as backends of an Ingress.
    fn vouching_secrets(&self) -> impl Iterator<Item = (String, String)> {
        let own = self.gateways.iter().flat_map(|g| g.spec.listeners.iter().map(move |l| (g.namespace(), l)));
        let added = self.sets.iter().flat_map(|s| s.spec.listeners.iter().map(move |l| (s.namespace(), l)));
        let clients = own.chain(added).filter_map(|(own, listener)| {
            let named = listener.tls.as_ref()?.options.get(option::CLIENT_CA)?;
            let (at, name) = named
                .split_once('/')
                .map_or((own.unwrap_or_default(), named.as_str()), |(at, name)| (at.to_owned(), name));
            Some((at, name.to_owned()))
        });
        let backends = self.derived.live.iter();
        clients
            .chain(backends.filter_map(|((at, _), live)| Some((at.clone(), live.part.trusts.as_ref()?.secret.clone()))))
    }

    fn named_configs(&self) -> BTreeSet<(String, String)> {
        let mut named: BTreeSet<(String, String)> = self.derived.maps.iter().flatten().cloned().collect();
        for gateway in self.gateways.iter() {
            let Some(frontend) = gateway.spec.tls.as_ref().and_then(|t| t.frontend.as_ref()) else { continue };
            let all = std::iter::once(&frontend.default).chain(frontend.per_port.iter().map(|p| &p.tls));
            for reference in all.filter_map(|s| s.validation.as_ref()).flat_map(|v| &v.ca_certificate_refs) {
                let at = reference.namespace.clone().or_else(|| gateway.namespace()).unwrap_or_default();
                named.insert((at, reference.name.clone()));
            }
        }
        for policy in self.policies.iter() {
            let refs = policy.spec.validation.ca_certificate_refs.iter();
            named.extend(refs.map(|r| (policy.namespace().unwrap_or_default(), r.name.clone())));
        }
        named
    }

    fn named_services(&self) -> BTreeSet<(String, String)> {
        let mut named = BTreeSet::new();
        let mut name = |own: &str, target: &BackendObjectReference| {
            named.insert((target.namespace.clone().unwrap_or_else(|| own.to_owned()), target.name.clone()));
        };
        let http = self
            .routes
            .iter()
            .flat_map(|r| r.spec.rules.iter().map(|rule| (r.place().0, &rule.filters, &rule.backend_refs)));
        let grpc = self
            .grpc
            .iter()
            .flat_map(|r| r.spec.rules.iter().map(|rule| (r.place().0, &rule.filters, &rule.backend_refs)));
        for (own, filters, backends) in http.chain(grpc) {
            let filters = filters.iter().chain(backends.iter().flat_map(|b| &b.filters));
            let mirrors = filters.filter_map(|f| f.request_mirror.as_ref()).map(|m| &m.backend_ref);
            backends.iter().map(|b| &b.target).chain(mirrors).for_each(|target| name(own, target));
        }
        let tls = self.tls.iter().map(|r| (r.place().0, &r.spec.rules));
        let tcp = self.tcp.iter().map(|r| (r.place().0, &r.spec.rules));
        let udp = self.udp.iter().map(|r| (r.place().0, &r.spec.rules));
        for (own, rules) in tls.chain(tcp).chain(udp) {
            rules.iter().flat_map(|r| &r.backend_refs).for_each(|b| name(own, &b.target));
        }
        for ((namespace, _), live) in &self.derived.live {
            let rules = live.part.routes.iter().flat_map(|route| &route.spec.rules);
            rules.flat_map(|r| &r.backend_refs).for_each(|b| name(namespace, &b.target));
            let passed = live.part.passed.iter().flat_map(|spec| &spec.rules).flat_map(|rule| &rule.backend_refs);
            passed.for_each(|b| name(namespace, &b.target));
            live.part.stand_in.iter().for_each(|b| name(namespace, &b.target));
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn all<K: serde::de::DeserializeOwned, A: FromIterator<Arc<K>>>(objects: &[Value]) -> A {
        objects.iter().map(|o| Arc::new(serde_json::from_value(o.clone()).unwrap())).collect()
    }

    fn named(namespace: &str, name: &str) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name}})
    }

    fn slice(name: &str, service: &str) -> Value {
        json!({"metadata": {"namespace": "a", "name": name, "labels": {SERVICE_NAME: service}}, "addressType": "IPv4", "endpoints": []})
    }

    #[test]
    fn only_secrets_and_services_that_are_named_are_used() {
        let refs = json!([{"name": "own"}, {"name": "far", "namespace": "b"}]);
        let gateway = json!({"metadata": {"namespace": "a", "name": "g"}, "spec": {"gatewayClassName": "atoll", "listeners": [
            {"name": "l", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": refs}}]}});
        let mirror =
            json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "mirror", "namespace": "b"}}}]);
        let route = json!({"metadata": {"namespace": "a", "name": "r"}, "spec": {"rules": [
            {"filters": mirror, "backendRefs": [{"name": "own"}]}]}});
        let here = [named("a", "own"), named("a", "far"), named("b", "far"), named("b", "own"), named("b", "mirror")];
        let set = json!({"metadata": {"namespace": "b", "name": "s"}, "spec": {"parentRef": {"name": "g", "namespace": "a"},
            "listeners": [{"name": "l", "port": 444, "protocol": "HTTPS", "tls": {"options": {"atoll.dev/client-ca": "own"}}}]}});
        let objects = Objects {
            gateways: all(&[gateway]),
            sets: all(&[set]),
            routes: all(&[route]),
            secrets: all(&here),
            services: all(&here),
            slices: all(&[slice("1", "own"), slice("2", "far")]),
            ..Objects::default()
        };
        let used = objects.used();
        let names = |all: Vec<(Option<String>, String)>| {
            all.into_iter().map(|(at, name)| format!("{}/{name}", at.unwrap())).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(used.secrets.iter().map(|s| (s.namespace(), s.name_any())).collect()), "a/own b/far b/own");
        assert_eq!(names(used.services.iter().map(|s| (s.namespace(), s.name_any())).collect()), "a/own b/mirror");
        assert_eq!(names(used.slices.iter().map(|s| (s.namespace(), s.name_any())).collect()), "a/1");
        assert_eq!(used.gateways.len(), 1);
    }
}
