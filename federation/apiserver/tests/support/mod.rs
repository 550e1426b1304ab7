//! What the tests share: a server reached both ways, and plain requests.
#![allow(dead_code, reason = "each test file uses its part")]

use anyhow::Result;
use atoll_apiserver::{ApiServer, Authority, Config, Stamp, Storage, kubeconfig};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use kube::{
    Client,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// A server in memory, with its listener.
pub(crate) struct Bed {
    pub(crate) server: ApiServer,
    pub(crate) authority: Authority,
    pub(crate) url: String,
    shutdown: CancellationToken,
    serving: JoinHandle<Result<(), atoll_apiserver::Error>>,
}

impl Bed {
    pub(crate) async fn up() -> Result<Self> {
        Self::with(config(), Storage::Memory).await
    }

    pub(crate) async fn with(config: Config, storage: Storage) -> Result<Self> {
        // A second test of the process finds it installed already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let server = ApiServer::open(config, storage).await?;
        let authority = Authority::new("test")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}", listener.local_addr()?);
        let (tls, shutdown) = (authority.tls(&["127.0.0.1"])?, CancellationToken::new());
        let (serving, stop) = (server.clone(), shutdown.clone());
        let serving = tokio::spawn(async move { serving.serve(listener, tls, stop).await });
        Ok(Self { server, authority, url, shutdown, serving })
    }

    /// A client over HTTPS with a certificate.
    pub(crate) async fn over_https(&self, user: &str, groups: &[&str]) -> Result<Client> {
        let identity = self.authority.user(user, groups)?;
        let text = kubeconfig(&self.url, self.authority.ca_pem(), &identity.cert_pem, &identity.key_pem, user, "test");
        let config = Kubeconfig::from_yaml(&text)?;
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }

    /// The administrator, both ways.
    pub(crate) async fn both(&self) -> Result<[(&'static str, Client); 2]> {
        let https = self.over_https("admin", &["system:masters"]).await?;
        Ok([("in process", self.server.client()), ("over https", https)])
    }

    pub(crate) async fn down(self) -> Result<()> {
        self.shutdown.cancel();
        self.serving.await??;
        self.server.close().await;
        Ok(())
    }
}

pub(crate) fn config() -> Config {
    let stamp = |resource: &str, annotation: &str| Stamp {
        group: "example.dev".into(),
        resource: resource.into(),
        annotation: annotation.into(),
    };
    Config { stamps: vec![stamp("things", "example.dev/requester")], ..Config::default() }
}

/// One plain request: status and JSON body.
pub(crate) async fn ask(client: &Client, method: &str, path: &str, media: &str, body: &Value) -> Result<(u16, Value)> {
    let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
    let request = Request::builder().method(Method::from_bytes(method.as_bytes())?).uri(path);
    let request = request.header("content-type", media).header("accept", "application/json");
    let response = client.send(request.body(Body::from(bytes))?).await?;
    let (code, bytes) = (response.status().as_u16(), response.into_body().collect().await?.to_bytes());
    Ok((code, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
}

pub(crate) async fn get(client: &Client, path: &str) -> Result<(u16, Value)> {
    ask(client, "GET", path, "application/json", &Value::Null).await
}

pub(crate) async fn post(client: &Client, path: &str, body: &Value) -> Result<(u16, Value)> {
    ask(client, "POST", path, "application/json", body).await
}

pub(crate) async fn put(client: &Client, path: &str, body: &Value) -> Result<(u16, Value)> {
    ask(client, "PUT", path, "application/json", body).await
}

pub(crate) async fn delete(client: &Client, path: &str, options: &Value) -> Result<(u16, Value)> {
    ask(client, "DELETE", path, "application/json", options).await
}

pub(crate) async fn merge(client: &Client, path: &str, body: &Value) -> Result<(u16, Value)> {
    ask(client, "PATCH", path, "application/merge-patch+json", body).await
}

pub(crate) async fn apply(client: &Client, path: &str, manager: &str, body: &Value) -> Result<(u16, Value)> {
    let path = format!("{path}?fieldManager={manager}");
    ask(client, "PATCH", &path, "application/apply-patch+yaml", body).await
}

/// A definition of `things.example.dev`, with the given schema of the spec.
pub(crate) fn things(spec: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.dev"},
        "spec": {
            "group": "example.dev", "scope": "Namespaced",
            "names": {"kind": "Thing", "plural": "things", "shortNames": ["th"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": spec,
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                }}},
            }],
        },
    })
}

/// The usual spec of a thing.
pub(crate) fn thing_spec() -> Value {
    json!({
        "type": "object", "required": ["size"],
        "x-kubernetes-validations": [{"rule": "self.size < 100", "message": "too large"}],
        "properties": {
            "size": {"type": "integer", "minimum": 1},
            "colour": {"type": "string", "default": "blue", "enum": ["blue", "green"]},
            "replicas": {"type": "integer"},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "port": {"x-kubernetes-int-or-string": true},
            "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "trust": {"type": "object", "properties": {"check": {
                "type": "object", "required": ["names"],
                "properties": {"names": {"type": "array", "items": {"type": "string"}}, "mode": {"type": "string", "default": "All"}}}}},
            "parts": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "n": {"type": "integer", "default": 7}, "m": {"type": "integer"}}},
            },
        },
    })
}

pub(crate) const THINGS: &str = "/apis/example.dev/v1/namespaces/default/things";
pub(crate) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

pub(crate) fn thing(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.dev/v1", "kind": "Thing", "metadata": {"name": name}, "spec": spec})
}

pub(crate) fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Waits until something holds, at most twenty seconds.
pub(crate) async fn until<F, Fut>(what: &str, mut holds: F) -> Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<bool>>,
{
    let wait = async {
        while !holds().await? {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), wait)
        .await
        .map_err(|_| anyhow::anyhow!("never: {what}"))?
}
