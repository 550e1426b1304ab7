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
    let path = api.resource_url().to_owned();
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
                if table.is_synced() || is_absent(&error) {
                    tracing::debug!(path, %error, "watch broke, starting it anew");
                } else {
                    tracing::warn!(path, %error, "can't be listed yet; nothing is told of the member before");
                }
                // A kind that the member has not got yet has no objects. One that it had is not believed to be gone.
                if is_absent(&error) && !table.is_synced() && table.replace(HashMap::new()) {
                    changed.notify_one();
                }
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

/// Whether the member does not serve this kind.
fn is_absent(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_api::kinds::{ServiceExport, member_crds};
    use atoll_apiserver::{ApiServer, Storage};
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use kube::api::{ApiResource, DynamicObject, PostParams};
    use serde_json::json;

    async fn until(what: &str, holds: impl Fn() -> bool) {
        let waiting = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    #[tokio::test]
    async fn a_kind_that_the_member_lacks_has_no_objects_until_it_comes() {
        let namespaces = ["default".to_owned()].into();
        let config = atoll_apiserver::Config { namespaces, ..Default::default() };
        let member = ApiServer::open(config, Storage::Memory).await.unwrap();
        let client = member.client();
        let exports: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::erase::<ServiceExport>(&()));
        let (table, changed) = (Table::<bool>::default(), Notify::new());
        let proof = async {
            until("known to be empty", || table.is_synced()).await;
            assert!(table.rows().is_empty());
            let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
            for definition in member_crds() {
                definitions.create(&PostParams::default(), &definition).await.unwrap();
            }
            let export: DynamicObject = serde_json::from_value(json!({
                "apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport",
                "metadata": {"name": "web", "namespace": "default"}}))
            .unwrap();
            let resource = ApiResource::erase::<ServiceExport>(&());
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
            while api.create(&PostParams::default(), &export).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            until("the export is seen", || table.rows().contains_key("default/web")).await;
        };
        tokio::select! {
            () = follow(exports, "", &table, &changed, |_| Some(true)) => unreachable!("follows for ever"),
            () = proof => {}
        }
    }
}
