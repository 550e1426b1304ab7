//! What a TrafficPolicy says of how much the gateways may ask of clusters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many requests a cluster is sent at once: one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.perEndpoint) != has(self.total)",
    "message": "write perEndpoint or total",
}]))]
pub struct Capacity {
    /// So many for each of its endpoints that is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub per_endpoint: Option<u32>,
    /// So many, however many endpoints it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub total: Option<u32>,
}
