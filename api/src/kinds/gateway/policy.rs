//! `BackendTLSPolicy`, and the status that all policies share.

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};

use super::{LocalObjectReference, ParentReference};
use crate::kinds::Condition;

/// TLS towards the endpoints of Services, and how their certificates are checked.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "BackendTLSPolicy",
    namespaced,
    status = "PolicyStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTLSPolicySpec {
    /// Services of the same namespace.
    pub target_refs: Vec<PolicyTargetReference>,
    /// How certificates are checked.
    pub validation: BackendTlsValidation,
    /// Options of the controller's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// What a policy is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyTargetReference {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// A part of it: the port's name of a Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// How certificates of endpoints are checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTlsValidation {
    /// ConfigMaps with authorities in `ca.crt`.
    #[serde(rename = "caCertificateRefs", skip_serializing_if = "Vec::is_empty")]
    pub ca_certificate_refs: Vec<LocalObjectReference>,
    /// `System`: the authorities of the machine.
    #[serde(rename = "wellKnownCACertificates", skip_serializing_if = "Option::is_none")]
    pub well_known_ca_certificates: Option<String>,
    /// The server name that is asked for, and that certificates must have where no other names are given.
    pub hostname: String,
    /// Names of which certificates must have one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<SubjectAltName>,
}

/// A name in a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct SubjectAltName {
    /// Hostname or URI.
    #[serde(rename = "type")]
    pub name_type: String,
    /// For Hostname.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// For URI.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uri: String,
}

/// What became of a policy, by what it has an effect on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyStatus {
    /// One for each ancestor and controller.
    pub ancestors: Vec<PolicyAncestorStatus>,
}

/// What became of a policy at one ancestor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyAncestorStatus {
    /// The Gateway.
    pub ancestor_ref: ParentReference,
    /// Who says so.
    pub controller_name: String,
    /// Accepted, ResolvedRefs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
