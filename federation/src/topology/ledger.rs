//! The facts of the topology as they are put together, and what was changed in them since the last generation. Pure but for a warning.
//!
//! The delta that followers get is what was written here, not a comparison of two topologies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use atoll_api::facts::{Change, Facts};
use atoll_wire::delta::ITEM_BYTES_MAX;
use serde::Serialize;

/// The facts, and what was changed.
#[derive(Default)]
pub(super) struct Ledger {
    facts: Facts,
    upserts: BTreeMap<String, Arc<[u8]>>,
    removed: BTreeSet<String>,
}

impl Ledger {
    /// Writes a fact; one that no message could carry is left out and said.
    pub(super) fn put<T: Serialize>(&mut self, key: String, value: &T) {
        let json: Arc<[u8]> = serde_json::to_vec(value).expect("our facts are plain JSON").into();
        if json.len() > ITEM_BYTES_MAX {
            tracing::warn!(key, bytes = json.len(), limit = ITEM_BYTES_MAX, "fact is too long to be sent, left out");
            return self.remove(&key);
        }
        if self.facts.put_json(key.clone(), Arc::clone(&json)) {
            self.removed.remove(&key);
            self.upserts.insert(key, json);
        }
    }

    /// Strikes a fact out.
    pub(super) fn remove(&mut self, key: &str) {
        if self.facts.remove(key) {
            self.upserts.remove(key);
            self.removed.insert(key.to_owned());
        }
    }

    /// Makes the facts below `word` exactly these, by the rest of their key.
    pub(super) fn replace<T: Serialize>(&mut self, word: &str, all: impl IntoIterator<Item = (String, T)>) {
        let mut gone = self.below(word);
        for (rest, value) in all {
            let key = format!("{word}/{rest}");
            gone.remove(&key);
            self.put(key, &value);
        }
        gone.iter().for_each(|key| self.remove(key));
    }

    /// The keys below `word`.
    pub(super) fn below(&self, word: &str) -> BTreeSet<String> {
        self.facts.under(word).map(|(rest, _)| format!("{word}/{rest}")).collect()
    }

    /// The facts as they are.
    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What was changed since the last time; the same facts may have been written twice.
    pub(super) fn take(&mut self) -> Change {
        let (upserts, removed) = (std::mem::take(&mut self.upserts), std::mem::take(&mut self.removed));
        Change { full: false, upserts, removed: removed.into_iter().collect() }
    }
}
