//! The objects of the measurement: one Gateway, many routes of a host each, the Services behind them.

use std::net::SocketAddr;
use std::path::Path;

use futures::StreamExt as _;
use k8s_openapi::ByteString;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::hub::client;
use crate::{Result, say};

/// Writes at once.
const WRITES: usize = 32;

/// Puts everything into the hub.
pub(crate) async fn put(hub: &str, routes: usize, origin: SocketAddr, grpc: SocketAddr, folder: &Path) -> Result<()> {
    let client = client(hub)?;
    let mut all = vec![gateway(), secret(folder)?];
    all.extend(service("web", origin, None));
    all.extend(service("calls", grpc, Some("kubernetes.io/h2c")));
    all.push(json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute",
        "metadata": {"name": "calls", "namespace": "shop"},
        "spec": {"parentRefs": [{"name": "main", "namespace": "infra"}], "hostnames": ["grpc.test"],
            "rules": [{"backendRefs": [{"name": "calls", "port": 80}]}]}}));
    all.extend((0..routes).map(|n| route(&format!("r{n}"), &format!("h{n}.test"), "/", "web")));
    let writes = all.into_iter().map(|object| apply(client.clone(), object));
    let mut writes = futures::stream::iter(writes).buffer_unordered(WRITES);
    while let Some(written) = writes.next().await {
        written?;
    }
    say("routes", routes)
}

/// Applies an object of any kind.
pub(crate) async fn apply(client: kube::Client, object: Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object)?;
    let types = object.types.clone().ok_or("an object without a kind")?;
    let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &resource);
    let name = object.metadata.name.clone().unwrap_or_default();
    api.patch(&name, &PatchParams::apply("bench").force(), &Patch::Apply(&object)).await?;
    Ok(())
}

fn gateway() -> Value {
    let all = json!({"namespaces": {"from": "All"}});
    let listeners = json!([
        {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": all},
        {"name": "https", "port": 443, "protocol": "HTTPS", "allowedRoutes": all,
            "tls": {"certificateRefs": [{"name": "certificate"}]}},
    ]);
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "main", "namespace": "infra"},
        "spec": {"gatewayClassName": "atoll", "listeners": listeners}})
}

/// The certificate's Secret.
pub(crate) fn secret(folder: &Path) -> Result<Value> {
    let file = |name: &str| std::fs::read(folder.join(name)).map(ByteString);
    Ok(json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "certificate", "namespace": "infra"},
        "data": {"tls.crt": file("cert.pem")?, "tls.key": file("key.pem")?}}))
}

/// A route of one host and path prefix.
pub(crate) fn route(name: &str, host: &str, path: &str, service: &str) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"parentRefs": [{"name": "main", "namespace": "infra"}], "hostnames": [host],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": path}}],
                "backendRefs": [{"name": service, "port": 80}]}]}})
}

/// A Service with one endpoint.
pub(crate) fn service(name: &str, at: SocketAddr, protocol: Option<&str>) -> [Value; 2] {
    [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"ports": [{"name": "http", "port": 80, "protocol": "TCP", "appProtocol": protocol}]}}),
        slice(name, &[at.ip()], at.port()),
    ]
}

/// The endpoints of a Service.
pub(crate) fn slice(service: &str, addresses: &[std::net::IpAddr], port: u16) -> Value {
    let endpoints: Vec<Value> =
        addresses.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{service}-1"), "namespace": "shop", "labels": {"kubernetes.io/service-name": service}},
        "endpoints": endpoints, "ports": [{"name": "http", "port": port, "protocol": "TCP"}]})
}
