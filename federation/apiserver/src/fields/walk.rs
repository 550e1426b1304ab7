//! Walks over values and their schema: which fields a value has, what differs, how two merge, what to take away.
//! Where there is no schema maps merge and lists are one value.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::set::FieldSet;
use crate::schema::{ListType, Schema};

type Shape<'a> = Option<&'a Schema>;

fn field<'a>(shape: Shape<'a>, name: &str) -> Shape<'a> {
    shape.and_then(|schema| schema.field(name)).map(|schema| &**schema)
}

/// Whether a field has fields of its own that the schema names; a map that holds any names does not.
fn is_struct(shape: Shape<'_>, name: &str) -> bool {
    shape.and_then(|schema| schema.properties.get(name)).is_some_and(|schema| !schema.properties.is_empty())
}

fn items(shape: Shape<'_>) -> Shape<'_> {
    shape.and_then(|schema| schema.items.as_deref())
}

fn list_type(shape: Shape<'_>) -> &ListType {
    shape.map_or(&ListType::Atomic, |schema| &schema.list)
}

fn is_atomic_map(shape: Shape<'_>) -> bool {
    shape.is_some_and(|schema| schema.atomic_map)
}

/// The default of a key field, when an item leaves it out.
fn key_default(shape: Shape<'_>, key: &str) -> Option<Value> {
    let schema = field(items(shape), key);
    schema.and_then(|schema| schema.default.clone()).or_else(|| (key == "protocol").then(|| "TCP".into()))
}

/// The element under which an item of a list is known; none in atomic lists.
fn element_of(item: &Value, shape: Shape<'_>) -> Option<String> {
    match list_type(shape) {
        ListType::Atomic => None,
        ListType::Set => Some(format!("v:{item}")),
        ListType::Map(keys) => {
            let mut names: Vec<&str> = keys.iter().map(|key| &**key).collect();
            names.sort_unstable();
            let mut map = Map::new();
            for name in names {
                if let Some(value) = item.get(name).cloned().or_else(|| key_default(shape, name)) {
                    map.insert(name.to_owned(), value);
                }
            }
            Some(format!("k:{}", Value::Object(map)))
        }
    }
}

/// The fields that a value sets: leaves, items of merging lists, and empty maps and lists.
pub(super) fn fields_of(value: &Value, shape: Shape<'_>) -> FieldSet {
    match value {
        Value::Object(map) if !map.is_empty() && !is_atomic_map(shape) => {
            let mut set = FieldSet::default();
            for (name, child) in map {
                set.put(format!("f:{name}"), fields_of(child, field(shape, name)));
            }
            set
        }
        Value::Array(list) if !list.is_empty() && *list_type(shape) != ListType::Atomic => {
            let mut set = FieldSet::default();
            for item in list {
                let Some(element) = element_of(item, shape) else { continue };
                let mut child = if item.is_object() { fields_of(item, items(shape)) } else { FieldSet::leaf() };
                child.owned = true;
                set.put(element, child);
            }
            set
        }
        _ => FieldSet::leaf(),
    }
}

/// Every node of a value: what appears when it is added.
fn nodes_of(value: &Value, shape: Shape<'_>) -> FieldSet {
    let mut set = FieldSet::leaf();
    match value {
        Value::Object(map) if !is_atomic_map(shape) => {
            for (name, child) in map {
                set.put(format!("f:{name}"), nodes_of(child, field(shape, name)));
            }
        }
        Value::Array(list) => {
            for item in list {
                if let Some(element) = element_of(item, shape) {
                    set.put(element, nodes_of(item, items(shape)));
                }
            }
        }
        _ => {}
    }
    set
}

/// What is different between two values.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Added or with another value.
    pub(super) set: FieldSet,
    pub(super) removed: FieldSet,
}

/// Compares two values field by field.
pub(super) fn compare(old: &Value, new: &Value, shape: Shape<'_>) -> Difference {
    let mut difference = Difference::default();
    match (old, new) {
        _ if old == new => {}
        (Value::Object(old), Value::Object(new)) if !is_atomic_map(shape) => {
            for (name, new) in new {
                let shape = field(shape, name);
                difference.child(format!("f:{name}"), old.get(name), Some(new), shape);
            }
            for (name, old) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
                difference.child(format!("f:{name}"), Some(old), None, field(shape, name));
            }
        }
        (Value::Array(old), Value::Array(new)) if *list_type(shape) != ListType::Atomic => {
            let find = |list: &[Value], element: &str| {
                list.iter().find(|item| element_of(item, shape).as_deref() == Some(element)).cloned()
            };
            for item in new {
                let Some(element) = element_of(item, shape) else { continue };
                let before = find(old, &element);
                difference.child(element, before.as_ref(), Some(item), items(shape));
            }
            for item in old {
                let Some(element) = element_of(item, shape) else { continue };
                if find(new, &element).is_none() {
                    difference.child(element, Some(item), None, items(shape));
                }
            }
        }
        _ => difference.set.owned = true,
    }
    difference
}

impl Difference {
    fn child(&mut self, element: String, old: Option<&Value>, new: Option<&Value>, shape: Shape<'_>) {
        match (old, new) {
            (Some(old), Some(new)) => {
                let below = compare(old, new, shape);
                self.set.put(element.clone(), below.set);
                self.removed.put(element, below.removed);
            }
            (None, Some(new)) => self.set.put(element, nodes_of(new, shape)),
            (Some(old), None) => self.removed.put(element, nodes_of(old, shape)),
            (None, None) => {}
        }
    }
}

/// The live value with an applied one laid over it.
pub(super) fn merge(live: &Value, applied: &Value, shape: Shape<'_>) -> Value {
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) if !is_atomic_map(shape) => {
            let mut merged = live.clone();
            for (name, value) in applied {
                let value = merged.get(name).map_or_else(|| value.clone(), |old| merge(old, value, field(shape, name)));
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(live), Value::Array(applied)) if *list_type(shape) != ListType::Atomic => {
            Value::Array(merge_lists(live, applied, shape))
        }
        _ => applied.clone(),
    }
}

/// Applied items come in their order; live ones that are not applied keep their place behind the item they followed.
fn merge_lists(live: &[Value], applied: &[Value], shape: Shape<'_>) -> Vec<Value> {
    let named = |list: &[Value]| -> HashSet<String> { list.iter().filter_map(|i| element_of(i, shape)).collect() };
    let (in_live, in_applied) = (named(live), named(applied));
    let mut waiting = applied.iter().peekable();
    let mut merged: Vec<Value> = Vec::new();
    let merge_item = |item: &Value| {
        let element = element_of(item, shape);
        let old = live.iter().find(|old| element_of(old, shape) == element);
        old.map_or_else(|| item.clone(), |old| merge(old, item, items(shape)))
    };
    for old in live {
        let Some(element) = element_of(old, shape) else { continue };
        if !in_applied.contains(&element) {
            merged.push(old.clone());
            continue;
        }
        // The next applied item takes this place, after the new ones before it.
        for next in waiting.by_ref() {
            merged.push(merge_item(next));
            if element_of(next, shape).is_some_and(|element| in_live.contains(&element)) {
                break;
            }
        }
    }
    merged.extend(waiting.map(merge_item));
    merged
}

/// Takes away the fields in `gone` unless something in `keep` needs them. Maps and lists that get empty by it go too.
pub(super) fn remove(value: &mut Value, gone: &FieldSet, keep: &FieldSet, shape: Shape<'_>) {
    let nothing = FieldSet::default();
    match value {
        Value::Object(map) => {
            for (element, below) in &gone.children {
                let Some(name) = element.strip_prefix("f:") else { continue };
                let kept = keep.children.get(element).unwrap_or(&nothing);
                let Some(child) = map.get_mut(name) else { continue };
                // What only defaults put beside it goes with it: nobody owns those, and without it they may make no sense.
                let is_bare = is_struct(shape, name) && !below.is_empty() && kept.is_empty();
                if is_bare || takes_away(child, below, kept, field(shape, name)) {
                    map.shift_remove(name);
                }
            }
        }
        Value::Array(list) => list.retain_mut(|item| {
            let Some(element) = element_of(item, shape) else { return true };
            let Some(below) = gone.children.get(&element) else { return true };
            let kept = keep.children.get(&element).unwrap_or(&nothing);
            !takes_away(item, below, kept, items(shape))
        }),
        _ => {}
    }
}

/// Removes below a child; true if the child itself is to go.
fn takes_away(child: &mut Value, gone: &FieldSet, kept: &FieldSet, shape: Shape<'_>) -> bool {
    if gone.owned && kept.is_empty() {
        return true;
    }
    let was_empty = is_hollow(child);
    remove(child, gone, kept, shape);
    !was_empty && is_hollow(child) && !kept.owned
}

fn is_hollow(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}
