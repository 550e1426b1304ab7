//! What a controller wants done at the API server, as data: made by pure functions, carried out in one place.

use http::{Method, Request};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};

use super::world::World;

/// The name under which the demo's controllers write.
const MANAGER: &str = "atoll-demo";

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// Makes an object.
    Create {
        /// Where, up to the plural.
        path: String,
        /// The object.
        object: Value,
    },
    /// Merges into an object or its status.
    Merge {
        /// Where, the subresource included.
        path: String,
        /// What to merge (RFC 7386).
        patch: Value,
    },
    /// Deletes an object, if it is still the same.
    Delete {
        /// Where.
        path: String,
        /// Kind, namespace and name, for the world.
        target: (&'static str, String, String),
        /// Which one.
        uid: String,
    },
}

/// Where the collection of `K` in a namespace is.
pub(super) fn collection<K: Resource<DynamicType = ()>>(namespace: &str) -> String {
    K::url_path(&(), (!namespace.is_empty()).then_some(namespace))
}

/// Where an object is.
pub(super) fn path<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!("{}/{}", collection::<K>(&object.namespace().unwrap_or_default()), object.name_any())
}

impl Action {
    /// Merges into an object.
    pub(super) fn merge<K: Resource<DynamicType = ()>>(object: &K, patch: Value) -> Self {
        Self::Merge { path: path(object), patch }
    }

    /// Merges into an object's status.
    pub(super) fn status<K: Resource<DynamicType = ()>>(object: &K, status: &Value) -> Self {
        Self::Merge { path: format!("{}/status", path(object)), patch: json!({"status": status}) }
    }

    /// Deletes an object. `kind` is one of those that [`World`] forgets.
    pub(super) fn delete<K: Resource<DynamicType = ()>>(object: &K, kind: &'static str) -> Self {
        let target = (kind, object.namespace().unwrap_or_default(), object.name_any());
        Self::Delete { path: path(object), target, uid: object.uid().unwrap_or_default() }
    }

    /// Does it, and has `world` know the outcome at once.
    pub(super) async fn carry_out(self, client: &Client, world: &mut World) -> Result<(), kube::Error> {
        let (method, path, body, kind) = match &self {
            Self::Create { path, object } => (Method::POST, path, object.clone(), "application/json"),
            Self::Merge { path, patch } => (Method::PATCH, path, patch.clone(), "application/merge-patch+json"),
            Self::Delete { path, uid, .. } => {
                let options = json!({"preconditions": {"uid": uid}, "propagationPolicy": "Background"});
                (Method::DELETE, path, options, "application/json")
            }
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("{path}?fieldManager={MANAGER}"))
            .header(http::header::CONTENT_TYPE, kind)
            .body(body.to_string().into_bytes())
            .map_err(kube::Error::HttpError)?;
        let answer: Value = client.request(request).await?;
        if let Self::Delete { target: (kind, namespace, name), .. } = self {
            let key = (namespace, name);
            match kind {
                "Pod" => world.pods.delete(&key),
                "ReplicaSet" => world.replica_sets.delete(&key),
                _ => world.slices.delete(&key),
            }
            return Ok(());
        }
        world.answered(answer).map_err(kube::Error::SerdeError)
    }
}
