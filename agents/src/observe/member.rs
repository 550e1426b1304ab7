//! The member as a whole: capacity, free room, nodes, address ranges, DNS.
//!
//! In: the tables and what is read slowly. Out: [`MemberFacts`]. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use atoll_api::kinds::{Cidrs, MemberDns};
use atoll_api::quantity::Milli;
use atoll_api::topology::MemberFacts;

use super::trim::{Amounts, add};
use super::{Seen, ranges};
use crate::config::Config;

/// Nodes' addresses told at most; a relay needs no more, and a member of thousands must not fill the topology.
const NODE_ADDRESSES_MAX: usize = 1000;
/// DNS pods told beside the service.
const DNS_PODS_MAX: usize = 2;

/// What is read from time to time instead of watched.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slow {
    pub(crate) version: String,
    pub(crate) service_cidrs: Vec<String>,
    pub(crate) corefile: String,
}

/// Folds the tables into the member's facts.
pub(super) fn fold(seen: &Seen, slow: &Slow, config: &Config) -> MemberFacts {
    let (mut capacity, mut allocatable) = (Amounts::new(), Amounts::new());
    let (mut ready, mut addresses) = (0, BTreeSet::new());
    for node in seen.nodes.rows().values() {
        ready += u32::from(node.ready);
        addresses.extend(node.addresses.iter().copied());
        add(&mut capacity, &node.capacity);
        if node.schedulable {
            add(&mut allocatable, &node.allocatable);
        }
    }
    let mut free = allocatable.clone();
    for pod in seen.pods.rows().values() {
        for (name, amount) in &pod.requests {
            if let Some(left) = free.get_mut(name) {
                *left -= *amount;
            }
        }
    }
    MemberFacts {
        version: slow.version.clone(),
        agent_version: config.version.clone(),
        nodes_ready: ready,
        nodes: addresses.into_iter().take(NODE_ADDRESSES_MAX).collect(),
        capacity: text(&capacity),
        allocatable: text(&allocatable),
        free: text(&free),
        cidrs: cidrs(seen, slow, config),
        dns: config.dns.clone().or_else(|| find_dns(seen, &slow.corefile)),
        stub: config.stub.as_ref().is_some_and(|stub| stub.enabled),
    }
}

fn text(amounts: &Amounts) -> BTreeMap<String, String> {
    let is_bytes = |name: &str| matches!(name, "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    let write = |name: &str, amount: &Milli| if is_bytes(name) { amount.bytes() } else { amount.to_string() };
    amounts.iter().map(|(name, amount)| (name.clone(), write(name, amount))).collect()
}

fn cidrs(seen: &Seen, slow: &Slow, config: &Config) -> Cidrs {
    let mut pods: Vec<String> = seen.nodes.rows().values().flat_map(|n| n.pod_cidrs.clone()).collect();
    pods.extend(config.cidrs.pods.iter().cloned());
    let mut services = slow.service_cidrs.clone();
    services.extend(config.cidrs.services.iter().cloned());
    let pod_ips: Vec<IpAddr> = seen.pods.rows().values().filter_map(|p| p.address).collect();
    let service_ips: Vec<IpAddr> = seen.services.rows().values().flat_map(|s| s.cluster_ips.clone()).collect();
    Cidrs { pods: ranges::cover(&pods, &pod_ips), services: ranges::cover(&services, &service_ips) }
}

/// The DNS service of kube-system and the domain that its Corefile serves.
fn find_dns(seen: &Seen, corefile: &str) -> Option<MemberDns> {
    let services = seen.services.rows();
    let (key, service) = services.iter().filter(|(_, s)| s.is_dns).min_by_key(|(key, _)| (*key).clone())?;
    let port = service.ports.iter().find(|p| p.protocol == "UDP").or(service.ports.first()).map_or(53, |p| p.port);
    let mut servers: Vec<String> =
        service.cluster_ips.iter().map(|ip| SocketAddr::new(*ip, port).to_string()).collect();
    // Pods' addresses are often routed where services' are not.
    let mut pods: BTreeSet<SocketAddr> = BTreeSet::new();
    for slice in seen.slices.rows().values().filter(|slice| slice.service == *key) {
        let Some(port) = slice.ports.iter().find(|p| p.protocol == "UDP").or(slice.ports.first()) else { continue };
        pods.extend(slice.endpoints.iter().filter(|e| e.ready).map(|e| SocketAddr::new(e.address, port.port)));
    }
    servers.extend(pods.into_iter().take(DNS_PODS_MAX).map(|addr| addr.to_string()));
    if servers.is_empty() {
        return None;
    }
    let domain = domain_of(corefile).unwrap_or_else(|| "cluster.local".to_owned());
    Some(MemberDns { domain, servers, ..MemberDns::default() })
}

/// The first forward zone of the `kubernetes` plugin: `kubernetes cluster.local in-addr.arpa ip6.arpa {`.
fn domain_of(corefile: &str) -> Option<String> {
    let line = corefile.lines().map(str::trim).find(|line| line.starts_with("kubernetes "))?;
    line.split_whitespace()
        .skip(1)
        .map(|word| word.trim_end_matches('.'))
        .find(|word| *word != "{" && !word.ends_with(".arpa") && !word.is_empty())
        .map(str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::domain_of;

    #[test]
    fn the_domain_is_the_first_forward_zone_of_the_kubernetes_plugin() {
        for (corefile, want) in [
            (".:53 {\n    errors\n    kubernetes cluster.local in-addr.arpa ip6.arpa {\n", Some("cluster.local")),
            ("kubernetes in-addr.arpa Corp.Example. {", Some("corp.example")),
            ("kubernetes {", None),
            ("# kubernetes x.y", None),
            ("", None),
        ] {
            assert_eq!(domain_of(corefile).as_deref(), want, "{corefile}");
        }
    }
}
