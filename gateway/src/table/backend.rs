//! What a reference to a backend leads to: the Service of the hub's own API, or a service of the cluster set. Pure.
//!
//! In: a reference, who refers, in which cluster set. Out: the index of an upstream, made once for each service and port; or the reason of
//! the condition ResolvedRefs. Source: Gateway API (BackendObjectReference), GEP-1748 (ServiceImport).

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use atoll_api::ingress::port_name;
use atoll_api::kinds::gateway::BackendObjectReference;
use atoll_api::kinds::{Reach, Subset};
use atoll_api::names::ServiceName;
use atoll_api::topology::{ClusterFacts, Endpoint, Endpoints, ServicePort, Topology, Traffic};
use ipnet::IpNet;

use super::grant::{From, To, permits};
use super::local::left_out;
use super::policy::Policies;
use super::upstreams::{Resolved, Upstreams};
use super::{GatewayDraft, Part, Policy, Target, Upstream, UpstreamId};
use crate::objects::Objects;
use crate::tls::{BackendCheck, Certificate, Keys};

/// The group of ServiceImports (KEP-1645).
pub(crate) const IMPORT_GROUP: &str = "multicluster.x-k8s.io";
/// A message of several problems grows no further past so many octets.
const MESSAGE_MAX: usize = 512;
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

    /// Another of the same object: all are said at once, so that all can be mended at once.
    pub(crate) fn and(&mut self, other: &Self) {
        if self.message.len() < MESSAGE_MAX && !self.message.contains(&other.message) {
            self.message.push_str("; ");
            self.message.push_str(&other.message);
        }
    }

    /// Notes `other` in the place of an object's problems.
    pub(crate) fn note(noted: &mut Option<Self>, other: &Self) {
        match noted {
            Some(first) => first.and(other),
            None => *noted = Some(other.clone()),
        }
    }
}

/// On whose behalf a reference is resolved.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    /// The Gateway, by its place.
    pub(crate) gateway: usize,
    /// Its cluster set.
    pub(crate) set: String,
    /// Who it is to backends.
    pub(crate) client: Option<Arc<Certificate>>,
    /// How the route itself wants TLS spoken to backends for which no BackendTLSPolicy says it; or why it can't be.
    pub(crate) own: Option<Result<OwnTls, String>>,
}

/// Whom a route trusts as its backends, and who it is to them.
#[derive(Debug, Clone)]
pub(crate) struct OwnTls {
    pub(crate) check: BackendCheck,
    pub(crate) client: Option<Arc<Certificate>>,
}

impl Scope {
    pub(crate) fn of(gateway: usize, draft: &GatewayDraft) -> Self {
        Self { gateway, set: draft.set.clone(), client: draft.client.clone(), own: None }
    }
}

/// What is to be spoken to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Wants {
    /// HTTP/1.1, or HTTP/2 where the port says so.
    Http,
    /// HTTP/2.
    Grpc,
    /// Bytes.
    Tcp,
    /// Packets.
    Udp,
}

impl Wants {
    pub(super) fn transport(self) -> &'static str {
        if self == Self::Udp { "UDP" } else { "TCP" }
    }
}

/// Resolves references, and holds the upstreams that they lead to.
pub(crate) struct Resolver<'a> {
    pub(super) objects: &'a Objects,
    pub(super) topology: &'a Topology,
    pub(super) tls: &'a Policies,
    pub(crate) keys: &'a mut Keys,
    /// TrafficPolicies of services.
    pub(super) traffic: &'a HashMap<ServiceName, Arc<Policy>>,
    pub(super) upstreams: &'a mut Upstreams,
    /// Since it was last taken.
    pub(crate) noted: Noted,
}

/// What references had to do with.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    /// Places of upstreams, each as often as something leads there.
    pub(super) upstreams: Vec<usize>,
    /// Services that were looked for, there or not.
    pub(super) services: BTreeSet<ServiceName>,
    /// Which BackendTLSPolicies have to do with which Gateways.
    pub(super) ancestors: BTreeSet<(usize, usize)>,
    /// Addresses that a backend leads to by its name and that are not used.
    pub(crate) left_out: Option<String>,
}

/// A service as the API or the topology has it, before TLS is settled.
pub(super) struct Found {
    pub(super) id: UpstreamId,
    pub(super) port: ServicePort,
    pub(super) subset: Option<Arc<Subset>>,
    pub(super) clusters: Vec<Part>,
    /// The names by which it is reached.
    pub(super) names: Box<[Arc<str>]>,
    pub(super) policy: Option<Arc<Policy>>,
}

impl Resolver<'_> {
    /// The upstream that `target`, or that subset of it, leads to for a route of kind `kind` in `namespace`, attached to a Gateway.
    ///
    /// # Errors
    /// Reason and message of the condition ResolvedRefs.
    pub(crate) fn resolve(
        &mut self,
        target: &BackendObjectReference,
        subset: Option<&str>,
        from: From<'_>,
        scope: &Scope,
        wants: Wants,
    ) -> Result<usize, Problem> {
        let (group, kind) = (target.group.as_deref().unwrap_or(""), target.kind.as_deref().unwrap_or("Service"));
        let namespace = target.namespace.as_deref().unwrap_or(from.namespace);
        let import = match (group, kind) {
            // Where no such Service exists an Ingress means the ServiceImport of that name.
            ("", "Service") => from.kind == "Ingress" && self.objects.services.get(namespace, &target.name).is_none(),
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
        self.noted.services.insert(service.clone());
        let found = if import {
            self.import(service, target.port, subset, &scope.set, wants)?
        } else {
            self.local(service, target.port, subset, from, wants)?
        };
        if let Some(why) = left_out(&self.objects.names, &found.names) {
            self.noted.left_out.get_or_insert_with(|| format!("{}: {why}", found.id));
        }
        let kind = if import { (IMPORT_GROUP, "ServiceImport") } else { (group, kind) };
        Ok(self.secure(found, kind, namespace, &target.name, scope, wants))
    }

    /// The reference with the number of a port that was named: below 0 it is a place in `names`.
    pub(crate) fn numbered(
        &mut self,
        target: &BackendObjectReference,
        namespace: &str,
        names: &[String],
        set: &str,
    ) -> BackendObjectReference {
        let port = match port_name(names, target.port) {
            Some(name) => Some(self.port_named(namespace, &target.name, name, set)),
            None => target.port,
        };
        BackendObjectReference { port, ..target.clone() }
    }

    /// The number of a port of the Service, or where there is none of the ServiceImport; 0 where it has none of that name. Without a name it
    /// is the first.
    fn port_named(&mut self, namespace: &str, name: &str, port: &str, set: &str) -> i32 {
        let service = ServiceName::new(namespace, name);
        self.noted.services.insert(service.clone());
        let number = match self.objects.services.get(namespace, name) {
            Some(found) => {
                let ports = found.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
                ports.filter(|p| port.is_empty() || p.name.as_deref() == Some(port)).map(|p| p.port).next()
            }
            None => {
                let facts = self.topology.services.get(set).and_then(|services| services.get(&service));
                let mut ports = facts.into_iter().flat_map(|facts| &facts.ports);
                ports.find(|p| port.is_empty() || p.name == port).map(|p| i32::from(p.port))
            }
        };
        number.unwrap_or_default()
    }

    fn import(
        &self,
        service: ServiceName,
        asked: Option<i32>,
        subset: Option<&str>,
        set: &str,
        wants: Wants,
    ) -> Result<Found, Problem> {
        let missing = |why: &str| Problem::new("BackendNotFound", format!("ServiceImport `{service}`: {why}"));
        let facts = self.topology.services.get(set).and_then(|services| services.get(&service));
        let facts = facts.ok_or_else(|| missing(&format!("cluster set {set} has no such service")))?;
        let port = pick_port(&facts.ports, asked, wants);
        let port = port.ok_or_else(|| missing(&no_port(asked, wants)))?;
        let subset = self.subset("ServiceImport", &service, subset)?;
        let clusters = import_parts(self.topology, set, &service, port, subset.as_deref(), wants);
        let policy = self.traffic.get(&service).cloned();
        let id = UpstreamId::Set(set.to_owned(), service, port.port, subset.as_ref().map(|s| s.name.clone()));
        Ok(Found { id, port: port.clone(), subset, clusters, names: Box::default(), policy })
    }

    /// Settles how TLS is spoken. Where a policy asks for it and it can't be, nobody is reached.
    fn secure(
        &mut self,
        mut found: Found,
        kind: (&str, &str),
        namespace: &str,
        name: &str,
        scope: &Scope,
        wants: Wants,
    ) -> usize {
        let h2 = wants == Wants::Grpc || wants == Wants::Http && found.port.app_protocol.as_deref() == Some(H2C);
        let policy = self.tls.find(kind, namespace, name, &found.port.name);
        let losers = self.tls.losers(namespace, name).map(|at| (at, scope.gateway));
        self.noted.ancestors.extend(losers);
        let (mut tls, mut closed) = (None, false);
        let wanted = match (policy, &scope.own) {
            (Some(at), _) => {
                self.noted.ancestors.insert((at, scope.gateway));
                Some(self.tls.all[at].check.as_ref().map_err(Clone::clone).map(|check| (check, scope.client.as_ref())))
            }
            (None, Some(own)) => {
                let own = own.as_ref().map_err(Clone::clone);
                Some(own.map(|own| (&own.check, own.client.as_ref().or(scope.client.as_ref()))))
            }
            (None, None) => None,
        };
        if let Some(wanted) = wanted {
            let protocol = match (wants, h2) {
                (Wants::Tcp | Wants::Udp, _) => None,
                (_, true) => Some("h2"),
                (_, false) => Some("http/1.1"),
            };
            match wanted.and_then(|(check, client)| self.keys.backend(check, client, protocol)) {
                Ok(made) => tls = Some(made),
                Err(_) => {
                    closed = true;
                    found.clusters.iter_mut().for_each(|part| part.endpoints.clear());
                }
            }
        }
        let known = (found.id.clone(), if h2 { Wants::Grpc } else { wants }, tls.clone());
        let Found { id, subset, clusters, names, policy, port } = found;
        let upstream = Upstream { id, h2, udp: wants == Wants::Udp, tls, clusters, names, policy };
        let at = self.upstreams.hold(Resolved { known, upstream, port, subset, wants, closed });
        self.noted.upstreams.push(at);
        at
    }
}

/// What members offer of a service of a cluster set, or of a subset of it. A member that has nothing of it offers no endpoint.
pub(crate) fn import_parts(
    topology: &Topology,
    set: &str,
    service: &ServiceName,
    port: &ServicePort,
    subset: Option<&Subset>,
    wants: Wants,
) -> Vec<Part> {
    let facts = topology.services.get(set).and_then(|services| services.get(service));
    let offers = facts.into_iter().flat_map(|f| &f.clusters).filter_map(|name| topology.clusters.get(name.as_str()));
    let own = offers.filter(|cluster| cluster.set() == set);
    own.map(|cluster| part(topology, cluster, service, port, subset, wants)).collect()
}

/// What one member offers of a service.
pub(super) fn part(
    topology: &Topology,
    cluster: &Arc<ClusterFacts>,
    service: &ServiceName,
    port: &ServicePort,
    subset: Option<&Subset>,
    wants: Wants,
) -> Part {
    let found = topology.endpoints_in(cluster.name.as_str(), service);
    let mut endpoints = found.map(|e| member_targets(e, port, subset, wants)).unwrap_or_default();
    // What people took out is not there.
    endpoints.retain(|e| cluster.traffic(e.address) == Traffic::On);
    for endpoint in &mut endpoints {
        endpoint.door = endpoint.door.filter(|at| may_enter(topology, cluster, at.ip()));
        // Behind its node's port any pod of the Service may answer.
        endpoint.alone = subset.is_some_and(|_| endpoint.door.take().is_some());
    }
    Part { cluster: Some(Arc::clone(cluster)), endpoints }
}

/// Whether a node's address may be dialed for a member: people let others reach it so, and the address is nobody else's.
fn may_enter(topology: &Topology, cluster: &ClusterFacts, node: IpAddr) -> bool {
    let holds = |range: &String| range.parse().is_ok_and(|range: IpNet| range.contains(&node));
    let is_anothers = |other: &ClusterFacts| {
        other.nodes.contains(&node) || other.cidrs.pods.iter().chain(&other.cidrs.services).any(holds)
    };
    let mut others = topology.clusters.values().filter(|other| other.name != cluster.name);
    // Where no range overlaps with another's, neither do addresses of nodes that matter.
    cluster.spec.reach != Reach::Relay && !(cluster.overlaps && others.any(|other| is_anothers(other)))
}

/// The port of that number; where none is asked for, the only one.
pub(crate) fn pick_port(ports: &[ServicePort], number: Option<i32>, wants: Wants) -> Option<&ServicePort> {
    let mut fit = ports.iter().filter(|p| is(wants, &p.protocol));
    match number {
        Some(number) => fit.find(|p| i32::from(p.port) == number),
        None => fit.next().filter(|_| fit.next().is_none()),
    }
}

/// That there is no such port, for people.
pub(super) fn no_port(asked: Option<i32>, wants: Wants) -> String {
    let transport = wants.transport();
    match asked {
        Some(0) => format!("has no {transport} port of that name"),
        Some(number) => format!("has no {transport} port {number}"),
        None => format!("has no {transport} port, or several: write which in the reference"),
    }
}

/// Whether a port's protocol, TCP where absent, is the one wanted.
pub(super) fn is(wants: Wants, protocol: &str) -> bool {
    let protocol = if protocol.is_empty() { "TCP" } else { protocol };
    protocol == wants.transport()
}

/// A port as the topology writes it.
pub(crate) fn service_port(port: k8s_openapi::api::core::v1::ServicePort) -> ServicePort {
    ServicePort {
        name: port.name.unwrap_or_default(),
        protocol: port.protocol.unwrap_or_default(),
        port: u16::try_from(port.port).unwrap_or_default(),
        app_protocol: port.app_protocol,
        node_port: None,
    }
}

/// The ready endpoints that a member offers at a port, those of the subset where one is asked for; with those that fail their health check.
pub(crate) fn member_targets(
    endpoints: &Endpoints,
    port: &ServicePort,
    subset: Option<&Subset>,
    wants: Wants,
) -> Vec<Target> {
    let found = endpoints.ports.iter().find(|p| p.name == port.name && is(wants, &p.protocol));
    let Some(found) = found else { return Vec::new() };
    let is_meant = |e: &&Endpoint| (e.ready || e.failing) && subset.is_none_or(|subset| subset.takes(&e.labels));
    let ready = endpoints.endpoints.iter().filter(is_meant);
    let target = |e: &Endpoint| {
        let door = endpoints.door(e, &port.name, wants.transport());
        Target {
            address: e.address,
            port: found.port,
            door,
            alone: false,
            zone: e.zone.clone(),
            pod: e.pod.clone(),
            failing: e.failing,
        }
    };
    ready.map(target).collect()
}
