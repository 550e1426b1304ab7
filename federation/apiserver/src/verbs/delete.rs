//! delete and deletecollection. In: preconditions, propagation; out: the object marked for deletion, or gone.
//! What holds an object back are its finalizers; a namespace also waits for its contents.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Call, read, write};
use crate::{
    http::{Options, Reply, Target, decode},
    kinds::Resource,
    object::{self, finalizers, meta, meta_mut, set_finalizers, text},
    refusal::Refusal,
    select::Selection,
    store::{Expect, Key, Stored, Unwritten, Write},
};

const TRIES_MAX: usize = 16;
/// Dependents go first.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Dependents are let go.
pub(crate) const ORPHAN: &str = "orphan";

/// Deletes one object.
pub(crate) async fn delete(call: &Call<'_>, media: &str, bytes: &[u8]) -> Result<Reply, Refusal> {
    let (options, preconditions) = merged_options(call.options, media, bytes)?;
    let call = Call { options: &options, ..*call };
    let outcome = delete_one(&call, &preconditions).await?;
    let resource = call.resource();
    Ok(match outcome {
        (stored, false) => read::show(&call, 200, &stored),
        (stored, true) => Reply::json(
            200,
            &json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": {"name": call.target.name, "group": resource.group, "kind": resource.plural,
                    "uid": meta(&stored.value(), "uid")},
            }),
        ),
    })
}

/// DeleteOptions come in the body and in the query; the body wins.
fn merged_options(query: &Options, media: &str, bytes: &[u8]) -> Result<(Options, Value), Refusal> {
    let mut options = query.clone();
    if bytes.is_empty() {
        return Ok((options, Value::Null));
    }
    let body = decode(media, bytes)?;
    match text(&body, &["propagationPolicy"]) {
        "" => {}
        given @ ("Background" | "Foreground" | "Orphan") => options.propagation = given.into(),
        other => return Err(Refusal::bad_request(format!("invalid propagationPolicy {other:?}"))),
    }
    options.orphan |= body["orphanDependents"] == true;
    options.dry_run |= body.get("dryRun").and_then(Value::as_array).is_some_and(|list| list.contains(&json!("All")));
    Ok((options, body.get("preconditions").cloned().unwrap_or_default()))
}

/// Deletes the object of the call; true if it is gone, false if it waits for finalizers.
async fn delete_one(call: &Call<'_>, preconditions: &Value) -> Result<(Arc<Stored>, bool), Refusal> {
    let resource = call.resource();
    for _ in 0..TRIES_MAX {
        let stored = call.server.store.get(&call.key()).ok_or_else(|| call.not_found())?;
        let object = stored.value();
        for (wanted, held) in [("uid", meta(&object, "uid")), ("resourceVersion", meta(&object, "resourceVersion"))] {
            let given = text(preconditions, &[wanted]);
            if !given.is_empty() && given != held {
                let why =
                    format!("Precondition failed: {wanted} in precondition: {given}, {wanted} in object meta: {held}");
                return Err(Refusal::conflict(&resource.group, &resource.plural, &call.target.name, &why));
            }
        }
        if protects(resource, &call.target.name) {
            let why = "this namespace may not be deleted";
            return Err(Refusal::forbidden(&resource.group, &resource.plural, &call.target.name, why));
        }
        let marked = mark(call, &object);
        let done = is_done(resource, &marked);
        let result = match () {
            () if call.options.dry_run => Ok(stored.clone()),
            () if done => remove(call, &stored).await,
            () if marked == object => Ok(stored.clone()),
            () => write::store(call, call.key(), Expect::Revision(stored.revision), marked).await,
        };
        match result {
            Ok(stored) => return Ok((stored, done)),
            Err(Unwritten::Modified) => continue,
            Err(why) => return Err(call.unwritten(&call.target.name, why)),
        }
    }
    Err(Refusal::modified(&resource.group, &resource.plural, &call.target.name))
}

fn protects(resource: &Resource, name: &str) -> bool {
    resource.is("", "namespaces") && matches!(name, "default" | "kube-system" | "kube-public")
}

/// The object with its deletion noted.
fn mark(call: &Call<'_>, object: &Value) -> Value {
    let mut marked = object.clone();
    let mut held: Vec<String> = finalizers(object).into_iter().map(str::to_owned).collect();
    let wanted = match call.options.propagation.as_str() {
        "Foreground" => Some(FOREGROUND),
        "Orphan" => Some(ORPHAN),
        _ if call.options.orphan => Some(ORPHAN),
        _ => None,
    };
    if let Some(wanted) = wanted.filter(|wanted| !held.iter().any(|one| one == wanted)) {
        held.push(wanted.into());
    }
    set_finalizers(&mut marked, held);
    let meta = meta_mut(&mut marked);
    if !meta.contains_key("deletionTimestamp") {
        meta.insert("deletionTimestamp".into(), object::now().into());
        meta.insert("deletionGracePeriodSeconds".into(), 0.into());
        if call.resource().is("", "namespaces") {
            marked["status"]["phase"] = "Terminating".into();
        }
    }
    marked
}

/// Whether nothing holds a deleted object back any more.
pub(super) fn is_done(resource: &Resource, object: &Value) -> bool {
    let waits = resource.is("", "namespaces")
        && object.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    object::is_terminating(object) && finalizers(object).is_empty() && !waits
}

/// Removes an object from the store.
pub(super) async fn remove(call: &Call<'_>, stored: &Arc<Stored>) -> Result<Arc<Stored>, Unwritten> {
    let write = Write { key: call.key(), expect: Expect::Revision(stored.revision), value: None };
    let gone = call.server.store.commit(write).await?;
    call.server.changed(call.resource(), &gone);
    Ok(gone)
}

/// Deletes what a selection finds and answers with the list.
pub(crate) async fn delete_collection(call: &Call<'_>, media: &str, bytes: &[u8]) -> Result<Reply, Refusal> {
    let (options, preconditions) = merged_options(call.options, media, bytes)?;
    let selection = Selection::parse(&options.label_selector, &options.field_selector, call.resource())?;
    let found: Vec<Key> = {
        let memory = call.server.store.read();
        let collection = memory.collection(&call.resource().collection);
        let all = collection.into_iter().flat_map(|collection| collection.iter(&call.target.namespace));
        all.filter(|(_, stored)| selection.matches(stored))
            .map(|((namespace, name), _)| Key::new(&call.resource().collection, namespace, name))
            .collect()
    };
    let mut items = Vec::new();
    for key in found {
        let target = Target { namespace: key.namespace.to_string(), name: key.name.to_string(), ..call.target.clone() };
        let one = Call { target: &target, options: &options, ..*call };
        match delete_one(&one, &preconditions).await {
            Ok((stored, _)) => items.push(stored.value()),
            Err(refusal) if refusal.code == 404 => {}
            Err(refusal) => return Err(refusal),
        }
    }
    let revision = call.server.store.read().revision();
    let resource = call.resource();
    Ok(Reply::json(
        200,
        &json!({"kind": resource.list_kind, "apiVersion": resource.api_version(),
        "metadata": {"resourceVersion": revision.to_string()}, "items": items}),
    ))
}

/// An eviction is a deletion here: there are no disruption budgets to keep.
pub(super) async fn evict(call: &Call<'_>) -> Result<Reply, Refusal> {
    let target = Target { subresource: String::new(), ..call.target.clone() };
    delete_one(&Call { target: &target, ..*call }, &Value::Null).await?;
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    Ok(Reply::json(201, &status))
}

/// Deletes an object on the server's own behalf, dependents in the background. One that is gone is fine.
///
/// # Errors
/// Modified if it kept changing, or the store's.
pub(crate) async fn delete_quietly(server: &Arc<crate::server::Inner>, key: &Key) -> Result<(), Unwritten> {
    let kinds = server.kinds();
    // Objects whose kind is no longer served have nothing that could hold them back.
    let Some(resource) = kinds.all.iter().find(|r| r.collection == key.collection) else {
        let Some(stored) = server.store.get(key) else { return Ok(()) };
        let write = Write { key: key.clone(), expect: Expect::Revision(stored.revision), value: None };
        return server.store.commit(write).await.map(drop);
    };
    let user = crate::config::User { name: "system:sweeper".into(), groups: Vec::new() };
    let target = Target::of(resource.clone(), &key.namespace, &key.name);
    let options = Options::default();
    let call =
        Call { server, user: &user, target: &target, options: &options, view: crate::http::View::Full, agent: "" };
    match delete_one(&call, &Value::Null).await {
        Ok(_) => Ok(()),
        Err(refusal) if refusal.code == 404 => Ok(()),
        Err(refusal) if refusal.code == 409 => Err(Unwritten::Modified),
        Err(refusal) => Err(Unwritten::Disk { message: refusal.message, full: false }),
    }
}

/// Changes a deleted object on the server's own behalf and removes it when nothing holds it back.
///
/// # Errors
/// Modified if it changed meanwhile: look again.
pub(crate) async fn finish_deletion(
    server: &crate::server::Inner,
    resource: &Resource,
    key: &Key,
    stored: &Stored,
    object: Value,
) -> Result<(), Unwritten> {
    let value = (!is_done(resource, &object)).then_some(object);
    let write = Write { key: key.clone(), expect: Expect::Revision(stored.revision), value };
    let written = server.store.commit(write).await?;
    server.changed(resource, &written);
    Ok(())
}
