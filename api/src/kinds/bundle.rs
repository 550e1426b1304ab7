//! `Bundle`: manifests that travel together, where they go, what differs per cluster, which services they export.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Condition, NameRef, PlacementRules};
use crate::selector::ClusterSelector;

/// Manifests that travel together.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "atoll.dev",
    version = "v1alpha1",
    kind = "Bundle",
    namespaced,
    status = "BundleStatus",
    shortname = "bd",
    category = "atoll",
    printcolumn(name = "Placed", type_ = "string", json_path = ".status.conditions[?(@.type==\"Placed\")].status"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Clusters", type_ = "string", json_path = ".status.summary"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("!has(self.spec.placement) || !has(self.spec.placement.policyRef) || !(has(self.spec.placement.affinityGroups) || has(self.spec.placement.spread))")
        .message("placement is either written here or in the PlacementPolicy that policyRef names")
)]
#[serde(rename_all = "camelCase", default)]
pub struct BundleSpec {
    /// Where it goes: rules inline, or a reference.
    pub placement: BundlePlacement,
    /// Services to export: a ServiceExport of each is made in every member that runs the Bundle.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exports: Vec<String>,
    /// The objects.
    #[schemars(schema_with = "super::manifests")]
    pub manifests: Vec<Value>,
    /// What differs per cluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
    /// Bundles of the same namespace that must run in a member first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<NameRef>,
    /// Leaves everything as it is.
    pub suspend: bool,
}

/// Rules inline, or a reference to a PlacementPolicy of the same namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BundlePlacement {
    /// The policy that counts instead of the inline rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_ref: Option<NameRef>,
    /// The inline rules.
    #[serde(flatten)]
    pub rules: PlacementRules,
}

/// A change of manifests for some clusters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Override {
    /// For which clusters.
    pub clusters: ClusterSelector,
    /// For which manifests.
    pub target: OverrideTarget,
    /// The change, JSON Patch (RFC 6902).
    #[schemars(schema_with = "patch")]
    pub patch: Vec<Value>,
}

fn patch(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["op", "path"],
            "properties": {
                "op": {"type": "string", "enum": ["add", "remove", "replace", "move", "copy", "test"]},
                "path": {"type": "string"},
                "from": {"type": "string"},
                "value": {"x-kubernetes-preserve-unknown-fields": true}
            }
        }
    })
}

/// Which manifests an override changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OverrideTarget {
    /// Kind, for example `Deployment`; absent: every kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name; absent: every name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Where a Bundle is and how it does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BundleStatus {
    /// The generation that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, Placed, Ready, with reasons.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// `prod-eu 2/2, prod-us 1/1`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// A line for each cluster that runs it or was considered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<BundleCluster>,
    /// Replicas that found no place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unplaced: Option<i32>,
}

/// A Bundle in one cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BundleCluster {
    /// The cluster.
    pub name: String,
    /// `Placed`, `Applied`, `Ready`, `Failed`, `Lost`, `Leaving` or `Excluded`.
    pub state: String,
    /// Replicas it is to run; absent where nothing is divided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Replicas that are ready there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<i32>,
    /// The revision that was applied last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Why it is so: the filter or score that decided, or the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
