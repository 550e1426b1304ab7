//! Talking to a cluster's API server: a client from its kubeconfig, objects applied, conditions awaited.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use serde_json::Value;

use crate::error::{Error, Result};

/// A client for the cluster of a kubeconfig.
///
/// # Errors
/// The file can't be read or makes no client.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    // Whoever comes first wins; all of us choose the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let refused = |error: &dyn std::fmt::Display| Error::Refused(format!("{}: {error}", kubeconfig.display()));
    let file = Kubeconfig::read_from(kubeconfig).map_err(|error| refused(&error))?;
    let mut config =
        Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(|error| refused(&error))?;
    config.connect_timeout = Some(Duration::from_secs(5));
    Client::try_from(config).map_err(|error| refused(&error))
}

/// Whether the API server says that it is ready.
pub(crate) async fn ready(client: &Client) -> Result<(), String> {
    let request = http::Request::get("/readyz").body(Vec::new()).map_err(|error| error.to_string())?;
    let said = client.request_text(request).await.map_err(|error| error.to_string())?;
    if said == "ok" { Ok(()) } else { Err(said) }
}

/// Applies one object on the server's side.
pub(crate) async fn apply(client: &Client, object: &Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object.clone())
        .map_err(|error| Error::Refused(format!("a manifest of ours: {error}")))?;
    let types = object.types.clone().unwrap_or_default();
    let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let name = object.name_any();
    let parameters = PatchParams::apply("atoll-testbed").force();
    api.patch(&name, &parameters, &Patch::Apply(&object))
        .await
        .map_err(Error::kube(format!("apply {} {name}", types.kind)))?;
    Ok(())
}

/// Whether the node is Ready.
pub(crate) async fn node_ready(client: &Client, name: &str) -> Result<(), String> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = nodes.get(name).await.map_err(|error| error.to_string())?;
    let conditions = node.status.unwrap_or_default().conditions.unwrap_or_default();
    match conditions.into_iter().find(|condition| condition.type_ == "Ready") {
        Some(condition) if condition.status == "True" => Ok(()),
        Some(condition) => Err(format!("node {name}: {}", condition.message.unwrap_or_default())),
        None => Err(format!("node {name}: no condition Ready")),
    }
}

/// Whether a deployment has all of its replicas available, of its latest template.
pub(crate) async fn deployed(client: &Client, namespace: &str, name: &str) -> Result<(), String> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let found = deployments.get(name).await.map_err(|error| error.to_string())?;
    let wanted = found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let generation = found.metadata.generation;
    let status = found.status.unwrap_or_default();
    let (updated, available) = (status.updated_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
    if status.observed_generation == generation && updated == wanted && available == wanted {
        return Ok(());
    }
    Err(format!("deployment {namespace}/{name}: {available} of {wanted} available"))
}
