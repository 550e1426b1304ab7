//! Garbage collection by ownerReferences. In: an object; out: it stays, loses dead owners, or goes.
//! Source: kubernetes.io/docs/concepts/architecture/garbage-collection.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    object::{self, finalizers, set_finalizers, text},
    server::Inner,
    store::{Expect, Key, Stored, Unwritten, Write},
    verbs::{FOREGROUND, ORPHAN, finish_deletion},
};

const TRIES_MAX: usize = 8;

/// Deletes a dependent whose owners are all gone (or going in the foreground), or drops the dead ones from its list.
pub(super) async fn check_dependent(server: &Arc<Inner>, key: &Key) {
    for _ in 0..TRIES_MAX {
        let Some(stored) = server.store.get(key) else { return };
        if stored.owners.is_empty() || stored.terminating {
            return;
        }
        let mut object = stored.value();
        let references =
            object.pointer("/metadata/ownerReferences").and_then(Value::as_array).cloned().unwrap_or_default();
        let (solid, dead): (Vec<Value>, Vec<Value>) =
            references.into_iter().partition(|reference| holds(server, reference, key));
        if dead.is_empty() {
            return;
        }
        let result = if solid.is_empty() {
            server.delete_in_background(key).await
        } else {
            object["metadata"]["ownerReferences"] = solid.into();
            rewrite(server, key, &stored, object).await
        };
        if result != Err(Unwritten::Modified) {
            return;
        }
    }
}

/// Whether an owner is there and not waiting for its dependents to go.
fn holds(server: &Inner, reference: &Value, dependent: &Key) -> bool {
    let Some(uid) = object::parse_uid(text(reference, &["uid"])) else { return false };
    let memory = server.store.read();
    let Some(owner) = memory.by_uid(uid) else { return false };
    // An owner is in the dependent's namespace or in none.
    if !owner.namespace.is_empty() && owner.namespace != dependent.namespace {
        return false;
    }
    let waits =
        memory.get(owner).is_some_and(|stored| stored.terminating && finalizers(&stored.value()).contains(&FOREGROUND));
    !waits
}

/// Lets an object that is going go, when its dependents are gone or let go.
pub(super) async fn release(server: &Arc<Inner>, key: &Key) {
    for _ in 0..TRIES_MAX {
        let Some(stored) = server.store.get(key).filter(|stored| stored.terminating) else { return };
        let mut object = stored.value();
        let held: Vec<String> = finalizers(&object).into_iter().map(str::to_owned).collect();
        let dependents: Vec<Key> = server.store.read().owned_by(stored.uid).cloned().collect();
        let waiting_for = if held.iter().any(|one| one == ORPHAN) {
            for dependent in &dependents {
                let_go(server, dependent, stored.uid).await;
            }
            ORPHAN
        } else if held.iter().any(|one| one == FOREGROUND) {
            for dependent in &dependents {
                check_dependent(server, dependent).await;
            }
            let blocked = dependents.iter().any(|dependent| blocks(server, dependent, stored.uid));
            if blocked {
                return;
            }
            FOREGROUND
        } else {
            return;
        };
        set_finalizers(&mut object, held.into_iter().filter(|one| one != waiting_for).collect());
        let kinds = server.kinds();
        let Some(resource) = kinds.all.iter().find(|r| r.collection == key.collection) else { return };
        if finish_deletion(server, resource, key, &stored, object).await != Err(Unwritten::Modified) {
            return;
        }
    }
}

fn blocks(server: &Inner, dependent: &Key, owner: u128) -> bool {
    let Some(stored) = server.store.get(dependent) else { return false };
    let object = stored.value();
    let list = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    list.into_iter().flatten().any(|reference| {
        object::parse_uid(text(reference, &["uid"])) == Some(owner) && reference["blockOwnerDeletion"] == true
    })
}

async fn let_go(server: &Arc<Inner>, key: &Key, owner: u128) {
    for _ in 0..TRIES_MAX {
        let Some(stored) = server.store.get(key) else { return };
        let mut object = stored.value();
        if let Some(list) = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut) {
            list.retain(|reference| object::parse_uid(text(reference, &["uid"])) != Some(owner));
        }
        if rewrite(server, key, &stored, object).await != Err(Unwritten::Modified) {
            return;
        }
    }
}

async fn rewrite(server: &Arc<Inner>, key: &Key, stored: &Stored, object: Value) -> Result<(), Unwritten> {
    let write = Write { key: key.clone(), expect: Expect::Revision(stored.revision), value: Some(object) };
    server.store.commit(write).await.map(drop)
}
