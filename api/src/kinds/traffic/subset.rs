//! Subsets of a service: those of its endpoints whose pods have certain labels, so that a route can tell versions of a service apart.
//!
//! In: what a TrafficPolicy says, labels of pods. Out: whether it makes sense, whether a pod is of a subset, whose labels are asked for. Pure.
//! Source: Kubernetes' "Labels and Selectors" (syntax and equality).

use std::collections::{BTreeMap, BTreeSet};

use schemars::{JsonSchema, json_schema};
use serde::{Deserialize, Serialize};

use crate::names::is_label;

/// Subsets of one service, at most.
pub const SUBSETS_MAX: usize = 16;
/// Labels of one subset, at most.
pub const SUBSET_LABELS_MAX: usize = 8;
/// The group and kind by which a route's backend names one, as an `ExtensionRef`.
pub const SUBSET_KIND: &str = "Subset";

/// The endpoints of a service whose pods have these labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subset {
    /// By which routes name it.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// What the pods' labels are, all of them.
    #[schemars(schema_with = "labels")]
    pub labels: BTreeMap<String, String>,
}

fn labels(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    json_schema!({
        "type": "object", "minProperties": 1, "maxProperties": SUBSET_LABELS_MAX,
        "additionalProperties": {
            "type": "string", "maxLength": 63, "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
        }
    })
}

impl Subset {
    /// Whether a pod with these labels is of it.
    pub fn takes(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    fn check(&self) -> Result<(), String> {
        let Self { name, labels } = self;
        if !is_label(name) {
            return Err(format!("subset `{name}`: its name is no DNS label"));
        }
        if !(1..=SUBSET_LABELS_MAX).contains(&labels.len()) {
            return Err(format!("subset `{name}`: write 1 to {SUBSET_LABELS_MAX} labels"));
        }
        for (key, value) in labels {
            if !is_key(key) {
                return Err(format!("subset `{name}`: `{key}` is no key of a label"));
            }
            if !value.is_empty() && !is_word(value) {
                return Err(format!("subset `{name}`: `{value}` is no value of label `{key}`"));
            }
        }
        Ok(())
    }
}

/// Checks the subsets of a policy; the schema says the same but for keys of labels.
///
/// # Errors
/// There are too many, a name stands twice, or a name, a key or a value is none; the message names it.
pub fn check_subsets(subsets: &[Subset]) -> Result<(), String> {
    if subsets.len() > SUBSETS_MAX {
        return Err(format!("there are {} subsets, at most {SUBSETS_MAX} may be", subsets.len()));
    }
    let mut names = BTreeSet::new();
    for subset in subsets {
        subset.check()?;
        if !names.insert(&subset.name) {
            return Err(format!("subset `{}` stands twice", subset.name));
        }
    }
    Ok(())
}

/// A key of a label: a name, behind a domain name and a slash where it has one.
fn is_key(key: &str) -> bool {
    let (domain, name) = key.split_once('/').map_or((None, key), |(domain, name)| (Some(domain), name));
    domain.is_none_or(|d| d.len() <= 253 && d.split('.').all(is_label)) && is_word(name)
}

/// What names of labels and their values consist of.
fn is_word(word: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let b = word.as_bytes();
    b.len() <= 63
        && edge(b.first())
        && edge(b.last())
        && b.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subset(name: &str, labels: &[(&str, &str)]) -> Subset {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Subset { name: name.to_owned(), labels }
    }

    #[test]
    fn a_pod_is_of_a_subset_whose_labels_it_has_all() {
        let v1 = subset("v1", &[("version", "1"), ("track", "stable")]);
        for (labels, takes) in [
            (&[("version", "1"), ("track", "stable"), ("more", "x")][..], true),
            (&[("version", "1")], false),
            (&[("version", "2"), ("track", "stable")], false),
            (&[], false),
        ] {
            assert_eq!(v1.takes(&subset("", labels).labels), takes, "{labels:?}");
        }
    }

    #[test]
    fn what_is_no_subset_is_refused_with_the_word_that_is_wrong() {
        let (long, many) = ("x".repeat(64), (0..17).map(|n| subset(&format!("v{n}"), &[("version", "1")])).collect());
        let nine: Vec<String> = (0..9).map(|n| format!("k{n}")).collect();
        let nine: Vec<(&str, &str)> = nine.iter().map(|k| (k.as_str(), "")).collect();
        let cases: Vec<(Vec<Subset>, &str)> = vec![
            (vec![], ""),
            (vec![subset("v1", &[("version", "1")]), subset("v2", &[("example.com/version", "2.0_b-C")])], ""),
            (vec![subset("v1", &[("canary", "")])], ""),
            (vec![subset("v1", &[("a", "1")]), subset("v1", &[("a", "2")])], "`v1` stands twice"),
            (vec![subset("V1", &[("a", "1")])], "`V1`: its name"),
            (vec![subset("", &[("a", "1")])], "``: its name"),
            (vec![subset("v1", &[])], "1 to 8 labels"),
            (vec![subset("v1", &nine)], "1 to 8 labels"),
            (vec![subset("v1", &[("a b", "1")])], "`a b` is no key"),
            (vec![subset("v1", &[("Example.com/a", "1")])], "`Example.com/a` is no key"),
            (vec![subset("v1", &[("/a", "1")])], "`/a` is no key"),
            (vec![subset("v1", &[(&long, "1")])], "is no key"),
            (vec![subset("v1", &[("a", "-1")])], "`-1` is no value of label `a`"),
            (vec![subset("v1", &[("a", &long)])], "is no value"),
            (many, "17 subsets"),
        ];
        for (subsets, says) in cases {
            match check_subsets(&subsets) {
                Ok(()) => assert_eq!(says, "", "{subsets:?}"),
                Err(why) => assert!(!says.is_empty() && why.contains(says), "{says}: {why}"),
            }
        }
    }
}
