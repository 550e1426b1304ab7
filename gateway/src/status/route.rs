//! Statuses of routes, which all kinds share.

use std::sync::Arc;

use atoll_api::kinds::Condition;
use atoll_api::kinds::gateway::{
    GATEWAY_CONTROLLER, GRPCRoute, Gateway, HTTPRoute, ParentReference, RouteParentStatus, RouteStatus, TCPRoute,
    TLSRoute, UDPRoute,
};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Update;
use super::condition::{Verdict, alike, replace};
use crate::table::Input;

/// A route of any kind.
pub(crate) trait RouteObject: std::fmt::Debug + Send + Sync {
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
    /// The parents that it names, where its status speaks of them.
    fn parents(&self) -> &[ParentReference] {
        &[]
    }
    /// The status that it bears, where that speaks of parents.
    fn status(&self) -> Option<&RouteStatus> {
        None
    }
    /// The same with another status.
    fn update(&self, _: &RouteStatus) -> Option<Update> {
        None
    }
}

macro_rules! route_objects {
    ($($kind:ty)*) => {$(
        impl RouteObject for $kind {
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn parents(&self) -> &[ParentReference] {
                &self.spec.parent_refs
            }

            fn status(&self) -> Option<&RouteStatus> {
                self.status.as_ref()
            }

            fn update(&self, status: &RouteStatus) -> Option<Update> {
                Update::of(self, status)
            }
        }
    )*};
}

route_objects!(HTTPRoute GRPCRoute TLSRoute TCPRoute UDPRoute);

/// Its status says where it is reached, and nothing of parents.
impl RouteObject for Ingress {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// It stands for a Service, whose status says where it is reached.
impl RouteObject for Gateway {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// What became of a route at one parent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ParentVerdict {
    /// The parent's place among those that the route names.
    pub(crate) parent: usize,
    pub(crate) verdicts: Arc<[Verdict]>,
}

/// What became of a route.
#[derive(Debug, Clone)]
pub(crate) struct RouteVerdicts {
    pub(crate) object: Arc<dyn RouteObject>,
    pub(crate) parents: Vec<ParentVerdict>,
}

/// The status of a route, where it says something else than before. The parents of other controllers stay, and those of
/// other fleets; of ours, those that are no longer named go.
pub(super) fn update(verdicts: &RouteVerdicts, input: &Input<'_>) -> Option<Update> {
    let old = verdicts.object.status().map(|s| s.parents.as_slice()).unwrap_or_default();
    let generation = verdicts.object.meta().generation;
    let namespace = verdicts.object.meta().namespace.as_deref().unwrap_or_default();
    let ours = |p: &&RouteParentStatus| input.fleet.says(input.objects, namespace, &p.controller_name, &p.parent_ref);
    let mut parents: Vec<_> = old.iter().filter(|p| !ours(p)).cloned().collect();
    for said in &verdicts.parents {
        let Some(parent) = verdicts.object.parents().get(said.parent) else { continue };
        let before = old.iter().filter(ours).find(|p| p.parent_ref == *parent);
        let kept: &[Condition] = before.map(|p| p.conditions.as_slice()).unwrap_or_default();
        parents.push(RouteParentStatus {
            parent_ref: parent.clone(),
            controller_name: GATEWAY_CONTROLLER.to_owned(),
            conditions: replace(kept, said.verdicts.to_vec(), generation, input.now),
        });
    }
    (!alike(old, &parents)).then(|| verdicts.object.update(&RouteStatus { parents })).flatten()
}
