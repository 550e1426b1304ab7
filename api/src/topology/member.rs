//! Between hub and agent: what an agent says of its member, what it is told to do there, and what became of that.
//!
//! No data plane reads these.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kinds::{Cidrs, MemberDns};

/// What an agent says of its member as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemberFacts {
    /// Version of its API server.
    pub version: String,
    /// Version of the agent.
    pub agent_version: String,
    /// Ready nodes.
    pub nodes_ready: u32,
    /// Addresses of the nodes.
    pub nodes: Vec<IpAddr>,
    /// Sum of the nodes' capacity, Kubernetes quantities by resource: cpu, memory, pods.
    pub capacity: BTreeMap<String, String>,
    /// Sum of the Ready, schedulable nodes' allocatable.
    pub allocatable: BTreeMap<String, String>,
    /// Allocatable less the requests of pods that are not done.
    pub free: BTreeMap<String, String>,
    /// Address ranges found.
    pub cidrs: Cidrs,
    /// DNS found.
    pub dns: Option<MemberDns>,
    /// Whether its agent tells the member's own resolver of Atoll: it wants to know what.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stub: bool,
}

/// What a member's own resolver is to ask Atoll for. Told to agents that want it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StubFacts {
    /// The federation's domain, without the last dot.
    pub apex: String,
    /// Where the federation's DNS servers answer, as they say it.
    pub servers: Vec<String>,
    /// Reverse zones of the other members, without the last dot.
    pub reverse: Vec<String>,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StubReport {
    /// Whether the resolver is told.
    pub applied: bool,
    /// One word in CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// One Bundle that a member is to run: final manifests, overrides applied.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DesiredBundle {
    /// Namespace of the Bundle: where manifests without a namespace go.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Uid of the Bundle object in the hub.
    pub uid: String,
    /// Digest of everything below.
    pub revision: String,
    /// The epoch of the hub that decided it.
    pub epoch: u64,
    /// Manifests in the order in which they are applied.
    pub manifests: Vec<Value>,
    /// Services to export.
    pub exports: Vec<String>,
    /// Bundles (`namespace/name`) that must be Ready in this member first.
    pub dependencies: Vec<String>,
    /// Touch nothing.
    pub suspend: bool,
}

/// What became of a Bundle in a member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BundleReport {
    /// The revision that is applied.
    pub revision: String,
    /// Everything was applied.
    pub applied: bool,
    /// Everything applied is ready.
    pub ready: bool,
    /// Replicas the member's workloads ask for.
    pub replicas: i32,
    /// Replicas that are ready.
    pub ready_replicas: i32,
    /// Replicas that found no node, for reasons in `message`.
    pub unschedulable: i32,
    /// Why it is not applied or not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
