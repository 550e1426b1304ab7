//! `RoutePolicy`: filters and limits of the gateway, attached to Gateways, routes and Ingresses. Each filter is a row of the
//! gateway's table of filters.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::PolicyStatus;

/// Filters and limits for the targets that it names.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "atoll.dev",
    version = "v1alpha1",
    kind = "RoutePolicy",
    namespaced,
    status = "PolicyStatus",
    shortname = "rp",
    category = "atoll",
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
pub struct RoutePolicySpec {
    /// What it is attached to, in the same namespace.
    pub target_refs: Vec<TargetRef>,
    /// Filters, in order.
    #[schemars(schema_with = "filters")]
    pub filters: Vec<FilterStep>,
}

fn filters(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    super::steps("filter")
}

/// A reference to an object of the same namespace (GEP-713).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetRef {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// A listener or rule of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
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
