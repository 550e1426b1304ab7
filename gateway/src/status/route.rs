//! Statuses of routes, which all kinds share.

use std::sync::{Arc, LazyLock};

use atoll_api::kinds::gateway::{GATEWAY_CONTROLLER, Gateway, ParentReference, RouteParentStatus};
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::Ingress;
use kube::core::ApiResource;

use super::condition::{SERVED, Verdict, alike, replace};
use super::{Status, Update};
use crate::objects::{Identify, Route, Spec};
use crate::table::Input;

/// Makes the kind of an object, as the API has it.
pub(crate) type KindOf = fn() -> ApiResource;

/// A route of any kind.
pub(crate) trait RouteObject: Identify + std::fmt::Debug + Send + Sync {
    /// kind namespace/name, where it holds that.
    fn label(&self) -> Option<Arc<str>> {
        None
    }
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
    /// Its kind, and the version that it is of, where its status speaks of parents.
    fn written(&self) -> Option<(KindOf, Option<&str>)> {
        None
    }
}

impl<S: Spec> RouteObject for Route<S> {
    fn label(&self) -> Option<Arc<str>> {
        Some(Arc::clone(&self.label))
    }

    fn parents(&self) -> &[ParentReference] {
        self.spec.parents()
    }

    fn said(&self) -> Vec<RouteParentStatus> {
        Self::said(self)
    }

    fn written(&self) -> Option<(KindOf, Option<&str>)> {
        Some((|| ApiResource::erase::<S::Object>(&()), self.version.as_deref()))
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
    pub(crate) parents: Arc<[ParentVerdict]>,
}

impl RouteVerdicts {
    /// What most routes have, one parent that serves them, is there once.
    pub(crate) fn new(object: Arc<dyn RouteObject>, parents: Vec<ParentVerdict>) -> Self {
        static ONE: LazyLock<Arc<[ParentVerdict]>> =
            LazyLock::new(|| [ParentVerdict { parent: 0, verdicts: Arc::clone(&SERVED) }].into());
        let parents = if *parents == **ONE { Arc::clone(&ONE) } else { parents.into() };
        Self { object, parents }
    }
}

/// What is to be said of a route.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    verdicts: RouteVerdicts,
    /// What its status says of parents of others, which stays.
    others: Vec<RouteParentStatus>,
    now: Timestamp,
}

impl Statement {
    /// Its parents in words. Of ours, those that are no longer named go.
    pub(super) fn parents(&self) -> Vec<RouteParentStatus> {
        let RouteVerdicts { object, parents } = &self.verdicts;
        let (named, old) = (object.parents(), object.said());
        let ours = parents.iter().filter_map(|said| {
            let parent = named.get(said.parent)?;
            let before = old.iter().find(|p| p.parent_ref == *parent && !self.others.contains(p));
            let kept = before.map(|p| p.conditions.as_slice()).unwrap_or_default();
            Some(RouteParentStatus {
                parent_ref: parent.clone(),
                controller_name: GATEWAY_CONTROLLER.to_owned(),
                conditions: replace(kept, said.verdicts.to_vec(), object.generation(), self.now),
            })
        });
        self.others.iter().cloned().chain(ours).collect()
    }
}

/// The status of a route, where it says something else than before. The parents of other controllers stay, and those of other fleets.
pub(super) fn update(verdicts: &RouteVerdicts, input: &Input<'_>) -> Option<Update> {
    let (resource, version) = verdicts.object.written()?;
    let (old, (namespace, name)) = (verdicts.object.said(), verdicts.object.place());
    let ours = |p: &&RouteParentStatus| input.fleet.says(input.objects, namespace, &p.controller_name, &p.parent_ref);
    let others = old.iter().filter(|p| !ours(p)).cloned().collect();
    let statement = Statement { verdicts: verdicts.clone(), others, now: input.now };
    (!alike(&old, &statement.parents())).then(|| Update {
        resource,
        namespace: Some(namespace.to_owned()),
        name: name.to_owned(),
        version: version.map(str::to_owned),
        status: Status::Route(Box::new(statement)),
    })
}
