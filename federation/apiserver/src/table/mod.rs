//! The Table form for `kubectl get`, and the metadata-only form.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    kinds::Resource,
    object::{meta, text},
    store::Stored,
};

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
pub(crate) fn table(_resource: &Resource, items: &[Arc<Stored>], list: Value) -> Value {
    let rows: Vec<Value> = items
        .iter()
        .map(|stored| {
            let object = stored.value();
            json!({"cells": [meta(&object, "name"), text(&object, &["metadata", "creationTimestamp"])], "object": metadata(&object)})
        })
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list,
        "columnDefinitions": [
            {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
            {"name": "Created At", "type": "date", "format": "", "description": "", "priority": 0}],
        "rows": rows})
}
