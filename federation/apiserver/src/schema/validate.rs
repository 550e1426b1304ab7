//! Checking a value against its schema. In: the value, its schema, and on update the value before; out: every cause,
//! in Kubernetes' words, with its field. What an update leaves as it was is not held against it (ratcheting).

use serde_json::Value;

use super::{Bounds, ListType, Schema, Type, rules};
use crate::refusal::Cause;

/// More causes than this are not looked for.
const CAUSES_MAX: usize = 32;

/// Checks a new object.
pub(crate) fn validate(value: &Value, schema: &Schema) -> Vec<Cause> {
    let mut causes = Vec::new();
    walk(value, None, schema, "", &mut causes);
    causes
}

/// Checks a changed object.
pub(crate) fn validate_update(value: &Value, before: &Value, schema: &Schema) -> Vec<Cause> {
    let mut causes = Vec::new();
    walk(value, Some(before), schema, "", &mut causes);
    causes
}

fn walk(value: &Value, before: Option<&Value>, schema: &Schema, path: &str, causes: &mut Vec<Cause>) {
    if before == Some(value) || causes.len() >= CAUSES_MAX || value.is_null() && schema.nullable {
        return;
    }
    if !has_type(value, schema.kind) {
        causes.push(Cause::wrong_type(path, value, schema.kind.word()));
        return;
    }
    let found = causes.len();
    match value {
        Value::Object(map) => {
            for name in schema.required.iter().filter(|name| !map.contains_key(&***name)) {
                causes.push(Cause::required(join(path, name)));
            }
            for (name, child) in map {
                if let Some(field) = schema.field(name) {
                    let old = before.and_then(|b| b.get(name));
                    walk(child, old, field, &join(path, name), causes);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for (index, child) in list.iter().enumerate() {
                    let old = before.and_then(|b| counterpart(child, index, b, &schema.list));
                    walk(child, old, items, &format!("{path}[{index}]"), causes);
                }
            }
            duplicates(list, &schema.list, path, causes);
        }
        _ => {}
    }
    if let Some(bounds) = &schema.bounds {
        check_bounds(value, bounds, path, causes);
    }
    // Rules may rely on the schema: they are asked only about what fits it.
    if found == causes.len() {
        rules::check(value, before, schema, path, causes);
    }
}

/// The item of the list before that this one is a new version of.
fn counterpart<'a>(item: &Value, index: usize, before: &'a Value, list: &ListType) -> Option<&'a Value> {
    let before = before.as_array()?;
    match list {
        ListType::Map(keys) => before.iter().find(|old| keys.iter().all(|key| old.get(&**key) == item.get(&**key))),
        ListType::Set => before.iter().find(|old| *old == item),
        ListType::Atomic => before.get(index),
    }
}

fn duplicates(list: &[Value], kind: &ListType, path: &str, causes: &mut Vec<Cause>) {
    let mut seen = std::collections::HashSet::new();
    for (index, item) in list.iter().enumerate() {
        let key = match kind {
            ListType::Atomic => return,
            ListType::Set => item.to_string(),
            ListType::Map(keys) => keys
                .iter()
                .map(|key| item.get(&**key).unwrap_or(&Value::Null).to_string())
                .collect::<Vec<_>>()
                .join(","),
        };
        if !seen.insert(key) {
            let message = format!("Duplicate value: {item}");
            causes.push(Cause { reason: "FieldValueDuplicate", message, field: format!("{path}[{index}]") });
        }
    }
}

fn has_type(value: &Value, kind: Type) -> bool {
    match kind {
        Type::Any => true,
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Integer => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
        Type::IntOrString => value.is_string() || value.is_number(),
    }
}

fn check_bounds(value: &Value, bounds: &Bounds, path: &str, causes: &mut Vec<Cause>) {
    let mut fault = |why: String| causes.push(Cause::invalid(path, value, why));
    let body = if path.is_empty() { "value".to_owned() } else { format!("{path} in body") };
    match value {
        Value::Number(number) => {
            let n = number.as_f64().unwrap_or_default();
            if let Some(min) = bounds.minimum.filter(|min| n < *min || bounds.exclusive_minimum && n <= *min) {
                let or_equal = if bounds.exclusive_minimum { "" } else { " or equal to" };
                fault(format!("{body} should be greater than{or_equal} {min}"));
            }
            if let Some(max) = bounds.maximum.filter(|max| n > *max || bounds.exclusive_maximum && n >= *max) {
                let or_equal = if bounds.exclusive_maximum { "" } else { " or equal to" };
                fault(format!("{body} should be less than{or_equal} {max}"));
            }
            if let Some(step) = bounds.multiple_of.filter(|step| (n / step).fract() != 0.0) {
                fault(format!("{body} should be a multiple of {step}"));
            }
        }
        Value::String(text) => {
            let len = text.chars().count() as u64;
            if let Some(min) = bounds.len_min.filter(|min| len < *min) {
                fault(format!("{body} should be at least {min} chars long"));
            }
            if let Some(max) = bounds.len_max.filter(|max| len > *max) {
                let message = format!("Too long: may not be more than {max} bytes");
                causes.push(Cause { reason: "FieldValueTooLong", message, field: path.into() });
                return;
            }
            if let Some(pattern) = bounds.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
                fault(format!("{body} should match '{}'", pattern.source));
            }
            if let Some(format) = bounds.format.as_deref().filter(|format| !has_format(text, format)) {
                fault(format!("{body} must be of type {format}: \"{text}\""));
            }
        }
        Value::Array(list) => {
            let len = list.len() as u64;
            if let Some(min) = bounds.items_min.filter(|min| len < *min) {
                fault(format!("{body} should have at least {min} items"));
            }
            if let Some(max) = bounds.items_max.filter(|max| len > *max) {
                let message = format!("Too many: {len}: must have at most {max} items");
                causes.push(Cause { reason: "FieldValueTooMany", message, field: path.into() });
            }
            if bounds.unique {
                duplicates(list, &ListType::Set, path, causes);
            }
        }
        Value::Object(map) => {
            let len = map.len() as u64;
            if let Some(min) = bounds.properties_min.filter(|min| len < *min) {
                fault(format!("{body} should have at least {min} properties"));
            }
            if let Some(max) = bounds.properties_max.filter(|max| len > *max) {
                fault(format!("{body} should have at most {max} properties"));
            }
        }
        _ => {}
    }
    check_choices(value, bounds, path, causes);
}

fn check_choices(value: &Value, bounds: &Bounds, path: &str, causes: &mut Vec<Cause>) {
    if let Some(allowed) = bounds.one_value_of.as_ref().filter(|allowed| !allowed.contains(value)) {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", allowed.join(", "));
        causes.push(Cause { reason: "FieldValueNotSupported", message, field: path.into() });
    }
    let holds = |schema: &Schema| {
        let mut inner = Vec::new();
        walk(value, None, schema, path, &mut inner);
        inner
    };
    for schema in &bounds.all_of {
        causes.extend(holds(schema));
    }
    if !bounds.any_of.is_empty() && !bounds.any_of.iter().any(|schema| holds(schema).is_empty()) {
        causes.push(Cause::invalid(path, value, format!("{path} in body must validate at least one schema (anyOf)")));
        causes.extend(bounds.any_of.first().map(holds).unwrap_or_default());
    }
    if !bounds.one_of.is_empty() {
        let matching = bounds.one_of.iter().filter(|schema| holds(schema).is_empty()).count();
        if matching != 1 {
            let why = format!(
                "{path} in body must validate one and only one schema (oneOf). Found {matching} valid alternatives"
            );
            causes.push(Cause::invalid(path, value, why));
        }
    }
    if bounds.not.as_ref().is_some_and(|not| holds(not).is_empty()) {
        causes.push(Cause::invalid(path, value, format!("{path} in body must not validate the schema (not)")));
    }
}

/// The formats that Kubernetes checks and that our kinds use; others hold.
fn has_format(text: &str, format: &str) -> bool {
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "uuid" => crate::object::parse_uid(text).is_some(),
        _ => true,
    }
}

/// An address and the length of its prefix.
pub(super) fn is_cidr(text: &str) -> bool {
    let Some((ip, len)) = text.split_once('/') else { return false };
    let len_max = match ip.parse() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    len.parse::<u8>().is_ok_and(|len| len <= len_max)
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
