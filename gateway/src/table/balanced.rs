//! The upstreams of Services of type LoadBalancer: their own endpoints and nobody else's, in the hub's network or in the one member. Pure.

use atoll_api::names::{ClusterName, ServiceName};
use atoll_api::topology::{ServicePort, Topology};

use super::backend::{Resolver, part};
use super::local::local_offer;
use super::upstreams::Resolved;
use super::{Part, Upstream, UpstreamId, Wants};
use crate::balancer::Balanced;

impl Resolver<'_> {
    /// The upstream of a port of a Service.
    pub(crate) fn balanced(&mut self, balanced: &Balanced, port: &ServicePort, wants: Wants) -> usize {
        let service = balanced.service.clone();
        self.noted.services.insert(service.clone());
        let (id, (clusters, names)) = match &balanced.cluster {
            None => {
                let id = UpstreamId::Local(service.clone(), port.port, None);
                (id, local_offer(self.objects, &service, port, None, wants))
            }
            Some(cluster) => {
                let id = UpstreamId::Member(cluster.clone(), service.clone(), port.port);
                (id, (member_parts(self.topology, cluster, &service, port, wants), Box::default()))
            }
        };
        let upstream =
            Upstream { id: id.clone(), h2: false, udp: wants == Wants::Udp, tls: None, clusters, names, policy: None };
        let (known, port) = ((id, wants, None), port.clone());
        let resolved = Resolved { known, upstream, port, subset: None, wants, closed: false };
        let at = self.upstreams.hold(resolved);
        self.noted.upstreams.push(at);
        at
    }
}

/// What one member offers of a service; of one that is no member nothing.
pub(crate) fn member_parts(
    topology: &Topology,
    cluster: &ClusterName,
    service: &ServiceName,
    port: &ServicePort,
    wants: Wants,
) -> Vec<Part> {
    match topology.clusters.get(cluster.as_str()) {
        Some(cluster) => vec![part(topology, cluster, service, port, None, wants)],
        None => vec![Part { cluster: None, endpoints: Vec::new() }],
    }
}
