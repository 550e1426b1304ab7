//! Exported services and their endpoints, as facts.
//!
//! In: the tables. Out: `export/…` for every export, `service/…` and `endpoints/…` for those that have a Service. Pure.
//! An export without a Service is told as not valid (KEP-1645: `Valid=False`).

use std::collections::{BTreeMap, BTreeSet};

use atoll_api::facts::{Facts, key};
use atoll_api::topology::{EndpointPort, Endpoints, ExportFacts, MemberService};

use super::Seen;
use super::trim::ServiceRow;

/// Endpoints told of one service.
const ENDPOINTS_MAX: usize = 5000;

/// Adds the facts about exported services.
pub(super) fn fold(seen: &Seen, facts: &mut Facts) {
    let (exports, services) = (seen.exports.rows(), seen.services.rows());
    let mut told: BTreeMap<String, Endpoints> = BTreeMap::new();
    for (name, export) in exports.iter() {
        let service = services.get(name);
        let fact = ExportFacts { created: export.created.clone(), valid: service.is_some() };
        facts.put(format!("{}/{name}", key::EXPORT), &fact);
        let Some(service) = service else { continue };
        facts.put(format!("{}/{name}", key::SERVICE), &member_service(service));
        let start = Endpoints {
            cluster_ips: service.cluster_ips.clone(),
            load_balancer: service.load_balancer.clone(),
            ..Endpoints::default()
        };
        told.insert(name.clone(), start);
    }
    gather(seen, &mut told);
    for (name, endpoints) in &told {
        facts.put(format!("{}/{name}", key::ENDPOINTS), endpoints);
    }
}

fn member_service(service: &ServiceRow) -> MemberService {
    MemberService {
        cluster_ips: service.cluster_ips.clone(),
        load_balancer: service.load_balancer.clone(),
        ports: service.ports.clone(),
    }
}

/// Puts the slices of each service together, in an order that does not depend on how they were cut.
fn gather(seen: &Seen, told: &mut BTreeMap<String, Endpoints>) {
    let mut ports: BTreeMap<&str, BTreeMap<(String, String), EndpointPort>> = BTreeMap::new();
    let slices = seen.slices.rows();
    for slice in slices.values() {
        let Some(endpoints) = told.get_mut(&slice.service) else { continue };
        endpoints.endpoints.extend(slice.endpoints.iter().cloned());
        let known = ports.entry(&slice.service).or_default();
        for port in &slice.ports {
            known.entry((port.name.clone(), port.protocol.clone())).or_insert_with(|| port.clone());
        }
    }
    for (name, endpoints) in told {
        let mut addresses = BTreeSet::new();
        // A ready one first: while a pod moves between slices its address is in two.
        endpoints.endpoints.sort_by_key(|e| (e.address, !e.ready));
        endpoints.endpoints.retain(|e| addresses.insert(e.address));
        endpoints.endpoints.truncate(ENDPOINTS_MAX);
        endpoints.ports = ports.remove(name.as_str()).unwrap_or_default().into_values().collect();
    }
}
