//! `ServiceExport` and `ServiceImport` of the multi-cluster services API (KEP-1645), group `multicluster.x-k8s.io`, v1beta1.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Condition;

/// Offers the Service of the same name to the cluster set.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "multicluster.x-k8s.io",
    version = "v1beta1",
    kind = "ServiceExport",
    namespaced,
    status = "ServiceExportStatus",
    shortname = "svcex"
)]
#[kube(annotation("api-approved.kubernetes.io", "https://github.com/kubernetes/enhancements/pull/1646"))]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceExportSpec {
    /// Labels to put on the import.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub exported_labels: std::collections::BTreeMap<String, String>,
    /// Annotations to put on the import.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub exported_annotations: std::collections::BTreeMap<String, String>,
}

/// The definition of `ServiceExport`. KEP-1645: an export is its name, `spec` may be absent, which the derived schema does
/// not know.
pub fn service_export_crd() -> CustomResourceDefinition {
    let mut crd = ServiceExport::crd();
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        if let Some(required) = schema.and_then(|schema| schema.required.as_mut()) {
            required.retain(|field| field != "spec");
        }
    }
    crd
}

/// What became of an export.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ServiceExportStatus {
    /// Valid, Ready, Conflict.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A service of the cluster set.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "multicluster.x-k8s.io",
    version = "v1beta1",
    kind = "ServiceImport",
    namespaced,
    status = "ServiceImportStatus",
    shortname = "svcim",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Clusters", type_ = "string", json_path = ".status.clusters[*].cluster"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[kube(annotation("api-approved.kubernetes.io", "https://github.com/kubernetes/enhancements/pull/1646"))]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceImportSpec {
    /// With a virtual address, or headless.
    #[serde(rename = "type")]
    pub import_type: ServiceImportType,
    /// Ports.
    pub ports: Vec<ServiceImportPort>,
    /// Virtual addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<String>,
    /// `None` or `ClientIP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<String>,
}

/// With a virtual address, or headless.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceImportType {
    /// With a virtual address.
    #[default]
    ClusterSetIP,
    /// Headless.
    Headless,
}

/// A port of a service of the set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceImportPort {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `TCP`, `UDP` or `SCTP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Application protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    /// The number.
    pub port: i32,
}

/// Which clusters offer it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ServiceImportStatus {
    /// Clusters that offer it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<ImportCluster>,
    /// Ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A cluster that offers a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ImportCluster {
    /// Its name.
    pub cluster: String,
}
