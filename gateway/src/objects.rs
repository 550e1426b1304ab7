//! The objects that routes are made of, as the hub's API last said them.
//!
//! Plain lists: what is built from them does not know whether they came from a watch or from the last good file. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use atoll_api::kinds::gateway::{Gateway, GatewayClass, HTTPRoute, ReferenceGrant};
use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;

/// The label by which an EndpointSlice names its Service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Everything that routes are made of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Objects {
    pub(crate) classes: Vec<Arc<GatewayClass>>,
    pub(crate) gateways: Vec<Arc<Gateway>>,
    pub(crate) routes: Vec<Arc<HTTPRoute>>,
    pub(crate) grants: Vec<Arc<ReferenceGrant>>,
    pub(crate) secrets: Vec<Arc<Secret>>,
    pub(crate) services: Vec<Arc<Service>>,
    pub(crate) slices: Vec<Arc<EndpointSlice>>,
    pub(crate) namespaces: Vec<Arc<Namespace>>,
}

impl Objects {
    /// Only what routes really use: Secrets that listeners name, Services that rules name, and their EndpointSlices.
    pub(crate) fn used(&self) -> Self {
        let secrets = self.named_secrets();
        let services = self.named_services();
        let at = |namespace: Option<String>, name: String| (namespace.unwrap_or_default(), name);
        let mut used = self.clone();
        used.secrets.retain(|s| secrets.contains(&at(s.namespace(), s.name_any())));
        used.services.retain(|s| services.contains(&at(s.namespace(), s.name_any())));
        used.slices.retain(|s| {
            let name = s.labels().get(SERVICE_NAME).cloned().unwrap_or_default();
            services.contains(&at(s.namespace(), name))
        });
        used
    }

    fn named_secrets(&self) -> BTreeSet<(String, String)> {
        let listeners = self.gateways.iter().flat_map(|g| g.spec.listeners.iter().map(move |l| (g.namespace(), l)));
        let refs = listeners.flat_map(|(namespace, listener)| {
            listener.tls.iter().flat_map(|tls| &tls.certificate_refs).map(move |r| (namespace.clone(), r))
        });
        refs.map(|(own, r)| (r.namespace.clone().or(own).unwrap_or_default(), r.name.clone())).collect()
    }

    fn named_services(&self) -> BTreeSet<(String, String)> {
        let mut named = BTreeSet::new();
        for route in &self.routes {
            let own = route.namespace().unwrap_or_default();
            for rule in &route.spec.rules {
                let filters = rule.filters.iter().chain(rule.backend_refs.iter().flat_map(|b| &b.filters));
                let mirrors = filters.filter_map(|f| f.request_mirror.as_ref()).map(|m| &m.backend_ref);
                for target in rule.backend_refs.iter().map(|b| &b.target).chain(mirrors) {
                    named.insert((target.namespace.clone().unwrap_or_else(|| own.clone()), target.name.clone()));
                }
            }
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn all<K: serde::de::DeserializeOwned>(objects: &[Value]) -> Vec<Arc<K>> {
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
        let objects = Objects {
            gateways: all(&[gateway]),
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
        assert_eq!(names(used.secrets.iter().map(|s| (s.namespace(), s.name_any())).collect()), "a/own b/far");
        assert_eq!(names(used.services.iter().map(|s| (s.namespace(), s.name_any())).collect()), "a/own b/mirror");
        assert_eq!(names(used.slices.iter().map(|s| (s.namespace(), s.name_any())).collect()), "a/1");
        assert_eq!(used.gateways.len(), 1);
    }
}
