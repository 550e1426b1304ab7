//! The objects of one kind, by namespace and name, so that the same objects stand in the same order. A clone costs pointers. Pure.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

use atoll_api::ordered::Ordered;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;

use super::SERVICE_NAME;
use super::identify::{Identify, name_of};

/// Namespace (empty where a kind has none) and name.
pub(crate) type Name = (String, String);

/// What stands at a place: namespace (empty where a kind has none) and name.
trait Placed {
    fn place(&self) -> (&str, &str);
}

impl Placed for (&str, &str) {
    fn place(&self) -> (&str, &str) {
        *self
    }
}

impl PartialEq for dyn Placed + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for dyn Placed + '_ {}

impl PartialOrd for dyn Placed + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Placed + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

/// An object as its own key: with thousands of them a copy of each name, in each shelf, would be much.
#[derive(Debug)]
struct Keyed<K>(Arc<K>);

impl<K> Clone for Keyed<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Identify> Placed for Keyed<K> {
    fn place(&self) -> (&str, &str) {
        self.0.place()
    }
}

impl<'a, K: Identify + 'a> Borrow<dyn Placed + 'a> for Keyed<K> {
    fn borrow(&self) -> &(dyn Placed + 'a) {
        self
    }
}

impl<K: Identify> PartialEq for Keyed<K> {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl<K: Identify> Eq for Keyed<K> {}

impl<K: Identify> PartialOrd for Keyed<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Identify> Ord for Keyed<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

/// All objects of a kind.
#[derive(Debug)]
pub(crate) struct Shelf<K>(Ordered<Keyed<K>, ()>);

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
        self.0.keys().map(|Keyed(object)| object)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<K: Identify> Shelf<K> {
    /// Every name.
    pub(crate) fn names(&self) -> impl Iterator<Item = Name> {
        self.iter().map(|object| name_of(&**object))
    }

    /// The one of that name.
    pub(crate) fn at(&self, name: &Name) -> Option<&Arc<K>> {
        self.get(&name.0, &name.1)
    }

    /// The one of that name.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        let place: &dyn Placed = &(namespace, name);
        self.0.get_key_value(place).map(|(Keyed(object), ())| object)
    }

    /// Puts one in the place of the one before, or takes that away. `name`: its own. Returns the one before.
    pub(crate) fn set(&mut self, name: &Name, object: Option<Arc<K>>) -> Option<Arc<K>> {
        let place: &dyn Placed = &(name.0.as_str(), name.1.as_str());
        let before = self.0.remove(place).map(|(Keyed(object), ())| object);
        if let Some(object) = object {
            self.0.insert(Keyed(object), ());
        }
        before
    }

    /// Keeps those that `keep` says.
    pub(crate) fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.0 = self.iter().filter(|object| keep(object)).map(|object| (Keyed(Arc::clone(object)), ())).collect();
    }
}

impl<K: Identify> FromIterator<Arc<K>> for Shelf<K> {
    fn from_iter<I: IntoIterator<Item = Arc<K>>>(objects: I) -> Self {
        Self(objects.into_iter().map(|object| (Keyed(object), ())).collect())
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

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;

    use super::*;

    fn object(namespace: &str, name: &str, uid: &str) -> Arc<Namespace> {
        let mut object = Namespace::default();
        object.metadata.namespace = Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty());
        (object.metadata.name, object.metadata.uid) = (Some(name.to_owned()), Some(uid.to_owned()));
        Arc::new(object)
    }

    #[test]
    fn objects_stand_by_their_own_names_and_the_newest_of_a_name_is_there() {
        let all = [("b", "a", "1"), ("a", "b", "2"), ("", "z", "3"), ("a-b", "a", "4"), ("a", "a", "5")];
        let mut shelf: Shelf<Namespace> = all.iter().map(|(at, name, uid)| object(at, name, uid)).collect();
        let kept = shelf.clone();
        let uids = |shelf: &Shelf<Namespace>| shelf.iter().map(|o| o.uid().unwrap()).collect::<Vec<_>>().join(" ");
        assert_eq!(uids(&shelf), "3 5 2 4 1");
        assert_eq!(shelf.names().next(), Some((String::new(), "z".to_owned())));
        let name = ("a".to_owned(), "b".to_owned());
        assert_eq!(shelf.set(&name, Some(object("a", "b", "6"))).unwrap().uid().unwrap(), "2");
        assert_eq!(shelf.at(&name).unwrap().uid().unwrap(), "6");
        assert_eq!(shelf.set(&name, None).unwrap().uid().unwrap(), "6");
        assert!(shelf.get("a", "b").is_none() && shelf.set(&name, None).is_none());
        shelf.retain(|o| o.namespace().is_some());
        assert_eq!((uids(&shelf).as_str(), shelf.len()), ("5 4 1", 3));
        assert_eq!(uids(&kept), "3 5 2 4 1");
    }
}
