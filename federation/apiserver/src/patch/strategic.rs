//! Strategic merge patch: merge patch that knows which lists merge by a key.
//! In: a built-in object, the patch, the kind's schema; out: the patched object.
//! Source: apimachinery/pkg/util/strategicpatch.

use serde_json::{Map, Value};

use crate::{refusal::Refusal, schema::Schema};

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

/// Patches an object.
///
/// # Errors
/// A directive that isn't one, or an item without its merge key: 400.
pub(crate) fn strategic(value: &mut Value, patch: &Value, schema: Option<&Schema>) -> Result<(), Refusal> {
    let Some(patch) = patch.as_object() else {
        return Err(Refusal::bad_request("a strategic merge patch must be a JSON object"));
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let map = value.as_object_mut().expect("made an object above");
    merge_map(map, patch, schema)
}

fn merge_map(map: &mut Map<String, Value>, patch: &Map<String, Value>, schema: Option<&Schema>) -> Result<(), Refusal> {
    match patch.get(PATCH).and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            *map = patch.iter().filter(|(key, _)| *key != PATCH).map(|(k, v)| (k.clone(), v.clone())).collect();
            return Ok(());
        }
        Some("delete") => {
            map.clear();
            return Ok(());
        }
        Some(other) => return Err(Refusal::bad_request(format!("unknown patch type found: {other}"))),
    }
    if let Some(retain) = patch.get(RETAIN).and_then(Value::as_array) {
        map.retain(|key, _| retain.iter().any(|kept| kept.as_str() == Some(key)));
    }
    for (key, value) in patch {
        if key == PATCH || key == RETAIN || key.starts_with(ORDER) {
            continue;
        }
        if let Some(field) = key.strip_prefix(DELETE) {
            delete_scalars(map.get_mut(field), value);
            continue;
        }
        merge_field(map, key, value, schema.and_then(|s| s.field(key)).map(|s| &**s))?;
    }
    for (key, order) in patch.iter().filter_map(|(key, order)| Some((key.strip_prefix(ORDER)?, order.as_array()?))) {
        let merge_key = schema.and_then(|s| s.field(key)).and_then(|s| s.strategy.merge_key.as_deref());
        if let Some(list) = map.get_mut(key).and_then(Value::as_array_mut) {
            reorder(list, order, merge_key);
        }
    }
    Ok(())
}

fn merge_field(map: &mut Map<String, Value>, key: &str, patch: &Value, schema: Option<&Schema>) -> Result<(), Refusal> {
    match patch {
        Value::Null => {
            map.shift_remove(key);
        }
        Value::Object(patch) => {
            let is_deletion = patch.get(PATCH).and_then(Value::as_str) == Some("delete");
            if is_deletion {
                map.shift_remove(key);
                return Ok(());
            }
            let slot = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            merge_map(slot.as_object_mut().expect("made an object above"), patch, schema)?;
        }
        Value::Array(patch) => {
            let strategy = schema.map(|s| &s.strategy);
            let merged = match (strategy.and_then(|s| s.merge_key.as_deref()), strategy.is_some_and(|s| s.merge)) {
                (Some(merge_key), _) => {
                    let old = map.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
                    let items = schema.and_then(|s| s.items.as_deref());
                    merge_objects(old, patch, merge_key, items)?
                }
                (None, true) => {
                    let mut list = map.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
                    list.extend(patch.iter().filter(|item| !list.contains(item)).cloned().collect::<Vec<_>>());
                    list
                }
                (None, false) => patch.clone(),
            };
            map.insert(key.into(), merged.into());
        }
        scalar => {
            map.insert(key.into(), scalar.clone());
        }
    }
    Ok(())
}

fn merge_objects(
    mut list: Vec<Value>,
    patch: &[Value],
    merge_key: &str,
    items: Option<&Schema>,
) -> Result<Vec<Value>, Refusal> {
    let directive = |item: &Value| item.get(PATCH).and_then(Value::as_str).map(str::to_owned);
    if patch.iter().any(|item| directive(item).as_deref() == Some("replace") && item.get(merge_key).is_none()) {
        return Ok(patch.iter().filter(|item| directive(item).is_none()).cloned().collect());
    }
    for item in patch {
        let Some(key) = item.get(merge_key) else {
            let why = format!("map: {item} does not contain declared merge key: {merge_key}");
            return Err(Refusal::bad_request(why));
        };
        let at = list.iter().position(|old| old.get(merge_key) == Some(key));
        match (directive(item).as_deref(), at) {
            (Some("delete"), Some(at)) => {
                list.remove(at);
            }
            (Some("delete"), None) => {}
            (_, Some(at)) => strategic(&mut list[at], item, items)?,
            (_, None) => {
                let mut fresh = Value::Object(Map::new());
                strategic(&mut fresh, item, items)?;
                list.push(fresh);
            }
        }
    }
    Ok(list)
}

fn delete_scalars(list: Option<&mut Value>, gone: &Value) {
    if let (Some(list), Some(gone)) = (list.and_then(Value::as_array_mut), gone.as_array()) {
        list.retain(|item| !gone.contains(item));
    }
}

/// Puts the items named in `order` into that order; others keep their place behind the item they followed.
fn reorder(list: &mut Vec<Value>, order: &[Value], merge_key: Option<&str>) {
    let rank = |item: &Value| {
        order.iter().position(|wanted| match merge_key {
            Some(key) => wanted.get(key) == item.get(key),
            None => wanted == item,
        })
    };
    let mut groups: Vec<(Option<usize>, Vec<Value>)> = vec![(None, Vec::new())];
    for item in std::mem::take(list) {
        match rank(&item) {
            Some(at) => groups.push((Some(at), vec![item])),
            None => groups.last_mut().expect("never empty").1.push(item),
        }
    }
    groups.sort_by_key(|(rank, _)| *rank);
    list.extend(groups.into_iter().flat_map(|(_, items)| items));
}
