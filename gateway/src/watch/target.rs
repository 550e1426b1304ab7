//! What policies refer to among what is watched: whether a target is there, and where backends are.

use std::sync::Arc;

use atoll_api::kinds::gateway::{GATEWAY_GROUP, ParentReference};

use super::{Known, Watches};
use crate::objects::{Identify, Objects};
use crate::policy::{Backends, Judged, Target};
use crate::status::policies::Others;

impl Watches {
    /// Where the backends of filters are looked up.
    pub(crate) fn backends(&self) -> Backends {
        Backends { services: self.services.known.clone(), slices: self.slices.known.clone() }
    }

    /// What tells whose a Gateway is; nothing where there are no other fleets.
    pub(crate) fn owners(&self) -> Option<Objects> {
        (!self.settings.fleet().told().is_empty()).then(|| Objects {
            classes: self.classes.objects(&self.before.classes),
            gateways: self.gateways.objects(&self.before.gateways),
            sets: self.sets.objects(&self.before.sets),
            ..Objects::default()
        })
    }

    /// What other fleets say of a policy.
    pub(crate) fn others<'a>(&'a self, owners: Option<&'a Objects>, judged: &'a Judged) -> Others<'a> {
        let namespace = judged.object.metadata.namespace.as_deref().unwrap_or_default();
        Others {
            leaves: Box::new(move |parent| self.leaves(owners, namespace, parent)),
            left: judged.targets.iter().any(|target| self.is_left(owners, target)),
        }
    }

    /// Whether what stands at `parent`, for an object of `namespace`, is for another fleet to say.
    fn leaves(&self, owners: Option<&Objects>, namespace: &str, parent: &ParentReference) -> bool {
        owners.is_some_and(|objects| self.settings.fleet().leaves(objects, namespace, parent))
    }

    /// Whether a policy with this target is another fleet's: the target is, or a parent of it.
    fn is_left(&self, owners: Option<&Objects>, target: &Target) -> bool {
        let parents = match target.kind.as_str() {
            kind @ ("Gateway" | "ListenerSet") => Some(vec![ParentReference {
                group: Some(GATEWAY_GROUP.to_owned()),
                kind: Some(kind.to_owned()),
                name: target.name.clone(),
                ..ParentReference::default()
            }]),
            "HTTPRoute" => at(&self.routes.known, target).map(|o| o.spec.parent_refs.clone()),
            "GRPCRoute" => at(&self.grpc.known, target).map(|o| o.spec.parent_refs.clone()),
            "TLSRoute" => at(&self.tls.known, target).map(|o| o.spec.parent_refs.clone()),
            "TCPRoute" => at(&self.tcp.known, target).map(|o| o.spec.parent_refs.clone()),
            "UDPRoute" => at(&self.udp.known, target).map(|o| o.spec.parent_refs.clone()),
            _ => None,
        };
        parents.into_iter().flatten().any(|parent| self.leaves(owners, &target.namespace, &parent))
    }

    /// Whether what a policy targets is there, its section included.
    pub(crate) fn has(&self, target: &Target) -> bool {
        let names = match target.kind.as_str() {
            "Gateway" => at(&self.gateways.known, target)
                .map(|o| o.spec.listeners.iter().map(|l| Some(l.name.clone())).collect()),
            "ListenerSet" => {
                at(&self.sets.known, target).map(|o| o.spec.listeners.iter().map(|l| Some(l.name.clone())).collect())
            }
            "HTTPRoute" => {
                at(&self.routes.known, target).map(|o| o.spec.rules.iter().map(|r| r.name.clone()).collect())
            }
            "GRPCRoute" => at(&self.grpc.known, target).map(|o| o.spec.rules.iter().map(|r| r.name.clone()).collect()),
            "TLSRoute" => at(&self.tls.known, target).map(|o| o.spec.rules.iter().map(|r| r.name.clone()).collect()),
            "TCPRoute" => at(&self.tcp.known, target).map(|o| o.spec.rules.iter().map(|r| r.name.clone()).collect()),
            "UDPRoute" => at(&self.udp.known, target).map(|o| o.spec.rules.iter().map(|r| r.name.clone()).collect()),
            "Ingress" => at(&self.ingresses.known, target).map(|_| Vec::new()),
            _ => None,
        };
        let names: Option<Vec<Option<String>>> = names;
        names.is_some_and(|names| target.section.is_none() || names.contains(&target.section))
    }
}

fn at<K: Identify>(known: &Known<K>, target: &Target) -> Option<Arc<K>> {
    known.get(&target.namespace, &target.name)
}
