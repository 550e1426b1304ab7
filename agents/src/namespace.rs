//! Namespaces that the agent brings, and removes again when they are empty, and only then.
//!
//! In: a namespace. Out: it is there, or gone, or why not yet. What every namespace has of itself (the root CA, the default account, events)
//! does not count; whatever can't be listed does.

use atoll_api::kinds::FIELD_MANAGER;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams, Preconditions};
use kube::core::ObjectMeta;
use kube::discovery::{Discovery, Scope, verbs};

use crate::error::AgentError;

/// Annotation on namespaces and definitions that an agent brought, and that may go again when they are empty.
pub(crate) const BROUGHT: &str = "atoll.dev/brought-by";

/// Makes a namespace if it is missing, marked as ours. Returns whether we made it.
pub(crate) async fn bring(client: &kube::Client, name: &str) -> Result<bool, AgentError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let existing =
        namespaces.get_metadata_opt(name).await.map_err(AgentError::member(format!("reading namespace {name}")))?;
    if existing.is_some() {
        return Ok(false);
    }
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        annotations: Some([(BROUGHT.to_owned(), "agent".to_owned())].into()),
        ..ObjectMeta::default()
    };
    let namespace = Namespace { metadata, ..Namespace::default() };
    match namespaces
        .create(&PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() }, &namespace)
        .await
    {
        Ok(_) => Ok(true),
        // Somebody was quicker: then it is theirs.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(AgentError::member(format!("making namespace {name}"))(error)),
    }
}

/// Deletes a namespace if an agent brought it and nothing is left in it. Returns whether the matter is settled: false means
/// that something is still in it.
pub(crate) async fn retire(client: &kube::Client, name: &str) -> Result<bool, AgentError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let found = namespaces.get_opt(name).await.map_err(AgentError::member(format!("reading namespace {name}")))?;
    let Some(namespace) = found else { return Ok(true) };
    let brought = namespace.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(BROUGHT));
    if !brought || namespace.metadata.deletion_timestamp.is_some() {
        return Ok(true);
    }
    if !is_empty(client, name).await? {
        return Ok(false);
    }
    let preconditions =
        Preconditions { uid: namespace.metadata.uid, resource_version: namespace.metadata.resource_version };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match namespaces.delete(name, &params).await {
        Ok(_) => {
            tracing::info!(namespace = name, "removed the namespace, which was brought and is empty");
            Ok(true)
        }
        // Gone, or changed since it was looked at: then it is looked at again.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(AgentError::member(format!("deleting namespace {name}"))(error)),
    }
}

async fn is_empty(client: &kube::Client, namespace: &str) -> Result<bool, AgentError> {
    let failed = || AgentError::member(format!("looking what is left in namespace {namespace}"));
    // What is computed from others has no objects of its own.
    let discovery = Discovery::new(client.clone())
        .exclude(&["metrics.k8s.io", "events.k8s.io", "authorization.k8s.io"])
        .run()
        .await
        .map_err(failed())?;
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            let listable = capabilities.supports_operation(verbs::LIST);
            if capabilities.scope != Scope::Namespaced || !listable || resource.kind == "Event" {
                continue;
            }
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
            let left = match api.list_metadata(&ListParams::default().limit(5)).await {
                Ok(left) => left,
                // In discovery, but not there (any more).
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => continue,
                Err(error) => return Err(failed()(error)),
            };
            let names = left.items.iter().filter_map(|o| o.metadata.name.as_deref());
            if names.into_iter().any(|name| !is_furniture(&resource.kind, name)) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn is_furniture(kind: &str, name: &str) -> bool {
    matches!((kind, name), ("ConfigMap", "kube-root-ca.crt") | ("ServiceAccount", "default"))
}
