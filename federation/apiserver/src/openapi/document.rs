//! One document. In: the resources of a group and version; out: their paths and schemas with descriptions, as far as
//! kubectl explain, apply and dry-run look into them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use crate::{
    kinds::{Kinds, Resource, Source},
    schema::{Derive, definitions, derive},
};

/// The document of a group and version.
pub(super) fn document(kinds: &Kinds, group: &str, version: &str) -> Value {
    let resources = || kinds.all.iter().filter(|r| *r.group == *group && *r.version == *version);
    // Derived first, in one go: kinds share most of their types.
    let derives: Vec<Derive> = resources()
        .map(|resource| match &resource.source {
            Source::Builtin(row) => row.derive,
            Source::Custom(_) => derive::<ObjectMeta>,
        })
        .collect();
    let (names, mut schemas) = definitions(&derives);
    schemas.values_mut().for_each(wrap_references);
    let mut paths = Map::new();
    for (resource, derived) in resources().zip(names) {
        let gvk = json!({"group": group, "version": version, "kind": resource.kind});
        let name = match &resource.source {
            Source::Builtin(_) => derived,
            Source::Custom(custom) => {
                let name = custom_name(resource);
                let schema = custom.entry().pointer("/schema/openAPIV3Schema").cloned().unwrap_or_else(|| json!({}));
                schemas.insert(name.clone(), with_metadata(schema));
                name
            }
        };
        if let Some(schema) = schemas.get_mut(&name) {
            schema["x-kubernetes-group-version-kind"] = json!([gvk]);
        }
        add_paths(&mut paths, resource, &name, &gvk);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.34.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

/// `dev.atoll.v1alpha1.Cluster`.
fn custom_name(resource: &Resource) -> String {
    let mut parts: Vec<&str> = resource.group.split('.').collect();
    parts.reverse();
    parts.extend([&*resource.version, &*resource.kind]);
    parts.join(".")
}

fn with_metadata(mut schema: Value) -> Value {
    let properties = crate::object::map_mut(&mut schema, "properties");
    let texts = [
        ("apiVersion", "APIVersion defines the versioned schema of this representation of an object."),
        ("kind", "Kind is a string value representing the REST resource this object represents."),
    ];
    for (name, text) in texts {
        properties.insert(name.into(), json!({"type": "string", "description": text}));
    }
    properties.insert(
        "metadata".into(),
        json!({"description": "Standard object's metadata.",
            "allOf": [{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}]}),
    );
    schema
}

/// OpenAPI 3.0 ignores what stands beside `$ref`: descriptions need the `allOf` form.
fn wrap_references(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            // A property may be called `$ref` too: then it is a schema, not a text.
            let is_reference = map.len() > 1 && map.get("$ref").is_some_and(Value::is_string);
            if is_reference && let Some(reference) = map.shift_remove("$ref") {
                map.insert("allOf".into(), json!([{"$ref": reference}]));
            }
            map.values_mut().for_each(wrap_references);
        }
        Value::Array(list) => list.iter_mut().for_each(wrap_references),
        _ => {}
    }
}

fn add_paths(paths: &mut Map<String, Value>, resource: &Resource, schema: &str, gvk: &Value) {
    let root = if resource.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", resource.group) };
    let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let list = format!("{root}/{}{scope}/{}", resource.version, resource.plural);
    let one = format!("{list}/{{name}}");
    let content =
        |media: &str| json!({"content": {media: {"schema": {"$ref": format!("#/components/schemas/{schema}")}}}});
    let query = |names: &[&str]| -> Vec<Value> {
        names
            .iter()
            .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}))
            .collect()
    };
    let operation = |action: &str, parameters: Vec<Value>, body: Option<&str>| {
        let mut operation = json!({
            "operationId": format!("{action}{}{}{}", resource.group, resource.version, resource.kind),
            "parameters": parameters,
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
        });
        if action != "delete" {
            operation["responses"]["200"] = content("application/json");
            operation["responses"]["200"]["description"] = "OK".into();
        }
        if let Some(media) = body {
            operation["requestBody"] = content(media);
        }
        operation
    };
    let written = || query(&["dryRun", "fieldManager", "fieldValidation"]);
    paths.insert(
        list,
        json!({
            "get": operation("list", query(&["labelSelector", "fieldSelector", "limit", "continue"]), None),
            "post": operation("post", written(), Some("application/json")),
        }),
    );
    paths.insert(one, json!({
        "get": operation("get", Vec::new(), None),
        "put": operation("put", written(), Some("application/json")),
        "patch": operation("patch", query(&["dryRun", "fieldManager", "fieldValidation", "force"]), Some("application/apply-patch+yaml")),
        "delete": operation("delete", query(&["dryRun", "propagationPolicy"]), None),
    }));
}
