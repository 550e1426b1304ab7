//! Selectors of clusters: every given field must hold; an empty selector means all.
//!
//! Input: a selector as written in an object and a cluster's spec and labels. Output: yes or no. Source: the semantics of
//! Kubernetes label selectors (In, NotIn, Exists, DoesNotExist).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kinds::ClusterSpec;

/// Which clusters are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSelector {
    /// Names of Cluster objects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Environments, for example `prod`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<String>,
    /// Regions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// Zones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<String>,
    /// Providers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<String>,
    /// Cluster sets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cluster_sets: Vec<String>,
    /// Labels of the Cluster object that must have exactly these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Label expressions, all of which must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelExpression>,
}

/// One condition on a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelExpression {
    /// The label's key.
    pub key: String,
    /// How to compare.
    pub operator: LabelOperator,
    /// Values for In and NotIn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// How a label expression compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// The value is one of `values`.
    In,
    /// The label is absent or its value none of `values`.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
}

impl LabelExpression {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            LabelOperator::In => value.is_some_and(|v| self.values.contains(v)),
            LabelOperator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }
}

impl ClusterSelector {
    /// Whether the cluster `name` with `spec` and `labels` is meant.
    pub fn matches(&self, name: &str, spec: &ClusterSpec, labels: &BTreeMap<String, String>) -> bool {
        let any = |wanted: &[String], have: Option<&str>| {
            wanted.is_empty() || have.is_some_and(|h| wanted.iter().any(|w| w == h))
        };
        any(&self.names, Some(name))
            && any(&self.environments, Some(&spec.environment))
            && any(&self.regions, spec.region.as_deref())
            && any(&self.zones, spec.zone.as_deref())
            && any(&self.providers, spec.provider.as_deref())
            && any(&self.cluster_sets, Some(spec.set()))
            && self.match_labels.iter().all(|(k, v)| labels.get(k) == Some(v))
            && self.match_expressions.iter().all(|e| e.holds(labels))
    }
}
