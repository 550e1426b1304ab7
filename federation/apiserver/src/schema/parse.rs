//! JSON Schema → tree. In: a structural schema (or one derived from Rust types, with references); out: the tree.
//! What it doesn't know it ignores. Recursive references become "any": only CustomResourceDefinition has them.

use std::{collections::HashMap, sync::Arc};

use serde_json::Value;

use super::{Additional, Bounds, ListType, Pattern, Rule, Schema, Strategy, Type};

/// Looks a `$ref` up.
pub(super) trait Resolve {
    fn resolve(&mut self, reference: &str) -> Arc<Schema>;
}

struct NoReferences;

impl Resolve for NoReferences {
    fn resolve(&mut self, _: &str) -> Arc<Schema> {
        any()
    }
}

pub(super) fn any() -> Arc<Schema> {
    Arc::new(Schema { preserve_unknown: true, ..Schema::default() })
}

/// Parses a schema without references.
pub(crate) fn parse(source: &Value) -> Schema {
    parse_with(source, &mut NoReferences)
}

pub(super) fn parse_with(source: &Value, resolver: &mut dyn Resolve) -> Schema {
    let flag = |key: &str| source.get(key).and_then(Value::as_bool).unwrap_or(false);
    let (kind, null_in_type) = kind_of(source);
    let properties = source.get("properties").and_then(Value::as_object);
    let mut schema = Schema {
        kind,
        nullable: flag("nullable") || null_in_type,
        properties: properties
            .into_iter()
            .flatten()
            .map(|(name, child)| (name.as_str().into(), node(child, resolver)))
            .collect(),
        additional: match source.get("additionalProperties") {
            Some(Value::Bool(true)) => Additional::Any,
            Some(Value::Object(map)) if map.is_empty() => Additional::Any,
            Some(child @ Value::Object(_)) => Additional::Of(node(child, resolver)),
            _ => Additional::None,
        },
        items: source.get("items").map(|child| node(child, resolver)),
        required: strings(source.get("required")),
        default: source.get("default").filter(|value| !value.is_null()).cloned(),
        preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
        embedded: flag("x-kubernetes-embedded-resource"),
        list: list_type(source),
        atomic_map: source.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic"),
        strategy: strategy(source),
        bounds: bounds(source),
        rules: rules(source),
    };
    let untyped = kind == Type::Any && schema.properties.is_empty();
    schema.preserve_unknown |= untyped && source.get("additionalProperties").is_none() || schema.embedded;
    schema
}

fn node(source: &Value, resolver: &mut dyn Resolve) -> Arc<Schema> {
    let all_of = source.get("allOf").and_then(Value::as_array);
    let wrapped = all_of.and_then(|list| if list.len() == 1 { list[0].get("$ref") } else { None });
    match source.get("$ref").or(wrapped).and_then(Value::as_str) {
        Some(reference) => resolver.resolve(reference),
        None => Arc::new(parse_with(source, resolver)),
    }
}

fn kind_of(source: &Value) -> (Type, bool) {
    if source.get("x-kubernetes-int-or-string").and_then(Value::as_bool) == Some(true)
        || source.get("format").and_then(Value::as_str) == Some("int-or-string")
    {
        return (Type::IntOrString, false);
    }
    let word = |word: &str| match word {
        "object" => Type::Object,
        "array" => Type::Array,
        "string" => Type::String,
        "integer" => Type::Integer,
        "number" => Type::Number,
        "boolean" => Type::Boolean,
        _ => Type::Any,
    };
    match source.get("type") {
        Some(Value::String(one)) => (word(one), false),
        Some(Value::Array(many)) => {
            let words: Vec<&str> = many.iter().filter_map(Value::as_str).collect();
            let rest: Vec<&&str> = words.iter().filter(|w| **w != "null").collect();
            let kind = if let [one] = rest.as_slice() { word(one) } else { Type::Any };
            (kind, words.contains(&"null"))
        }
        _ if source.get("properties").is_some() => (Type::Object, false),
        _ => (Type::Any, false),
    }
}

fn strings(list: Option<&Value>) -> Vec<Box<str>> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect()
}

fn list_type(source: &Value) -> ListType {
    match source.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map(strings(source.get("x-kubernetes-list-map-keys"))),
        _ => ListType::Atomic,
    }
}

fn strategy(source: &Value) -> Strategy {
    let words = source.get("x-kubernetes-patch-strategy").and_then(Value::as_str).unwrap_or_default();
    Strategy {
        merge_key: source.get("x-kubernetes-patch-merge-key").and_then(Value::as_str).map(Into::into),
        merge: words.split(',').any(|word| word == "merge"),
    }
}

fn bounds(source: &Value) -> Option<Box<Bounds>> {
    const KEYS: [&str; 20] = [
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "format",
        "enum",
        "const",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
    ];
    if !KEYS.iter().any(|key| source.get(key).is_some()) {
        return None;
    }
    let number = |key: &str| source.get(key).and_then(Value::as_f64);
    let count = |key: &str| source.get(key).and_then(Value::as_u64);
    let flag = |key: &str| source.get(key).and_then(Value::as_bool).unwrap_or(false);
    let branches = |key: &str| -> Vec<Schema> {
        let list = source.get(key).and_then(Value::as_array);
        list.into_iter().flatten().map(|branch| parse_with(branch, &mut NoReferences)).collect()
    };
    Some(Box::new(Bounds {
        // JSON Schema 2020 writes the exclusive bound as a number, OpenAPI 3.0 as a flag beside the bound.
        minimum: number("exclusiveMinimum").or_else(|| number("minimum")),
        maximum: number("exclusiveMaximum").or_else(|| number("maximum")),
        exclusive_minimum: flag("exclusiveMinimum") || number("exclusiveMinimum").is_some(),
        exclusive_maximum: flag("exclusiveMaximum") || number("exclusiveMaximum").is_some(),
        multiple_of: number("multipleOf"),
        len_min: count("minLength"),
        len_max: count("maxLength"),
        pattern: source.get("pattern").and_then(Value::as_str).map(Pattern::new),
        items_min: count("minItems"),
        items_max: count("maxItems"),
        unique: flag("uniqueItems"),
        properties_min: count("minProperties"),
        properties_max: count("maxProperties"),
        format: source.get("format").and_then(Value::as_str).map(Into::into),
        one_value_of: source
            .get("enum")
            .and_then(Value::as_array)
            .cloned()
            .or_else(|| source.get("const").map(|one| vec![one.clone()])),
        all_of: branches("allOf"),
        any_of: branches("anyOf"),
        one_of: branches("oneOf"),
        not: source.get("not").map(|branch| Box::new(parse_with(branch, &mut NoReferences))),
    }))
}

fn rules(source: &Value) -> Vec<Rule> {
    let list = source.get("x-kubernetes-validations").and_then(Value::as_array);
    let text = |rule: &Value, key: &str| rule.get(key).and_then(Value::as_str).map(Into::into);
    list.into_iter()
        .flatten()
        .filter_map(|rule| {
            Some(Rule {
                rule: text(rule, "rule")?,
                message: text(rule, "message"),
                message_expression: text(rule, "messageExpression"),
                reason: text(rule, "reason"),
                field_path: text(rule, "fieldPath"),
                ..Rule::default()
            })
        })
        .collect()
}

/// Named schemas that refer to one another, each parsed once.
pub(super) struct Definitions<'a> {
    pub(super) sources: &'a serde_json::Map<String, Value>,
    pub(super) done: HashMap<String, Arc<Schema>>,
    pub(super) open: Vec<String>,
}

impl Resolve for Definitions<'_> {
    fn resolve(&mut self, reference: &str) -> Arc<Schema> {
        let name = reference.rsplit('/').next().unwrap_or(reference).to_owned();
        if let Some(schema) = self.done.get(&name) {
            return schema.clone();
        }
        let Some(source) = self.sources.get(&name).filter(|_| !self.open.contains(&name)) else {
            return any();
        };
        self.open.push(name.clone());
        let schema = Arc::new(parse_with(source, self));
        self.open.pop();
        self.done.insert(name, schema.clone());
        schema
    }
}
