//! Services and their endpoints: of a cluster set as data planes read them, and of one member as its agent reports them.
//!
//! Facts only: who serves whom is for data planes to say.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A service of a cluster set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceFacts {
    /// Members that export it.
    pub clusters: Vec<String>,
    /// Its ports, as the oldest export has them.
    pub ports: Vec<ServicePort>,
    /// No virtual address anywhere.
    pub headless: bool,
}

/// A port of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Its name; empty where it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The number users dial.
    pub port: u16,
    /// Application protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    /// The port on every node, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
}

/// A Service of one member, as its agent reports it (only services that are exported).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemberService {
    /// Virtual addresses; empty: headless.
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses of its load balancer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub load_balancer: Vec<String>,
    /// Ports.
    pub ports: Vec<ServicePort>,
}

/// The endpoints of a service in one member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoints {
    /// Virtual addresses of the service there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses of its load balancer there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub load_balancer: Vec<String>,
    /// One for each pod.
    pub endpoints: Vec<Endpoint>,
    /// Port numbers that the endpoints listen on, by service port.
    pub ports: Vec<EndpointPort>,
    /// Port numbers that the nodes listen on for it, by service port; none: it has no such ports there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_ports: Vec<EndpointPort>,
    /// Where it has, addresses of the nodes that its endpoints run on, by the node's name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, Vec<IpAddr>>,
}

impl Endpoints {
    /// Where the node of `endpoint` listens at the port of the Service `port` (its name and protocol): an address of the endpoint's family.
    pub fn door(&self, endpoint: &Endpoint, port: &str, protocol: &str) -> Option<SocketAddr> {
        let number = self.node_ports.iter().find(|p| p.name == port && p.protocol == protocol)?.port;
        let addresses = self.nodes.get(endpoint.node.as_deref()?)?;
        let address = addresses.iter().find(|ip| ip.is_ipv4() == endpoint.address.is_ipv4())?;
        Some(SocketAddr::new(*address, number))
    }

    /// How many are ready.
    pub fn ready(&self) -> usize {
        self.endpoints.iter().filter(|e| e.ready).count()
    }
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Whether it takes requests.
    pub ready: bool,
    /// Its pod is ready, but health checks take it out; `ready` is false then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failing: bool,
    /// The pod's host name, where it has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The pod's labels, as far as the hub asked for them ([`crate::facts::key::LABELS`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Which port the endpoints of a service port listen on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// The service port's name; empty where it has none.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The endpoints' port.
    pub port: u16,
}

/// A ServiceExport of one member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExportFacts {
    /// When it was made, RFC 3339: the oldest export wins a conflict (KEP-1645).
    pub created: String,
    /// Whether there is a Service of that name.
    pub valid: bool,
}
