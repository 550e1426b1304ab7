//! What is known of many services, shared between snapshots until it differs: a change of one endpoint copies one member's map, not the
//! federation's.

use std::collections::{BTreeMap, btree_map};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::names::ServiceName;

/// Facts by service. Cheap to clone; the first change after a clone copies the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByService<T>(Arc<BTreeMap<ServiceName, Arc<T>>>);

impl<T> Default for ByService<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> From<BTreeMap<ServiceName, Arc<T>>> for ByService<T> {
    fn from(map: BTreeMap<ServiceName, Arc<T>>) -> Self {
        Self(Arc::new(map))
    }
}

impl<T> Deref for ByService<T> {
    type Target = BTreeMap<ServiceName, Arc<T>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T> DerefMut for ByService<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(&mut self.0)
    }
}

impl<'a, T> IntoIterator for &'a ByService<T> {
    type Item = (&'a ServiceName, &'a Arc<T>);
    type IntoIter = btree_map::Iter<'a, ServiceName, Arc<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
