//! `Zone`: a DNS zone that the hub owns; `DNSEndpoint`: records in it, the kind of ExternalDNS used as it is.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PolicyStatus;

/// A DNS zone that the hub owns.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "atoll.dev",
    version = "v1alpha1",
    kind = "Zone",
    status = "PolicyStatus",
    category = "atoll",
    printcolumn(name = "Apex", type_ = "string", json_path = ".spec.apex"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status")
)]
#[serde(rename_all = "camelCase")]
pub struct ZoneSpec {
    /// The zone's name, without the last dot.
    pub apex: String,
    /// Start of authority.
    #[serde(default)]
    pub soa: Soa,
    /// Name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ns: Vec<String>,
    /// Records of the zone itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Record>,
    /// Who may update and transfer.
    #[serde(default)]
    pub allow: ZoneAllow,
    /// TSIG keys: name → Secret in the hub's `atoll-system`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tsig_keys: BTreeMap<String, String>,
}

/// Start of authority (RFC 1035 §3.3.13); what is empty gets a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Soa {
    /// Primary name server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mname: Option<String>,
    /// Mailbox of the person responsible, as a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rname: Option<String>,
    /// Seconds that a negative answer may be kept (RFC 2308).
    pub negative_ttl: u32,
}

impl Default for Soa {
    fn default() -> Self {
        Self { mname: None, rname: None, negative_ttl: 60 }
    }
}

/// One record set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// Owner: relative to the apex, `@` for the apex itself.
    pub name: String,
    /// Type, for example `A`.
    #[serde(rename = "type")]
    pub record_type: String,
    /// Time to live, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
    /// Values in the presentation format of the type.
    pub values: Vec<String>,
}

/// Who may update and transfer a zone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ZoneAllow {
    /// Dynamic updates (RFC 2136).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub update: Vec<ZonePeer>,
    /// Transfers (RFC 5936).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transfer: Vec<ZonePeer>,
}

/// A peer by key or address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ZonePeer {
    /// A TSIG key's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tsig: Option<String>,
    /// An address range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cidr: Option<String>,
}

/// Records as ExternalDNS writes them.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "externaldns.k8s.io",
    version = "v1alpha1",
    kind = "DNSEndpoint",
    plural = "dnsendpoints",
    namespaced,
    status = "PolicyStatus"
)]
#[kube(annotation("api-approved.kubernetes.io", "https://github.com/kubernetes-sigs/external-dns/pull/2007"))]
#[serde(rename_all = "camelCase", default)]
pub struct DNSEndpointSpec {
    /// Record sets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<DnsEndpointRecord>,
}

/// One record set of a DNSEndpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsEndpointRecord {
    /// Absolute owner name.
    pub dns_name: String,
    /// Type.
    pub record_type: String,
    /// Time to live, seconds.
    #[serde(rename = "recordTTL", skip_serializing_if = "Option::is_none")]
    pub record_ttl: Option<i64>,
    /// Values.
    pub targets: Vec<String>,
    /// Tells record sets of one name and type apart.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub set_identifier: String,
    /// Labels of ExternalDNS.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Properties of other providers, kept and not used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "provider_specific")]
    pub provider_specific: Vec<serde_json::Value>,
}

fn provider_specific(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "value": {"type": "string"}}}})
}
