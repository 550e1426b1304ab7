//! `PlacementPolicy` and the rules that a Bundle may also hold inline: which clusters, in which order, how divided, when moved.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, TaintEffect};
use crate::selector::ClusterSelector;

/// Placement rules for the Bundles that it selects.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "atoll.dev",
    version = "v1alpha1",
    kind = "PlacementPolicy",
    namespaced,
    status = "PolicyStatus",
    shortname = "pp",
    category = "atoll",
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
pub struct PlacementPolicySpec {
    /// Which Bundles of the namespace it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundles: Option<LabelSelector>,
    /// The rules.
    #[serde(flatten)]
    pub rules: PlacementRules,
}

/// Where something may run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PlacementRules {
    /// Which clusters are considered at all.
    pub clusters: ClusterSelector,
    /// Names in order: the next group takes only what the one before can't hold. Empty: all in one group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub affinity_groups: Vec<Vec<String>>,
    /// Taints that don't matter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Over which domains it must be spread.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spread: Vec<Spread>,
    /// How replicas are divided.
    pub division: Division,
    /// Higher goes first when capacity is short.
    pub priority: i32,
    /// When and how it leaves a cluster that is lost.
    pub failover: Failover,
    /// When and how it comes back.
    pub failback: Failback,
    /// In which order clusters get a change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// A taint that doesn't matter; the shape of a pod's toleration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Toleration {
    /// The taint's key; absent: every key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The taint's value; absent: every value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The effect; absent: every effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
}

/// Spread over one kind of domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// `provider`, `region`, `zone`, `cluster`, or a label key of the Cluster objects.
    pub by: String,
    /// At least so many domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u32>,
    /// At most so many domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Largest difference of replicas between two domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_skew: Option<u32>,
}

/// How replicas are divided.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Division {
    /// The method.
    pub mode: DivisionMode,
    /// Weighted: by cluster name; a cluster that is not named weighs 1, none named: all alike.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, u32>,
}

/// The method of dividing replicas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DivisionMode {
    /// Every cluster gets all of them.
    #[default]
    Duplicated,
    /// By weights, bounded by capacity.
    Weighted,
    /// By free capacity.
    Capacity,
    /// Into as few clusters as can hold them.
    Aggregated,
}

/// When and how a workload leaves a cluster that is lost. On by default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Failover {
    /// Whether at all.
    pub enabled: bool,
    /// How long after the last good heartbeat.
    pub after: String,
    /// Never remove the last ready copy.
    pub keep_last_ready: bool,
}

impl Default for Failover {
    fn default() -> Self {
        Self { enabled: true, after: "30s".into(), keep_last_ready: true }
    }
}

/// When and how a workload comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Failback {
    /// Whether at all.
    pub enabled: bool,
    /// How long the cluster must have been Ready.
    pub stabilise: String,
}

impl Default for Failback {
    fn default() -> Self {
        Self { enabled: true, stabilise: "10m".into() }
    }
}

/// In which order clusters get a change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Rollout {
    /// Environments or cluster names; a wave starts when the one before is healthy.
    pub waves: Vec<Vec<String>>,
}

/// Status of a policy kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyStatus {
    /// The generation that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, and why not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
