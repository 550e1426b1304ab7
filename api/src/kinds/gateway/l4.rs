//! `TLSRoute`, `TCPRoute` and `UDPRoute`.

use kube::CustomResource;
use serde::{Deserialize, Serialize};

use super::{BackendRef, ParentReference, RouteStatus};

/// Where TLS connections go, by server name.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "TLSRoute",
    namespaced,
    status = "RouteStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct TLSRouteSpec {
    /// What it wants to be attached to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentReference>,
    /// Which Gateways with a default scope take it beside its parents: All or None (where absent); experimental channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_default_gateways: Option<String>,
    /// Server names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Rules; one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<L4Rule>,
}

/// Where TCP connections go.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "TCPRoute",
    namespaced,
    status = "RouteStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct TCPRouteSpec {
    /// What it wants to be attached to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentReference>,
    /// Which Gateways with a default scope take it beside its parents: All or None (where absent); experimental channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_default_gateways: Option<String>,
    /// Rules; one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<L4Rule>,
}

/// Where UDP packets go.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "UDPRoute",
    namespaced,
    status = "RouteStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct UDPRouteSpec {
    /// What it wants to be attached to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentReference>,
    /// Which Gateways with a default scope take it beside its parents: All or None (where absent); experimental channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_default_gateways: Option<String>,
    /// Rules; one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<L4Rule>,
}

/// Backends by weight.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct L4Rule {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Backends by weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<BackendRef>,
}
