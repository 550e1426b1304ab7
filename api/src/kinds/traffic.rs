//! `TrafficPolicy`: to which cluster users of a service or host are sent. Its strategy is a chain of rows of
//! [`crate::routing::POLICIES`].

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::load::{Capacity, CircuitBreaker, OutlierEjection, ProxyProtocol, RetryBudget};
pub use self::subset::{SUBSET_KIND, SUBSET_LABELS_MAX, SUBSETS_MAX, Subset, check_subsets};
use super::PolicyStatus;

mod load;
mod subset;

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
        .message("name either one service or at least one host"),
    validation = Rule::new("!has(self.spec.answer) || self.spec.answer != 'Addresses' || (has(self.spec.addresses) && size(self.spec.addresses) > 0)")
        .message("answer Addresses: write `addresses`"),
    validation = Rule::new("!has(self.spec.hosts) || size(self.spec.hosts) == 0 || !has(self.spec.answer) || self.spec.answer in ['Gateway', 'Addresses'] || has(self.spec.backend)")
        .message("hosts with an answer of Endpoints, VirtualIP or LoadBalancer: name the service in `backend`"),
    validation = Rule::new("!has(self.spec.allDown) || self.spec.allDown != 'Fallback' || (has(self.spec.fallback) && size(self.spec.fallback) > 0)")
        .message("allDown Fallback: write addresses into `fallback`"),
    validation = Rule::new("!has(self.spec.subsets) || size(self.spec.subsets) == 0 || has(self.spec.service)")
        .message("subsets are of a service: name it in `service`")
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
    /// For hosts: the service of the same namespace that stands behind them. Needed for an answer of Endpoints, VirtualIP or LoadBalancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// For an answer of Addresses: these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub addresses: Vec<FixedAddress>,
    /// Steps; each narrows or orders what the one before left. Empty: Active before Standby, then the nearest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "strategy")]
    pub strategy: Vec<Step>,
    /// Time to live of answers, seconds. An answer that is known to change sooner lives shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub ttl_seconds: Option<u32>,
    /// Addresses in one answer, at most. Default: 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub limit: Option<u8>,
    /// How the DNS servers probe what they give, and the gateways the endpoints that they use. None: readiness in the member and whole
    /// clusters count alone; gateways ask for a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Parts of the service by the labels of its pods, which backends of HTTPRoutes and GRPCRoutes name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-validations" = [{
        "rule": "self.all(a, self.exists_one(b, b.name == a.name))",
        "message": "names of subsets are unique",
    }]))]
    pub subsets: Vec<Subset>,
    /// How the gateway divides requests among the endpoints of the chosen clusters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<Balance>,
    /// How many requests the gateways send to a cluster at once, all of them together. Default: as many as come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// The gateways begin connections to endpoints with a header of the PROXY protocol; each is for one client alone. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// When the gateways leave out an endpoint that fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier: Option<OutlierEjection>,
    /// What the gateways spare an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// How often the gateways send requests again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudget>,
    /// The gateways give an endpoint that is new or back its whole part only after this time, for example `30s`. Default: at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<String>,
    /// A tier of which fewer percent of the endpoints are well is passed over; when all tiers are, health is ignored. Default: 0, an
    /// endpoint that is ill is asked when nobody else is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub panic_percent: Option<u8>,
    /// What to do when nothing is healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_down: Option<AllDown>,
    /// For allDown Fallback: these addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub fallback: Vec<String>,
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

/// One address that a policy gives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FixedAddress {
    /// An IP address, or the name of a host that has some.
    pub address: String,
    /// The cluster that it leads to: it is given when the strategy chooses that one. Without: when no other is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

/// How endpoints, fixed addresses and gateways are probed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HealthCheck {
    /// What is spoken.
    pub protocol: CheckProtocol,
    /// Where. Default: the port that the endpoints listen on; of addresses and gateways 80 for HTTP, else 443.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// HTTP and HTTPS: the path that is asked for. Default: /.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = "^/[!-~]*$"))]
    pub path: Option<String>,
    /// HTTP, HTTPS and GRPC: the host that is asked for. Default: the policy's first host, else the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = "^[A-Za-z0-9._:-]+$"))]
    pub host: Option<String>,
    /// GRPC: the service whose health is asked for (gRPC Health Checking Protocol). Default: the whole server's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = "^[A-Za-z0-9._-]+$"))]
    pub service: Option<String>,
    /// HTTP and HTTPS: the status codes that mean well. Default: 200 to 399.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub expected_status: Vec<u16>,
    /// Between two probes of one DNS server, for example `5s` (default); from 1 s to 5 min.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// How long one may take, for example `2s` (default); at most the interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
}

/// What a probe speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum CheckProtocol {
    /// A connection is enough.
    #[default]
    TCP,
    /// GET over HTTP/1.1.
    HTTP,
    /// The same over TLS; the certificate is not judged, a probe asks only whether somebody serves.
    HTTPS,
    /// grpc.health.v1 over plain HTTP/2.
    GRPC,
}

/// How requests are divided among endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.hashOn) || (has(self.method) && self.method in ['RingHash', 'Maglev'])",
    "message": "hashOn is for the methods RingHash and Maglev",
}]))]
pub struct Balance {
    /// By which method.
    pub method: BalanceMethod,
    /// What RingHash and Maglev go by. Default: the client's address, as for requests that lack what is named here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_on: Option<HashOn>,
}

/// A method of dividing requests among endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BalanceMethod {
    /// Of two at random the one that is expected to answer sooner: by its recent times, peaks first, and what it works on.
    #[default]
    PeakEwma,
    /// Of two at random the one that works on fewer requests.
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// The same key to the same endpoint, by a hash ring; who has a quarter more requests than the mean is passed over.
    RingHash,
    /// The same by a Maglev table: shares are more even, a few more keys move when an endpoint goes.
    Maglev,
}

impl BalanceMethod {
    /// Whether a request's key decides, and not how busy endpoints are.
    pub fn goes_by_key(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }
}

/// What a hash is made of: one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!(has(self.header) && has(self.cookie))",
    "message": "name a header or a cookie",
}]))]
pub struct HashOn {
    /// The value of this header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
    pub header: Option<String>,
    /// The value of this cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
    pub cookie: Option<String>,
}

/// What to do when nothing is healthy. An answer is never empty: that would be kept as an absence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AllDown {
    /// Answer with what was healthy last.
    #[default]
    LastGood,
    /// Answer as if all were healthy.
    All,
    /// Answer with the addresses of `fallback`.
    Fallback,
    /// Answer with nothing: a failure that says why (SERVFAIL with an extended error, 503).
    None,
}
