//! A set of fields as a tree, written and read as FieldsV1.
//! Elements keep their text form: `f:name`, `k:{"name":"x"}`, `v:"x"`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A node: whether it is in the set itself, and what below it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    pub(super) owned: bool,
    pub(super) children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    pub(super) fn leaf() -> Self {
        Self { owned: true, children: BTreeMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.owned && self.children.values().all(Self::is_empty)
    }

    /// Adds a child unless it is empty.
    pub(super) fn put(&mut self, element: String, child: Self) {
        if !child.is_empty() {
            self.children.insert(element, child);
        }
    }

    pub(super) fn from_json(json: &Value) -> Self {
        let Some(map) = json.as_object() else { return Self::default() };
        let mut set = Self { owned: map.is_empty() || map.contains_key("."), children: BTreeMap::new() };
        for (element, child) in map.iter().filter(|(element, _)| *element != ".") {
            set.children.insert(element.clone(), Self::from_json(child));
        }
        set
    }

    pub(super) fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.owned && !self.children.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            map.insert(element.clone(), child.to_json());
        }
        Value::Object(map)
    }

    pub(super) fn union(mut self, other: &Self) -> Self {
        self.add(other);
        self
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.owned |= other.owned;
        for (element, child) in &other.children {
            self.children.entry(element.clone()).or_default().add(child);
        }
    }

    /// What is here but not there.
    pub(super) fn minus(&self, other: &Self) -> Self {
        let mut rest = Self { owned: self.owned && !other.owned, children: BTreeMap::new() };
        for (element, child) in &self.children {
            let child = other.children.get(element).map_or_else(|| child.clone(), |o| child.minus(o));
            rest.put(element.clone(), child);
        }
        rest
    }

    /// What is in both.
    pub(super) fn common(&self, other: &Self) -> Self {
        let mut both = Self { owned: self.owned && other.owned, children: BTreeMap::new() };
        for (element, child) in &self.children {
            if let Some(other) = other.children.get(element) {
                both.put(element.clone(), child.common(other));
            }
        }
        both
    }

    /// The paths in the set, as messages write them: `.spec.ports[port=80].name`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, prefix: &str, paths: &mut Vec<String>) {
        if self.owned {
            paths.push(prefix.to_owned());
        }
        for (element, child) in &self.children {
            child.collect(&format!("{prefix}{}", show(element)), paths);
        }
    }
}

fn show(element: &str) -> String {
    match element.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("v:", value)) => format!("[={value}]"),
        Some(("k:", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let list: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", list.join(","))
        }
        _ => format!("[{element}]"),
    }
}
