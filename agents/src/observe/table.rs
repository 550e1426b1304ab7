//! A watched kind as a table of trimmed rows.
//!
//! In: a kube watch. Out: rows by `namespace/name`, and a nudge when one changed. The whole object is dropped as soon as its
//! row is made; a list after a break replaces the table at once, so that nobody sees half of it.

use std::collections::HashMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Rows by `namespace/name` (or `name`).
pub(crate) struct Table<V> {
    rows: RwLock<HashMap<String, V>>,
    synced: AtomicBool,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { rows: RwLock::default(), synced: AtomicBool::new(false) }
    }
}

impl<V: PartialEq> Table<V> {
    /// Whether a complete list was seen.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// The rows. Held shortly, never across an await.
    pub(crate) fn rows(&self) -> RwLockReadGuard<'_, HashMap<String, V>> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces or takes away one row. Returns whether that changed anything.
    pub(crate) fn put(&self, key: String, row: Option<V>) -> bool {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        match row {
            Some(row) if rows.get(&key) == Some(&row) => false,
            Some(row) => {
                rows.insert(key, row);
                true
            }
            None => rows.remove(&key).is_some(),
        }
    }

    /// Replaces all rows.
    pub(crate) fn replace(&self, next: HashMap<String, V>) -> bool {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        let first = !self.synced.swap(true, Ordering::AcqRel);
        let changed = *rows != next;
        *rows = next;
        first || changed
    }
}

/// `namespace/name`, or `name` of what has no namespace.
pub(crate) fn key_of<K: Resource>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

/// Follows a kind for ever: lists, watches, and lists again where it has to.
pub(crate) async fn follow<K, V>(
    api: Api<K>,
    labels: &str,
    table: &Table<V>,
    changed: &Notify,
    trim: impl Fn(K) -> Option<V>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    V: PartialEq,
{
    let config = watcher::Config::default().labels(labels).page_size(500);
    let mut events = pin!(watcher(api, config));
    let mut listed: HashMap<String, V> = HashMap::new();
    let mut retry = RETRY_MIN;
    while let Some(event) = events.next().await {
        let nudge = match event {
            Ok(Event::Init) => {
                listed = HashMap::new();
                false
            }
            Ok(Event::InitApply(object)) => {
                let key = key_of(&object);
                if let Some(row) = trim(object) {
                    listed.insert(key, row);
                }
                false
            }
            Ok(Event::InitDone) => {
                retry = RETRY_MIN;
                table.replace(std::mem::take(&mut listed))
            }
            Ok(Event::Apply(object)) => {
                retry = RETRY_MIN;
                let key = key_of(&object);
                table.put(key, trim(object))
            }
            Ok(Event::Delete(object)) => table.put(key_of(&object), None),
            Err(error) => {
                tracing::debug!(%error, "watch broke, starting it anew");
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(RETRY_MAX);
                false
            }
        };
        if nudge {
            changed.notify_one();
        }
    }
}
