//! `TrafficPolicy`: to which cluster users of a service or host are sent. Its strategy is a chain of rows of
//! [`crate::routing::POLICIES`].

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::PolicyStatus;

/// To which cluster users are sent.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "atoll.dev",
    version = "v1alpha1",
    kind = "TrafficPolicy",
    namespaced,
    status = "PolicyStatus",
    shortname = "tp",
    category = "atoll",
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.service"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("has(self.spec.service) != (has(self.spec.hosts) && size(self.spec.hosts) > 0)")
        .message("name either one service or at least one host")
)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicySpec {
    /// A service of the same namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Or host names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// What the address in the answer is. Default: for services Endpoints or VirtualIP by the asker's reach, for hosts Gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<AnswerKind>,
    /// Steps; each narrows or orders what the one before left. Empty: Active before Standby, then the nearest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "strategy")]
    pub strategy: Vec<Step>,
    /// Time to live of answers, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u32>,
    /// What to do when nothing is healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_down: Option<AllDown>,
}

fn strategy(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    super::steps("policy")
}

/// What the address in an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AnswerKind {
    /// Pods.
    Endpoints,
    /// The service's virtual address in the chosen cluster.
    VirtualIP,
    /// The chosen cluster's gateways.
    Gateway,
    /// The chosen cluster's load balancer.
    LoadBalancer,
    /// Fixed addresses.
    Addresses,
}

/// One step of a strategy: a row of the table of policies and its parameters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The row's name, for example `nearest`.
    pub policy: String,
    /// Its parameters.
    #[serde(flatten)]
    pub parameters: Map<String, Value>,
}

/// What to do when nothing is healthy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AllDown {
    /// Answer as if all were healthy.
    #[default]
    All,
    /// Answer with nothing.
    None,
}
