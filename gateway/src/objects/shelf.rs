//! The objects of one kind, by namespace and name, so that the same objects stand in the same order. A clone costs pointers. Pure.

use std::sync::Arc;

use atoll_api::ordered::Ordered;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

use super::SERVICE_NAME;

/// Namespace (empty where a kind has none) and name.
pub(crate) type Name = (String, String);

/// The name of an object.
pub(crate) fn name_of(object: &impl ResourceExt) -> Name {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// All objects of a kind.
#[derive(Debug)]
pub(crate) struct Shelf<K>(Ordered<Name, Arc<K>>);

impl<K> Clone for Shelf<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Default for Shelf<K> {
    fn default() -> Self {
        Self(Ordered::default())
    }
}

impl<K> Shelf<K> {
    /// Every one, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<K>> {
        self.0.values()
    }

    /// Every name.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.keys()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The one of that name.
    pub(crate) fn at(&self, name: &Name) -> Option<&Arc<K>> {
        self.0.get(name)
    }

    /// The one of that name.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        self.0.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Puts one in the place of the one before, or takes that away. Returns it.
    pub(crate) fn set(&mut self, name: &Name, object: Option<Arc<K>>) -> Option<Arc<K>> {
        match object {
            Some(object) => self.0.insert(name.clone(), object),
            None => self.0.remove(name).map(|(_, before)| before),
        }
    }

    /// Keeps those that `keep` says.
    pub(crate) fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.0 = self.0.iter().filter(|(_, object)| keep(object)).map(|(k, v)| (k.clone(), Arc::clone(v))).collect();
    }
}

impl<K: ResourceExt> FromIterator<Arc<K>> for Shelf<K> {
    fn from_iter<I: IntoIterator<Item = Arc<K>>>(objects: I) -> Self {
        Self(objects.into_iter().map(|object| (name_of(&*object), object)).collect())
    }
}

/// EndpointSlices, also by the Service that they are of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slices {
    all: Shelf<EndpointSlice>,
    /// By the Service, then by name.
    of: Ordered<(Name, String), Arc<EndpointSlice>>,
}

impl Slices {
    /// Every one, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.all.iter()
    }

    /// Those of a Service.
    pub(crate) fn of(&self, service: &Name) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        let from = self.of.from_key(&(service.clone(), String::new()));
        let service = service.clone();
        from.take_while(move |((of, _), _)| *of == service).map(|(_, slice)| slice)
    }

    /// Puts one in the place of the one before, or takes that away. Returns it.
    pub(crate) fn set(&mut self, name: &Name, slice: Option<Arc<EndpointSlice>>) -> Option<Arc<EndpointSlice>> {
        let before = self.all.set(name, slice.clone());
        if let Some(service) = before.as_deref().and_then(service_of) {
            self.of.remove(&(service, name.1.clone()));
        }
        if let Some((slice, service)) = slice.as_ref().and_then(|s| Some((s, service_of(s)?))) {
            self.of.insert((service, name.1.clone()), Arc::clone(slice));
        }
        before
    }

    /// Keeps those of the Services that `keep` says.
    pub(super) fn retain(&mut self, keep: impl Fn(&Name) -> bool) {
        *self = self.iter().filter(|s| service_of(s).is_some_and(|service| keep(&service))).cloned().collect();
    }
}

impl FromIterator<Arc<EndpointSlice>> for Slices {
    fn from_iter<I: IntoIterator<Item = Arc<EndpointSlice>>>(slices: I) -> Self {
        let mut all = Self::default();
        for slice in slices {
            all.set(&name_of(&*slice), Some(slice));
        }
        all
    }
}

/// The Service that a slice is of.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<Name> {
    Some((slice.namespace()?, slice.labels().get(SERVICE_NAME)?.clone()))
}
