//! Filling in defaults. In: a value and its schema; out: the value with `default` wherever a known field is absent.
//! A null where null is not allowed counts as absent when there is a default, as Kubernetes does it.

use serde_json::Value;

use super::Schema;

/// Fills in defaults from the root down, so that a default that is an object gets its own fields' defaults too.
pub(crate) fn fill(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            for (name, child) in &schema.properties {
                let Some(default) = &child.default else { continue };
                let absent = map.get(&**name).is_none_or(|present| present.is_null() && !child.nullable);
                if absent {
                    map.insert((**name).into(), default.clone());
                }
            }
            for (name, present) in map.iter_mut() {
                if let Some(child) = schema.field(name) {
                    fill(present, child);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                list.iter_mut().for_each(|item| fill(item, items));
            }
        }
        _ => {}
    }
}
