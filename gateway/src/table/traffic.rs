//! TrafficPolicies as the topology has them, parsed once for each table: by the service, and by the host, that they are of. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use atoll_api::names::ServiceName;
use atoll_api::routing::Chain;
use atoll_api::topology::{Topology, TrafficFacts};

use super::Policy;
use crate::balance::Balance;
use crate::choose::Capacity;
use crate::health::Care;

/// TrafficPolicies of services: the hub tells one of each; one that does not parse is left out.
pub(super) fn service_policies(topology: &Topology) -> HashMap<ServiceName, Arc<Policy>> {
    let mut policies = HashMap::new();
    for (at, spec) in &topology.traffic {
        let (Some(service), Some(policy)) = (&spec.service, policy(at, spec)) else { continue };
        policies.entry(ServiceName::new(&at.namespace, service)).or_insert(policy);
    }
    policies
}

fn policy(at: &ServiceName, spec: &TrafficFacts) -> Option<Arc<Policy>> {
    let chain = Chain::parse(&spec.strategy, spec.all_down).ok()?;
    let balance = Balance::parse(spec.balance.as_ref()).ok()?;
    let capacity = spec.capacity.as_ref().map(Capacity::parse).transpose().ok()?;
    let care = Arc::new(Care::parse(spec).ok()?);
    let subsets = spec.subsets.iter().cloned().map(Arc::new).collect();
    Some(Arc::new(Policy { name: at.to_string(), chain, balance, capacity, care, subsets }))
}

/// TrafficPolicies of hosts, by the same rules.
pub(super) fn host_policies(topology: &Topology) -> HashMap<String, Arc<Policy>> {
    let mut policies = HashMap::new();
    for (at, spec) in topology.traffic.iter().filter(|(_, spec)| !spec.hosts.is_empty()) {
        let Some(policy) = policy(at, spec) else { continue };
        for host in &spec.hosts {
            policies.entry(host.to_ascii_lowercase()).or_insert_with(|| Arc::clone(&policy));
        }
    }
    policies
}
