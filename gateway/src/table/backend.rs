//! What a reference to a backend leads to: the Service of the hub's own API, or a service of the cluster set. Pure.
//!
//! In: a reference, who refers, in which cluster set. Out: the index of an upstream, made once for each service and port; or the reason of
//! the condition ResolvedRefs. Source: Gateway API (BackendObjectReference), GEP-1748 (ServiceImport).

use std::collections::HashMap;
use std::sync::Arc;

use atoll_api::kinds::gateway::BackendObjectReference;
use atoll_api::names::ServiceName;
use atoll_api::routing::Chain;
use atoll_api::topology::{Endpoints, ServicePort, Topology};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;

use super::grant::{From, To, permits};
use super::{Part, Policy, Target, Upstream, UpstreamId};
use crate::objects::{Objects, SERVICE_NAME};

const IMPORT_GROUP: &str = "multicluster.x-k8s.io";
const H2C: &str = "kubernetes.io/h2c";

/// Why a reference leads nowhere: reason and message of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Resolves references, and keeps the upstreams that they lead to.
pub(crate) struct Resolver<'a> {
    objects: &'a Objects,
    topology: &'a Topology,
    services: HashMap<(String, String), &'a Service>,
    slices: HashMap<(String, String), Vec<&'a EndpointSlice>>,
    policies: HashMap<ServiceName, Arc<Policy>>,
    known: HashMap<UpstreamId, usize>,
    pub(crate) upstreams: Vec<Upstream>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(objects: &'a Objects, topology: &'a Topology) -> Self {
        let mut slices: HashMap<_, Vec<&EndpointSlice>> = HashMap::new();
        for slice in &objects.slices {
            if let (Some(namespace), Some(service)) = (slice.namespace(), slice.labels().get(SERVICE_NAME)) {
                slices.entry((namespace, service.clone())).or_default().push(slice);
            }
        }
        let at = |s: &'a Arc<Service>| ((s.namespace().unwrap_or_default(), s.name_any()), &**s);
        let services = objects.services.iter().map(at).collect();
        let (policies, known) = (service_policies(topology), HashMap::new());
        Self { objects, topology, services, slices, policies, known, upstreams: Vec::new() }
    }

    /// The upstream that `target` leads to for a route of kind `kind` in `namespace`, attached to a Gateway of cluster set `set`.
    ///
    /// # Errors
    /// Reason and message of the condition ResolvedRefs.
    pub(crate) fn resolve(
        &mut self,
        target: &BackendObjectReference,
        from: From<'_>,
        set: &str,
    ) -> Result<usize, Problem> {
        let (group, kind) = (target.group.as_deref().unwrap_or(""), target.kind.as_deref().unwrap_or("Service"));
        let namespace = target.namespace.as_deref().unwrap_or(from.namespace);
        let import = match (group, kind) {
            ("", "Service") => false,
            (IMPORT_GROUP, "ServiceImport") => true,
            _ => {
                return Err(Problem::new(
                    "InvalidKind",
                    format!("backend `{}`: kind {kind} is not served", target.name),
                ));
            }
        };
        let to = To { group, kind, namespace, name: &target.name };
        if !permits(&self.objects.grants, from, to) {
            let why = format!("backend `{namespace}/{}`: no ReferenceGrant there permits it", target.name);
            return Err(Problem::new("RefNotPermitted", why));
        }
        let service = ServiceName::new(namespace, &target.name);
        if import { self.import(service, target.port, set) } else { self.local(service, target.port) }
    }

    fn import(&mut self, service: ServiceName, port: Option<i32>, set: &str) -> Result<usize, Problem> {
        let missing = |why: &str| Problem::new("BackendNotFound", format!("ServiceImport `{service}`: {why}"));
        let facts = self.topology.services.get(set).and_then(|services| services.get(&service));
        let facts = facts.ok_or_else(|| missing(&format!("cluster set {set} has no such service")))?;
        let port = pick_port(&facts.ports, port).ok_or_else(|| missing("has no such TCP port"))?;
        let id = UpstreamId::Set(set.to_owned(), service.clone(), port.port);
        if let Some(known) = self.known.get(&id) {
            return Ok(*known);
        }
        let offers = facts.clusters.iter().filter_map(|name| self.topology.clusters.get(name.as_str()));
        let clusters = offers.filter(|cluster| cluster.set() == set).map(|cluster| {
            let found = self.topology.endpoints_in(cluster.name.as_str(), &service);
            let endpoints = found.map(|e| member_targets(e, port)).unwrap_or_default();
            Part { cluster: Some(Arc::clone(cluster)), endpoints }
        });
        let clusters = clusters.collect();
        let policy = self.policies.get(&service).cloned();
        Ok(self.keep(Upstream { id, h2: port.app_protocol.as_deref() == Some(H2C), clusters, policy }))
    }

    fn local(&mut self, service: ServiceName, port: Option<i32>) -> Result<usize, Problem> {
        let missing = |why: &str| Problem::new("BackendNotFound", format!("Service `{service}`: {why}"));
        let at = (service.namespace.clone(), service.name.clone());
        let spec = self.services.get(&at).ok_or_else(|| missing("does not exist"))?.spec.clone().unwrap_or_default();
        if spec.type_.as_deref() == Some("ExternalName") {
            return Err(missing("is an ExternalName, which is not served"));
        }
        let ports: Vec<ServicePort> = spec.ports.unwrap_or_default().into_iter().map(service_port).collect();
        let port = pick_port(&ports, port).ok_or_else(|| missing("has no such TCP port"))?;
        let id = UpstreamId::Local(service.clone(), port.port);
        if let Some(known) = self.known.get(&id) {
            return Ok(*known);
        }
        let slices = self.slices.get(&at);
        let endpoints = slices.into_iter().flatten().flat_map(|slice| slice_targets(slice, &port.name)).collect();
        let clusters = vec![Part { cluster: None, endpoints }];
        let h2 = port.app_protocol.as_deref() == Some(H2C);
        Ok(self.keep(Upstream { id, h2, clusters, policy: None }))
    }

    fn keep(&mut self, upstream: Upstream) -> usize {
        let index = self.upstreams.len();
        self.known.insert(upstream.id.clone(), index);
        self.upstreams.push(upstream);
        index
    }
}

/// TrafficPolicies of services; the first by name counts, one that does not parse is left out: the hub says so in its status.
fn service_policies(topology: &Topology) -> HashMap<ServiceName, Arc<Policy>> {
    let mut policies = HashMap::new();
    for (at, spec) in &topology.traffic {
        let (Some(service), Ok(chain)) = (&spec.service, Chain::parse(&spec.strategy, spec.all_down)) else { continue };
        let policy = || Arc::new(Policy { name: at.to_string(), chain });
        policies.entry(ServiceName::new(&at.namespace, service)).or_insert_with(policy);
    }
    policies
}

/// TrafficPolicies of hosts, by the same rules.
pub(super) fn host_policies(topology: &Topology) -> HashMap<String, Arc<Policy>> {
    let mut policies = HashMap::new();
    for (at, spec) in topology.traffic.iter().filter(|(_, spec)| !spec.hosts.is_empty()) {
        let Ok(chain) = Chain::parse(&spec.strategy, spec.all_down) else { continue };
        let policy = Arc::new(Policy { name: at.to_string(), chain });
        for host in &spec.hosts {
            policies.entry(host.to_ascii_lowercase()).or_insert_with(|| Arc::clone(&policy));
        }
    }
    policies
}

/// The TCP port of that number; where none is asked for, the only one.
fn pick_port(ports: &[ServicePort], number: Option<i32>) -> Option<&ServicePort> {
    let mut tcp = ports.iter().filter(|p| p.protocol.is_empty() || p.protocol == "TCP");
    match number {
        Some(number) => tcp.find(|p| i32::from(p.port) == number),
        None => tcp.next().filter(|_| tcp.next().is_none()),
    }
}

fn service_port(port: k8s_openapi::api::core::v1::ServicePort) -> ServicePort {
    ServicePort {
        name: port.name.unwrap_or_default(),
        protocol: port.protocol.unwrap_or_default(),
        port: u16::try_from(port.port).unwrap_or_default(),
        app_protocol: port.app_protocol,
        node_port: None,
    }
}

fn member_targets(endpoints: &Endpoints, port: &ServicePort) -> Vec<Target> {
    let found = endpoints.ports.iter().find(|p| p.name == port.name && (p.protocol.is_empty() || p.protocol == "TCP"));
    let Some(found) = found else { return Vec::new() };
    let ready = endpoints.endpoints.iter().filter(|e| e.ready);
    ready.map(|e| Target { address: e.address, port: found.port, zone: e.zone.clone(), pod: e.pod.clone() }).collect()
}

fn slice_targets(slice: &EndpointSlice, port: &str) -> Vec<Target> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let tcp = |protocol: &Option<String>| protocol.as_deref().is_none_or(|p| p == "TCP");
    let found = ports.iter().find(|p| p.name.as_deref().unwrap_or_default() == port && tcp(&p.protocol));
    let Some(port) = found.and_then(|p| p.port).and_then(|p| u16::try_from(p).ok()) else { return Vec::new() };
    let ready = slice.endpoints.iter().filter(|e| e.conditions.as_ref().and_then(|c| c.ready) != Some(false));
    ready
        .filter_map(|e| {
            let address = e.addresses.first()?.parse().ok()?;
            let pod = e.target_ref.as_ref().and_then(|r| r.name.clone());
            Some(Target { address, port, zone: e.zone.clone(), pod })
        })
        .collect()
}
