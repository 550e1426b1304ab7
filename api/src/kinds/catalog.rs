//! `Catalog`: a foreign service registry whose services become importable.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PolicyStatus;

/// A foreign service registry.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "atoll.dev",
    version = "v1alpha1",
    kind = "Catalog",
    namespaced,
    status = "PolicyStatus",
    category = "atoll",
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.kind"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
pub struct CatalogSpec {
    /// `Consul`, `Eureka`, `Nacos` or `DNS`.
    pub kind: String,
    /// Where it answers.
    pub url: String,
    /// What becomes importable.
    pub import: CatalogServices,
    /// What is registered there.
    pub export: CatalogServices,
}

/// Services by name; `*` at the end matches any rest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CatalogServices {
    /// Names.
    pub services: Vec<String>,
}
