//! Objects as they were last looked at: which of them are others now. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use atoll_api::names::ServiceName;
use kube::{Resource, ResourceExt as _};

/// Objects by namespace and name.
pub(super) struct Held<K>(BTreeMap<ServiceName, Arc<K>>);

impl<K> Default for Held<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Resource> Held<K> {
    /// Takes the objects as they are now. Gives those that are new or others, and the names of those that are gone.
    pub(super) fn look(&mut self, now: Vec<Arc<K>>) -> Vec<(ServiceName, Option<Arc<K>>)> {
        let mut before = std::mem::take(&mut self.0);
        let mut differing = Vec::new();
        for object in now {
            let name = ServiceName::new(object.namespace().unwrap_or_default(), object.name_any());
            // The store hands out the same one until the API server says another.
            if before.remove(&name).is_none_or(|was| !Arc::ptr_eq(&was, &object)) {
                differing.push((name.clone(), Some(Arc::clone(&object))));
            }
            self.0.insert(name, object);
        }
        differing.extend(before.into_keys().map(|name| (name, None)));
        differing
    }

    /// One of them.
    pub(super) fn get(&self, name: &ServiceName) -> Option<&Arc<K>> {
        self.0.get(name)
    }

    /// All of them.
    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<K>> {
        self.0.values()
    }
}
