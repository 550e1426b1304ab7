//! The objects that `atoll up` begins with: who may do what, the members, and the shop.
//!
//! What is there already (a data directory of an earlier run) is left as people have changed it; what was deleted stays deleted.

use std::path::Path;

use anyhow::Context as _;
use atoll_api::kinds::SYSTEM_NAMESPACE;
use atoll_api::names::ClusterName;
use atoll_demo::{Member, REGISTRY_SECRET};
use futures::future::try_join_all;
use http::{Method, Request, header};
use kube::Client;
use serde_json::{Value, json};

use super::members::Spec;
use super::view::HOST;
use crate::config::Config;
use crate::embedded::Embedded;

const ATOLL: &str = "/apis/atoll.dev/v1alpha1";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const GATEWAY: &str = "/apis/gateway.networking.k8s.io/v1";
/// The namespace of the demo.
pub(super) const SHOP: &str = "shop";
/// On its namespace once everything was made.
const MADE: &str = "atoll.dev/demo-made";
/// Replicas in every member.
const REPLICAS: u32 = 2;

/// Roles, members and namespaces. Says whether the shop was not there before, or not whole.
pub(super) async fn base(client: &Client, specs: &[Spec]) -> anyhow::Result<bool> {
    let look = json!({"apiGroups": ["atoll.dev", "multicluster.x-k8s.io", "gateway.networking.k8s.io", "externaldns.k8s.io"],
        "resources": ["*"], "verbs": ["get", "list", "watch"]});
    let look_core = json!({"apiGroups": [""], "resources": ["namespaces", "events", "services"], "verbs": ["get", "list", "watch"]});
    let may =
        |resource: &str, verbs: &[&str]| json!({"apiGroups": ["atoll.dev"], "resources": [resource], "verbs": verbs});
    let request = may("replicationrequests", &["create", "update", "patch", "delete"]);
    let vote = may("replicationapprovals", &["create", "delete"]);
    let mut objects = Vec::new();
    for (role, rules, subject) in [
        ("atoll-requester", json!([look, look_core, request]), json!({"kind": "User", "name": "dev"})),
        ("atoll-approver", json!([look, look_core, vote]), json!({"kind": "Group", "name": "approvers"})),
    ] {
        let mut subject = subject;
        subject["apiGroup"] = json!("rbac.authorization.k8s.io");
        objects.push((
            format!("{RBAC}/clusterroles"),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": role}, "rules": rules}),
        ));
        objects.push((
            format!("{RBAC}/clusterrolebindings"),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding", "metadata": {"name": role}, "subjects": [subject],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}}),
        ));
    }
    for spec in specs {
        let cluster = json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": spec.name}, "spec": spec.cluster});
        objects.push((format!("{ATOLL}/clusters"), cluster));
    }
    let shop = async {
        match specs.is_empty() {
            true => Ok(false),
            false => {
                make(client, "/api/v1/namespaces", namespace(SHOP)).await?;
                // Whether it was made whole: an earlier start may have ended on the way.
                let url = format!("/api/v1/namespaces/{SHOP}");
                let request = Request::get(url).body(Vec::new()).map_err(kube::Error::HttpError)?;
                let held: Value = client.request(request).await.context("read namespace shop")?;
                Ok(held["metadata"]["annotations"][MADE].is_null())
            }
        }
    };
    let system = make(client, "/api/v1/namespaces", namespace(SYSTEM_NAMESPACE));
    let (rest, shop, system) = tokio::join!(make_all(client, objects), shop, system);
    rest.and(system)?;
    shop
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// The Registry of a member, under the member's name. Its address may be another than in an earlier run.
pub(super) async fn registry(client: &Client, spec: &Spec, member: &Member) -> anyhow::Result<()> {
    let (url, credentials) = member.registry();
    let mut said =
        json!({"environment": spec.cluster["environment"], "cluster": spec.name, "url": url, "insecure": true});
    if credentials.is_some() {
        said["credentialsRef"] = json!({"name": REGISTRY_SECRET});
    }
    let object =
        json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "Registry", "metadata": {"name": spec.name}, "spec": said});
    if !make(client, &format!("{ATOLL}/registries"), object).await? {
        let path = format!("{ATOLL}/registries/{}", spec.name);
        send(client, Method::PATCH, &path, "application/merge-patch+json", &json!({"spec": said})).await?;
    }
    Ok(())
}

/// Whether the members are there between which the demo's request copies.
pub(super) fn copies<'a>(names: impl Iterator<Item = &'a ClusterName>) -> bool {
    names.filter(|name| ["dev", "prod-eu"].contains(&name.as_str())).count() == 2
}

/// The shop: what runs, how it is reached, what may flow.
pub(super) async fn shop(client: &Client, config: &Config, specs: &[Spec], dir: &Path) -> anyhow::Result<()> {
    let (certificate, key) = certificate()?;
    std::fs::write(dir.join("shop.crt"), &certificate).context("write shop.crt")?;
    let mut objects = vec![
        (
            format!("/api/v1/namespaces/{SHOP}/secrets"),
            json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "shop-tls", "namespace": SHOP}, "stringData": {"tls.crt": certificate, "tls.key": key}}),
        ),
        (format!("{ATOLL}/namespaces/{SHOP}/placementpolicies"), placement()),
        (format!("{ATOLL}/namespaces/{SHOP}/bundles"), bundle()),
        (format!("{GATEWAY}/namespaces/{SHOP}/gateways"), gateway(config)),
        (format!("{GATEWAY}/namespaces/{SHOP}/httproutes"), route()),
        (format!("{ATOLL}/namespaces/{SHOP}/trafficpolicies"), host()),
    ];
    if copies(specs.iter().map(|spec| &spec.name)) {
        let policy = json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "ReplicationPolicy",
            "metadata": {"name": "dev-to-prod", "namespace": SHOP},
            "spec": {"from": "dev", "to": "prod-eu", "direction": "OneWay", "repositories": ["shop/*"],
                "approval": {"groups": [{"name": "approvers", "votes": 1}]}}});
        objects.push((format!("{ATOLL}/namespaces/{SHOP}/replicationpolicies"), policy));
    }
    make_all(client, objects).await
}

/// Notes that the shop is whole: from now on people decide what is in it.
pub(super) async fn made(client: &Client) -> anyhow::Result<()> {
    let note = json!({"metadata": {"annotations": {MADE: "true"}}});
    let path = format!("/api/v1/namespaces/{SHOP}");
    Ok(send(client, Method::PATCH, &path, "application/merge-patch+json", &note).await?)
}

/// The request that waits, made by the user `dev`.
pub(super) async fn request(embedded: &Embedded) -> anyhow::Result<()> {
    let request = json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "ReplicationRequest",
        "metadata": {"name": "web-1", "namespace": SHOP}, "spec": {"policy": "dev-to-prod", "images": ["shop/web:2"]}});
    let dev = embedded.client_as("dev", &["developers"])?;
    make(&dev, &format!("{ATOLL}/namespaces/{SHOP}/replicationrequests"), request).await.map(drop)
}

fn placement() -> Value {
    json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "PlacementPolicy", "metadata": {"name": "everywhere", "namespace": SHOP},
        "spec": {"clusters": {}, "division": {"mode": "Duplicated"}}})
}

fn bundle() -> Value {
    let labels = json!({"app": "web"});
    let container = json!({"name": "web", "image": "shop/web:1", "ports": [{"name": "http", "containerPort": 8080}],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": REPLICAS, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]}});
    json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "Bundle", "metadata": {"name": "web", "namespace": SHOP},
        "spec": {"placement": {"policyRef": {"name": "everywhere"}}, "exports": ["web"], "manifests": [deployment, service]}})
}

fn gateway(config: &Config) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
    "metadata": {"name": "shop", "namespace": SHOP, "labels": {"atoll.dev/cluster-set": config.default_set}},
    "spec": {"gatewayClassName": "atoll", "listeners": [
        {"name": "http", "port": 80, "protocol": "HTTP"},
        {"name": "https", "port": 443, "protocol": "HTTPS", "hostname": HOST,
            "tls": {"mode": "Terminate", "certificateRefs": [{"name": "shop-tls"}]}},
    ]}})
}

fn route() -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web", "namespace": SHOP},
        "spec": {"parentRefs": [{"name": "shop"}], "hostnames": [HOST], "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "backendRefs": [{"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "web", "port": 80}]}]}})
}

/// The host's name leads to the gateways.
fn host() -> Value {
    json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "TrafficPolicy", "metadata": {"name": "shop", "namespace": SHOP},
        "spec": {"hosts": [HOST], "answer": "Gateway"}})
}

/// A self-made certificate for the host, and its key.
fn certificate() -> anyhow::Result<(String, String)> {
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).context("certificate of the shop")?;
    Ok((made.cert.pem(), made.signing_key.serialize_pem()))
}

async fn make_all(client: &Client, objects: Vec<(String, Value)>) -> anyhow::Result<()> {
    let make = |(path, object): (String, Value)| async move { make(client, &path, object).await };
    try_join_all(objects.into_iter().map(make)).await.map(drop)
}

/// Makes an object. False: it is there already, and stays as it is.
async fn make(client: &Client, path: &str, object: Value) -> anyhow::Result<bool> {
    match send(client, Method::POST, path, "application/json", &object).await {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => {
            let (kind, name) = (object["kind"].as_str().unwrap_or_default(), object["metadata"]["name"].as_str());
            Err(error).with_context(|| format!("make {kind} {}", name.unwrap_or_default()))
        }
    }
}

async fn send(client: &Client, method: Method, path: &str, kind: &str, body: &Value) -> Result<(), kube::Error> {
    let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, kind);
    let request = request.body(body.to_string().into_bytes()).map_err(kube::Error::HttpError)?;
    client.request::<Value>(request).await.map(drop)
}
