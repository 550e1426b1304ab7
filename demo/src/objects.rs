//! The objects that every demo member has from the start: nodes, the services of its API server, DNS and registry, and the
//! Corefile by which an agent finds the domain. Pure.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::{member::MemberSpec, network::Network};

/// The Secret in namespace atoll-system with the registry's user and password, in a member whose registry asks for them.
pub const REGISTRY_SECRET: &str = "registry";

/// Where a member's servers listen.
pub(crate) struct Addresses {
    pub(crate) api: SocketAddr,
    pub(crate) dns: SocketAddr,
    pub(crate) registry: SocketAddr,
}

/// The names of a member's nodes.
pub(crate) fn node_names(spec: &MemberSpec) -> Vec<String> {
    (0..spec.nodes.max(1)).map(|n| format!("{}-{n}", spec.name)).collect()
}

/// Every object, with the path of its collection; a status follows its object by a second write.
pub(crate) fn all(spec: &MemberSpec, network: Network, at: &Addresses, now: &str) -> Vec<(String, Value)> {
    let nodes = node_names(spec)
        .into_iter()
        .zip(0u8..)
        .map(|(name, n)| ("/api/v1/nodes".to_owned(), node(spec, network, &name, n, now)));
    let services = "/api/v1/namespaces/kube-system/services";
    let mut all: Vec<_> = nodes.collect();
    all.push((services.to_owned(), dns_service(at.dns)));
    all.push(("/api/v1/namespaces/kube-system/configmaps".to_owned(), corefile(&spec.domain)));
    all.push((
        services.to_owned(),
        service("kube-system", "registry", at.registry, json!([port("http", at.registry, "TCP")])),
    ));
    let api = service("default", "kubernetes", at.api, json!([port("https", at.api, "TCP")]));
    all.push(("/api/v1/namespaces/default/services".to_owned(), api));
    if let Some(c) = &spec.registry_credentials {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": REGISTRY_SECRET, "namespace": "atoll-system"},
            "stringData": {"username": c.username, "password": c.password},
        });
        all.push(("/api/v1/namespaces/atoll-system/secrets".to_owned(), secret));
    }
    all
}

fn port(name: &str, at: SocketAddr, protocol: &str) -> Value {
    json!({"name": name, "port": at.port(), "targetPort": at.port(), "protocol": protocol})
}

fn service(namespace: &str, name: &str, at: SocketAddr, ports: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": at.ip(), "clusterIPs": [at.ip()], "ports": ports},
    })
}

fn dns_service(at: SocketAddr) -> Value {
    let mut dns = service("kube-system", "kube-dns", at, json!([port("dns", at, "UDP"), port("dns-tcp", at, "TCP")]));
    dns["metadata"]["labels"] = json!({"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"});
    dns
}

fn corefile(domain: &str) -> Value {
    let text = format!(
        ".:53 {{\n    errors\n    kubernetes {domain} in-addr.arpa ip6.arpa {{\n        pods insecure\n        ttl 5\n    }}\n    loadbalance\n}}\n"
    );
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "coredns", "namespace": "kube-system"},
        "data": {"Corefile": text},
    })
}

fn node(spec: &MemberSpec, network: Network, name: &str, number: u8, now: &str) -> Value {
    let mut labels =
        json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"});
    for (key, value) in &spec.node_labels {
        labels[key] = value.clone().into();
    }
    let capacity = json!({"cpu": spec.cpu, "memory": spec.memory, "pods": spec.pods.to_string()});
    let cidr = network.node_cidr(number);
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "spec": {"podCIDR": cidr, "podCIDRs": [cidr], "providerID": format!("atoll-demo://{name}")},
        "status": {
            "capacity": capacity, "allocatable": capacity,
            "addresses": [{"type": "InternalIP", "address": network.pod(number, 1)}, {"type": "Hostname", "address": name}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "the demo's kubelet is ready",
                "lastHeartbeatTime": now, "lastTransitionTime": now}],
            "nodeInfo": {
                "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "atoll-demo://1", "kernelVersion": "",
                "kubeProxyVersion": "v1.34.0", "kubeletVersion": "v1.34.0", "machineID": name, "operatingSystem": "linux",
                "osImage": "Atoll demo", "systemUUID": name,
            },
        },
    })
}
