//! What of a topology differs from the one before, as far as tables are concerned. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use atoll_api::names::ServiceName;
use atoll_api::topology::{ClusterFacts, Topology, TrafficFacts};

/// What differs.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Members, settings or policies: everything may be another.
    pub(super) whole: bool,
    /// Services whose ports or members are others.
    pub(super) services: BTreeSet<ServiceName>,
    /// Services of which endpoints are others.
    pub(super) endpoints: BTreeSet<ServiceName>,
    /// Other replicas state something else.
    pub(super) sites: bool,
}

/// Looks for what differs; costs what differs.
pub(super) fn difference(old: &Arc<Topology>, new: &Arc<Topology>) -> Difference {
    let mut found = Difference::default();
    if Arc::ptr_eq(old, new) {
        return found;
    }
    let cluster = |a: &Arc<ClusterFacts>, b: &Arc<ClusterFacts>| Arc::ptr_eq(a, b) || a == b;
    let policy = |a: &Arc<TrafficFacts>, b: &Arc<TrafficFacts>| Arc::ptr_eq(a, b) || a == b;
    let clusters = old.clusters.len() == new.clusters.len()
        && old.clusters.iter().zip(&new.clusters).all(|(a, b)| a.0 == b.0 && cluster(a.1, b.1));
    let traffic = old.traffic.len() == new.traffic.len()
        && old.traffic.iter().zip(&new.traffic).all(|(a, b)| a.0 == b.0 && policy(a.1, b.1));
    found.whole = old.settings != new.settings || !clusters || !traffic;
    found.sites = old.sites != new.sites;
    for set in old.services.keys().chain(new.services.keys()).collect::<BTreeSet<_>>() {
        let of = |t: &Topology| t.services.get(set).cloned().unwrap_or_default();
        of(old).differing(&of(new), |service, _, _| found.services.extend([service.clone()]));
    }
    for member in old.endpoints.keys().chain(new.endpoints.keys()).collect::<BTreeSet<_>>() {
        let of = |t: &Topology| t.endpoints.get(member).cloned().unwrap_or_default();
        of(old).differing(&of(new), |service, _, _| found.endpoints.extend([service.clone()]));
    }
    found
}
