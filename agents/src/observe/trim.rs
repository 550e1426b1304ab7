//! What is kept of each watched object: a row of the few fields that are needed.
//!
//! In: whole objects. Out: rows. Pure. A hundred thousand pods fit in a few tens of MiB.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use atoll_api::quantity::Milli;
use atoll_api::topology::{BalancerFacts, Endpoint, EndpointPort, ServicePort};
use k8s_openapi::api::core::v1::{Container, Node, ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::DynamicObject;

/// Amounts by resource.
pub(crate) type Amounts = BTreeMap<String, Milli>;

/// A node.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct NodeRow {
    pub(crate) ready: bool,
    pub(crate) schedulable: bool,
    pub(crate) capacity: Amounts,
    pub(crate) allocatable: Amounts,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) pod_cidrs: Vec<String>,
}

/// A pod that is not done.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct PodRow {
    pub(crate) requests: Amounts,
    /// Its own address; none for pods on their node's.
    pub(crate) address: Option<IpAddr>,
    /// Those of its labels that are asked for.
    pub(crate) labels: BTreeMap<String, String>,
    /// Why no node takes it, with its labels to find whose it is.
    pub(crate) unschedulable: Option<(String, BTreeMap<String, String>)>,
}

/// A service.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ServiceRow {
    pub(crate) cluster_ips: Vec<IpAddr>,
    pub(crate) load_balancer: Vec<String>,
    pub(crate) ports: Vec<ServicePort>,
    pub(crate) is_dns: bool,
    /// What it asks of gateways, where they are to serve it.
    pub(crate) balancer: Option<BalancerFacts>,
}

/// An endpoint slice.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SliceRow {
    /// `namespace/name` of its service.
    pub(crate) service: String,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) ports: Vec<EndpointPort>,
}

/// An export.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ExportRow {
    /// RFC 3339.
    pub(crate) created: String,
}

pub(super) fn node(node: Node) -> Option<NodeRow> {
    let (spec, status) = (node.spec.unwrap_or_default(), node.status.unwrap_or_default());
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    Some(NodeRow {
        ready,
        schedulable: ready && !spec.unschedulable.unwrap_or(false),
        capacity: amounts(status.capacity.as_ref()),
        allocatable: amounts(status.allocatable.as_ref()),
        addresses: status
            .addresses
            .iter()
            .flatten()
            .filter(|a| a.type_ == "InternalIP" || a.type_ == "ExternalIP")
            .filter_map(|a| a.address.parse().ok())
            .collect(),
        pod_cidrs: spec.pod_cidrs.or(spec.pod_cidr.map(|c| vec![c])).unwrap_or_default(),
    })
}

/// `keys`: the labels that are kept.
pub(super) fn pod(pod: Pod, keys: &BTreeSet<String>) -> Option<PodRow> {
    let (spec, status) = (pod.spec?, pod.status.unwrap_or_default());
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let refused = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False" && c.reason.as_deref() == Some("Unschedulable"));
    let why = refused.map(|c| c.message.clone().unwrap_or_default());
    let all = pod.metadata.labels.iter().flatten();
    let labels = all.filter(|(key, _)| keys.contains(*key)).map(|(k, v)| (k.clone(), v.clone())).collect();
    let unschedulable = why.map(|why| (why, pod.metadata.labels.unwrap_or_default()));
    let own = !spec.host_network.unwrap_or(false);
    let address = status.pod_ip.as_deref().filter(|_| own).and_then(|ip| ip.parse().ok());
    // As the scheduler sums: containers and sidecars together, or the largest init container, and the overhead.
    let mut running = Amounts::new();
    let mut starting = Amounts::new();
    for container in &spec.containers {
        add(&mut running, &requests(container));
    }
    for init in spec.init_containers.iter().flatten() {
        let wants = requests(init);
        if init.restart_policy.as_deref() == Some("Always") {
            add(&mut running, &wants);
        } else {
            largest(&mut starting, &wants);
        }
    }
    largest(&mut running, &starting);
    add(&mut running, &amounts(spec.overhead.as_ref()));
    running.insert("pods".to_owned(), Milli(1000));
    Some(PodRow { requests: running, address, labels, unschedulable })
}

pub(super) fn service(service: Service) -> Option<ServiceRow> {
    let balancer = BalancerFacts::of_member(&service);
    let (spec, status) = (service.spec?, service.status.unwrap_or_default());
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let meta = service.metadata;
    let named = matches!(meta.name.as_deref(), Some("kube-dns" | "coredns"));
    let labelled = meta.labels.as_ref().is_some_and(|l| l.get("k8s-app").is_some_and(|app| app == "kube-dns"));
    let ips = spec.cluster_ips.or(spec.cluster_ip.map(|ip| vec![ip])).unwrap_or_default();
    let ports = spec.ports.unwrap_or_default().into_iter().filter_map(|p| {
        Some(ServicePort {
            name: p.name.unwrap_or_default(),
            protocol: p.protocol.unwrap_or_else(|| "TCP".to_owned()),
            port: u16::try_from(p.port).ok()?,
            app_protocol: p.app_protocol,
            node_port: p.node_port.and_then(|port| u16::try_from(port).ok()),
        })
    });
    Some(ServiceRow {
        cluster_ips: ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        load_balancer: status
            .load_balancer
            .and_then(|lb| lb.ingress)
            .into_iter()
            .flatten()
            .filter_map(|ingress| ingress.ip.or(ingress.hostname))
            .collect(),
        ports: ports.collect(),
        is_dns: meta.namespace.as_deref() == Some("kube-system") && (named || labelled),
        balancer,
    })
}

pub(super) fn slice(slice: EndpointSlice) -> Option<SliceRow> {
    let service = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?;
    let namespace = slice.metadata.namespace.clone();
    let endpoints = slice.endpoints.into_iter().flat_map(|endpoint| {
        let conditions = endpoint.conditions.unwrap_or_default();
        // KEP-752: absent means ready; one that terminates takes nothing new.
        let ready = conditions.ready.unwrap_or(true) && !conditions.terminating.unwrap_or(false);
        let own = |t: &ObjectReference| t.namespace.is_none() || t.namespace == namespace;
        let pod = endpoint.target_ref.filter(|t| t.kind.as_deref() == Some("Pod") && own(t)).and_then(|t| t.name);
        let (hostname, node, zone) = (endpoint.hostname, endpoint.node_name, endpoint.zone);
        endpoint.addresses.into_iter().filter_map(move |address| {
            Some(Endpoint {
                address: address.parse().ok()?,
                ready,
                failing: false,
                hostname: hostname.clone(),
                node: node.clone(),
                zone: zone.clone(),
                pod: pod.clone(),
                labels: BTreeMap::new(),
            })
        })
    });
    Some(SliceRow {
        service: format!("{}/{service}", slice.metadata.namespace?),
        endpoints: endpoints.collect(),
        ports: slice
            .ports
            .into_iter()
            .flatten()
            .filter_map(|p| {
                Some(EndpointPort {
                    name: p.name.unwrap_or_default(),
                    protocol: p.protocol.unwrap_or_else(|| "TCP".to_owned()),
                    port: u16::try_from(p.port?).ok()?,
                })
            })
            .collect(),
    })
}

pub(super) fn export(export: DynamicObject) -> Option<ExportRow> {
    Some(ExportRow { created: export.metadata.creation_timestamp.map(|t| t.0.to_string()).unwrap_or_default() })
}

fn requests(container: &Container) -> Amounts {
    amounts(container.resources.as_ref().and_then(|r| r.requests.as_ref()))
}

fn amounts(quantities: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    quantities.into_iter().flatten().filter_map(|(name, q)| Some((name.clone(), Milli::parse(&q.0)?))).collect()
}

/// Adds amount by amount.
pub(crate) fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *sum.entry(name.clone()).or_default() += *amount;
    }
}

fn largest(have: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let at = have.entry(name.clone()).or_default();
        *at = (*at).max(*amount);
    }
}
