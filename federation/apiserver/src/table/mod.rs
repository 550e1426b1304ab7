//! The Table form for `kubectl get`, and the metadata-only form. In: objects; out: columns and cells.
//! Built-in kinds have their columns in `builtin`, custom ones in their definition.

mod builtin;
mod path;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    kinds::{Custom, Resource, Source},
    object::{meta, text},
    store::Stored,
};

/// One column: name, type, priority (0 is always shown), and its cell.
struct Column {
    name: String,
    kind: String,
    priority: u64,
    description: String,
    cell: Cell,
}

enum Cell {
    Made(fn(&Value) -> Value),
    Path(path::Path),
}

/// apiVersion, kind and metadata only.
pub(crate) fn metadata(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// A list of the same.
pub(crate) fn metadata_list(items: &[Arc<Stored>], meta: Value) -> Value {
    let items: Vec<Value> = items.iter().map(|stored| metadata(&stored.value())).collect();
    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items})
}

/// Objects as rows.
pub(crate) fn table(resource: &Resource, items: &[Arc<Stored>], list: Value) -> Value {
    let columns = columns(resource);
    let rows: Vec<Value> = items
        .iter()
        .map(|stored| {
            let object = stored.value();
            let cells: Vec<Value> = columns.iter().map(|column| column.show(&object)).collect();
            json!({"cells": cells, "object": metadata(&object)})
        })
        .collect();
    let definitions: Vec<Value> = columns
        .iter()
        .map(|c| {
            let format = if c.name == "Name" { "name" } else { "" };
            json!({"name": c.name, "type": c.kind, "format": format, "description": c.description, "priority": c.priority})
        })
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list,
        "columnDefinitions": definitions, "rows": rows})
}

impl Column {
    fn show(&self, object: &Value) -> Value {
        match &self.cell {
            Cell::Made(make) => make(object),
            Cell::Path(path) => {
                let found = path.find(object);
                match (self.kind.as_str(), found) {
                    (_, None) => Value::Null,
                    ("date", Some(value)) => age(value.as_str().unwrap_or_default()).into(),
                    ("string", Some(Value::String(text))) => text.clone().into(),
                    ("string", Some(value)) => value.to_string().into(),
                    (_, Some(value)) => value.clone(),
                }
            }
        }
    }
}

fn name_column() -> Column {
    let cell = Cell::Made(|object| meta(object, "name").into());
    Column { name: "Name".into(), kind: "string".into(), priority: 0, description: "Name of the object.".into(), cell }
}

fn age_column() -> Column {
    let cell = Cell::Made(|object| age(meta(object, "creationTimestamp")).into());
    Column { name: "Age".into(), kind: "string".into(), priority: 0, description: "Time since creation.".into(), cell }
}

fn columns(resource: &Resource) -> Vec<Column> {
    let mut columns = vec![name_column()];
    match &resource.source {
        Source::Builtin(_) => {
            columns.extend(builtin::columns(&resource.collection));
            columns.push(age_column());
        }
        Source::Custom(custom) => columns.extend(printer_columns(custom)),
    }
    columns
}

fn printer_columns(custom: &Custom) -> Vec<Column> {
    let entry = custom.entry();
    let listed = entry.get("additionalPrinterColumns").and_then(Value::as_array);
    let Some(listed) = listed.filter(|listed| !listed.is_empty()) else { return vec![age_column()] };
    listed
        .iter()
        .map(|column| Column {
            name: text(column, &["name"]).into(),
            kind: text(column, &["type"]).into(),
            priority: column.get("priority").and_then(Value::as_u64).unwrap_or(0),
            description: text(column, &["description"]).into(),
            cell: Cell::Path(path::Path::parse(text(column, &["jsonPath"]))),
        })
        .collect()
}

/// The time since then, as kubectl writes it: 5s, 3m10s, 2h, 4d, 1y20d.
fn age(since: &str) -> String {
    let Ok(since) = since.parse::<jiff::Timestamp>() else { return "<unknown>".into() };
    human(jiff::Timestamp::now().as_second() - since.as_second())
}

/// Source: apimachinery/pkg/util/duration.HumanDuration.
fn human(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        i64::MIN..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if hours < 3 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => two(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 8 * 365 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_writes_them() {
        for (seconds, want) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (190, "3m10s"),
            (600, "10m"),
            (7200, "120m"),
            (4 * 3600 + 60, "4h1m"),
            (10 * 3600, "10h"),
            (3 * 86400, "3d"),
            (20 * 86400, "20d"),
            (-9, "<invalid>"),
        ] {
            assert_eq!(human(seconds), want, "{seconds}");
        }
    }
}
