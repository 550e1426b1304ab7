//! Services of type LoadBalancer of our class, of the hub's API and of members, among the objects: each is served as a Gateway of its own with an
//! address out of the pool and a listener for each of its ports. Pure.
//!
//! In: the hub's Services, and what members' agents say of theirs. Out: [`Balancers`], and their Gateways among the objects, with names that no
//! object has that people can write. Who serves them is the fleet of the class `atoll`.

mod affinity;
mod terms;

use std::collections::BTreeMap;
use std::sync::Arc;

use atoll_api::kinds::gateway::{GATEWAY_CLASS, Gateway, GatewaySpec, Listener};
use atoll_api::names::{ClusterName, ServiceName};
use atoll_api::topology::{BalancerFacts, ByService, Topology, balancer_addresses, is_balancer};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

pub(crate) use affinity::Affinities;
pub(crate) use terms::Terms;

use crate::fleet::Fleet;
use crate::objects::{Edit, Name, Objects, name_of};

/// What the names of their Gateways begin with.
const OURS: &str = "service:";
/// Services that are served; of more the first: the hub's, then by member and name.
const SERVICES_MAX: usize = 2048;

/// A Service that is served.
#[derive(Debug, Clone)]
pub(crate) struct Balanced {
    /// The member whose it is; nothing: it is of the hub's API.
    pub(crate) cluster: Option<ClusterName>,
    pub(crate) service: ServiceName,
    pub(crate) facts: Arc<BalancerFacts>,
    /// The object, where it is of the hub's API.
    pub(crate) object: Option<Arc<Service>>,
}

impl Balanced {
    /// `cluster/namespace/name`, as replicas state it.
    pub(crate) fn place(&self) -> String {
        format!("{}/{}", self.cluster.as_ref().map_or("", ClusterName::as_str), self.service)
    }

    /// Whom the name of a key for sharing is known to: the Services of one namespace.
    pub(crate) fn shares(&self) -> Option<String> {
        let cluster = self.cluster.as_ref().map_or("", ClusterName::as_str);
        self.facts.shares.as_ref().map(|key| format!("{cluster}/{}/{key}", self.service.namespace))
    }
}

/// All of them, by the name of their Gateway, and what members asked for when it was looked at.
#[derive(Debug, Default)]
pub(crate) struct Balancers {
    pub(crate) all: BTreeMap<Name, Balanced>,
    members: Asking,
}

/// What members ask for.
type Asking = BTreeMap<ClusterName, ByService<BalancerFacts>>;

/// Whether a Gateway stands for a Service.
pub(crate) fn is_ours(object: &impl ResourceExt) -> bool {
    object.meta().name.as_deref().is_some_and(|name| name.starts_with(OURS))
}

/// Whether a Service is to be looked at: it is of our class, or its status gives addresses although it is of no class any more.
pub(crate) fn concerns(service: &Service) -> bool {
    is_balancer(service) || is_left(service)
}

/// Whether its status gives addresses that nothing of it asks for any more.
pub(crate) fn is_left(service: &Service) -> bool {
    let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    kind != Some("LoadBalancer") && !balancer_addresses(service).is_empty()
}

/// Looks which there are, and puts their Gateways among the objects. Returns what that means for the table.
pub(crate) fn derive(objects: &mut Objects, topology: &Topology, fleet: &Fleet, edits: &[Edit]) -> Vec<Edit> {
    if !fleet.classes().iter().any(|class| class == GATEWAY_CLASS) {
        return Vec::new();
    }
    let is_whole = edits.contains(&Edit::Whole);
    let members: Asking = topology
        .balancers
        .iter()
        .filter(|(cluster, _)| topology.clusters.contains_key(cluster.as_str()))
        .map(|(cluster, services)| (cluster.clone(), services.clone()))
        .collect();
    if !is_whole && objects.balancers.members == members {
        return Vec::new();
    }
    let before = Arc::clone(&objects.balancers);
    let own = objects.services.iter().filter_map(|service| {
        let facts = Arc::new(BalancerFacts::of(service)?);
        let (namespace, name) = name_of(&**service);
        let object = Some(Arc::clone(service));
        Some(Balanced { cluster: None, service: ServiceName::new(&namespace, &name), facts, object })
    });
    let theirs = members.iter().flat_map(|(cluster, services)| {
        // Those of balancers that others own are theirs.
        services.into_iter().filter(|(_, facts)| facts.class.is_none()).map(|(service, facts)| {
            let (cluster, facts) = (Some(cluster.clone()), Arc::clone(facts));
            Balanced { cluster, service: service.clone(), facts, object: None }
        })
    });
    let all: BTreeMap<Name, Balanced> =
        own.chain(theirs).take(SERVICES_MAX).map(|balanced| (name(&balanced), balanced)).collect();
    for name in before.all.keys().filter(|name| !all.contains_key(*name)) {
        objects.gateways.set(name, None);
    }
    for (name, balanced) in &all {
        objects.gateways.set(name, Some(Arc::new(gateway(name, balanced))));
    }
    objects.balancers = Arc::new(Balancers { all, members });
    vec![Edit::Whole]
}

/// The name of its Gateway.
fn name(balanced: &Balanced) -> Name {
    let service = &balanced.service;
    let name = match &balanced.cluster {
        Some(cluster) => format!("{OURS}{cluster}/{}", service.name),
        None => format!("{OURS}{}", service.name),
    };
    (service.namespace.clone(), name)
}

/// Whether gateways can carry it, and the name of its listener.
pub(crate) fn section(protocol: &str, port: u16) -> Option<String> {
    matches!(protocol, "TCP" | "UDP").then(|| format!("{}-{port}", protocol.to_ascii_lowercase()))
}

fn gateway(name: &Name, balanced: &Balanced) -> Gateway {
    let listeners = balanced.facts.ports.iter().filter_map(|port| {
        Some(Listener {
            name: section(&port.protocol, port.port)?,
            port: i32::from(port.port),
            protocol: port.protocol.clone(),
            ..Listener::default()
        })
    });
    let listeners = listeners.collect();
    let spec = GatewaySpec { gateway_class_name: GATEWAY_CLASS.to_owned(), listeners, ..GatewaySpec::default() };
    let mut gateway = Gateway::new(&name.1, spec);
    gateway.metadata.namespace = Some(name.0.clone());
    // Nobody vouches for what members say of their age: they come after all of the hub's.
    let created = balanced.object.as_ref().and_then(|object| object.metadata.creation_timestamp.clone());
    gateway.metadata.creation_timestamp = created.or(Some(Time(Timestamp::MAX)));
    gateway
}
