//! Which GatewayClasses the replicas of a fleet serve. Fleets stand beside each other on one API, an internal and a public one for example:
//! each leaves alone what another serves, and what another says of it. Pure.
//!
//! In: the classes that a fleet is told. Out: which classes, Gateways and replicas are its own. Not told any it serves every class of the
//! controller. Source: Gateway API (GatewayClass; RouteParentStatus, `controllerName` and `parentRef`).

use std::collections::BTreeSet;

use atoll_api::kinds::gateway::{
    GATEWAY_CLASS, GATEWAY_CONTROLLER, GATEWAY_GROUP, Gateway, GatewayClass, ParentReference,
};
use atoll_api::topology::Site;
use k8s_openapi::api::networking::v1::IngressClass;
use kube::ResourceExt as _;

use crate::ingress::mark;
use crate::objects::Objects;

/// The Lease by which the replicas of the one fleet that serves everything settle who writes.
const LEASE: &str = "atoll-gateway";

/// The classes that this fleet is told; none: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fleet(BTreeSet<String>);

impl Fleet {
    pub(crate) fn new(classes: impl IntoIterator<Item = String>) -> Self {
        Self(classes.into_iter().collect())
    }

    fn serves(&self, class: &str) -> bool {
        self.0.is_empty() || self.0.contains(class)
    }

    /// Whether a class is this fleet's.
    pub(crate) fn takes(&self, class: &GatewayClass) -> bool {
        class.spec.controller_name == GATEWAY_CONTROLLER && self.serves(&class.name_any())
    }

    /// Whether an IngressClass may be this fleet's: one of our controller is where it has the name of a class that is.
    pub(crate) fn may_take(&self, class: &IngressClass) -> bool {
        let controller = class.spec.as_ref().and_then(|spec| spec.controller.as_deref());
        controller != Some(GATEWAY_CONTROLLER) || self.serves(&class.name_any())
    }

    /// The classes that are there from the start, or that it was told.
    pub(crate) fn classes(&self) -> Vec<String> {
        if self.0.is_empty() { vec![GATEWAY_CLASS.to_owned()] } else { self.0.iter().cloned().collect() }
    }

    /// Which were told, for the others.
    pub(crate) fn told(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }

    /// Whether a site is a replica of this fleet.
    pub(crate) fn has(&self, site: &Site) -> bool {
        site.kind == "gateway" && site.classes.iter().eq(&self.0)
    }

    /// The Lease that says who of this fleet writes.
    pub(crate) fn lease(&self) -> String {
        if self.0.is_empty() { LEASE.to_owned() } else { format!("{LEASE}-{}", mark(&format!("{:?}", self.0))) }
    }

    /// Whether what `controller` says in a status, of an object of `namespace` at `parent`, is this fleet's word.
    pub(crate) fn says(&self, objects: &Objects, namespace: &str, controller: &str, parent: &ParentReference) -> bool {
        controller == GATEWAY_CONTROLLER && !self.leaves(objects, namespace, parent)
    }

    /// Whether what stands at `parent`, for an object of `namespace`, is for another fleet to say: its Gateway is there, of a class of our
    /// controller, and not ours.
    pub(crate) fn leaves(&self, objects: &Objects, namespace: &str, parent: &ParentReference) -> bool {
        if self.0.is_empty() || parent.group.as_deref().unwrap_or(GATEWAY_GROUP) != GATEWAY_GROUP {
            return false;
        }
        let at = parent.namespace.as_deref().unwrap_or(namespace);
        match parent.kind.as_deref().unwrap_or("Gateway") {
            "Gateway" => {
                objects.gateways.get(at, &parent.name).is_some_and(|gateway| self.is_anothers(objects, gateway))
            }
            "ListenerSet" => objects.sets.get(at, &parent.name).is_some_and(|set| {
                let of = &set.spec.parent_ref;
                let gateway = objects.gateways.get(of.namespace.as_deref().unwrap_or(at), &of.name);
                gateway.is_some_and(|gateway| self.is_anothers(objects, gateway))
            }),
            _ => false,
        }
    }

    fn is_anothers(&self, objects: &Objects, gateway: &Gateway) -> bool {
        let class = objects.classes.get("", &gateway.spec.gateway_class_name);
        class.is_some_and(|class| class.spec.controller_name == GATEWAY_CONTROLLER && !self.takes(class))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fleet_takes_the_classes_that_it_is_told_and_knows_its_own_replicas() {
        let class = |name: &str, controller: &str| -> GatewayClass {
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"controllerName": controller}})).unwrap()
        };
        let site = |classes: &[&str]| Site {
            kind: "gateway".into(),
            classes: classes.iter().map(|c| (*c).to_owned()).collect(),
            ..Site::default()
        };
        let (all, internal) = (Fleet::default(), Fleet::new(["internal".to_owned()]));
        for (fleet, name, controller, takes) in [
            (&all, "atoll", GATEWAY_CONTROLLER, true),
            (&all, "internal", GATEWAY_CONTROLLER, true),
            (&all, "internal", "example.com/other", false),
            (&internal, "internal", GATEWAY_CONTROLLER, true),
            (&internal, "atoll", GATEWAY_CONTROLLER, false),
        ] {
            assert_eq!(fleet.takes(&class(name, controller)), takes, "{fleet:?} {name} {controller}");
        }
        assert!(all.has(&site(&[])) && !all.has(&site(&["internal"])));
        assert!(internal.has(&site(&["internal"])) && !internal.has(&site(&["internal", "other"])));
        assert_eq!((all.lease().as_str(), all.classes()), (LEASE, vec!["atoll".to_owned()]));
        assert_ne!(internal.lease(), Fleet::new(["public".to_owned()]).lease());
    }
}
