//! What became of every object: verdicts turned into statuses, which change only where they say something else. Pure.
//!
//! In: the draft, and the statuses that the objects bear. Out: [`Statuses`], those to be written. `write` writes them.

mod condition;
mod features;
mod gateway;
mod lead;
mod policy;
mod route;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod write;

use std::collections::BTreeSet;

use atoll_api::kinds::gateway::{GATEWAY_CONTROLLER, GatewayClass, GatewayClassStatus, SupportedFeature};
use jiff::Timestamp;
use kube::core::ApiResource;
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde_json::Value;

pub(crate) use condition::Verdict;
use condition::merge;
pub(crate) use route::{ParentVerdict, RouteObject, RouteVerdicts};

use crate::table::{GatewayDraft, Input, Policies};

/// A status to be written.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    pub(crate) resource: ApiResource,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    /// The version of the object that it is about.
    pub(crate) version: Option<String>,
    pub(crate) status: Value,
}

impl Update {
    fn of<K: Resource<DynamicType = ()>>(object: &K, status: &impl Serialize) -> Option<Self> {
        Some(Self {
            resource: ApiResource::erase::<K>(&()),
            namespace: object.namespace(),
            name: object.name_any(),
            version: object.resource_version(),
            status: serde_json::to_value(status).ok()?,
        })
    }
}

/// Statuses that differ from what the objects bear.
#[derive(Debug, Clone, Default)]
pub(crate) struct Statuses {
    pub(crate) updates: Vec<Update>,
    /// What is to stand beside Gateways that have addresses of their own.
    pub(crate) made: Vec<Value>,
}

/// Judges everything. `ancestors`: which policies have to do with which Gateways, both by their places.
pub(crate) fn judge(
    input: &Input<'_>,
    gateways: &[GatewayDraft],
    routes: &[RouteVerdicts],
    policies: &Policies,
    ancestors: &BTreeSet<(usize, usize)>,
) -> Statuses {
    let classes = input.objects.classes.iter().filter(|c| c.spec.controller_name == GATEWAY_CONTROLLER);
    let classes = classes.filter_map(|c| {
        let status = class(c, input.objects.lacks_experimental(), input.now);
        (c.status.as_ref() != Some(&status)).then(|| Update::of(&**c, &status)).flatten()
    });
    let of_gateways = gateways.iter().flat_map(|draft| gateway::updates(draft, input));
    let of_routes = routes.iter().filter_map(|verdicts| route::update(verdicts, input.now));
    let of_policies = policy::updates(policies, gateways, ancestors, input.now);
    Statuses {
        updates: classes.chain(of_gateways).chain(of_routes).chain(of_policies).collect(),
        made: gateways.iter().filter_map(|draft| gateway::made(draft, input)).collect(),
    }
}

fn class(class: &GatewayClass, standard: bool, now: Timestamp) -> GatewayClassStatus {
    let old = class.status.clone().unwrap_or_default();
    let verdict = match &class.spec.parameters_ref {
        None => Verdict::new("Accepted", true, "Accepted", "Gateways of this class are served"),
        Some(_) => Verdict::new("Accepted", false, "InvalidParameters", "this controller takes no parameters"),
    };
    GatewayClassStatus {
        conditions: merge(&old.conditions, [verdict], class.metadata.generation, now),
        supported_features: features::supported(standard)
            .map(|name| SupportedFeature { name: name.to_owned() })
            .collect(),
    }
}
