//! `ClusterProfile`: a member as other tools of SIG Multicluster read it.
//!
//! Source: KEP-4322 (cluster inventory API), v1alpha1.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Condition;

/// A cluster of an inventory.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "multicluster.x-k8s.io",
    version = "v1alpha1",
    kind = "ClusterProfile",
    namespaced,
    status = "ClusterProfileStatus",
    printcolumn(name = "Manager", type_ = "string", json_path = ".spec.clusterManager.name"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version.kubernetes"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[kube(annotation("api-approved.kubernetes.io", "https://github.com/kubernetes/enhancements/pull/4322"))]
#[serde(rename_all = "camelCase")]
pub struct ClusterProfileSpec {
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Who manages it.
    pub cluster_manager: ClusterManager,
}

/// Who manages a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterManager {
    /// Its name, also the value of the label `x-k8s.io/cluster-manager`.
    pub name: String,
}

/// What is known of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ClusterProfileStatus {
    /// ControlPlaneHealthy, Joined.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Versions of its control plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<ClusterVersion>,
    /// Further facts, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<ClusterProperty>,
}

/// Versions of a control plane.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ClusterVersion {
    /// Kubernetes' own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<String>,
}

/// A fact about a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterProperty {
    /// Its name, for example `location.topology.k8s.io`.
    pub name: String,
    /// Its value.
    pub value: String,
}
