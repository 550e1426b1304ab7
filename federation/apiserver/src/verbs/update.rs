//! update and patch: the stored object, changed by the client, stored again if it is still the one that was changed.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Call,
    create::insert,
    delete, scale,
    write::{How, check_body, finish, reply, store},
};
use crate::{
    fields::{self, Author},
    http::{Reply, Validation, decode, yaml},
    object::{self, meta, text},
    patch as patches,
    refusal::Refusal,
    schema,
    store::{Expect, Stored, Unwritten},
};

/// A change that can be repeated on a newer object is, this many times.
const TRIES_MAX: usize = 16;

/// What is asked of the stored object.
enum Asked<'a> {
    Replace(Value),
    Json(Value),
    Merge(Value),
    Strategic(Value),
    Apply(&'a Value),
}

/// Replaces an object.
pub(crate) async fn update(call: &Call<'_>, mut body: Value) -> Result<Reply, Refusal> {
    if call.target.subresource != "scale" {
        let is_finalize = call.target.subresource == "finalize";
        check_body(call, &mut body)?;
        if is_finalize {
            body["metadata"]["name"] = call.target.name.as_str().into();
        }
        let name = meta(&body, "name");
        if name != call.target.name {
            return Err(Refusal::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                call.target.name
            )));
        }
    }
    change(call, &Asked::Replace(body)).await
}

/// Patches an object.
pub(crate) async fn patch(call: &Call<'_>, media: &str, bytes: &[u8]) -> Result<Reply, Refusal> {
    let body = || decode("application/json", bytes);
    match media {
        "application/json-patch+json" => change(call, &Asked::Json(body()?)).await,
        "application/merge-patch+json" => change(call, &Asked::Merge(body()?)).await,
        "application/strategic-merge-patch+json" if !call.resource().is_custom() => {
            change(call, &Asked::Strategic(body()?)).await
        }
        "application/apply-patch+yaml" | "application/apply-patch+json" => apply(call, yaml(bytes)?).await,
        other => {
            let strategic = if call.resource().is_custom() { "" } else { ", application/strategic-merge-patch+json" };
            Err(Refusal::unsupported_media(format!(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json{strategic}, application/apply-patch+yaml \
                 (got {other})"
            )))
        }
    }
}

/// Server-side apply: creates what isn't there.
async fn apply(call: &Call<'_>, mut body: Value) -> Result<Reply, Refusal> {
    if call.options.manager.is_empty() {
        return Err(Refusal::bad_request(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    check_body(call, &mut body)?;
    if body.pointer("/metadata/managedFields").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    object::meta_mut(&mut body).insert("name".into(), call.target.name.as_str().into());
    if call.target.subresource == "status" {
        let status = body.get("status").cloned().unwrap_or_else(|| json!({}));
        body = json!({"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": {}, "status": status});
    } else if call.resource().has_status
        && let Some(map) = body.as_object_mut()
    {
        map.shift_remove("status");
    }
    if call.server.store.get(&call.key()).is_none() && call.target.subresource.is_empty() {
        if !meta(&body, "uid").is_empty() {
            let why = "uid mismatch: the provided object specified a uid, and no existing object was found";
            let resource = call.resource();
            return Err(Refusal::conflict(&resource.group, &resource.plural, &call.target.name, why));
        }
        let mut warnings = Vec::new();
        let fresh = applied(call, None, &body)?;
        match insert(call, fresh, How::Apply, &mut warnings).await {
            Ok(stored) => return Ok(reply(call, 201, &stored, warnings)),
            Err(refusal) if refusal.reason == "AlreadyExists" => {}
            Err(refusal) => return Err(refusal),
        }
    }
    change(call, &Asked::Apply(&body)).await
}

/// An applied configuration laid over the live object.
fn applied(call: &Call<'_>, live: Option<&Value>, body: &Value) -> Result<Value, Refusal> {
    let resource = call.resource();
    let schema = resource.schema();
    let mut config = body.clone();
    if !resource.is_custom() {
        object::drop_nulls(&mut config);
    }
    // What isn't in the schema can't be owned; `finish` says so to the client.
    let mut known = config.clone();
    schema::prune(&mut known, schema);
    let now = object::now();
    let version = resource.api_version();
    let author =
        Author { manager: call.manager(), api_version: &version, subresource: &call.target.subresource, time: &now };
    let empty = json!({"metadata": {}});
    let mut merged = fields::apply(live.unwrap_or(&empty), &known, schema, &author, call.options.force)?;
    if call.options.validation != Validation::Ignore {
        // Keep unknown fields in, so that they are refused or warned of in one place.
        patches::merge(&mut merged, &unknown_only(&config, &known));
    }
    merged["apiVersion"] = (*resource.stored_as).into();
    merged["kind"] = (*resource.kind).into();
    Ok(merged)
}

/// The part of a map that the other hasn't, one level deep per shared key.
fn unknown_only(all: &Value, known: &Value) -> Value {
    let (Some(all), Some(known)) = (all.as_object(), known.as_object()) else { return json!({}) };
    let mut rest = serde_json::Map::new();
    for (key, value) in all {
        match known.get(key) {
            None => drop(rest.insert(key.clone(), value.clone())),
            Some(inner) if inner.is_object() && inner != value => {
                rest.insert(key.clone(), unknown_only(value, inner));
            }
            Some(_) => {}
        }
    }
    Value::Object(rest)
}

/// Changes the stored object, again if it changed meanwhile and the client didn't name a version.
async fn change(call: &Call<'_>, asked: &Asked<'_>) -> Result<Reply, Refusal> {
    for _ in 0..TRIES_MAX {
        let Some(stored) = call.server.store.get(&call.key()) else {
            return match asked {
                Asked::Replace(body) if creates_on_update(call) => {
                    let mut warnings = Vec::new();
                    let stored = insert(call, body.clone(), How::Update, &mut warnings).await?;
                    Ok(reply(call, 201, &stored, warnings))
                }
                _ => Err(call.not_found()),
            };
        };
        let before = stored.value();
        let mut warnings = Vec::new();
        let (new, how) = propose(call, &before, asked)?;
        check_identity(call, &before, &new)?;
        check_version(call, &new, &stored)?;
        let new = finish(call, Some(&before), new, how, &mut warnings)?;
        let result = save(call, &stored, &before, new).await;
        match result {
            Err(Unwritten::Modified) => {}
            Err(why) => return Err(call.unwritten(&call.target.name, why)),
            Ok(saved) if call.target.subresource == "scale" => {
                return Ok(Reply::json(200, &scale::read(call.resource(), &saved.value())));
            }
            Ok(saved) => return Ok(reply(call, 200, &saved, warnings)),
        }
    }
    Err(Refusal::modified(&call.resource().group, &call.resource().plural, &call.target.name))
}

/// The object as the client wants it.
fn propose(call: &Call<'_>, before: &Value, asked: &Asked<'_>) -> Result<(Value, How), Refusal> {
    if call.target.subresource == "scale" {
        let mut wanted = scale::read(call.resource(), before);
        patched(call, &mut wanted, asked)?;
        return Ok((scale::write(call.resource(), before, &wanted)?, How::Update));
    }
    if let Asked::Apply(body) = asked {
        return Ok((applied(call, Some(before), body)?, How::Apply));
    }
    let mut shown = before.clone();
    shown["apiVersion"] = call.resource().api_version().into();
    let is_new_event = call.resource().is("events.k8s.io", "events");
    if is_new_event && !matches!(asked, Asked::Replace(_)) {
        shown = super::events::to_new(shown);
    }
    patched(call, &mut shown, asked)?;
    if is_new_event && !matches!(asked, Asked::Replace(_)) {
        shown = super::events::to_old(shown);
    }
    Ok((shown, How::Update))
}

fn patched(call: &Call<'_>, value: &mut Value, asked: &Asked<'_>) -> Result<(), Refusal> {
    match asked {
        Asked::Replace(body) => *value = body.clone(),
        Asked::Json(patch) => patches::json(value, patch)?,
        Asked::Merge(patch) => patches::merge(value, patch),
        Asked::Strategic(patch) => patches::strategic(value, patch, Some(call.resource().schema()))?,
        Asked::Apply(body) => patches::merge(value, body),
    }
    Ok(())
}

/// Name, namespace, uid and kind can't change.
fn check_identity(call: &Call<'_>, before: &Value, new: &Value) -> Result<(), Refusal> {
    let resource = call.resource();
    let (held, given) = (meta(before, "uid"), meta(new, "uid"));
    if !given.is_empty() && held != given {
        let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {held}");
        return Err(Refusal::conflict(&resource.group, &resource.plural, &call.target.name, &why));
    }
    let same_name = meta(new, "name") == meta(before, "name") || call.target.subresource == "finalize";
    if !same_name
        || text(new, &["kind"]) != text(before, &["kind"])
        || meta(new, "namespace") != meta(before, "namespace")
    {
        return Err(Refusal::bad_request("metadata.name, metadata.namespace and kind can't be changed"));
    }
    Ok(())
}

/// A client that names a version changes that one; another is a conflict.
fn check_version(call: &Call<'_>, new: &Value, stored: &Stored) -> Result<(), Refusal> {
    let given = meta(new, "resourceVersion");
    if given.is_empty() || given == "0" || given == stored.revision.to_string() {
        return Ok(());
    }
    let resource = call.resource();
    Err(Refusal::modified(&resource.group, &resource.plural, &call.target.name))
}

fn creates_on_update(call: &Call<'_>) -> bool {
    let collection = &*call.resource().collection;
    call.target.subresource.is_empty() && matches!(collection, "/events" | "/endpoints" | "coordination.k8s.io/leases")
}

/// Stores the object, or removes it if the last finalizer of a deleted one is gone, or does nothing if it is the same.
async fn save(call: &Call<'_>, stored: &Arc<Stored>, before: &Value, new: Value) -> Result<Arc<Stored>, Unwritten> {
    if new == *before {
        return Ok(stored.clone());
    }
    let expect = Expect::Revision(stored.revision);
    if delete::is_done(call.resource(), &new) && !call.options.dry_run {
        return delete::remove(call, stored).await;
    }
    store(call, call.key(), expect, new).await
}
