//! What is served: one `Resource` per group, version and plural name. Built-in ones come from a table, custom ones from
//! CustomResourceDefinition objects. In: CRDs; out: lookups. The set is immutable and swapped whole.

mod builtin;
mod custom;

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, OnceLock},
};

use serde_json::Value;

pub(crate) use self::{
    builtin::{Row, groups_without_rows},
    custom::{Custom, check_definition, established},
};
use crate::{
    schema::{Schema, of_builtin},
    store::Stored,
};

/// Group of the definitions themselves.
pub(crate) const DEFINITIONS: &str = "apiextensions.k8s.io/customresourcedefinitions";

/// Where the scale subresource finds its numbers (JSON paths without the leading dot).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scale {
    pub(crate) spec: Vec<String>,
    pub(crate) status: Vec<String>,
    pub(crate) selector: Option<Vec<String>>,
}

/// Where a resource comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A row of the table.
    Builtin(&'static Row),
    /// A version of a CustomResourceDefinition.
    Custom(Custom),
}

/// One served resource.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) group: Box<str>,
    pub(crate) version: Box<str>,
    pub(crate) plural: Box<str>,
    pub(crate) singular: Box<str>,
    pub(crate) kind: Box<str>,
    pub(crate) list_kind: Box<str>,
    pub(crate) short_names: Vec<Box<str>>,
    pub(crate) categories: Vec<Box<str>>,
    pub(crate) namespaced: bool,
    pub(crate) has_status: bool,
    /// Whether metadata.generation counts changes of what is wanted.
    pub(crate) counts_generation: bool,
    pub(crate) scale: Option<Scale>,
    /// The name under which objects are stored: `group/plural`.
    pub(crate) collection: Arc<str>,
    /// The apiVersion under which objects are stored.
    pub(crate) stored_as: Box<str>,
    pub(crate) source: Source,
    schema: OnceLock<Arc<Schema>>,
}

impl Resource {
    /// `group/version`, or `v1` in the core group.
    pub(crate) fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// The schema, made at first use.
    pub(crate) fn schema(&self) -> &Arc<Schema> {
        self.schema.get_or_init(|| match &self.source {
            Source::Builtin(row) => of_builtin(row.derive),
            Source::Custom(custom) => custom.schema(),
        })
    }

    pub(crate) fn is_custom(&self) -> bool {
        matches!(self.source, Source::Custom(_))
    }

    /// Whether a definition names this field as selectable.
    pub(crate) fn selectable(&self, field: &str) -> bool {
        match &self.source {
            Source::Builtin(_) => false,
            Source::Custom(custom) => {
                let entry = custom.entry();
                let fields = entry.get("selectableFields").and_then(Value::as_array);
                fields.into_iter().flatten().any(|f| {
                    f.get("jsonPath").and_then(Value::as_str).and_then(|path| path.strip_prefix('.')) == Some(field)
                })
            }
        }
    }

    /// Whether this is the built-in resource with this name in this group.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        *self.group == *group && *self.plural == *plural
    }
}

/// `group/version`, or the bare version in the core group.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

static BUILTIN: LazyLock<Vec<Arc<Resource>>> = LazyLock::new(|| builtin::rows().iter().map(Row::resource).collect());

/// Whether a resource is built in.
fn is_builtin(group: &str, plural: &str) -> bool {
    BUILTIN.iter().any(|resource| resource.is(group, plural))
}

/// Group, version and plural.
type Served = (Box<str>, Box<str>, Box<str>);

/// Everything served at one moment.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    /// In discovery's order.
    pub(crate) all: Vec<Arc<Resource>>,
    index: HashMap<Served, usize>,
}

impl Kinds {
    /// The built-in kinds and those that the definitions ask for. A definition that can't be read is left out; what a definition
    /// that has not changed asks for is taken from `before`, for reading one is a lot of work.
    pub(crate) fn new<'a>(before: &Self, definitions: impl Iterator<Item = &'a Arc<Stored>>) -> Self {
        let mut read: HashMap<*const Stored, Vec<Arc<Resource>>> = HashMap::new();
        for resource in &before.all {
            if let Source::Custom(custom) = &resource.source {
                read.entry(Arc::as_ptr(custom.definition())).or_default().push(resource.clone());
            }
        }
        let mut all = BUILTIN.clone();
        for stored in definitions {
            let known = read.remove(&Arc::as_ptr(stored));
            all.extend(known.unwrap_or_else(|| custom::resources(stored)));
        }
        let mut index = HashMap::new();
        for (at, r) in all.iter().enumerate() {
            // What is built in comes first, and stays.
            index.entry((r.group.clone(), r.version.clone(), r.plural.clone())).or_insert(at);
        }
        Self { all, index }
    }

    pub(crate) fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.index.get(&(group.into(), version.into(), plural.into())).map(|at| &self.all[*at])
    }

    /// A resource of this group, any version.
    pub(crate) fn any_version(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.all.iter().find(|r| r.is(group, plural))
    }

    /// The resource that serves a kind.
    pub(crate) fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.all.iter().find(|r| *r.kind == *kind && r.api_version() == api_version)
    }

    /// Groups in order of first appearance, each with its versions, the preferred one first.
    pub(crate) fn groups(&self) -> Vec<(Box<str>, Vec<Box<str>>)> {
        let mut groups: Vec<(Box<str>, Vec<Box<str>>)> = Vec::new();
        let listed = self.all.iter().map(|r| (&*r.group, &*r.version)).chain(groups_without_rows().iter().copied());
        for (group, version) in listed {
            match groups.iter_mut().find(|(name, _)| **name == *group) {
                Some((_, versions)) if versions.iter().any(|v| **v == *version) => {}
                Some((_, versions)) => versions.push(version.into()),
                None => groups.push((group.into(), vec![version.into()])),
            }
        }
        groups
    }
}

/// The array of strings under a key.
fn strings(value: &Value, key: &str) -> Vec<Box<str>> {
    value.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect()
}
