//! `x-kubernetes-validations`. In: a value that fits its schema, and on update the one before; out: the rules that it
//! breaks. Rules are compiled at their first use. A rule that our CEL can't compile, or that calls one of Kubernetes'
//! own libraries beyond isIP and isCIDR, is not enforced.
//! Source: kubernetes.io/docs/tasks/extend-kubernetes/custom-resources (validation rules).

use std::{collections::HashMap, sync::Arc};

use cel::{
    Context, ExecutionError, Program, Value as Cel,
    objects::{Key, Map},
};
use serde_json::Value;

use super::{
    Rule, Schema, Type,
    validate::{is_cidr, join},
};
use crate::refusal::Cause;

/// A rule, compiled.
pub(super) struct Compiled {
    program: Program,
    message: Option<Program>,
    is_transition: bool,
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compiled")
    }
}

impl Rule {
    fn compiled(&self) -> Option<&Compiled> {
        let compile = || {
            let program = Program::compile(&self.rule).ok()?;
            let is_transition = program.references().variables().contains(&"oldSelf");
            let message = self.message_expression.as_ref().and_then(|text| Program::compile(text).ok());
            Some(Compiled { program, message, is_transition })
        };
        self.compiled.get_or_init(compile).as_ref()
    }
}

/// Asks every rule of one node.
pub(super) fn check(value: &Value, before: Option<&Value>, schema: &Schema, path: &str, causes: &mut Vec<Cause>) {
    if schema.rules.is_empty() {
        return;
    }
    let is_root = path.is_empty();
    let mut context = Context::default();
    // A function is refused only when its name is there already.
    let _ = context.add_function("isIP", |text: Arc<String>| text.parse::<std::net::IpAddr>().is_ok());
    let _ = context.add_function("isCIDR", |text: Arc<String>| is_cidr(&text));
    context.add_variable_from_value("self", convert(value, Some(schema), is_root));
    if let Some(before) = before {
        context.add_variable_from_value("oldSelf", convert(before, Some(schema), is_root));
    }
    for rule in &schema.rules {
        let Some(compiled) = rule.compiled() else { continue };
        if compiled.is_transition && before.is_none() {
            continue;
        }
        let why = match compiled.program.execute(&context) {
            Ok(Cel::Bool(true)) => continue,
            Ok(_) => message(rule, compiled, &context),
            // A library that we haven't got.
            Err(ExecutionError::UndeclaredReference(_) | ExecutionError::NotSupportedAsMethod { .. }) => continue,
            Err(why) => format!("rule evaluation error: {why}"),
        };
        causes.push(cause(rule, value, path, &why));
    }
}

fn message(rule: &Rule, compiled: &Compiled, context: &Context<'_, '_>) -> String {
    if let Some(Ok(Cel::String(text))) = compiled.message.as_ref().map(|program| program.execute(context)) {
        return text.to_string();
    }
    rule.message.as_ref().map_or_else(|| format!("failed rule: {}", rule.rule), ToString::to_string)
}

fn cause(rule: &Rule, value: &Value, path: &str, why: &str) -> Cause {
    let mut field = path.to_owned();
    if let Some(below) = &rule.field_path {
        field = join(&field, below.trim_start_matches('.'));
    }
    match rule.reason.as_deref() {
        Some("FieldValueRequired") => {
            Cause { reason: "FieldValueRequired", message: format!("Required value: {why}"), field }
        }
        Some("FieldValueForbidden") => Cause::forbidden(field, why),
        Some("FieldValueDuplicate") => {
            Cause { reason: "FieldValueDuplicate", message: format!("Duplicate value: {why}"), field }
        }
        // Composed values are named by their type only: they may be large, and they may be secret.
        _ => match value {
            Value::Object(_) => Cause::invalid(field, &"object".into(), why),
            Value::Array(_) => Cause::invalid(field, &"array".into(), why),
            other => Cause::invalid(field, other, why),
        },
    }
}

/// JSON as CEL sees it: numbers by the schema's type, names of fields escaped, of metadata only the name at the root.
fn convert(value: &Value, schema: Option<&Schema>, is_root: bool) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(number) => match (number.as_i64(), schema.map(|schema| schema.kind)) {
            (Some(int), kind) if kind != Some(Type::Number) => Cel::Int(int),
            _ => Cel::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(list) => {
            let items = schema.and_then(|schema| schema.items.as_deref());
            Cel::List(Arc::new(list.iter().map(|item| convert(item, items, false)).collect()))
        }
        Value::Object(map) => {
            let mut fields = HashMap::with_capacity(map.len());
            for (name, child) in map {
                let child = match &**name {
                    "metadata" if is_root => convert(&known_metadata(child), None, false),
                    _ => convert(child, schema.and_then(|s| s.field(name)).map(|s| &**s), false),
                };
                let is_field = schema.is_some_and(|schema| schema.properties.contains_key(&**name));
                let name = if is_field { escape(name) } else { name.clone() };
                fields.insert(Key::String(Arc::new(name)), child);
            }
            Cel::Map(Map { map: Arc::new(fields) })
        }
    }
}

fn known_metadata(meta: &Value) -> Value {
    let known = ["name", "generateName"].into_iter().filter_map(|key| Some((key.to_owned(), meta.get(key)?.clone())));
    Value::Object(known.collect())
}

/// Field names that CEL can't write: its reserved words, and some characters.
fn escape(name: &str) -> String {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    if !name.contains(['.', '-', '/']) && !name.contains("__") {
        return name.to_owned();
    }
    let name = name.replace("__", "__underscores__").replace('.', "__dot__");
    name.replace('-', "__dash__").replace('/', "__slash__")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::{parse, validate, validate_update};

    fn schema(rule: &str) -> Schema {
        let items =
            json!({"type": "object", "properties": {"name": {"type": "string"}, "namespace": {"type": "string"}}});
        parse(&json!({
            "type": "object",
            "x-kubernetes-validations": [{"rule": rule, "message": "broken"}],
            "properties": {
                "n": {"type": "integer"}, "f": {"type": "number"}, "s": {"type": "string"},
                "l": {"type": "array", "items": items},
                "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            },
        }))
    }

    #[test]
    fn rules_hold_or_break() {
        let unique = "self.l.all(a, self.l.exists_one(b, a.name == b.name && \
                      (has(a.__namespace__) ? a.__namespace__ : '') == (has(b.__namespace__) ? b.__namespace__ : '')))";
        let name = "self.metadata.name.matches('^[a-z]+$') && !(self.metadata.name in ['svc', 'pod'])";
        let named = |name: &str| json!({"metadata": {"name": name, "uid": "u"}});
        for (rule, value, holds) in [
            ("self.n > 2", json!({"n": 3}), true),
            ("self.n > 2", json!({"n": 2}), false),
            ("has(self.s) != has(self.n)", json!({"s": "x"}), true),
            ("has(self.s) != has(self.n)", json!({"s": "x", "n": 1}), false),
            ("self.f < 1.5", json!({"f": 1}), true),
            (unique, json!({"l": [{"name": "x"}, {"name": "x", "namespace": "n"}]}), true),
            (unique, json!({"l": [{"name": "x"}, {"name": "x"}]}), false),
            (name, named("web"), true),
            (name, named("svc"), false),
            ("isIP(self.s)", json!({"s": "10.0.0.1"}), true),
            ("isCIDR(self.s)", json!({"s": "10.0.0.0/33"}), false),
            ("size(self.s) <= 3 && self.s.startsWith('a')", json!({"s": "abc"}), true),
            ("self.missing == 1", json!({"s": "abc"}), false),
            ("quantity(self.s).isGreaterThan(quantity('1'))", json!({"s": "0"}), true),
        ] {
            assert_eq!(validate(&value, &schema(rule)).is_empty(), holds, "{rule} on {value}");
        }
    }

    #[test]
    fn transition_rules_ask_only_about_changes() {
        let schema = schema("!has(oldSelf.spec) || self.spec == oldSelf.spec");
        let (old, new) = (json!({"spec": {"a": 1}}), json!({"spec": {"a": 2}}));
        assert!(validate(&new, &schema).is_empty());
        assert!(validate_update(&old, &old, &schema).is_empty());
        let causes = validate_update(&new, &old, &schema);
        assert_eq!(
            causes.iter().map(|cause| &*cause.message).collect::<Vec<_>>(),
            ["Invalid value: \"object\": broken"]
        );
    }
}
