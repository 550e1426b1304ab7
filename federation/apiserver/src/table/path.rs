//! The JSON paths of printer columns: fields, indexes, and filters by equality. In: text; out: the first value found.
//! What it can't read finds nothing: a column is no reason to refuse an object.

use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(usize),
    Every,
    /// Items whose field has this value.
    Where(Vec<String>, String),
}

/// A parsed path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Path(Vec<Step>);

impl Path {
    pub(super) fn parse(text: &str) -> Self {
        let mut steps = Vec::new();
        let mut rest = text.trim().trim_start_matches('$');
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('[') {
                let Some(end) = closing(inner) else { return Self::default() };
                match bracket(&inner[..end]) {
                    Some(step) => steps.push(step),
                    None => return Self::default(),
                }
                rest = &inner[end + 1..];
                continue;
            }
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let (name, len) = field(rest);
            if len == 0 {
                return Self::default();
            }
            steps.push(Step::Field(name));
            rest = &rest[len..];
        }
        Self(steps)
    }

    pub(super) fn find<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        if self.0.is_empty() { None } else { walk(object, &self.0) }
    }
}

fn walk<'a>(value: &'a Value, steps: &[Step]) -> Option<&'a Value> {
    let Some((step, rest)) = steps.split_first() else { return Some(value) };
    match step {
        Step::Field(name) => walk(value.get(name)?, rest),
        Step::Index(index) => walk(value.get(index)?, rest),
        Step::Every => value.as_array()?.iter().find_map(|item| walk(item, rest)),
        Step::Where(path, want) => value.as_array()?.iter().find_map(|item| {
            let have = path.iter().try_fold(item, |value, name| value.get(name))?;
            let same = match have {
                Value::String(text) => text == want,
                other => serde_json::from_str::<Value>(want).is_ok_and(|want| *other == want),
            };
            if same { walk(item, rest) } else { None }
        }),
    }
}

/// A field name up to the next dot or bracket; a backslash makes the next dot part of it.
fn field(text: &str) -> (String, usize) {
    let (mut name, mut len, mut escaped) = (String::new(), 0, false);
    for c in text.chars() {
        match c {
            '\\' if !escaped => escaped = true,
            '.' | '[' if !escaped => break,
            other => {
                name.push(other);
                escaped = false;
            }
        }
        len += c.len_utf8();
    }
    (name, len)
}

fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, ']') => return Some(at),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    let unquote = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
    if let Some(filter) = text.strip_prefix("?(") {
        let (left, right) = filter.strip_suffix(')')?.split_once("==")?;
        let path = left.trim().strip_prefix("@.")?.split('.').map(str::to_owned).collect();
        return Some(Step::Where(path, unquote(right)));
    }
    match text {
        "*" => Some(Step::Every),
        // A dot of the name may be escaped here, too.
        quoted if quoted.starts_with(['"', '\'']) => Some(Step::Field(unquote(quoted).replace("\\.", "."))),
        index => index.parse().ok().map(Step::Index),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_find_what_printer_columns_name() {
        let object = json!({
            "spec": {"a": [1, 2], "dotted.name": "x"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
        });
        for (path, want) in [
            (".spec.a[1]", json!(2)),
            (".spec.dotted\\.name", json!("x")),
            (".spec['dotted.name']", json!("x")),
            (".spec['dotted\\.name']", json!("x")),
            (".status.conditions[?(@.type==\"Other\")].status", json!("False")),
            (".status.conditions[?(@.type=='Ready')].status", json!("True")),
            (".status.conditions[*].type", json!("Ready")),
            (".nothing.here", Value::Null),
            (".spec.a[", Value::Null),
            ("", Value::Null),
        ] {
            assert_eq!(Path::parse(path).find(&object).cloned().unwrap_or_default(), want, "{path}");
        }
    }
}
