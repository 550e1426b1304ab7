//! Services of the hub's own API: their endpoints by address, and those by name. Pure.
//!
//! In: a Service, its EndpointSlices, what names lead to. Out: endpoints, and the names that are to be kept asked for them. One of type
//! ExternalName needs no ports: the reference says which. Source: Kubernetes' Service and EndpointSlice.

use std::sync::Arc;

use atoll_api::kinds::Subset;
use atoll_api::names::ServiceName;
use atoll_api::topology::ServicePort;
use k8s_openapi::api::core::v1::{ObjectReference, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::backend::{Found, Problem, Resolver, is, no_port, pick_port, service_port};
use super::grant::{From, To, permits};
use super::{Part, Target, UpstreamId, Wants};
use crate::names;
use crate::objects::Objects;

/// Of an EndpointSlice whose endpoints are names.
const BY_NAME: &str = "FQDN";

impl Resolver<'_> {
    /// A Service, or a subset of it, as a reference means it.
    pub(super) fn local(
        &self,
        service: ServiceName,
        port: Option<i32>,
        subset: Option<&str>,
        from: From<'_>,
        wants: Wants,
    ) -> Result<Found, Problem> {
        let missing = |why: &str| Problem::new("BackendNotFound", format!("Service `{service}`: {why}"));
        let found = self.objects.services.get(&service.namespace, &service.name);
        let found = found.ok_or_else(|| missing("does not exist"))?;
        let spec = found.spec.clone().unwrap_or_default();
        let ports: Vec<ServicePort> = spec.ports.unwrap_or_default().into_iter().map(service_port).collect();
        let listed = pick_port(&ports, port, wants).cloned();
        let port = match external(found) {
            Some(name) => {
                let name = names::parse(name).map_err(|why| missing(&format!("its externalName {why}")))?;
                self.permitted(&service, &name, from)?;
                let bare = || bare(port, wants);
                listed.or_else(bare).ok_or_else(|| missing("is an ExternalName: write the port in the reference"))?
            }
            None => listed.ok_or_else(|| missing(&no_port(port, wants)))?,
        };
        let subset = self.subset("Service", &service, subset)?;
        let policy = self.traffic.get(&service).cloned();
        let (clusters, names) = local_offer(self.objects, &service, &port, subset.as_deref(), wants);
        let id = UpstreamId::Local(service, port.port, subset.as_ref().map(|s| s.name.clone()));
        Ok(Found { id, port, subset, clusters, names, policy })
    }

    /// A name by which another namespace's Service is reached is a reference to it: no way around grants leads through DNS.
    fn permitted(&self, alias: &ServiceName, named: &str, from: From<'_>) -> Result<(), Problem> {
        let Some((name, namespace)) = names::service(named) else { return Ok(()) };
        let from = From { namespace: &alias.namespace, ..from };
        if permits(&self.objects.grants, from, To { group: "", kind: "Service", namespace, name }) {
            return Ok(());
        }
        let why = format!(
            "Service `{alias}` stands for `{named}`, and no ReferenceGrant of namespace {namespace} permits {}s of {} \
             to refer to Service {name}",
            from.kind, from.namespace
        );
        Err(Problem::new("RefNotPermitted", why))
    }
}

/// The name that a Service stands for; nothing where it is none of type ExternalName.
fn external(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("ExternalName"))?;
    Some(spec.external_name.as_deref().unwrap_or_default())
}

/// Whether a Service stands for a name.
pub(crate) fn is_external(service: &Service) -> bool {
    external(service).is_some()
}

/// A port that nobody lists.
fn bare(number: Option<i32>, wants: Wants) -> Option<ServicePort> {
    let port = u16::try_from(number?).ok().filter(|port| *port != 0)?;
    Some(ServicePort { port, protocol: wants.transport().to_owned(), ..ServicePort::default() })
}

/// Where what comes to a port of an ExternalName goes: to its targetPort where that is a number, else to the same.
fn target_port(spec: &ServiceSpec, port: &ServicePort, wants: Wants) -> u16 {
    let mut listed = spec.ports.iter().flatten();
    let listed =
        listed.find(|p| p.port == i32::from(port.port) && is(wants, p.protocol.as_deref().unwrap_or_default()));
    match listed.and_then(|p| p.target_port.as_ref()) {
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok().filter(|n| *n != 0).unwrap_or(port.port),
        _ => port.port,
    }
}

/// What the hub's own network offers of a Service, or of a subset of it.
pub(crate) fn local_parts(
    objects: &Objects,
    service: &ServiceName,
    port: &ServicePort,
    subset: Option<&Subset>,
    wants: Wants,
) -> Vec<Part> {
    local_offer(objects, service, port, subset, wants).0
}

/// The same, and the names by which it is reached.
pub(super) fn local_offer(
    objects: &Objects,
    service: &ServiceName,
    port: &ServicePort,
    subset: Option<&Subset>,
    wants: Wants,
) -> (Vec<Part>, Box<[Arc<str>]>) {
    let (mut endpoints, mut names) = (Vec::new(), Vec::new());
    let at = (service.namespace.clone(), service.name.clone());
    let found = objects.services.at(&at);
    if let Some(name) = found.and_then(|found| external(found)) {
        let spec = found.and_then(|found| found.spec.as_ref());
        let port = spec.map_or(port.port, |spec| target_port(spec, port, wants));
        if let Ok(name) = names::parse(name) {
            endpoints.extend(led(objects, &name, port, None));
            names.push(name);
        }
    } else {
        for slice in objects.slices.of(&at) {
            if slice.address_type == BY_NAME {
                named_targets(objects, slice, &port.name, wants, &mut endpoints, &mut names);
            } else {
                endpoints.extend(slice_targets(slice, &port.name, wants));
            }
        }
    }
    if let Some(subset) = subset {
        let labels = |target: &Target| objects.pods.get(&(at.0.clone(), target.pod.clone()?));
        endpoints.retain(|target| labels(target).is_some_and(|labels| subset.takes(labels)));
    }
    // The same endpoint may stand in several slices while they are moved.
    endpoints.sort_by_key(|t: &Target| (t.address, t.port));
    endpoints.dedup_by_key(|t| (t.address, t.port));
    names.sort_unstable();
    names.dedup();
    (vec![Part { cluster: None, endpoints }], names.into())
}

/// The ready endpoints of a slice at the port of that name.
pub(crate) fn slice_targets(slice: &EndpointSlice, port: &str, wants: Wants) -> Vec<Target> {
    let Some(port) = slice_port(slice, port, wants) else { return Vec::new() };
    ready(slice)
        .filter_map(|e| {
            let address = e.addresses.first()?.parse().ok()?;
            let pod = e.target_ref.as_ref().filter(|r| is_pod_of(r, slice)).and_then(|r| r.name.clone());
            Some(Target { address, port, door: None, alone: false, zone: e.zone.clone(), pod, failing: false })
        })
        .collect()
}

/// Whether a pod of the slice's own namespace is meant: no other has a say in what is sent there.
fn is_pod_of(target: &ObjectReference, slice: &EndpointSlice) -> bool {
    let is_pod = target.kind.as_deref() == Some("Pod");
    is_pod && (target.namespace.is_none() || target.namespace == slice.metadata.namespace)
}

/// The same of one whose endpoints are names: each is as many as the name has addresses.
fn named_targets(
    objects: &Objects,
    slice: &EndpointSlice,
    port: &str,
    wants: Wants,
    endpoints: &mut Vec<Target>,
    names: &mut Vec<Arc<str>>,
) {
    let Some(port) = slice_port(slice, port, wants) else { return };
    for endpoint in ready(slice) {
        let Some(Ok(name)) = endpoint.addresses.first().map(|name| names::parse(name)) else { continue };
        endpoints.extend(led(objects, &name, port, endpoint.zone.as_ref()));
        names.push(name);
    }
}

/// Those that are not said to be unready.
fn ready(slice: &EndpointSlice) -> impl Iterator<Item = &Endpoint> {
    slice.endpoints.iter().filter(|e| e.conditions.as_ref().and_then(|c| c.ready) != Some(false))
}

/// What a name leads to, at that port.
fn led(objects: &Objects, name: &str, port: u16, zone: Option<&String>) -> impl Iterator<Item = Target> {
    let addresses = objects.names.get(name).into_iter().flat_map(|leads| &leads.addresses);
    addresses.map(move |address| Target {
        address: *address,
        port,
        door: None,
        alone: false,
        zone: zone.cloned(),
        pod: None,
        failing: false,
    })
}

fn slice_port(slice: &EndpointSlice, port: &str, wants: Wants) -> Option<u16> {
    let mut ports = slice.ports.iter().flatten();
    let fits = |protocol: &Option<String>| is(wants, protocol.as_deref().unwrap_or_default());
    let found = ports.find(|p| p.name.as_deref().unwrap_or_default() == port && fits(&p.protocol));
    found.and_then(|p| p.port).and_then(|p| u16::try_from(p).ok())
}

/// Which addresses of names are not used, and why.
pub(super) fn left_out(found: &names::Found, names: &[Arc<str>]) -> Option<String> {
    let refused = names.iter().filter_map(|name| Some((name, found.get(name).filter(|l| !l.refused.is_empty())?)));
    let said: Vec<String> = refused
        .map(|(name, leads)| {
            let rest = if leads.addresses.is_empty() { ", which leaves none" } else { "" };
            format!("`{name}` leads to {}: not used{rest}", leads.refusals())
        })
        .collect();
    (!said.is_empty()).then(|| said.join("; "))
}
