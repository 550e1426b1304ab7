//! Label and field selectors. In: the query's text; out: whether an object matches, or why the text is refused.
//! Source: apimachinery/pkg/labels, pkg/fields, and each kind's selectable fields.

use serde_json::Value;

use crate::{
    kinds::Resource,
    object::{self, text},
    refusal::Refusal,
    store::Stored,
};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Greater(String, i64),
    Less(String, i64),
}

/// Parsed labelSelector and fieldSelector.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    labels: Vec<Requirement>,
    /// Field, wanted value, whether it must equal.
    fields: Vec<(String, String, bool)>,
}

impl Selection {
    pub(crate) fn parse(labels: &str, fields: &str, resource: &Resource) -> Result<Self, Refusal> {
        let labels = split_outside_parens(labels).into_iter().map(requirement).collect::<Result<_, _>>()?;
        let fields = fields
            .split(',')
            .filter(|term| !term.trim().is_empty())
            .map(|term| field_term(term.trim(), resource))
            .collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    pub(crate) fn matches(&self, stored: &Stored) -> bool {
        self.labels.iter().all(|requirement| requirement.matches(|key| stored.label(key)))
            && (self.fields.is_empty() || self.fields_match(&stored.value()))
    }

    fn fields_match(&self, object: &Value) -> bool {
        self.fields.iter().all(|(field, want, equal)| (field_value(object, field) == *want) == *equal)
    }
}

impl Requirement {
    fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let number = |key: &String| label(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Exists(key) => label(key).is_some(),
            Self::Absent(key) => label(key).is_none(),
            Self::In(key, values) => label(key).is_some_and(|have| values.iter().any(|want| want == have)),
            Self::NotIn(key, values) => label(key).is_none_or(|have| !values.iter().any(|want| want == have)),
            Self::Greater(key, bound) => number(key).is_some_and(|have| have > *bound),
            Self::Less(key, bound) => number(key).is_some_and(|have| have < *bound),
        }
    }
}

fn split_outside_parens(text: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0_usize, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn requirement(term: &str) -> Result<Requirement, Refusal> {
    let bad = || Refusal::bad_request(format!("unable to parse requirement: {term:?} is not a label selector"));
    let key = |text: &str| -> Result<String, Refusal> {
        let text = text.trim();
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        if !text.is_empty() && text.chars().all(fine) { Ok(text.to_owned()) } else { Err(bad()) }
    };
    let value = |text: &str| -> Result<String, Refusal> {
        let text = text.trim();
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.chars().all(fine) { Ok(text.to_owned()) } else { Err(bad()) }
    };
    if let Some((head, list)) = term.split_once('(') {
        let list = list.trim().strip_suffix(')').ok_or_else(bad)?;
        let values = list.split(',').map(value).collect::<Result<Vec<_>, _>>()?;
        let head = head.trim();
        return match head.strip_suffix(" notin").or_else(|| head.strip_suffix("\tnotin")) {
            Some(name) => Ok(Requirement::NotIn(key(name)?, values)),
            None => Ok(Requirement::In(key(head.strip_suffix(" in").ok_or_else(bad)?)?, values)),
        };
    }
    if let Some((name, want)) = term.split_once("!=") {
        return Ok(Requirement::NotIn(key(name)?, vec![value(want)?]));
    }
    if let Some((name, want)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Ok(Requirement::In(key(name)?, vec![value(want)?]));
    }
    if let Some((name, bound)) = term.split_once('>') {
        return Ok(Requirement::Greater(key(name)?, bound.trim().parse().map_err(|_| bad())?));
    }
    if let Some((name, bound)) = term.split_once('<') {
        return Ok(Requirement::Less(key(name)?, bound.trim().parse().map_err(|_| bad())?));
    }
    match term.strip_prefix('!') {
        Some(name) => Ok(Requirement::Absent(key(name)?)),
        None => Ok(Requirement::Exists(key(term)?)),
    }
}

/// Fields that can be selected beside metadata.name and metadata.namespace, by collection.
const FIELDS: &[(&str, &[&str])] = &[
    (
        "/pods",
        &[
            "status.phase",
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.podIP",
            "status.nominatedNodeName",
            "spec.hostNetwork",
        ],
    ),
    (
        "/events",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "type",
            "reportingComponent",
            "source",
            "regarding.kind",
            "regarding.name",
            "regarding.namespace",
            "regarding.uid",
        ],
    ),
    ("/secrets", &["type"]),
    ("/namespaces", &["status.phase"]),
    ("/nodes", &["spec.unschedulable"]),
    ("/services", &["spec.clusterIP", "spec.type"]),
    ("apps/replicasets", &["status.replicas"]),
    ("batch/jobs", &["status.successful"]),
];

fn field_term(term: &str, resource: &Resource) -> Result<(String, String, bool), Refusal> {
    let (field, want, equal) = if let Some((field, want)) = term.split_once("!=") {
        (field, want, false)
    } else if let Some((field, want)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (field, want, true)
    } else {
        return Err(Refusal::bad_request(format!("invalid selector: '{term}'; can't understand '{term}'")));
    };
    let own = FIELDS.iter().find(|(collection, _)| *collection == &*resource.collection);
    let selectable = matches!(field, "metadata.name" | "metadata.namespace")
        || own.is_some_and(|(_, fields)| fields.contains(&field))
        || resource.selectable(field);
    if selectable {
        Ok((field.to_owned(), want.replace("\\,", ",").replace("\\=", "="), equal))
    } else {
        Err(Refusal::bad_request(format!("field label not supported: {field}")))
    }
}

fn field_value(object: &Value, field: &str) -> String {
    let field = match field {
        "source" => "source.component".to_owned(),
        other => {
            other.strip_prefix("regarding.").map_or_else(|| other.to_owned(), |rest| format!("involvedObject.{rest}"))
        }
    };
    let path: Vec<&str> = field.split('.').collect();
    match object::at(object, &path) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        _ if field == "spec.unschedulable" || field == "spec.hostNetwork" => "false".into(),
        _ => text(object, &path).to_owned(),
    }
}
