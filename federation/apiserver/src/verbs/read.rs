//! get and list, from memory. In: a call; out: the object or list in the form asked for.

use std::{collections::HashMap, sync::Arc};

use base64::Engine as _;
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::json;

use super::{Call, events, scale};
use crate::{
    http::{Reply, View},
    refusal::Refusal,
    select::Selection,
    store::{Key, Memory, Stored},
    table,
};

/// Namespace and name of one object, and the object.
type Found = ((Box<str>, Box<str>), Arc<Stored>);

/// One object.
pub(crate) fn get(call: &Call<'_>) -> Result<Reply, Refusal> {
    at_least(call, call.server.store.read().revision())?;
    let stored = call.server.store.get(&call.key()).ok_or_else(|| call.not_found())?;
    if call.target.subresource == "scale" {
        return Ok(Reply::json(200, &scale::read(call.resource(), &stored.value())));
    }
    Ok(show(call, 200, &stored))
}

/// One object as the client wants to see it.
pub(super) fn show(call: &Call<'_>, code: u16, stored: &Arc<Stored>) -> Reply {
    match call.view {
        View::Full => Reply::bytes(code, bytes_of(call, stored)),
        View::Metadata => Reply::json(code, &table::metadata(&stored.value())),
        View::Table => {
            let resource = call.resource();
            Reply::json(
                code,
                &table::table(
                    resource,
                    std::slice::from_ref(stored),
                    json!({"resourceVersion": stored.revision.to_string()}),
                ),
            )
        }
    }
}

/// The bytes of an object under the version asked for.
pub(super) fn bytes_of(call: &Call<'_>, stored: &Stored) -> Bytes {
    let resource = call.resource();
    let version = resource.api_version();
    if *version == *resource.stored_as {
        return stored.bytes.clone();
    }
    let mut object = stored.value();
    if resource.is("events.k8s.io", "events") {
        object = events::to_new(object);
    }
    object["apiVersion"] = version.into();
    Bytes::from(object.to_string())
}

/// A revision that the client has seen elsewhere and that this server hasn't reached.
fn at_least(call: &Call<'_>, current: u64) -> Result<(), Refusal> {
    match call.options.resource_version.parse::<u64>() {
        Ok(asked) if asked > current => Err(Refusal::from_the_future(asked, current)),
        Ok(_) => Ok(()),
        Err(_) if call.options.resource_version.is_empty() => Ok(()),
        Err(_) => {
            let given = &call.options.resource_version;
            Err(Refusal::bad_request(format!("invalid resource version {given:?}")))
        }
    }
}

/// A list, or a page of one.
pub(crate) fn list(call: &Call<'_>) -> Result<Reply, Refusal> {
    let options = call.options;
    let selection = Selection::parse(&options.label_selector, &options.field_selector, call.resource())?;
    let memory = call.server.store.read();
    let current = memory.revision();
    let (revision, after) = if options.continue_from.is_empty() {
        at_least(call, current)?;
        let exact = options.exact_version.then(|| options.resource_version.parse().ok()).flatten();
        (exact.unwrap_or(current), None)
    } else {
        let (revision, after) = decode_continue(&options.continue_from)?;
        (revision, Some(after))
    };
    let found = collect(&memory, call, revision, after.as_ref())?;
    drop(memory);
    let mut found: Vec<Found> = found.into_iter().filter(|(_, stored)| selection.matches(stored)).collect();
    let mut meta = json!({"resourceVersion": revision.to_string()});
    if let Some(limit) = options.limit.filter(|limit| found.len() > *limit) {
        meta["continue"] = encode_continue(revision, &found[limit - 1].0).into();
        meta["remainingItemCount"] = (found.len() - limit).into();
        found.truncate(limit);
    }
    let items: Vec<Arc<Stored>> = found.into_iter().map(|(_, stored)| stored).collect();
    Ok(match call.view {
        View::Full => Reply::bytes(200, list_bytes(call, &items, &meta)),
        View::Metadata => Reply::json(200, &table::metadata_list(&items, meta)),
        View::Table => Reply::json(200, &table::table(call.resource(), &items, meta)),
    })
}

/// The objects of a list as of a revision, after a place.
fn collect(
    memory: &Memory,
    call: &Call<'_>,
    revision: u64,
    after: Option<&(Box<str>, Box<str>)>,
) -> Result<Vec<Found>, Refusal> {
    let Some(collection) = memory.collection(&call.resource().collection) else { return Ok(Vec::new()) };
    let gone = || Refusal::expired("The provided continue parameter is too old to display a consistent list result.");
    let then =
        if revision == memory.revision() { HashMap::new() } else { collection.as_of(revision).ok_or_else(gone)? };
    let namespace = &call.target.namespace;
    let mut found: Vec<Found> = collection
        .iter(namespace)
        .filter(|(place, _)| !then.contains_key(*place))
        .map(|(place, stored)| (place.clone(), stored.clone()))
        .collect();
    if !then.is_empty() {
        let back = then.into_iter().filter_map(|(place, stored)| Some((place, stored?)));
        found.extend(back.filter(|((ns, _), _)| namespace.is_empty() || **ns == **namespace));
        found.sort_by(|a, b| a.0.cmp(&b.0));
    }
    if let Some(after) = after {
        found.retain(|(place, _)| place > after);
    }
    if !call.target.name.is_empty() {
        found.retain(|((_, name), _)| **name == *call.target.name);
    }
    Ok(found)
}

fn list_bytes(call: &Call<'_>, items: &[Arc<Stored>], meta: &serde_json::Value) -> Bytes {
    let resource = call.resource();
    let head = json!({"kind": resource.list_kind, "apiVersion": resource.api_version(), "metadata": meta}).to_string();
    let len = items.iter().map(|stored| stored.bytes.len() + 1).sum::<usize>();
    let mut out = BytesMut::with_capacity(head.len() + len + 16);
    out.put_slice(&head.as_bytes()[..head.len() - 1]);
    out.put_slice(b",\"items\":[");
    for (index, stored) in items.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        out.put_slice(&bytes_of(call, stored));
    }
    out.put_slice(b"]}\n");
    out.freeze()
}

/// Namespace and name of the last object of a page.
type Last = (Box<str>, Box<str>);

fn encode_continue(revision: u64, (namespace, name): &Last) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("{revision}\0{namespace}\0{name}"))
}

fn decode_continue(token: &str) -> Result<(u64, Last), Refusal> {
    let bad = || Refusal::bad_request("continue key is not valid");
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    let mut parts = text.split('\0');
    let (revision, namespace, name) = (parts.next(), parts.next(), parts.next());
    let revision = revision.and_then(|text| text.parse().ok()).ok_or_else(bad)?;
    Ok((revision, (namespace.ok_or_else(bad)?.into(), name.ok_or_else(bad)?.into())))
}

/// Whether an object exists.
pub(super) fn exists(call: &Call<'_>, key: &Key) -> bool {
    call.server.store.read().get(key).is_some()
}
