//! Which kinds the member has: from its discovery, remembered.
//!
//! In: apiVersion and kind. Out: how to address them. A kind that the member lacks is asked for again after a while: a CRD
//! may come later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::api::{Api, DynamicObject};
use kube::core::GroupVersionKind;
use kube::discovery::{self, ApiResource, Scope};

use super::inventory::Owned;

/// A kind that the member serves.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
}

/// The member's kinds, as far as they were asked for.
#[derive(Clone)]
pub(crate) struct Kinds {
    client: kube::Client,
    known: Arc<Mutex<HashMap<(String, String), Kind>>>,
}

impl Kinds {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self { client, known: Arc::default() }
    }

    /// Resolves a kind; nothing if the member has none of that name.
    pub(crate) async fn resolve(&self, api_version: &str, kind: &str) -> Result<Option<Kind>, String> {
        let key = (api_version.to_owned(), kind.to_owned());
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known {
            return Ok(Some(known));
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let (resource, capabilities) = match discovery::pinned_kind(&self.client, &gvk).await {
            Ok(found) => found,
            Err(kube::Error::Discovery(_)) => return Ok(None),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => return Err(format!("looking up {kind} of {api_version}: {error}")),
        };
        let found = Kind { resource, namespaced: capabilities.scope == Scope::Namespaced };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, found.clone());
        Ok(Some(found))
    }

    /// Where an object of this kind is.
    pub(crate) fn api(&self, kind: &Kind, place: &Owned) -> Api<DynamicObject> {
        match (&place.namespace, kind.namespaced) {
            (Some(namespace), true) => Api::namespaced_with(self.client.clone(), namespace, &kind.resource),
            _ => Api::all_with(self.client.clone(), &kind.resource),
        }
    }
}
