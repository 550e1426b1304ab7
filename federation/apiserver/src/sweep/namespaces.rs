//! Emptying a namespace that is going. In: its name; out: its contents deleted, itself gone once they are.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    server::Inner,
    store::{Key, Unwritten},
    verbs::finish_deletion,
};

const TRIES_MAX: usize = 8;

/// Deletes what is in a namespace that is going; when nothing is left, lets it go.
pub(super) async fn empty(server: &Arc<Inner>, name: &str) {
    let key = Key::new(&"/namespaces".into(), "", name);
    let is_going = || server.store.get(&key).is_some_and(|stored| stored.terminating);
    if !is_going() {
        return;
    }
    for content in contents(server, name) {
        // One that can't go now is tried again at its next change or by the full sweep.
        let _ = server.delete_in_background(&content).await;
    }
    if !contents(server, name).is_empty() {
        return;
    }
    for _ in 0..TRIES_MAX {
        let Some(stored) = server.store.get(&key).filter(|stored| stored.terminating) else { return };
        let mut object = stored.value();
        let rest: Vec<Value> = object
            .pointer("/spec/finalizers")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter(|one| one.as_str() != Some("kubernetes"))
            .cloned()
            .collect();
        object["spec"]["finalizers"] = json!(rest);
        if rest.is_empty()
            && let Some(spec) = object["spec"].as_object_mut()
        {
            spec.shift_remove("finalizers");
        }
        if object == stored.value() {
            return;
        }
        let kinds = server.kinds();
        let Some(resource) = kinds.any_version("", "namespaces") else { return };
        if finish_deletion(server, resource, &key, &stored, object).await != Err(Unwritten::Modified) {
            return;
        }
    }
}

/// Everything in a namespace.
fn contents(server: &Inner, namespace: &str) -> Vec<Key> {
    let memory = server.store.read();
    let mut found = Vec::new();
    for (name, collection) in memory.collections() {
        found.extend(collection.iter(namespace).map(|((ns, object), _)| Key::new(name, ns, object)));
    }
    found
}
