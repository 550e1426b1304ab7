//! What balancers that others own are told, and what they answer: the language of the webhook, in which every driver thinks.
//!
//! [`Push`] is the desired state, whole, each time: who takes it makes its balancer so, however often it comes. [`Answer`] says what of it can't be
//! done, by the field of the object that asks for it, where it is reached, and how servers do. The schema of both is `docs/provider.schema.json`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The controller of GatewayClasses whose Gateways balancers of others serve.
pub const PROVIDER_CONTROLLER: &str = "atoll.dev/provider";

/// An object of the hub's API, or a Service of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Gateway, ListenerSet, HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, UDPRoute or Service.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The member whose Service it is; none: it is of the hub's API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, namespace, name, cluster } = self;
        match cluster {
            Some(cluster) => write!(f, "{kind} {namespace}/{name} of {cluster}"),
            None => write!(f, "{kind} {namespace}/{name}"),
        }
    }
}

/// The desired state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Push {
    /// `v1`.
    pub version: String,
    /// The provider's name in Atoll's configuration.
    pub provider: String,
    /// Grows with every other state, not by one. Older ones are to be refused.
    pub generation: u64,
    /// Where clients come in.
    pub frontends: Vec<Frontend>,
    /// Who answers them.
    pub backends: Vec<Backend>,
    /// Certificates that frontends name.
    pub certificates: Vec<Certificate>,
}

/// A listener of a Gateway, or a port of a Service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Frontend {
    /// Whose it is.
    pub owner: Owner,
    /// The field that asks for it: `spec.listeners[0]`.
    pub field: String,
    /// The listener's or the port's name.
    pub name: String,
    /// HTTP, HTTPS, TLS, TCP or UDP.
    pub protocol: String,
    /// Of TLS: Terminate or Passthrough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_mode: Option<String>,
    /// Its port.
    pub port: u16,
    /// The host name that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The addresses wished for; none: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Who may come; none: everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_ranges: Vec<String>,
    /// For so many seconds a client comes back to its server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_seconds: Option<u32>,
    /// Names of certificates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
    /// What is done with what comes in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
}

/// A rule of a route; of TLS, TCP and UDP one without conditions but host names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Whose it is.
    pub owner: Owner,
    /// The field: `spec.rules[0]`.
    pub field: String,
    /// Host names (of a TLSRoute server names); none: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Any of these must match, as HTTPRouteMatch (of a GRPCRoute GRPCRouteMatch) of the Gateway API; none: everything does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<serde_json::Value>,
    /// HTTPRouteFilters (GRPCRouteFilters) of the Gateway API, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<serde_json::Value>,
    /// Other fields of the rule that ask for something: `timeouts`, `retry`, `sessionPersistence`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, serde_json::Value>,
    /// The backend's name.
    pub backend: String,
}

/// Servers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// `NAMESPACE_ROUTE_RULE`, of a Service `NAMESPACE_SERVICE_PORT`, of a member's `CLUSTER_NAMESPACE_SERVICE_PORT`.
    pub name: String,
    /// Whose it is.
    pub owner: Owner,
    /// The field: `spec.rules[0].backendRefs`.
    pub field: String,
    /// HTTP, GRPC (HTTP/2 without TLS), TCP or UDP.
    pub protocol: String,
    /// Those that are ready; whoever is not among them any more is to be drained.
    pub servers: Vec<Server>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// 1 to 256: its share beside the others of the backend.
    pub weight: u16,
    /// The member that it is in; none: the hub's own network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

/// A certificate with its key.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// `namespace/name` of its Secret.
    pub name: String,
    /// Whose field names it.
    pub owner: Owner,
    /// The field: `spec.listeners[0].tls.certificateRefs[0]`.
    pub field: String,
    /// PEM, the leaf first.
    pub chain: String,
    /// PEM.
    pub key: String,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Keys stand in no log.
        write!(f, "Certificate({})", self.name)
    }
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Answer {
    /// The generation that is meant.
    pub generation: u64,
    /// What is not done, by field. Everything else is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
    /// Where owners are reached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Reached>,
    /// How servers do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<Health>,
}

/// A field that is not carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Whose field it is.
    pub owner: Owner,
    /// The field, as the push names it, or one below it.
    pub field: String,
    /// Why not, and what to do.
    pub message: String,
}

/// Where an owner is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reached {
    /// A Gateway or a Service.
    pub owner: Owner,
    /// IP addresses or host names.
    pub addresses: Vec<String>,
}

/// How a server does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// The backend's name.
    pub backend: String,
    /// `address:port`.
    pub server: String,
    /// Whether it takes connections.
    pub healthy: bool,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// The schema of both, as it is published.
pub fn schema() -> serde_json::Value {
    let (push, answer) = (schemars::schema_for!(Push), schemars::schema_for!(Answer));
    serde_json::json!({"push": push, "answer": answer})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schema_is_that_of_the_types() {
        let published: serde_json::Value =
            serde_json::from_str(include_str!("../../docs/provider.schema.json")).unwrap();
        assert_eq!(published, schema(), "print it anew: atoll gateway provider-schema > docs/provider.schema.json");
    }
}
