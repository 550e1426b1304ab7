//! The scale subresource. In: an object; out: its autoscaling/v1 Scale, and back.

use serde_json::{Value, json};

use crate::{
    kinds::Resource,
    object::{as_map, at, meta, meta_mut, text},
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
    let given = text(wanted, &["metadata", "resourceVersion"]);
    if !given.is_empty() {
        meta_mut(&mut object).insert("resourceVersion".into(), given.into());
    }
    if let Some(scale) = &resource.scale {
        set(&mut object, &scale.spec, replicas);
    }
    Ok(object)
}

/// Puts a value at a path; what is missing on the way is made.
fn set(object: &mut Value, path: &[String], value: &Value) {
    match path {
        [] => {}
        [last] => drop(as_map(object).insert(last.clone(), value.clone())),
        [first, rest @ ..] => set(as_map(object).entry(first.clone()).or_insert(Value::Null), rest, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_go_where_the_definition_says_also_when_nothing_is_there() {
        for (before, path, after) in [
            (json!({"spec": {"replicas": 1}}), vec!["spec", "replicas"], json!({"spec": {"replicas": 5}})),
            (json!({}), vec!["spec", "replicas"], json!({"spec": {"replicas": 5}})),
            (json!({"spec": {}}), vec!["spec", "size", "n"], json!({"spec": {"size": {"n": 5}}})),
            (json!({"spec": 7}), vec!["spec", "replicas"], json!({"spec": {"replicas": 5}})),
        ] {
            let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
            let mut object = before.clone();
            set(&mut object, &path, &json!(5));
            assert_eq!(object, after, "{before} {path:?}");
            assert_eq!(number(&object, &path), Some(5));
        }
    }
}
