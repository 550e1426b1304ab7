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
use super::condition::{self, Verdict, alike, replace};
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
    fn status(&self) -> Option<RouteStatus> {
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

            fn status(&self) -> Option<RouteStatus> {
                self.status.clone().map(unfolded)
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

/// Holds a status in less memory, of which [`RouteObject::status`] gives the whole.
pub(crate) fn fold(status: &mut Option<RouteStatus>) {
    let parents = status.iter_mut().flat_map(|status| &mut status.parents);
    parents.for_each(|parent| condition::fold(&mut parent.conditions));
}

fn unfolded(mut status: RouteStatus) -> RouteStatus {
    status.parents.iter_mut().for_each(|parent| condition::unfold(&mut parent.conditions));
    status
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
    let old = verdicts.object.status().map(|s| s.parents).unwrap_or_default();
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
    (!alike(&old, &parents)).then(|| verdicts.object.update(&RouteStatus { parents })).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_status_that_was_folded_says_what_it_said_and_only_the_common_one_is() {
        let condition = |kind: &str, status: &str, message: &str, second: u8| {
            json!({"type": kind, "status": status, "reason": kind, "message": message, "observedGeneration": 3,
                "lastTransitionTime": format!("2026-11-29T10:00:0{second}Z")})
        };
        let resolved = condition("ResolvedRefs", "True", "everything that it names is there", 1);
        let accepted = |status: &str, message: &str, second| condition("Accepted", status, message, second);
        let served = accepted("True", "the route is served", 1);
        for (name, conditions, folds) in [
            ("the common one", json!([served, resolved]), true),
            ("another order", json!([resolved, served]), false),
            ("two times", json!([accepted("True", "the route is served", 2), resolved]), false),
            ("refused", json!([accepted("False", "the route is served", 1), resolved]), false),
            ("other words", json!([accepted("True", "fine", 1), resolved]), false),
            ("more", json!([served, resolved, condition("PartiallyInvalid", "True", "", 1)]), false),
            ("none", json!([]), false),
        ] {
            let parent =
                |name: &str| json!({"parentRef": {"name": name}, "controllerName": "c", "conditions": conditions});
            let written =
                json!({"metadata": {"name": "r"}, "spec": {}, "status": {"parents": [parent("a"), parent("b")]}});
            let route: HTTPRoute = from_value(written).unwrap();
            let mut folded = route.clone();
            fold(&mut folded.status);
            assert_eq!(folded.status != route.status, folds, "{name}");
            assert_eq!(RouteObject::status(&folded), route.status, "{name}");
        }
    }
}
