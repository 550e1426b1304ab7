//! The way of every write: prune → default → validate → admit → stamp → own → store.
//! In: the object before (if any) and the one proposed; out: the object to store, or a refusal. Only `store` awaits.

use std::sync::Arc;

use serde_json::Value;

use super::{Call, admit, events};
use crate::{
    fields::{self, Author},
    http::{Options, Reply},
    kinds::{Custom, Source},
    object::{self, meta, meta_mut, text},
    refusal::{Cause, Refusal},
    schema,
    store::{Expect, Key, Stored, Write},
};

/// How the proposed object came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// The client's own object, or a patch of the stored one.
    Update,
    /// Apply, which already noted the fields.
    Apply,
}

/// The body is of the resource's kind and names what the path names.
pub(super) fn check_body(call: &Call<'_>, body: &mut Value) -> Result<(), Refusal> {
    let resource = call.resource();
    if !body.is_object() {
        return Err(Refusal::bad_request("the body must be one object"));
    }
    let (given, kind) = (text(body, &["apiVersion"]).to_owned(), text(body, &["kind"]).to_owned());
    let version = resource.api_version();
    if kind.is_empty() && given.is_empty() && !resource.is_custom() {
        body["apiVersion"] = version.into();
        body["kind"] = (*resource.kind).into();
    } else if given != version || kind != *resource.kind {
        return Err(Refusal::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): {kind:?} of API version {given:?}, expected \
             {:?} of {version:?}",
            resource.kind, resource.kind
        )));
    }
    let namespace = meta(body, "namespace").to_owned();
    let wanted = &call.target.namespace;
    if resource.namespaced {
        if !namespace.is_empty() && namespace != *wanted {
            return Err(Refusal::bad_request(format!(
                "the namespace of the provided object does not match the namespace sent on the request: \
                 {namespace:?} is not {wanted:?}"
            )));
        }
        meta_mut(body).insert("namespace".into(), wanted.as_str().into());
    } else {
        meta_mut(body).shift_remove("namespace");
    }
    if resource.is("events.k8s.io", "events") {
        *body = events::to_old(body.take());
    }
    object::drop_nulls(&mut body["metadata"]);
    Ok(())
}

/// Makes the object that is to be stored out of the proposed one.
pub(super) fn finish(
    call: &Call<'_>,
    before: Option<&Value>,
    mut new: Value,
    how: How,
    warnings: &mut Vec<String>,
) -> Result<Value, Refusal> {
    let resource = call.resource();
    let schema = resource.schema();
    let name = meta(&new, "name").to_owned();
    keep_what_is_ours(before, &mut new);
    split_status(call, before, &mut new);
    if !resource.is_custom() {
        object::drop_nulls(&mut new);
    }
    // Events have two forms and are checked by neither.
    if *resource.collection != *"/events" {
        unknown_fields(call.options, schema::prune(&mut new, schema), warnings)?;
    }
    if resource.is_custom() {
        schema::fill(&mut new, schema);
    }
    if !resource.is_custom() {
        // The defaults below rely on the shape.
        let mut wrong = schema::validate(&new, schema);
        wrong.retain(|cause| cause.reason == "FieldValueTypeInvalid");
        if !wrong.is_empty() && *resource.collection != *"/events" {
            return Err(Refusal::invalid(&resource.group, &resource.kind, &name, &wrong));
        }
    }
    admit::default(call, before, &mut new)?;
    let mut causes = check_meta(&new);
    if *resource.collection != *"/events" {
        causes.extend(match before {
            Some(before) => schema::validate_update(&new, before, schema),
            None => schema::validate(&new, schema),
        });
    }
    causes.extend(admit::check(call, before, &new));
    if !causes.is_empty() {
        return Err(Refusal::invalid(&resource.group, &resource.kind, &name, &causes));
    }
    admit::permit(call, before, &new)?;
    stamp(call, before, &mut new)?;
    count_generation(call, before, &mut new);
    let mut new = object::in_order(new, &resource.stored_as, &resource.kind);
    let now = object::now();
    let version = resource.api_version();
    let author =
        Author { manager: call.manager(), api_version: &version, subresource: &call.target.subresource, time: &now };
    if how == How::Update {
        fields::track(before, &mut new, schema, &author);
    }
    if let Source::Custom(Custom { deprecation: Some(text), .. }) = &resource.source {
        warnings.push(text.to_string());
    }
    Ok(new)
}

/// Carries out a write, or only says what it would do on a dry run.
pub(super) async fn store(
    call: &Call<'_>,
    key: Key,
    expect: Expect,
    value: Value,
) -> Result<Arc<Stored>, crate::store::Unwritten> {
    if call.options.dry_run {
        let revision = if let Expect::Revision(revision) = expect { revision } else { 0 };
        let mut stored = Stored::pack(value, revision);
        if revision == 0 {
            let mut value = stored.value();
            meta_mut(&mut value).shift_remove("resourceVersion");
            stored.bytes = value.to_string().into();
        }
        return Ok(Arc::new(stored));
    }
    let stored = call.server.store.commit(Write { key, expect, value: Some(value) }).await?;
    call.server.changed(call.resource(), &stored);
    Ok(stored)
}

/// The reply to a write.
pub(super) fn reply(call: &Call<'_>, code: u16, stored: &Arc<Stored>, warnings: Vec<String>) -> Reply {
    Reply { warnings, ..super::read::show(call, code, stored) }
}

/// What the server sets no client can change.
fn keep_what_is_ours(before: Option<&Value>, new: &mut Value) {
    let meta = meta_mut(new);
    meta.shift_remove("selfLink");
    for key in object::OWNED_BY_SERVER {
        match before.and_then(|before| before.pointer(&format!("/metadata/{key}"))) {
            Some(value) => meta.insert(key.into(), value.clone()),
            None if before.is_some() => meta.shift_remove(key),
            None => None,
        };
    }
    if let Some(name) = before.map(|before| object::meta(before, "name")) {
        meta.insert("name".into(), name.into());
    }
}

/// Status is written under /status only, everything else under the object only.
fn split_status(call: &Call<'_>, before: Option<&Value>, new: &mut Value) {
    if !call.resource().has_status {
        return;
    }
    let Some(before) = before else {
        // A Node registers itself with its status; other objects get theirs later.
        if !call.resource().is("", "nodes")
            && let Some(map) = new.as_object_mut()
        {
            map.shift_remove("status");
        }
        return;
    };
    if call.target.subresource == "status" {
        let status = new.get("status").cloned();
        let managed = new.pointer("/metadata/managedFields").cloned();
        *new = before.clone();
        set_or_remove(new, "status", status);
        if let Some(managed) = managed {
            meta_mut(new).insert("managedFields".into(), managed);
        }
    } else {
        set_or_remove(new, "status", before.get("status").cloned());
    }
}

fn set_or_remove(object: &mut Value, key: &str, value: Option<Value>) {
    let Some(map) = object.as_object_mut() else { return };
    match value {
        Some(value) => map.insert(key.into(), value),
        None => map.shift_remove(key),
    };
}

fn unknown_fields(options: &Options, gone: Vec<String>, warnings: &mut Vec<String>) -> Result<(), Refusal> {
    use crate::http::Validation;
    let list: Vec<String> = gone.into_iter().map(|path| format!("unknown field \"{path}\"")).collect();
    match options.validation {
        _ if list.is_empty() => Ok(()),
        Validation::Strict => Err(Refusal::bad_request(format!("strict decoding error: {}", list.join(", ")))),
        Validation::Warn => {
            warnings.extend(list.into_iter().take(32));
            Ok(())
        }
        Validation::Ignore => Ok(()),
    }
}

fn check_meta(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let qualified = |key: &str| {
        let (prefix, name) = key.rsplit_once('/').unwrap_or(("", key));
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        prefix.len() <= 253
            && !name.is_empty()
            && name.len() <= 63
            && name.chars().all(fine)
            && ends(name.chars().next())
            && ends(name.chars().last())
    };
    for field in ["labels", "annotations"] {
        let map = object.pointer(&format!("/metadata/{field}")).and_then(Value::as_object);
        for (key, value) in map.into_iter().flatten() {
            let path = format!("metadata.{field}");
            if !qualified(key) {
                let why = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
                causes.push(Cause::invalid(path.as_str(), &Value::from(key.as_str()), why));
            }
            let text = value.as_str();
            if field == "labels"
                && text
                    .is_some_and(|text| !text.is_empty() && (text.len() > 63 || !qualified(text) || text.contains('/')))
            {
                let why = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character, at most 63";
                causes.push(Cause::invalid(path, value, why));
            }
        }
    }
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    for (index, owner) in owners.into_iter().flatten().enumerate() {
        for key in ["apiVersion", "kind", "name", "uid"].into_iter().filter(|key| text(owner, &[key]).is_empty()) {
            causes.push(Cause::required(format!("metadata.ownerReferences[{index}].{key}")));
        }
    }
    causes
}

/// Sets who created the object; nobody can set or change it.
fn stamp(call: &Call<'_>, before: Option<&Value>, new: &mut Value) -> Result<(), Refusal> {
    let resource = call.resource();
    let Some(stamp) = call.server.config.stamps.iter().find(|s| resource.is(&s.group, &s.resource)) else {
        return Ok(());
    };
    let groups = format!("{}-groups", stamp.annotation);
    let wanted =
        [(&stamp.annotation, call.user.name.clone()), (&groups, atoll_api::kinds::join_groups(&call.user.groups))];
    let name = meta(new, "name").to_owned();
    let annotations = object::map_mut(&mut new["metadata"], "annotations");
    for (annotation, fresh) in wanted {
        let held =
            before.map(|b| text(b, &["metadata", "annotations", annotation.as_str()]).to_owned()).unwrap_or(fresh);
        let given = annotations.get(annotation.as_str()).and_then(Value::as_str);
        if given.is_some_and(|given| given != held) {
            let why = format!(
                "annotation {annotation} names the authenticated user and is set by the server; it can neither be set nor changed"
            );
            return Err(Refusal::forbidden(&resource.group, &resource.plural, &name, &why));
        }
        annotations.insert(annotation.clone(), held.into());
    }
    Ok(())
}

/// The generation counts changes of what is wanted: everything but metadata and status.
fn count_generation(call: &Call<'_>, before: Option<&Value>, new: &mut Value) {
    if !call.resource().counts_generation {
        return;
    }
    let wanted = |object: &Value| {
        let mut map = object.as_object().cloned().unwrap_or_default();
        for key in ["apiVersion", "kind", "metadata"] {
            map.shift_remove(key);
        }
        if call.resource().has_status {
            map.shift_remove("status");
        }
        map
    };
    let generation = match before {
        None => 1,
        Some(before) => {
            let held = before.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or(1);
            held + u64::from(wanted(before) != wanted(new))
        }
    };
    meta_mut(new).insert("generation".into(), generation.into());
}
