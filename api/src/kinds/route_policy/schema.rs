//! One schema for the steps of a RoutePolicy, made of what each filter takes.
//!
//! In: the rows of [`PARAMETERS`]. Out: properties of all filters in one object, as structural schemas want it, and a rule for each that a
//! filter needs its fields and that a field belongs to its filters. A field of one name means the same in every filter; a test shows it.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::filters as f;

/// Steps of one policy.
const STEPS_MAX: usize = 32;

/// What one filter takes.
#[derive(Clone, Copy)]
pub struct Parameters {
    /// The filter.
    pub filter: &'static str,
    /// Fields that it can't do without.
    pub needs: &'static [&'static str],
    /// Rules of its own (CEL over the step), each with what is said where it does not hold.
    pub rules: &'static [(&'static str, &'static str)],
    schema: fn(&mut SchemaGenerator) -> Schema,
}

impl std::fmt::Debug for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parameters").field("filter", &self.filter).field("needs", &self.needs).finish_non_exhaustive()
    }
}

const fn row<T: JsonSchema>(
    filter: &'static str,
    needs: &'static [&'static str],
    rules: &'static [(&'static str, &'static str)],
) -> Parameters {
    Parameters { filter, needs, rules, schema: <T as JsonSchema>::json_schema }
}

/// The key `header` and the header of that name go together.
const KEYED: (&str, &str) =
    ("!has(self.key) || (self.key == 'header') == has(self.header)", "header: with key `header`, and with no other");

/// What every filter takes, in the order in which they work.
pub const PARAMETERS: &[Parameters] = &[
    row::<f::Hsts>("hsts", &["maxAgeSeconds"], &[]),
    row::<f::ErrorPages>("errorPages", &["pages"], &[]),
    row::<f::ClientCertificate>("clientCertificate", &[], &[]),
    row::<f::Cidrs>("deny", &["cidrs"], &[]),
    row::<f::Cidrs>("allow", &["cidrs"], &[]),
    row::<f::Connections>("connections", &["max"], &[KEYED]),
    row::<f::Sizes>(
        "sizes",
        &[],
        &[(
            "has(self.requestBytesMax) || has(self.responseBytesMax) || has(self.headerBytesMax)",
            "requestBytesMax, responseBytesMax or headerBytesMax: one at least",
        )],
    ),
    row::<f::Bandwidth>("bandwidth", &["bytesPerSecond"], &[]),
    row::<f::Compression>("compression", &[], &[]),
    row::<f::Rate>("rate", &["requests"], &[KEYED]),
    row::<f::Cors>("cors", &["allowOrigins"], &[]),
    row::<f::Basic>("basic", &["secretRef"], &[]),
    row::<f::ApiKeys>("apiKeys", &["secretRef"], &[]),
    row::<f::Jwt>("jwt", &["issuer"], &[("has(self.jwks) != has(self.jwksUri)", "jwks or jwksUri: one of them")]),
    row::<f::Oidc>("oidc", &["issuer", "clientId", "secretRef"], &[]),
    row::<f::ForwardAuth>(
        "forwardAuth",
        &[],
        &[("has(self.backendRef) != has(self.url)", "backendRef or url: one of them")],
    ),
    row::<f::ExtAuthz>("extAuthz", &["backendRef"], &[]),
    row::<f::ExtProc>("extProc", &["backendRef"], &[]),
    row::<f::Cache>("cache", &[], &[]),
    row::<f::Headers>(
        "headers",
        &[],
        &[("has(self.request) || has(self.response)", "request or response: one at least")],
    ),
    row::<f::Path>(
        "path",
        &[],
        &[(
            "has(self.full) || has(self.prefix) || has(self.pattern) || has(self.hostname)",
            "full, prefix, pattern or hostname: one at least",
        )],
    ),
];

/// The schema of `spec.filters`.
pub(super) fn steps(generator: &mut SchemaGenerator) -> Schema {
    let names: Vec<&str> = PARAMETERS.iter().map(|p| p.filter).collect();
    let mut properties = Map::new();
    let mut owners: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut said: BTreeMap<String, Vec<(&str, Value)>> = BTreeMap::new();
    let mut rules = Vec::new();
    for parameters in PARAMETERS {
        let filter = parameters.filter;
        for (field, mut schema) in fields(parameters, generator) {
            owners.entry(field.clone()).or_default().push(filter);
            said.entry(field.clone()).or_default().extend(description(&mut schema).map(|text| (filter, text)));
            properties.entry(field).or_insert(schema);
        }
        for need in parameters.needs {
            rules.push(json!({"rule": format!("self.filter != '{filter}' || has(self.{need})"),
                "message": format!("{need}: filter `{filter}` needs it")}));
        }
        for (rule, message) in parameters.rules {
            rules.push(json!({"rule": format!("self.filter != '{filter}' || ({rule})"),
                "message": format!("filter `{filter}`: {message}")}));
        }
    }
    for (field, texts) in &said {
        properties[field]["description"] = described(texts);
    }
    for (field, of) in &owners {
        let list = of.iter().map(|o| format!("'{o}'")).collect::<Vec<_>>().join(", ");
        rules.push(json!({"rule": format!("!has(self.{field}) || self.filter in [{list}]"),
            "message": format!("{field}: belongs to filter {}", of.join(", "))}));
    }
    properties.insert("filter".to_owned(), json!({"type": "string", "enum": names, "description": "The row's name."}));
    schemars::json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": STEPS_MAX,
        "items": {"type": "object", "required": ["filter"], "properties": properties, "x-kubernetes-validations": rules}
    })
}

/// Takes the description out of a field's schema.
fn description(schema: &mut Value) -> Option<Value> {
    schema.as_object_mut()?.remove("description")
}

/// What filters say of a field that they share: once if they say the same, else each its own.
fn described(texts: &[(&str, Value)]) -> Value {
    match texts {
        [] => json!(""),
        [(_, first), rest @ ..] if rest.iter().all(|(_, text)| text == first) => first.clone(),
        texts => {
            let each = texts.iter().map(|(filter, text)| format!("`{filter}`: {}", text.as_str().unwrap_or_default()));
            json!(each.collect::<Vec<_>>().join(" "))
        }
    }
}

/// The fields of a filter, each with its schema.
fn fields(parameters: &Parameters, generator: &mut SchemaGenerator) -> Map<String, Value> {
    let mut inline = SchemaGenerator::new(generator.settings().clone().with(|s| s.inline_subschemas = true));
    let schema = (parameters.schema)(&mut inline);
    let mut fields = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    fields.values_mut().for_each(undefault);
    fields
}

/// Takes away the defaults of an object's fields: API servers refuse those that the fields' own rules do not let pass.
pub(super) fn without_defaults(schema: &mut Schema) {
    schema.as_object_mut().and_then(|schema| schema.get_mut("properties")).into_iter().for_each(undefault);
}

/// Takes away defaults: a field of one filter would be written into the others.
fn undefault(schema: &mut Value) {
    match schema {
        Value::Object(all) => {
            all.remove("default");
            all.values_mut().for_each(undefault);
        }
        Value::Array(all) => all.iter_mut().for_each(undefault),
        _ => {}
    }
}

/// The schema of the status.
pub(super) fn status(_: &mut SchemaGenerator) -> Schema {
    let string = json!({"type": "string"});
    schemars::json_schema!({
        "type": "object",
        "properties": {"ancestors": {"type": "array", "maxItems": 16, "items": {
            "type": "object",
            "required": ["ancestorRef", "controllerName"],
            "properties": {
                "controllerName": string,
                "ancestorRef": {"type": "object", "required": ["name"], "properties": {
                    "group": string, "kind": string, "namespace": string, "name": string, "sectionName": string,
                    "port": {"type": "integer", "format": "int32"}}},
                "conditions": {"type": "array", "maxItems": 8, "items": {
                    "type": "object",
                    "required": ["type", "status", "reason", "message", "lastTransitionTime"],
                    "properties": {"type": string, "status": string, "reason": string, "message": string,
                        "observedGeneration": {"type": "integer", "format": "int64"},
                        "lastTransitionTime": {"type": "string", "format": "date-time"}}}}
            }
        }}}
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_one_name_means_the_same_in_every_filter() {
        let mut generator = SchemaGenerator::default();
        let mut known: BTreeMap<String, (Value, &str)> = BTreeMap::new();
        for parameters in PARAMETERS {
            for (field, mut schema) in fields(parameters, &mut generator) {
                assert!(description(&mut schema).is_some(), "`{field}` of {} says nothing", parameters.filter);
                let (before, owner) = known.entry(field.clone()).or_insert((schema.clone(), parameters.filter));
                assert_eq!(*before, schema, "`{field}` of {owner} and of {}", parameters.filter);
            }
        }
    }

    #[test]
    fn what_filters_say_of_a_field_that_they_share_is_all_there() {
        for (texts, all) in [
            (vec![("allow", json!("Ranges."))], "Ranges."),
            (vec![("allow", json!("Ranges.")), ("deny", json!("Ranges."))], "Ranges."),
            (vec![("basic", json!("Users.")), ("jwt", json!("Keys."))], "`basic`: Users. `jwt`: Keys."),
        ] {
            assert_eq!(described(&texts), json!(all));
        }
    }

    #[test]
    fn what_a_filter_needs_it_also_takes() {
        let mut generator = SchemaGenerator::default();
        for parameters in PARAMETERS {
            let fields = fields(parameters, &mut generator);
            assert!(!fields.is_empty(), "{}", parameters.filter);
            for need in parameters.needs {
                assert!(fields.contains_key(*need), "{}.{need}", parameters.filter);
            }
        }
    }
}
