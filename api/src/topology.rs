//! The topology: one versioned snapshot of everything that DNS and gateway need, folded by the hub and followed as deltas.
//!
//! On the wire and on disk it is a set of keyed facts ([`crate::facts`]); [`Topology::from_facts`] is the typed view that data
//! planes read. Also here: what an agent says of its member, what it is told to do. A fact that does not parse is left out and
//! counted, never fatal: an older reader survives a newer hub.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::facts::{Change, Facts, key};
use crate::kinds::{Cidrs, ClusterRole, ClusterSpec, MemberDns, TrafficPolicySpec};
use crate::names::{ClusterName, ServiceName};
use crate::ordered::Ordered;
pub use zones::{RecordsFacts, SigningKey, TsigKey, ZoneFacts, ZoneKeys};

mod balancer;
mod by_service;
mod member;
mod services;
mod site;
#[cfg(test)]
mod tests;
mod traffic;
mod zones;

pub use balancer::{
    BALANCER_CLASS, BALANCER_CLASS_PREFIX, BalancerFacts, BalancerPort, BalancerProblem, BalancerState, Family,
    PROXY_PROTOCOL, addresses as balancer_addresses, is_balancer, is_balancer_of,
};
pub use by_service::ByService;
pub use member::{BundleReport, DesiredBundle, MemberFacts, StubFacts, StubReport};
pub use services::{Endpoint, EndpointPort, Endpoints, ExportFacts, MemberService, ServiceFacts, ServicePort};
pub use site::{ServedGateway, Site};
pub use traffic::{CLUSTER_TRAFFIC, Traffic, endpoint_label};

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
    /// Services of type LoadBalancer that gateways serve, by member and service.
    pub balancers: BTreeMap<ClusterName, ByService<BalancerFacts>>,
    /// Zones by object name.
    pub zones: BTreeMap<String, Arc<ZoneFacts>>,
    /// Their keys, by object name; DNS servers alone are told.
    pub keys: BTreeMap<String, Arc<ZoneKeys>>,
    /// Records by namespace/name of the DNSEndpoint.
    pub records: Ordered<String, Arc<RecordsFacts>>,
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
            (key::BALANCER, [cluster, namespace, name]) => {
                within(&mut self.balancers, cluster, &ServiceName::new(*namespace, *name));
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
            (key::BALANCER, [cluster, namespace, name]) => {
                let balancers = self.balancers.entry(cluster.parse().ok()?).or_default();
                balancers.insert(ServiceName::new(*namespace, *name), parse(json)?);
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
