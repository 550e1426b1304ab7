//! Dropping fields that a schema doesn't know. In: a value and its schema; out: the value without them and their
//! paths, so that strict requests can refuse and others be warned.

use serde_json::Value;

use super::{Additional, Schema, Type};

/// Prunes an object and returns the paths of what went. apiVersion, kind and metadata always stay.
pub(crate) fn prune(object: &mut Value, schema: &Schema) -> Vec<String> {
    let mut gone = Vec::new();
    walk(object, schema, "", true, &mut gone);
    gone
}

fn walk(value: &mut Value, schema: &Schema, path: &str, is_root: bool, gone: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let keep_unknown = schema.preserve_unknown
                || matches!(schema.additional, Additional::Any)
                || schema.kind == Type::Any && schema.properties.is_empty();
            map.retain(|key, _| {
                let known = keep_unknown
                    || schema.field(key).is_some()
                    || (is_root || schema.embedded) && matches!(&**key, "apiVersion" | "kind" | "metadata");
                if !known {
                    gone.push(join(path, key));
                }
                known
            });
            for (key, child) in map.iter_mut() {
                let is_meta = (is_root || schema.embedded) && matches!(&**key, "apiVersion" | "kind");
                if let Some(schema) = schema.field(key).filter(|_| !is_meta) {
                    walk(child, schema, &join(path, key), false, gone);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for (index, child) in list.iter_mut().enumerate() {
                    walk(child, items, &format!("{path}[{index}]"), false, gone);
                }
            }
        }
        _ => {}
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
