//! What a TrafficPolicy says of how much the gateways may ask of clusters and endpoints, and when they spare them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TrafficPolicySpec;
use crate::duration;

/// Nobody waits longer for an endpoint.
const TIME_MAX: Duration = Duration::from_secs(3600);

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

/// When an endpoint that fails is left out for a while, though it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierEjection {
    /// So many requests in a row without an answer. Default: 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub consecutive_failures: Option<u32>,
    /// So many answers in a row with a status of 500 or more. Default: these don't count.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub consecutive_errors: Option<u32>,
    /// For how long at first, twice as long each time, for example `5s` (default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejection: Option<String>,
    /// For how long at the most. Default: `60s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejection_max: Option<String>,
    /// Answers with errors eject at most so many percent of the service's endpoints. Default: 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub max_ejected_percent: Option<u8>,
}

impl OutlierEjection {
    /// For how long at first, and at the most, where nothing is said.
    pub const TIMES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

    /// For how long at first, and at the most.
    ///
    /// # Errors
    /// A time that is none, and which.
    pub fn times(&self) -> Result<(Duration, Duration), String> {
        let first = time("outlier.ejection", self.ejection.as_ref(), Self::TIMES.0)?;
        let last = time("outlier.ejectionMax", self.ejection_max.as_ref(), Self::TIMES.1.max(first))?;
        if first.is_zero() || last < first {
            return Err("outlier.ejection: write more than 0 and at most ejectionMax".to_owned());
        }
        Ok((first, last))
    }
}

impl TrafficPolicySpec {
    /// How long an endpoint that is new or back is given less.
    ///
    /// # Errors
    /// A time that is none.
    pub fn slow_start(&self) -> Result<Duration, String> {
        time("slowStart", self.slow_start.as_ref(), Duration::ZERO)
    }

    /// Whether gateways can do what it says of load.
    ///
    /// # Errors
    /// What they can't, and why.
    pub fn check_load(&self) -> Result<(), String> {
        self.slow_start()?;
        self.outlier.as_ref().map_or(Ok(()), |outlier| outlier.times().map(drop))
    }
}

fn time(field: &str, written: Option<&String>, usual: Duration) -> Result<Duration, String> {
    let Some(written) = written else { return Ok(usual) };
    let time = duration::parse(written).map_err(|e| format!("{field}: {e}"))?;
    if time > TIME_MAX { Err(format!("{field}: write at most 1h")) } else { Ok(time) }
}

/// How endpoints are told on whose behalf a connection comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProxyProtocol {
    /// A line of text before everything else.
    V1,
    /// The same in octets.
    V2,
}

/// What one endpoint is spared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CircuitBreaker {
    /// Requests at once from one gateway. Default: as many as come.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_per_endpoint: Option<u32>,
}

/// How often one gateway sends requests again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryBudget {
    /// So many percent of the requests. Default: 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub percent: Option<u8>,
    /// And so many a second beside them. Default: 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100_000))]
    pub per_second: Option<u32>,
}
