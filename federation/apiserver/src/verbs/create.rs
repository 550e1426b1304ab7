//! create: POST to a list, and the few subresources that are POSTed.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Call, delete, read,
    write::{How, check_body, finish, reply, store},
};
use crate::{
    http::Reply,
    object::{self, meta, meta_mut},
    refusal::{Cause, Refusal},
    store::{Expect, Key, Stored, Unwritten},
};

/// Tries for a free generated name.
const TRIES_MAX: usize = 8;

/// Creates an object.
pub(crate) async fn create(call: &Call<'_>, mut body: Value) -> Result<Reply, Refusal> {
    match &*call.target.subresource {
        "" => {}
        "eviction" => return delete::evict(call).await,
        _ => return Err(Refusal::method_not_allowed(format!("subresource {}", call.target.subresource))),
    }
    check_body(call, &mut body)?;
    let mut warnings = Vec::new();
    let stored = insert(call, body, How::Update, &mut warnings).await?;
    Ok(reply(call, 201, &stored, warnings))
}

/// Creates an object that was checked to be of the resource's kind.
pub(super) async fn insert(
    call: &Call<'_>,
    body: Value,
    how: How,
    warnings: &mut Vec<String>,
) -> Result<Arc<Stored>, Refusal> {
    namespace_takes(call)?;
    let generate = meta(&body, "generateName").to_owned();
    let asked = meta(&body, "name").to_owned();
    for _ in 0..TRIES_MAX {
        let mut object = body.clone();
        if asked.is_empty() && !generate.is_empty() {
            let stem: String = generate.chars().take(58).collect();
            meta_mut(&mut object).insert("name".into(), format!("{stem}{}", object::name_suffix(5)).into());
        }
        let name = meta(&object, "name").to_owned();
        check_name(call, &name)?;
        let key = Key::new(&call.resource().collection, &call.target.namespace, &name);
        // Answered early, so that a second create says so rather than what else is wrong.
        if read::exists(call, &key) && !asked.is_empty() {
            return Err(call.unwritten(&name, Unwritten::Exists));
        }
        let meta = meta_mut(&mut object);
        for key in object::OWNED_BY_SERVER {
            meta.shift_remove(key);
        }
        meta.insert("uid".into(), object::new_uid().into());
        meta.insert("creationTimestamp".into(), object::now().into());
        let object = finish(call, None, object, how, warnings)?;
        match store(call, key, Expect::Absent, object).await {
            Err(Unwritten::Exists) if asked.is_empty() => continue,
            Err(why) => return Err(call.unwritten(&name, why)),
            Ok(stored) => return Ok(stored),
        }
    }
    Err(Refusal::too_many(format!("no free name found for generateName {generate:?}")))
}

/// A namespaced object needs its namespace, and one that isn't going away.
fn namespace_takes(call: &Call<'_>) -> Result<(), Refusal> {
    let resource = call.resource();
    if !resource.namespaced {
        return Ok(());
    }
    let name = &call.target.namespace;
    if name.is_empty() {
        return Err(Refusal::bad_request("an empty namespace may not be set during creation"));
    }
    let key = Key::new(&"/namespaces".into(), "", name);
    let Some(stored) = call.server.store.get(&key) else {
        return Err(Refusal::not_found("", "namespaces", name));
    };
    if stored.terminating {
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let mut refusal = Refusal::forbidden(&resource.group, &resource.plural, "", &why);
        refusal.details["causes"] = json!([{"reason": "NamespaceTerminating", "field": "metadata.namespace",
            "message": format!("namespace {name} is being terminated")}]);
        return Err(refusal);
    }
    Ok(())
}

fn check_name(call: &Call<'_>, name: &str) -> Result<(), Refusal> {
    let resource = call.resource();
    let refuse = |cause: Cause| Err(Refusal::invalid(&resource.group, &resource.kind, name, &[cause]));
    if name.is_empty() {
        let message = "Required value: name or generateName is required".into();
        return refuse(Cause { reason: "FieldValueRequired", message, field: "metadata.name".into() });
    }
    let value = Value::from(name);
    // Names of RBAC objects are path segments and may hold colons; all others are DNS names.
    if *resource.group == *"rbac.authorization.k8s.io" {
        let bad = matches!(name, "." | "..") || name.contains(['/', '%', '\0']);
        return if bad {
            refuse(Cause::invalid("metadata.name", &value, "may not contain '/' or '%'"))
        } else {
            Ok(())
        };
    }
    let is_label = resource.is("", "namespaces") || resource.is("", "services");
    let len_max = if is_label { 63 } else { 253 };
    let fine = |label: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && ends(label.chars().next())
            && ends(label.chars().last())
    };
    if name.len() > len_max || is_label && name.contains('.') || !name.split('.').all(fine) {
        let what = if is_label { "RFC 1123 label" } else { "RFC 1123 subdomain" };
        let why = format!(
            "a lowercase {what} must consist of lower case alphanumeric characters, '-'{}, and must start and end \
             with an alphanumeric character",
            if is_label { "" } else { " or '.'" }
        );
        return refuse(Cause::invalid("metadata.name", &value, why));
    }
    Ok(())
}
