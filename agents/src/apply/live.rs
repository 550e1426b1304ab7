//! What became of the applied objects: watched by kind, by our label.
//!
//! In: which kinds are in use. Out: per object its uid, generation and state, trimmed at once. Drift is found here.

use std::collections::HashMap;
use std::sync::Arc;

use atoll_api::kinds::BUNDLE_LABEL;
use kube::api::{Api, DynamicObject};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::bundle::AppliedObject;
use super::kinds::Kind;
use super::ready::{self, State};
use crate::observe::{Table, follow};

/// A live object that bears our label.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LiveRow {
    uid: Option<String>,
    generation: Option<i64>,
    resource_version: String,
    pub(crate) state: State,
}

/// What is known of an applied object.
pub(crate) enum Sight {
    /// Its kind is not listed yet.
    Unknown,
    /// It is not there.
    Missing,
    /// It is there, changed since we applied it.
    Drifted(State),
    /// It is there as we applied it.
    AsApplied(State),
}

/// Watches, one for each kind in use.
pub(crate) struct Live {
    client: kube::Client,
    changed: Arc<Notify>,
    tables: HashMap<(String, String), Arc<Table<LiveRow>>>,
    watches: JoinSet<()>,
}

impl Live {
    pub(crate) fn new(client: kube::Client, changed: Arc<Notify>) -> Self {
        Self { client, changed, tables: HashMap::new(), watches: JoinSet::new() }
    }

    /// Watches a kind from now on. All watches end when this is dropped.
    pub(crate) fn watch(&mut self, kind: &Kind) {
        let key = (kind.resource.api_version.clone(), kind.resource.kind.clone());
        if self.tables.contains_key(&key) {
            return;
        }
        let table = Arc::new(Table::default());
        self.tables.insert(key, Arc::clone(&table));
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind.resource);
        let (changed, resource) = (Arc::clone(&self.changed), kind.resource.clone());
        self.watches.spawn(async move {
            let trim = |mut object: DynamicObject| {
                // Items of a list bear no kind of their own.
                object.types.get_or_insert_with(|| kube::core::TypeMeta {
                    api_version: resource.api_version.clone(),
                    kind: resource.kind.clone(),
                });
                let state = ready::of(&object);
                let meta = object.metadata;
                let resource_version = meta.resource_version.unwrap_or_default();
                // Of what has generations, only those tell of a change that matters; the rest is status.
                let resource_version = if meta.generation.is_some() { String::new() } else { resource_version };
                Some(LiveRow { uid: meta.uid, generation: meta.generation, resource_version, state })
            };
            follow(api, BUNDLE_LABEL, &table, &changed, trim).await;
        });
    }

    /// What is known of an object that we applied.
    pub(crate) fn sight(&self, object: &AppliedObject) -> Sight {
        let key = (object.kind.resource.api_version.clone(), object.kind.resource.kind.clone());
        let Some(table) = self.tables.get(&key).filter(|table| table.is_synced()) else { return Sight::Unknown };
        let place = match &object.place.namespace {
            Some(namespace) => format!("{namespace}/{}", object.place.name),
            None => object.place.name.clone(),
        };
        let rows = table.rows();
        let Some(row) = rows.get(&place) else { return Sight::Missing };
        let changed = match (row.generation, object.generation) {
            (Some(now), Some(then)) => now > then,
            _ => row.resource_version != object.resource_version,
        };
        let state = row.state.clone();
        if changed || row.uid != object.place.uid { Sight::Drifted(state) } else { Sight::AsApplied(state) }
    }
}
