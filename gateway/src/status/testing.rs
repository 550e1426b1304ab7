//! Statuses as tests look at them.

use serde::de::DeserializeOwned;

use super::Statuses;

impl Statuses {
    /// Those of a kind, in the order in which they are written.
    pub(crate) fn of<T: DeserializeOwned>(&self, kind: &str) -> Vec<T> {
        let ours = self.updates.iter().filter(|u| (u.resource)().kind == kind);
        ours.map(|u| serde_json::from_value(u.status()).unwrap()).collect()
    }
}
