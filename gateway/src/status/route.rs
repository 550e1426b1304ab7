//! Statuses of routes, which all kinds share.

use std::sync::Arc;

use atoll_api::kinds::Condition;
use atoll_api::kinds::gateway::{GATEWAY_CONTROLLER, Gateway, ParentReference, RouteParentStatus, RouteStatus};
use k8s_openapi::api::networking::v1::Ingress;

use super::Update;
use super::condition::{Verdict, alike, replace};
use crate::objects::{Identify, Route, Spec};
use crate::table::Input;

/// A route of any kind.
pub(crate) trait RouteObject: Identify + std::fmt::Debug + Send + Sync {
    /// Its identity, where that is told to anybody.
    fn uid(&self) -> Option<String> {
        None
    }
    /// The parents that it names, where its status speaks of them.
    fn parents(&self) -> &[ParentReference] {
        &[]
    }
    /// What its status says of parents.
    fn said(&self) -> Vec<RouteParentStatus> {
        Vec::new()
    }
    /// The same with another status.
    fn update(&self, _: &RouteStatus) -> Option<Update> {
        None
    }
}

impl<S: Spec> RouteObject for Route<S> {
    fn parents(&self) -> &[ParentReference] {
        self.spec.parents()
    }

    fn said(&self) -> Vec<RouteParentStatus> {
        Self::said(self)
    }

    fn update(&self, status: &RouteStatus) -> Option<Update> {
        Update::new::<S::Object>(self, self.version.as_deref(), status)
    }
}

/// Its status says where it is reached, and nothing of parents.
impl RouteObject for Ingress {
    fn uid(&self) -> Option<String> {
        self.metadata.uid.clone()
    }
}

/// It stands for a Service, whose status says where it is reached.
impl RouteObject for Gateway {}

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
    let old = verdicts.object.said();
    let (generation, (namespace, _)) = (verdicts.object.generation(), verdicts.object.place());
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
    (!alike(&old, &parents)).then(|| verdicts.object.update(&RouteStatus { parents })).flatten()
}
