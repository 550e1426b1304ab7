//! `Zone`: a DNS zone that the hub owns; `DNSEndpoint`: records in it, the kind of ExternalDNS used as it is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
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
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
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
    /// TSIG keys: name → Secret in the hub's `atoll-system`, with `secret` (base64) and `algorithm` (default `hmac-sha256`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tsig_keys: BTreeMap<String, String>,
    /// More records, as a zone file (RFC 1035 §5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone_file: Option<ZoneFile>,
    /// Split horizon: view → record sets that askers of this view get in place of those of the same name and type.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub views: BTreeMap<String, Vec<Record>>,
    /// Secondaries that are told of every change (RFC 1996).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<ZoneNotify>,
    /// Signing.
    #[serde(default, skip_serializing_if = "ZoneDnssec::is_default")]
    pub dnssec: ZoneDnssec,
    /// This is a catalog (RFC 9432, version 2): its records are the hub's other zones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub catalog: bool,
}

/// Where a zone file is: one of both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ZoneFile {
    /// The file itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// A key of a ConfigMap in the hub's `atoll-system`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ZoneFileRef>,
}

/// A key of a ConfigMap in the hub's `atoll-system`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ZoneFileRef {
    /// The ConfigMap.
    pub name: String,
    /// Its key.
    pub key: String,
}

/// A secondary to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ZoneNotify {
    /// Its IP address, with a port where that is not 53.
    pub address: String,
    /// The TSIG key that the message is signed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tsig: Option<String>,
}

/// How a zone is signed: online, ECDSA P-256, one key for everything (RFC 6605, RFC 9824).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ZoneDnssec {
    /// Whether the zone is signed.
    pub enabled: bool,
    /// The newest key. One more begins a rollover: both keys sign until the older is retired.
    #[schemars(range(min = 1))]
    pub key_generation: u32,
    /// Keys up to this generation sign no more. Raise it once the parent's DS names the newest key and the old DS has expired.
    pub retired_generation: u32,
}

impl Default for ZoneDnssec {
    fn default() -> Self {
        Self { enabled: false, key_generation: 1, retired_generation: 0 }
    }
}

impl ZoneDnssec {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The generations that sign, the newest last; at most [`Self::KEYS_MAX`].
    pub fn generations(&self) -> std::ops::RangeInclusive<u32> {
        let newest = self.key_generation.max(1);
        let oldest = self.retired_generation.saturating_add(1).max(newest.saturating_sub(Self::KEYS_MAX - 1));
        oldest.min(newest)..=newest
    }

    /// Keys of one zone at once.
    pub const KEYS_MAX: u32 = 3;
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

impl ZonePeer {
    /// Whether this is who comes from `ip` with the key `key`: everything that is written must hold, and something must be written.
    pub fn admits(&self, ip: IpAddr, key: Option<&str>) -> bool {
        let plain = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
        let by_key = self.tsig.as_deref().is_none_or(|own| key.is_some_and(|key| plain(key) == plain(own)));
        let net = |cidr: &str| cidr.parse::<IpNet>().ok().or_else(|| cidr.parse::<IpAddr>().ok().map(IpNet::from));
        let by_net =
            self.cidr.as_deref().is_none_or(|cidr| net(cidr).is_some_and(|net| net.contains(&ip.to_canonical())));
        (self.tsig.is_some() || self.cidr.is_some()) && by_key && by_net
    }
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
