//! What a watch knows of its kind: objects by name, each held once and as small as it can be.
//!
//! In: objects as they were decoded. Out: shared ones, alone or all of them; a clone of all costs two pointers. Kube's own store holds beside
//! each object a key of six strings, its version and identity among them, which with thousands of routes weigh as much as their rules.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::objects::{Identify, Name, Shelf, name_of};

/// The objects of a kind. A clone is the same.
pub(crate) struct Known<K>(Arc<Mutex<Shelf<K>>>);

impl<K> Clone for Known<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> Default for Known<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K> Known<K> {
    fn shelf(&self) -> MutexGuard<'_, Shelf<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, as they are now.
    pub(crate) fn all(&self) -> Shelf<K> {
        self.shelf().clone()
    }

    /// These are all.
    pub(super) fn replace(&self, all: Shelf<K>) {
        *self.shelf() = all;
    }
}

impl<K: Identify> Known<K> {
    /// The one of that name.
    pub(crate) fn at(&self, name: &Name) -> Option<Arc<K>> {
        self.shelf().at(name).cloned()
    }

    /// The one of that name.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.shelf().get(namespace, name).cloned()
    }

    pub(super) fn apply<W: Identify + Clone + Into<K>>(&self, object: &W) {
        let (mut shelf, name) = (self.shelf(), name_of(object));
        let mut object: K = object.clone().into();
        if let Some(before) = shelf.at(&name) {
            object.succeed(before);
        }
        shelf.set(&name, Some(Arc::new(object)));
    }

    pub(super) fn delete(&self, object: &impl Identify) {
        self.shelf().set(&name_of(object), None);
    }
}

/// An object as it is held. What is decoded has room for four where there is one; a clone has not.
pub(super) fn fitting<W: Clone + Into<K>, K>(object: &W) -> Arc<K> {
    Arc::new(object.clone().into())
}
