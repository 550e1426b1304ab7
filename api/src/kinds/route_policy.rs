//! `RoutePolicy`: filters and limits of the gateway, attached to Gateways, ListenerSets, routes and Ingresses. Each filter is a row of the
//! gateway's table of filters; [`filters`] has what each takes, and [`schema`] makes one schema of it, so that an API server refuses a wrong
//! one and names the field.

pub mod filters;
mod schema;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use schema::{PARAMETERS, Parameters};

use super::gateway::PolicyStatus as AncestorsStatus;

/// Filters and limits for the targets that it names.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "atoll.dev",
    version = "v1alpha1",
    kind = "RoutePolicy",
    namespaced,
    status = "RoutePolicyStatus",
    shortname = "rp",
    category = "atoll",
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.ancestors[0].conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::without_defaults, extend("required" = ["targetRefs", "filters"]))]
pub struct RoutePolicySpec {
    /// What it is attached to, in the same namespace.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Filters. They work in the order of the gateway's table, whatever their order here; of one and the same filter in this order.
    #[schemars(schema_with = "schema::steps")]
    pub filters: Vec<FilterStep>,
}

/// A reference to an object of the same namespace (GEP-713).
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::without_defaults, extend("required" = ["group", "kind", "name"]))]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "(self.group == 'gateway.networking.k8s.io' && self.kind in ['Gateway', 'ListenerSet', 'HTTPRoute', 'GRPCRoute', 'TLSRoute', 'TCPRoute', 'UDPRoute']) || (self.group == 'networking.k8s.io' && self.kind == 'Ingress')",
     "message": "group and kind: a Gateway, ListenerSet, HTTPRoute, GRPCRoute, TLSRoute, TCPRoute or UDPRoute of gateway.networking.k8s.io, or an Ingress of networking.k8s.io"},
    {"rule": "!has(self.sectionName) || self.kind != 'Ingress'", "message": "sectionName: an Ingress has no sections"}]))]
pub struct TargetRef {
    /// API group.
    #[schemars(length(max = 253))]
    pub group: String,
    /// Kind.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// A listener or rule of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}

impl TargetRef {
    /// `kind name`, and the section where one is named.
    pub fn said(&self) -> String {
        let section = self.section_name.as_ref().map(|s| format!("/{s}")).unwrap_or_default();
        format!("{} `{}{section}`", self.kind, self.name)
    }
}

/// One filter and its parameters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FilterStep {
    /// The row's name, for example `rate`.
    pub filter: String,
    /// Its parameters.
    #[serde(flatten)]
    pub parameters: Map<String, Value>,
}

/// What became of it, by what it has an effect on (GEP-713, PolicyAncestorStatus).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RoutePolicyStatus(#[schemars(schema_with = "schema::status")] pub AncestorsStatus);
