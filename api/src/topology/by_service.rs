//! What is known of many services, shared between snapshots until it differs: a change of one endpoint copies a few dozen entries of one
//! member's, not the federation's.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::names::ServiceName;
use crate::ordered::Ordered;

/// Facts by service. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByService<T>(Ordered<ServiceName, Arc<T>>);

impl<T> Default for ByService<T> {
    fn default() -> Self {
        Self(Ordered::default())
    }
}

impl<T> From<BTreeMap<ServiceName, Arc<T>>> for ByService<T> {
    fn from(map: BTreeMap<ServiceName, Arc<T>>) -> Self {
        Self(map.into_iter().collect())
    }
}

impl<T> Deref for ByService<T> {
    type Target = Ordered<ServiceName, Arc<T>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T> DerefMut for ByService<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<'a, T> IntoIterator for &'a ByService<T> {
    type Item = (&'a ServiceName, &'a Arc<T>);
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.0.iter())
    }
}
