//! What policies refer to among what is watched: whether a target is there, and where backends are.

use std::sync::Arc;

use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};

use super::Watches;
use crate::policy::{Backends, Target};

impl Watches {
    /// Where the backends of filters are looked up.
    pub(crate) fn backends(&self) -> Backends {
        Backends { services: self.services.store.clone(), slices: self.slices.store.clone() }
    }

    /// Whether what a policy targets is there, its section included.
    pub(crate) fn has(&self, target: &Target) -> bool {
        let names = match target.kind.as_str() {
            "Gateway" => at(&self.gateways.store, target)
                .map(|o| o.spec.listeners.iter().map(|l| Some(l.name.clone())).collect()),
            "ListenerSet" => {
                at(&self.sets.store, target).map(|o| o.spec.listeners.iter().map(|l| Some(l.name.clone())).collect())
            }
            "HTTPRoute" => {
                at(&self.routes.store, target).map(|o| o.spec.rules.iter().map(|r| r.name.clone()).collect())
            }
            "GRPCRoute" => at(&self.grpc.store, target).map(|o| o.spec.rules.iter().map(|r| r.name.clone()).collect()),
            "TLSRoute" => at(&self.tls.store, target).map(|o| o.spec.rules.iter().map(|r| r.name.clone()).collect()),
            "TCPRoute" => at(&self.tcp.store, target).map(|o| o.spec.rules.iter().map(|r| r.name.clone()).collect()),
            "UDPRoute" => at(&self.udp.store, target).map(|o| o.spec.rules.iter().map(|r| r.name.clone()).collect()),
            "Ingress" => at(&self.ingresses.store, target).map(|_| Vec::new()),
            _ => None,
        };
        let names: Option<Vec<Option<String>>> = names;
        names.is_some_and(|names| target.section.is_none() || names.contains(&target.section))
    }
}

fn at<K: Resource<DynamicType = ()> + Clone>(store: &Store<K>, target: &Target) -> Option<Arc<K>> {
    store.get(&ObjectRef::new(&target.name).within(&target.namespace))
}
