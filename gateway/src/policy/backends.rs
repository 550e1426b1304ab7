//! Where the backends of filters are: Services of the hub's own API, ServiceImports of a cluster set.
//!
//! In: a reference, what is known of Services and EndpointSlices, the topology. Out: addresses, in order, so that the same backend gives the
//! same.

use std::collections::BTreeSet;
use std::sync::Arc;

use atoll_api::ingress::SERVICE;
use atoll_api::kinds::route_policy::filters::BackendRef;
use atoll_api::names::ServiceName;
use atoll_api::topology::{ServicePort, Topology};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::peer::At;
use crate::objects::{Name, Slices, service_of};
use crate::table::{IMPORT_GROUP, Wants, is_external, member_targets, pick_port, service_port, slice_targets};
use crate::watch::Known;

/// What references are looked up in.
#[derive(Clone)]
pub(crate) struct Backends {
    pub(crate) services: Known<Service>,
    pub(crate) slices: Known<EndpointSlice>,
}

impl Backends {
    /// The EndpointSlices of these Services, found in one walk over all.
    pub(crate) fn slices_of(&self, services: &BTreeSet<Name>) -> Slices {
        if services.is_empty() {
            return Slices::default();
        }
        let is_one = |slice: &Arc<EndpointSlice>| service_of(slice).is_some_and(|service| services.contains(&service));
        self.slices.all().iter().filter(|slice| is_one(slice)).cloned().collect()
    }

    /// The endpoints of a backend, which stand in `slices` where it is a Service.
    ///
    /// # Errors
    /// There is no such backend.
    pub(crate) fn find(
        &self,
        slices: &Slices,
        written: &BackendRef,
        namespace: &str,
        set: Option<&str>,
        topology: &Topology,
    ) -> Result<Vec<At>, String> {
        let (group, kind) = (written.group.as_deref().unwrap_or(""), written.kind.as_deref().unwrap_or("Service"));
        let mut at = match (group, kind) {
            ("", "Service") => self.local(slices, written, namespace)?,
            ("", SERVICE) if self.services.get(namespace, &written.name).is_none() => {
                import(written, namespace, set, topology)?
            }
            ("", SERVICE) => self.local(slices, written, namespace)?,
            (IMPORT_GROUP, "ServiceImport") => import(written, namespace, set, topology)?,
            _ => return Err(format!("backendRef: kind {kind} is neither a Service nor a ServiceImport")),
        };
        at.sort_by(|a, b| (&a.cluster, &a.host, a.port).cmp(&(&b.cluster, &b.host, b.port)));
        at.dedup();
        Ok(at)
    }

    fn local(&self, slices: &Slices, written: &BackendRef, namespace: &str) -> Result<Vec<At>, String> {
        let missing = |why: &str| format!("backendRef: Service `{}`: {why}", written.name);
        let service = self.services.get(namespace, &written.name);
        let service = service.ok_or_else(|| missing("does not exist"))?;
        if is_external(&service) {
            return Err(missing("is an ExternalName, which policies don't follow: where there is `url`, write that"));
        }
        let ports: Vec<ServicePort> =
            service.spec.iter().flat_map(|s| s.ports.iter().flatten()).cloned().map(service_port).collect();
        let port = port(&ports, written).ok_or_else(|| missing("has no such port"))?;
        let name = (namespace.to_owned(), written.name.clone());
        let its = slices.of(&name);
        let targets = its.flat_map(|slice| slice_targets(slice, &port.name, Wants::Http));
        Ok(targets.map(|target| At::ip(None, target.address, target.port)).collect())
    }
}

/// The port of that number; 0 is the first.
fn port<'a>(ports: &'a [ServicePort], written: &BackendRef) -> Option<&'a ServicePort> {
    let first = ports.first().map(|port| i32::from(port.port));
    pick_port(ports, Some(written.port).filter(|port| *port != 0).or(first), Wants::Http)
}

fn import(written: &BackendRef, namespace: &str, set: Option<&str>, topology: &Topology) -> Result<Vec<At>, String> {
    let service = ServiceName::new(namespace, &written.name);
    let set = set.unwrap_or(&topology.settings.default_set);
    let missing = |why: &str| format!("backendRef: ServiceImport `{service}`: {why}");
    let facts = topology.services.get(set).and_then(|services| services.get(&service));
    let facts = facts.ok_or_else(|| missing(&format!("cluster set {set} has no such service")))?;
    let port = port(&facts.ports, written).ok_or_else(|| missing("has no such port"))?;
    let mut at = Vec::new();
    let clusters = facts.clusters.iter().filter_map(|name| topology.clusters.get(name.as_str()));
    for cluster in clusters.filter(|c| c.set() == set && c.ready) {
        let Some(found) = topology.endpoints_in(cluster.name.as_str(), &service) else { continue };
        let targets = member_targets(found, port, None, Wants::Http).into_iter().filter(|target| !target.failing);
        at.extend(targets.map(|target| At::ip(Some(cluster.name.as_str()), target.address, target.port)));
    }
    Ok(at)
}
