//! What an object may look like: one small tree for built-in and custom kinds alike, used to prune, default, validate,
//! merge and own fields. In: JSON Schema as CRDs write it (structural); out: the tree and walks over it.
//! Descriptions are not kept here; explain reads them from the source.
//! Source: KEP-2332 (pruning), KEP-1111 (structural), structured-merge-diff.

mod builtin;
mod defaults;
mod lists;
mod parse;
mod prune;
mod rules;
mod validate;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use regex::Regex;
use serde_json::Value;

pub(crate) use self::{
    builtin::{Derive, definitions, derive, of_builtin},
    defaults::fill,
    lists::annotate,
    parse::parse,
    prune::prune,
    validate::{validate, validate_update},
};

/// The JSON type wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Type {
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
}

impl Type {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::IntOrString => "integer or string",
        }
    }
}

/// How the items of a list are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ListType {
    /// The list is one value.
    #[default]
    Atomic,
    /// Scalars, each at most once.
    Set,
    /// Objects, told apart by these fields.
    Map(Vec<Box<str>>),
}

/// What a strategic merge patch does with a list or map.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Strategy {
    /// Lists of objects merge by this field.
    pub(crate) merge_key: Option<Box<str>>,
    /// Lists of scalars merge as sets.
    pub(crate) merge: bool,
}

/// What a map may hold beyond its properties.
#[derive(Debug, Clone, Default)]
pub(crate) enum Additional {
    /// Nothing that is known: unknown fields are pruned.
    #[default]
    None,
    /// Anything.
    Any,
    /// Values of one schema.
    Of(Arc<Schema>),
}

/// A pattern, compiled at its first use: a compiled one is large and most are never used.
#[derive(Debug)]
pub(crate) struct Pattern {
    pub(crate) source: Box<str>,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    pub(crate) fn new(source: &str) -> Self {
        Self { source: source.into(), compiled: OnceLock::new() }
    }

    /// Whether a text matches. A pattern that does not compile matches everything: the CRD was refused or is foreign.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let regex = self.compiled.get_or_init(|| Regex::new(&self.source).ok());
        regex.as_ref().is_none_or(|regex| regex.is_match(text))
    }
}

/// The value limits of JSON Schema. Most schemas have none.
#[derive(Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) minimum: Option<f64>,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) exclusive_maximum: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) len_min: Option<u64>,
    pub(crate) len_max: Option<u64>,
    pub(crate) pattern: Option<Pattern>,
    pub(crate) items_min: Option<u64>,
    pub(crate) items_max: Option<u64>,
    pub(crate) unique: bool,
    pub(crate) properties_min: Option<u64>,
    pub(crate) properties_max: Option<u64>,
    pub(crate) format: Option<Box<str>>,
    pub(crate) one_value_of: Option<Vec<Value>>,
    pub(crate) all_of: Vec<Schema>,
    pub(crate) any_of: Vec<Schema>,
    pub(crate) one_of: Vec<Schema>,
    pub(crate) not: Option<Box<Schema>>,
}

/// One rule of `x-kubernetes-validations`.
#[derive(Debug, Default)]
pub(crate) struct Rule {
    pub(crate) rule: Box<str>,
    pub(crate) message: Option<Box<str>>,
    pub(crate) message_expression: Option<Box<str>>,
    pub(crate) reason: Option<Box<str>>,
    pub(crate) field_path: Option<Box<str>>,
    compiled: OnceLock<Option<rules::Compiled>>,
}

/// One node of the tree.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub(crate) kind: Type,
    pub(crate) nullable: bool,
    pub(crate) properties: BTreeMap<Box<str>, Arc<Schema>>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<Arc<Schema>>,
    pub(crate) required: Vec<Box<str>>,
    pub(crate) default: Option<Value>,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded: bool,
    pub(crate) list: ListType,
    pub(crate) atomic_map: bool,
    pub(crate) strategy: Strategy,
    pub(crate) bounds: Option<Box<Bounds>>,
    pub(crate) rules: Vec<Rule>,
}

impl Schema {
    /// The schema of a field of a map; none if it is not known.
    pub(crate) fn field(&self, name: &str) -> Option<&Arc<Schema>> {
        self.properties.get(name).or(match &self.additional {
            Additional::Of(schema) => Some(schema),
            Additional::None | Additional::Any => None,
        })
    }
}
