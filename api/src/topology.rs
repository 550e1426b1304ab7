//! The topology: one versioned snapshot of everything that DNS and gateway need, folded by the hub and followed as deltas.
//!
//! On the wire and on disk it is a set of keyed facts ([`crate::facts`]); [`Topology::from_facts`] is the typed view that data
//! planes read. Also here: what an agent says of its member, what it is told to do. A fact that does not parse is left out and
//! counted, never fatal: an older reader survives a newer hub.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::facts::{Change, Facts, key};
use crate::kinds::{Cidrs, ClusterRole, ClusterSpec, MemberDns, TrafficPolicySpec};
use crate::names::{ClusterName, ServiceName};
pub use zones::{RecordsFacts, SigningKey, TsigKey, ZoneFacts, ZoneKeys};

mod by_service;
mod site;
#[cfg(test)]
mod tests;
mod zones;

pub use by_service::ByService;
pub use site::{ServedGateway, Site};

/// Which hub, and the how-manieth change of its.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// Bumped at every acquisition of leadership; older ones are refused.
    pub epoch: u64,
    /// Counts changes within the epoch.
    pub generation: u64,
}

/// What holds for the whole federation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// The hub's id, as in certificates.
    pub hub_id: String,
    /// The operator's domain, without the last dot.
    pub apex: String,
    /// The cluster set of askers that stand in no member.
    pub default_set: String,
    /// Serial numbers (hexadecimal) of revoked certificates.
    pub revoked: Vec<String>,
    /// Zones that no Zone describes have this plus the generation as their serial; the same all through an epoch.
    pub serial: u32,
}

/// A member as data planes see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterFacts {
    /// Its name.
    pub name: ClusterName,
    /// What the operator says of it.
    pub spec: ClusterSpec,
    /// Labels of the Cluster object.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Address ranges: written, else found.
    #[serde(default)]
    pub cidrs: Cidrs,
    /// Addresses of its nodes: who asks from there stands in this member, and its agent may relay to them.
    #[serde(default)]
    pub nodes: Vec<IpAddr>,
    /// DNS: written, else found.
    #[serde(default)]
    pub dns: Option<MemberDns>,
    /// Whether the hub counts it as Ready.
    #[serde(default)]
    pub ready: bool,
    /// Whether its DNS answers its agent.
    #[serde(default)]
    pub dns_ready: bool,
    /// Its ranges overlap those of others: reach it by relay only.
    #[serde(default)]
    pub overlaps: bool,
}

impl ClusterFacts {
    /// The cluster set that it belongs to.
    pub fn set(&self) -> &str {
        self.spec.set()
    }

    /// Active or Standby.
    pub fn role(&self) -> ClusterRole {
        self.spec.role()
    }
}

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
}

impl Endpoints {
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

/// A TrafficPolicy.
pub type TrafficFacts = TrafficPolicySpec;

/// The targets of one TrafficPolicy that its health check takes out, by [`crate::health::Target::place`], each with who says so.
pub type FailingFacts = BTreeMap<String, String>;

/// Where somebody stands: a replica, or users by their address range.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Standing {
    /// In this member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// In this region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// In this zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// In this cluster set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_set: Option<String>,
}

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

/// The typed snapshot that data planes read. Cheap to share (`Arc`), never changed.
#[derive(Debug, Clone, Default)]
pub struct Topology {
    /// Which one it is.
    pub version: Version,
    /// What holds for all.
    pub settings: Settings,
    /// Members by name.
    pub clusters: BTreeMap<ClusterName, Arc<ClusterFacts>>,
    /// Services by cluster set and name.
    pub services: BTreeMap<String, ByService<ServiceFacts>>,
    /// Endpoints by member and service.
    pub endpoints: BTreeMap<ClusterName, ByService<Endpoints>>,
    /// Zones by object name.
    pub zones: BTreeMap<String, Arc<ZoneFacts>>,
    /// Their keys, by object name; DNS servers alone are told.
    pub keys: BTreeMap<String, Arc<ZoneKeys>>,
    /// Records by namespace/name of the DNSEndpoint.
    pub records: BTreeMap<String, Arc<RecordsFacts>>,
    /// Traffic policies by namespace/name.
    pub traffic: BTreeMap<ServiceName, Arc<TrafficFacts>>,
    /// DNS servers and gateways by instance.
    pub sites: BTreeMap<String, Arc<Site>>,
    /// Round-trip times in milliseconds from a region to members, as the DNS servers there measure them.
    pub rtt: BTreeMap<String, Arc<BTreeMap<ClusterName, u32>>>,
    /// What health checks take out, by the policy that asks for them.
    pub failing: BTreeMap<ServiceName, Arc<FailingFacts>>,
    /// Keys of facts that did not parse.
    pub unread: BTreeSet<String>,
}

impl Topology {
    /// The typed view of `facts`.
    pub fn from_facts(version: Version, facts: &Facts) -> Self {
        let mut t = Self { version, ..Self::default() };
        for (k, json) in facts.iter() {
            t.take(k, json);
        }
        t
    }

    /// The next one: what `change` does not name is shared with this one. The same as [`Self::from_facts`] over the set after the change.
    pub fn after(&self, version: Version, change: &Change) -> Self {
        let mut next = if change.full { Self::default() } else { self.clone() };
        next.version = version;
        for key in &change.removed {
            next.forget(key);
        }
        for (key, json) in &change.upserts {
            // What does not parse any more is not there any more.
            next.forget(key);
            next.take(key, json);
        }
        next
    }

    fn take(&mut self, k: &str, json: &[u8]) {
        if self.read(k, json).is_none() {
            self.unread.insert(k.to_owned());
        }
    }

    fn forget(&mut self, k: &str) {
        fn within<K: Ord + std::borrow::Borrow<str>, T>(
            all: &mut BTreeMap<K, ByService<T>>,
            key: &str,
            name: &ServiceName,
        ) {
            if let Some(services) = all.get_mut(key).filter(|services| services.contains_key(name)) {
                services.remove(name);
                if services.is_empty() {
                    all.remove(key);
                }
            }
        }
        self.unread.remove(k);
        let mut words = k.split('/');
        let what = words.next().unwrap_or_default();
        let rest: Vec<&str> = words.collect();
        match (what, rest.as_slice()) {
            (key::SETTINGS, []) => self.settings = Settings::default(),
            (key::CLUSTER, [name]) => drop(self.clusters.remove(*name)),
            (key::SERVICE, [set, namespace, name]) => {
                within(&mut self.services, set, &ServiceName::new(*namespace, *name));
            }
            (key::ENDPOINTS, [cluster, namespace, name]) => {
                within(&mut self.endpoints, cluster, &ServiceName::new(*namespace, *name));
            }
            (key::ZONE, [name]) => drop(self.zones.remove(*name)),
            (key::ZONE_KEYS, [name]) => drop(self.keys.remove(*name)),
            (key::RECORDS, [namespace, name]) => drop(self.records.remove(&format!("{namespace}/{name}"))),
            (key::TRAFFIC, [namespace, name]) => drop(self.traffic.remove(&ServiceName::new(*namespace, *name))),
            (key::RTT, [region]) => drop(self.rtt.remove(*region)),
            (key::FAILING, [namespace, name]) => drop(self.failing.remove(&ServiceName::new(*namespace, *name))),
            (key::SITE, [instance]) => drop(self.sites.remove(*instance)),
            _ => {}
        }
    }

    fn read(&mut self, k: &str, json: &[u8]) -> Option<()> {
        fn parse<T: DeserializeOwned>(json: &[u8]) -> Option<Arc<T>> {
            serde_json::from_slice(json).ok().map(Arc::new)
        }
        let mut words = k.split('/');
        let what = words.next()?;
        let rest: Vec<&str> = words.collect();
        match (what, rest.as_slice()) {
            (key::SETTINGS, []) => self.settings = serde_json::from_slice(json).ok()?,
            (key::CLUSTER, [name]) => drop(self.clusters.insert(name.parse().ok()?, parse(json)?)),
            (key::SERVICE, [set, namespace, name]) => {
                let services = self.services.entry((*set).to_owned()).or_default();
                services.insert(ServiceName::new(*namespace, *name), parse(json)?);
            }
            (key::ENDPOINTS, [cluster, namespace, name]) => {
                let endpoints = self.endpoints.entry(cluster.parse().ok()?).or_default();
                endpoints.insert(ServiceName::new(*namespace, *name), parse(json)?);
            }
            (key::ZONE, [name]) => drop(self.zones.insert((*name).to_owned(), parse(json)?)),
            (key::ZONE_KEYS, [name]) => drop(self.keys.insert((*name).to_owned(), parse(json)?)),
            (key::RECORDS, [namespace, name]) => drop(self.records.insert(format!("{namespace}/{name}"), parse(json)?)),
            (key::TRAFFIC, [namespace, name]) => {
                drop(self.traffic.insert(ServiceName::new(*namespace, *name), parse(json)?));
            }
            (key::RTT, [region]) => drop(self.rtt.insert((*region).to_owned(), parse(json)?)),
            (key::FAILING, [namespace, name]) => {
                drop(self.failing.insert(ServiceName::new(*namespace, *name), parse(json)?));
            }
            (key::SITE, [instance]) => drop(self.sites.insert((*instance).to_owned(), parse(json)?)),
            _ => return None,
        }
        Some(())
    }

    /// The endpoints of `service` in `cluster`.
    pub fn endpoints_in(&self, cluster: &str, service: &ServiceName) -> Option<&Arc<Endpoints>> {
        self.endpoints.get(cluster)?.get(service)
    }

    /// The gateways that serve `set`: those that are heard of, else all that there were.
    pub fn gateways<'a>(&'a self, set: &'a str) -> impl Iterator<Item = &'a Arc<Site>> {
        let serves = move |s: &&Arc<Site>| s.kind == "gateway" && s.cluster_set.as_deref().is_none_or(|own| own == set);
        let any = self.sites.values().filter(serves).any(|s| !s.silent);
        self.sites.values().filter(serves).filter(move |s| !(any && s.silent))
    }
}
