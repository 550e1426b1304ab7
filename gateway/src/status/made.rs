//! What stands beside Gateways: the account of one with addresses of its own, the Service before one in a cluster and where that sends. Pure.
//!
//! Each bears its Gateway as owner, and goes with it. Source: GEP-1762; Kubernetes, "Services without selectors".

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use atoll_api::kinds::MANAGED_BY;
use atoll_api::topology::Site;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::objects::SERVICE_NAME;
use crate::table::{CLASS_NAME, Front, GATEWAY_NAME, GatewayDraft, Input, MANAGER, label};

/// An object to be applied.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Made {
    pub(crate) object: Value,
    /// It is known not to be as it should be, whatever was applied before.
    pub(crate) stale: bool,
}

/// What is to stand beside a Gateway.
pub(super) fn beside(draft: &GatewayDraft, input: &Input<'_>) -> Vec<Made> {
    match &draft.front {
        Some(front) if front.is_ours() && draft.refused.is_none() => before(draft, front, input),
        Some(_) => Vec::new(),
        None if input.pool.is_empty() || draft.addresses.is_empty() => Vec::new(),
        None => vec![account(draft)],
    }
}

/// The account that stands for a Gateway with addresses of its own: what `spec.infrastructure` says is put on it. Policies and tools find the
/// Gateway's labels there.
fn account(draft: &GatewayDraft) -> Made {
    let name = format!("{}-{}", draft.object.name_any(), draft.object.spec.gateway_class_name);
    let object = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(draft, &name, &[]),
        "automountServiceAccountToken": false,
    });
    Made { object, stale: false }
}

/// The Service of type LoadBalancer, and the replicas behind it.
fn before(draft: &GatewayDraft, front: &Front, input: &Input<'_>) -> Vec<Made> {
    let replicas = replicas(input);
    // Only nodes that are known keep packets to themselves, and the client's address with them.
    let local = !replicas.is_empty() && replicas.values().all(|replica| replica.node.is_some());
    let port_name = |is_udp: bool, port: u16| format!("{}-{port}", if is_udp { "udp" } else { "tcp" });
    let protocol = |is_udp: bool| if is_udp { "UDP" } else { "TCP" };
    let ports = front.wanted.iter().map(|((is_udp, port), target)| {
        json!({"name": port_name(*is_udp, *port), "port": port, "targetPort": target, "protocol": protocol(*is_udp)})
    });
    let mut spec = json!({
        "type": "LoadBalancer", "ipFamilyPolicy": "PreferDualStack",
        "externalTrafficPolicy": if local { "Local" } else { "Cluster" }, "ports": ports.collect::<Vec<_>>(),
    });
    if let Some(wish) = draft.object.spec.addresses.iter().map(|a| &a.value).find(|value| !value.is_empty()) {
        spec["loadBalancerIP"] = json!(wish);
    }
    let managed = (MANAGED_BY.to_owned(), MANAGER.to_owned());
    let service = json!({"apiVersion": "v1", "kind": "Service", "spec": spec,
        "metadata": metadata(draft, &front.name, &[managed])});
    let sent = front.wanted.iter().map(|((is_udp, port), target)| {
        json!({"name": port_name(*is_udp, *port), "port": target, "protocol": protocol(*is_udp)})
    });
    let sent: Vec<Value> = sent.collect();
    let slices = [("IPv4", true), ("IPv6", false)].map(|(family, is_v4)| {
        let of_family = replicas.iter().filter(|(ip, _)| ip.is_ipv4() == is_v4);
        let endpoints = of_family.map(|(ip, replica)| {
            // Who leaves serves what it has: it is sent something new only where nobody else is there.
            let leaves = replica.leaving;
            let conditions = json!({"ready": !leaves, "serving": true, "terminating": leaves});
            let mut endpoint = json!({"addresses": [ip], "conditions": conditions});
            if let Some(node) = &replica.node {
                endpoint["nodeName"] = json!(node);
            }
            endpoint
        });
        let labels = [
            (SERVICE_NAME.to_owned(), front.name.clone()),
            ("endpointslice.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned()),
        ];
        let name = format!("{}-{}", front.name, family.to_ascii_lowercase());
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": metadata(draft, &name, &labels), "endpoints": endpoints.collect::<Vec<_>>(), "ports": sent})
    });
    let service = Made { object: service, stale: front.is_stale() };
    let of = (draft.namespace.clone(), front.name.clone());
    let known: Vec<&Arc<EndpointSlice>> = input.objects.slices.of(&of).collect();
    let is_there = |object: &Value| {
        let said = |slice: &EndpointSlice| (json!(slice.endpoints), json!(slice.ports));
        let it = known.iter().find(|slice| object["metadata"]["name"] == slice.name_any());
        it.is_some_and(|slice| said(slice) == (object["endpoints"].clone(), object["ports"].clone()))
    };
    let slices = slices.map(|object| Made { stale: front.is_stale() || !is_there(&object), object });
    std::iter::once(service).chain(slices).collect()
}

/// A replica behind a Service.
struct Replica {
    node: Option<String>,
    leaving: bool,
}

/// This replica and all others of its fleet that are alive and have a table, by their addresses.
fn replicas(input: &Input<'_>) -> BTreeMap<IpAddr, Replica> {
    let sites = input.topology.sites.values();
    let is_there = |site: &Site| (!site.silent || site.leaving) && site.gateways.is_some();
    let others = sites.filter(|s| input.fleet.has(s) && is_there(s) && s.instance != input.instance);
    let replica = |site: &Arc<Site>| Replica { node: site.node.clone(), leaving: site.leaving };
    let others = others.flat_map(|site| site.own.iter().map(move |ip| (*ip, replica(site))));
    let leaving = input.topology.sites.get(input.instance).is_some_and(|site| site.leaving);
    let own = input.own.iter().map(|ip| (*ip, Replica { node: input.node.map(str::to_owned), leaving }));
    others.chain(own).collect()
}

fn metadata(draft: &GatewayDraft, name: &str, more: &[(String, String)]) -> Value {
    let gateway = &draft.object;
    let said = gateway.spec.infrastructure.clone().unwrap_or_default();
    let mut labels = said.labels;
    labels.insert(GATEWAY_NAME.to_owned(), label(&gateway.name_any()));
    labels.insert(CLASS_NAME.to_owned(), label(&gateway.spec.gateway_class_name));
    labels.extend(more.iter().cloned());
    json!({
        "name": name, "namespace": draft.namespace, "labels": labels, "annotations": said.annotations,
        "ownerReferences": [{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": gateway.name_any(),
            "uid": gateway.metadata.uid}],
    })
}

/// Where an object is, for logs and to tell it from others.
pub(super) fn place(object: &Value) -> String {
    let said = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    format!("{} {}/{}", said("/kind"), said("/metadata/namespace"), said("/metadata/name"))
}
