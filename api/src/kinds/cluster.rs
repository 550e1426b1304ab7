//! `Cluster`: a member. What the operator says of it in spec, what its agent found in status.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, NameRef};

/// A member cluster.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "atoll.dev",
    version = "v1alpha1",
    kind = "Cluster",
    status = "ClusterStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "cl",
    category = "atoll",
    printcolumn(name = "Environment", type_ = "string", json_path = ".spec.environment"),
    printcolumn(name = "Region", type_ = "string", json_path = ".spec.region"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "DNS", type_ = "string", json_path = ".status.conditions[?(@.type==\"DNSReady\")].status"),
    printcolumn(name = "Reach", type_ = "string", json_path = ".status.reach"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes"),
    printcolumn(name = "CPU free", type_ = "string", json_path = ".status.free.cpu"),
    printcolumn(name = "Memory free", type_ = "string", json_path = ".status.free.memory"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,47}[a-z0-9])?$') && !(self.metadata.name in ['svc', 'pod', 'region', 'env', 'in-addr', 'ip6'])")
        .message("a cluster's name is one DNS label of at most 49 octets, and none of svc, pod, region, env, in-addr, ip6")
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    /// `dev`, `test`, `prod`, `dr` or any other word.
    pub environment: String,
    /// Who shares services with it. Default: prod and dr together (`prod`), every other environment alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_set: Option<String>,
    /// Active takes users; Standby only when no Active can. Default: Standby for dr, else Active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<ClusterRole>,
    /// Which of two production twins it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colour: Option<Colour>,
    /// Region, for example `eu-central`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Zone, for example `eu-central-1a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Who runs its machines, for example `onprem`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// What keeps workloads without a toleration away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// Address ranges, where the agent can't find them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidrs: Option<Cidrs>,
    /// Its DNS, where the agent can't find it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<MemberDns>,
    /// How it is kept in step.
    #[serde(default)]
    pub sync: Sync,
    /// Whether others reach its pods and DNS directly.
    #[serde(default)]
    pub reach: Reach,
}

impl ClusterSpec {
    /// The cluster set: as written, else `prod` for prod and dr, else the environment.
    pub fn set(&self) -> &str {
        match (&self.cluster_set, self.environment.as_str()) {
            (Some(set), _) => set,
            (None, "dr") => "prod",
            (None, environment) => environment,
        }
    }

    /// The role: as written, else Standby for dr.
    pub fn role(&self) -> ClusterRole {
        self.role.unwrap_or(if self.environment == "dr" { ClusterRole::Standby } else { ClusterRole::Active })
    }
}

/// Whether a cluster takes users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ClusterRole {
    /// It does.
    Active,
    /// Only when no Active can.
    Standby,
}

/// One of two production twins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Colour {
    /// Blue.
    Blue,
    /// Green.
    Green,
}

/// A place on earth, WGS 84, decimal degrees as strings (Kubernetes objects hold no floats).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Location {
    /// −90 to 90, north positive.
    #[schemars(length(max = 32), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^-?(90([.]0+)?|[0-8]?[0-9]([.][0-9]+)?)$')",
        "message": "a latitude is a number of degrees from -90 to 90, for example \"50.11\"",
    }]))]
    pub latitude: String,
    /// −180 to 180, east positive.
    #[schemars(length(max = 32), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^-?(180([.]0+)?|(1[0-7][0-9]|0?[0-9]?[0-9])([.][0-9]+)?)$')",
        "message": "a longitude is a number of degrees from -180 to 180, for example \"8.68\"",
    }]))]
    pub longitude: String,
}

impl Location {
    /// Latitude and longitude in degrees; `None` where they are not numbers in range.
    pub fn degrees(&self) -> Option<(f64, f64)> {
        let (lat, lon): (f64, f64) = (self.latitude.parse().ok()?, self.longitude.parse().ok()?);
        (lat.abs() <= 90.0 && lon.abs() <= 180.0).then_some((lat, lon))
    }
}

/// What keeps workloads away; the shape of a node's taint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Taint {
    /// The taint's key.
    pub key: String,
    /// The taint's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What it does.
    pub effect: TaintEffect,
}

/// What a taint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// Nothing new is placed here.
    NoSchedule,
    /// Nothing new is placed here while there is another place.
    PreferNoSchedule,
    /// What is here moves away.
    NoExecute,
}

/// Address ranges of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Cidrs {
    /// Of its pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<String>,
    /// Of its services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
}

/// A member's own DNS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MemberDns {
    /// Which names it has.
    pub kind: DnsKind,
    /// Its native domain, for example `cluster.local`, `mesos` or `consul`.
    pub domain: String,
    /// Further native domains under a name of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<DnsAlias>,
    /// `address:port` of its servers.
    pub servers: Vec<String>,
    /// How to ask them.
    pub protocol: DnsProtocol,
}

/// Which naming scheme a member's DNS has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DnsKind {
    /// The Kubernetes DNS specification.
    #[default]
    Kubernetes,
    /// Mesos-DNS.
    MesosDNS,
    /// Consul; never sets TC.
    Consul,
    /// Anything else.
    Generic,
}

/// A further native domain of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsAlias {
    /// The label below the cluster's name that stands for it.
    pub name: String,
    /// The native domain.
    pub domain: String,
}

/// How a member's DNS is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DnsProtocol {
    /// UDP, TCP when truncated.
    #[default]
    UDP,
    /// TCP only.
    TCP,
}

/// How a member is kept in step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Sync {
    /// Who dials whom.
    pub mode: SyncMode,
    /// Push: a Secret in the hub's `atoll-system` with key `kubeconfig`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig_ref: Option<NameRef>,
}

/// Who dials whom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SyncMode {
    /// Its agent dials the hub.
    #[default]
    Pull,
    /// The hub dials its API server.
    Push,
    /// Names only.
    None,
}

/// Whether others reach a member's pods and DNS directly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Reach {
    /// Directly where a probe says so, else through its agent.
    #[default]
    Auto,
    /// Always directly.
    Direct,
    /// Always through its agent.
    Relay,
}

/// What is known of a member.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStatus {
    /// The generation that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, DNSReady, Syncing, CIDRsDistinct, Reachable.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Version of its API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Version of its agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// How many nodes are Ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<i64>,
    /// Sum of the nodes' capacity, as Kubernetes quantities by resource.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub capacity: BTreeMap<String, String>,
    /// Sum of the nodes' allocatable.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub allocatable: BTreeMap<String, String>,
    /// Allocatable less what pods request. Written every 10 s at most, and with the next change of anything else: placement goes by
    /// what the agent said last, not by this.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub free: BTreeMap<String, String>,
    /// How it is reached from the hub: `Direct` or `Relay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reach: Option<String>,
    /// Address ranges as found or written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cidrs: Option<Cidrs>,
    /// DNS as found or written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<MemberDns>,
    /// Its agent's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateStatus>,
    /// When a heartbeat was last heard; written at most once a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heartbeat: Option<String>,
}

/// A certificate as status shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateStatus {
    /// Serial number, hexadecimal.
    pub serial: String,
    /// End of validity, RFC 3339.
    pub not_after: String,
}
