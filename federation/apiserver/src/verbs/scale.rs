//! The scale subresource. In: an object; out: its autoscaling/v1 Scale, and back.

use serde_json::{Value, json};

use crate::{
    kinds::Resource,
    object::{at, meta, text},
    refusal::{Cause, Refusal},
};

fn number(object: &Value, path: &[String]) -> Option<u64> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    at(object, &path).and_then(Value::as_u64)
}

/// The Scale of an object.
pub(super) fn read(resource: &Resource, object: &Value) -> Value {
    let Some(scale) = &resource.scale else { return Value::Null };
    let selector = scale.selector.as_ref().and_then(|path| {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        at(object, &path)
    });
    let mut status = json!({"replicas": number(object, &scale.status).unwrap_or(0)});
    if let Some(selector) = selector {
        status["selector"] = selector_text(selector).into();
    }
    let meta = |key: &str| meta(object, key).to_owned();
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": meta("name"), "namespace": meta("namespace"), "uid": meta("uid"),
            "resourceVersion": meta("resourceVersion"), "creationTimestamp": meta("creationTimestamp")},
        "spec": {"replicas": number(object, &scale.spec).unwrap_or(0)},
        "status": status,
    })
}

/// A selector as text, from its text, matchLabels, or plain map.
fn selector_text(selector: &Value) -> String {
    if let Some(text) = selector.as_str() {
        return text.into();
    }
    let labels = selector.get("matchLabels").unwrap_or(selector).as_object();
    let pairs: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.join(",")
}

/// The object with the replicas of a Scale.
pub(super) fn write(resource: &Resource, object: &Value, wanted: &Value) -> Result<Value, Refusal> {
    let replicas = wanted.pointer("/spec/replicas").unwrap_or(&Value::Null);
    let name = meta(object, "name");
    if replicas.as_u64().is_none() {
        let cause = Cause::invalid("spec.replicas", replicas, "should be a non-negative integer");
        return Err(Refusal::invalid("autoscaling", "Scale", name, &[cause]));
    }
    let mut object = object.clone();
    let given = text(wanted, &["metadata", "resourceVersion"]).to_owned();
    if !given.is_empty() {
        object["metadata"]["resourceVersion"] = given.into();
    }
    if let Some(scale) = &resource.scale {
        let pointer = format!("/{}", scale.spec.join("/"));
        match object.pointer_mut(&pointer) {
            Some(slot) => *slot = replicas.clone(),
            None => object["spec"]["replicas"] = replicas.clone(),
        }
    }
    Ok(object)
}
