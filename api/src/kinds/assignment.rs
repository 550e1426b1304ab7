//! `Assignment`: a shard of what one member is to run. Written by the hub alone, only what changed.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Condition;

/// A shard of what one member is to run: many Bundles in one object of at most 512 KiB.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "atoll.dev",
    version = "v1alpha1",
    kind = "Assignment",
    namespaced,
    status = "AssignmentStatus",
    category = "atoll",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.cluster"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".spec.epoch"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
pub struct AssignmentSpec {
    /// The member.
    pub cluster: String,
    /// The epoch of the hub that wrote it.
    pub epoch: u64,
    /// What it is to run.
    pub bundles: Vec<AssignedBundle>,
}

/// One Bundle for one member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AssignedBundle {
    /// Namespace of the Bundle.
    pub namespace: String,
    /// Name of the Bundle.
    pub name: String,
    /// Digest of what it becomes in this member.
    pub revision: String,
    /// Replicas for this member; absent where nothing is divided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Set while it is to leave as soon as it may: RFC 3339, since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaving: Option<String>,
    /// What it consists of, by digest.
    pub objects: Vec<AssignedObject>,
}

/// One object of an assigned Bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AssignedObject {
    /// `apps/v1`.
    pub api_version: String,
    /// `Deployment`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// `sha256:…` of the manifest as sent.
    pub digest: String,
}

/// What became of an Assignment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AssignmentStatus {
    /// The generation that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Applied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
