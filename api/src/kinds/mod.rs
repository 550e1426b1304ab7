//! The kinds that people write: ours (group `atoll.dev`, version `v1alpha1`) and the standard ones we use as they are.
//!
//! Each file holds one family with its schema (schemars, CEL rules). [`crds`] prints ours, [`standard_crds`] the standard ones that
//! a hub needs. A plugin is named in a kind by *string* and parsed through its table, so that a new plugin needs no new schema.

// Every print column has a name and a type: the lint takes the columns of one derive for one list.
#![allow(clippy::duplicated_attributes)]

mod assignment;
mod bundle;
mod catalog;
mod cluster;
pub mod gateway;
mod inventory;
mod mcs;
mod placement;
mod registry;
pub mod route_policy;
mod stamps;
mod traffic;
mod zone;

pub use assignment::*;
pub use bundle::*;
pub use catalog::*;
pub use cluster::*;
pub use gateway::{Channel, gateway_api_crds};
pub use inventory::*;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
pub use mcs::*;
pub use placement::*;
pub use registry::*;
pub use route_policy::{FilterStep, RoutePolicy, RoutePolicySpec, RoutePolicyStatus, TargetRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use stamps::*;
pub use traffic::*;
pub use zone::*;

/// The API group of our kinds.
pub const GROUP: &str = "atoll.dev";
/// The field manager of everything that Atoll applies.
pub const FIELD_MANAGER: &str = "atoll";
/// The namespace of Atoll's own objects, in the hub and in every member.
pub const SYSTEM_NAMESPACE: &str = "atoll-system";
/// Annotation: who created a ReplicationRequest, stamped by the API server.
pub const REQUESTER: &str = "atoll.dev/requester";
/// Annotation: groups of the requester, as [`join_groups`] writes them.
pub const REQUESTER_GROUPS: &str = "atoll.dev/requester-groups";
/// Annotation: who created a ReplicationApproval, stamped by the API server.
pub const VOTER: &str = "atoll.dev/voter";
/// Annotation: groups of the voter, as [`join_groups`] writes them.
pub const VOTER_GROUPS: &str = "atoll.dev/voter-groups";
/// Label of a Gateway (and others): the cluster set that it serves.
pub const CLUSTER_SET_LABEL: &str = "atoll.dev/cluster-set";
/// Label: which program keeps an object (Kubernetes, "Recommended Labels").
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label on everything that an agent applied in a member: the Bundle, `<namespace>.<name>`.
pub const BUNDLE_LABEL: &str = "atoll.dev/bundle";

/// The name of another object, in the same namespace or cluster-wide, as the field says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NameRef {
    /// Its name.
    pub name: String,
}

/// A Kubernetes condition; the shape of `metav1.Condition`.
pub type Condition = k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Our CRDs, in the order in which they are applied.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let crds = [
        Cluster::crd(),
        Bundle::crd(),
        PlacementPolicy::crd(),
        Assignment::crd(),
        TrafficPolicy::crd(),
        RoutePolicy::crd(),
        Zone::crd(),
        Catalog::crd(),
        Registry::crd(),
        ReplicationPolicy::crd(),
        ReplicationRequest::crd(),
        ReplicationApproval::crd(),
    ];
    crds.map(described).into()
}

/// The standard CRDs that a hub serves beside ours and that have Rust types here: MCS, ClusterProfile, DNSEndpoint and the Gateway API
/// of its experimental channel.
pub fn standard_crds() -> Vec<CustomResourceDefinition> {
    standard_crds_of(Channel::Experimental)
}

/// The same with the Gateway API of a channel.
pub fn standard_crds_of(channel: Channel) -> Vec<CustomResourceDefinition> {
    let crds = [service_export_crd(), ServiceImport::crd(), ClusterProfile::crd(), DNSEndpoint::crd()];
    let mut crds = Vec::from(crds.map(described));
    crds.extend(gateway_api_crds(channel));
    crds
}

/// The CRDs that an agent brings to a member that lacks them.
pub fn member_crds() -> Vec<CustomResourceDefinition> {
    [service_export_crd(), ServiceImport::crd()].map(described).into()
}

/// A kind is described as its spec is; what the derive writes there says how it came about, and `kubectl explain` would repeat it.
fn described(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(kind) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
            continue;
        };
        let spec = kind.properties.as_ref().and_then(|properties| properties.get("spec"));
        if let Some(said) = spec.and_then(|spec| spec.description.clone()) {
            kind.description = Some(said);
        }
    }
    crd
}

/// A schema for a list of Kubernetes manifests.
pub(crate) fn manifests(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["apiVersion", "kind"],
            "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"}},
            "x-kubernetes-preserve-unknown-fields": true
        }
    })
}

/// A schema for a plugin's step: its name under `word`, any parameters beside it.
pub(crate) fn steps(word: &str) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "required": [word],
            "properties": {word: {"type": "string"}},
            "x-kubernetes-preserve-unknown-fields": true
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_says_what_it_is_and_how_old_its_objects_are() {
        for crd in crds().iter().chain(&member_crds()) {
            for version in &crd.spec.versions {
                let kind = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
                let said = kind.and_then(|kind| kind.description.as_deref()).unwrap_or_default();
                assert!(!said.is_empty() && !said.contains("derived"), "{}: {said}", crd.spec.names.kind);
                // Of a kind without columns of its own every API server shows the age.
                let Some(columns) = &version.additional_printer_columns else { continue };
                let last = columns.last().map(|column| column.json_path.as_str());
                assert_eq!(last, Some(".metadata.creationTimestamp"), "{}", crd.spec.names.kind);
            }
        }
    }
}
