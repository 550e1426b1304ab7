//! EndpointSlices: one for each Service with a selector, with the addresses of its pods and whether they are ready. Pure.
//!
//! Source: the Kubernetes documentation of EndpointSlices and of Services (named target ports).

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{Pod, Service, ServicePort},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{
    action::{Action, collection},
    deployments::owner,
    world::{World, is_active, is_ready},
};

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";

/// What all Services need, and what Services that are gone left behind.
pub(super) fn reconcile(world: &World) -> Vec<Action> {
    let ours = |s: &&EndpointSlice| s.labels().get(MANAGED_BY).is_some_and(|m| m == MANAGER);
    let orphans = world.slices.all().filter(ours).filter(|s| {
        let service = s.labels().get("kubernetes.io/service-name").map(String::as_str).unwrap_or_default();
        selector(world.services.get(&s.namespace().unwrap_or_default(), service)).is_none()
    });
    let removed = orphans.map(|s| Action::delete(s, "EndpointSlice"));
    removed.chain(world.services.all().filter_map(|s| one(world, s))).collect()
}

fn selector(service: Option<&Service>) -> Option<&BTreeMap<String, String>> {
    let service = service.filter(|s| s.metadata.deletion_timestamp.is_none())?;
    service.spec.as_ref()?.selector.as_ref().filter(|s| !s.is_empty())
}

/// Whether a Service's selector picks a pod.
pub(super) fn picks(service: &Service, pod: &Pod) -> bool {
    let labels = pod.labels();
    selector(Some(service)).is_some_and(|s| s.iter().all(|(k, v)| labels.get(k) == Some(v)))
}

/// The number of a Service's target port in a pod.
pub(super) fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        Some(IntOrString::Int(number)) if *number > 0 => Some(*number),
        Some(IntOrString::String(name)) => {
            let containers = pod.spec.iter().flat_map(|s| &s.containers);
            let mut ports = containers.flat_map(|c| c.ports.iter().flatten());
            ports.find(|p| p.name.as_ref() == Some(name)).map(|p| p.container_port)
        }
        _ => Some(port.port),
    }
}

fn one(world: &World, service: &Service) -> Option<Action> {
    selector(Some(service))?;
    let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
    let pods: Vec<&Pod> = world.pods.within(&namespace).filter(|p| is_active(p) && picks(service, p)).collect();
    let endpoints: Vec<Value> = pods.iter().filter_map(|p| endpoint(world, p, &name)).collect();
    let ports = ports(service, &pods);
    let slice_name = format!("{name}-demo");
    let known = world.slices.get(&namespace, &slice_name);
    let new = json!({"endpoints": endpoints, "ports": ports});
    match known {
        None => {
            let object = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {
                    "name": slice_name, "namespace": namespace,
                    "labels": {"kubernetes.io/service-name": name, MANAGED_BY: MANAGER},
                    "ownerReferences": [owner("v1", "Service", &name, service.uid().unwrap_or_default())],
                },
                "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
            });
            Some(Action::Create { path: collection::<EndpointSlice>(&namespace), object })
        }
        Some(known) => {
            let old = json!({"endpoints": known.endpoints, "ports": known.ports.clone().unwrap_or_default()});
            (old != new).then(|| Action::merge(known, new))
        }
    }
}

fn endpoint(world: &World, pod: &Pod, service: &str) -> Option<Value> {
    let address = pod.status.as_ref()?.pod_ip.clone().filter(|ip| !ip.is_empty())?;
    let spec = pod.spec.as_ref()?;
    let ready = is_ready(pod);
    let mut endpoint = json!({
        "addresses": [address], "conditions": {"ready": ready, "serving": ready, "terminating": false},
        "targetRef": {"kind": "Pod", "namespace": pod.namespace(), "name": pod.name_any(), "uid": pod.uid()},
    });
    if let (Some(hostname), Some(true)) = (&spec.hostname, spec.subdomain.as_deref().map(|s| s == service)) {
        endpoint["hostname"] = hostname.clone().into();
    }
    if let Some(node) = &spec.node_name {
        endpoint["nodeName"] = node.clone().into();
        if let Some(zone) =
            world.nodes.get("", node).and_then(|n| n.labels().get("topology.kubernetes.io/zone").cloned())
        {
            endpoint["zone"] = zone.into();
        }
    }
    Some(endpoint)
}

fn ports(service: &Service, pods: &[&Pod]) -> Vec<Value> {
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let one = |p: &ServicePort| {
        // pods of one service nearly always agree on a named port; where they don't, the first one's number counts
        let number = match pods.first() {
            Some(pod) => target(p, pod)?,
            None => p.port,
        };
        let mut port = json!({"name": p.name.clone().unwrap_or_default(), "port": number,
            "protocol": p.protocol.clone().unwrap_or_else(|| "TCP".to_owned())});
        if let Some(app) = &p.app_protocol {
            port["appProtocol"] = app.clone().into();
        }
        Some(port)
    };
    ports.filter_map(one).collect()
}
