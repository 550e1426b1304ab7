//! The schemas of built-in kinds, derived from their Rust types at first use and shared by every server of the process.
//! In: a way to derive one; out: its tree, or its definitions with descriptions for explain.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value};

use super::{Schema, annotate, parse::Definitions};

/// Derives one type (and what it refers to) into a generator and names it.
pub(crate) type Derive = fn(&mut SchemaGenerator) -> String;

static DONE: LazyLock<Mutex<HashMap<String, Arc<Schema>>>> = LazyLock::new(Mutex::default);

/// The `Derive` of a type.
pub(crate) fn derive<T: JsonSchema>(generator: &mut SchemaGenerator) -> String {
    generator.subschema_for::<T>();
    T::schema_name().into_owned()
}

/// The tree of a built-in kind.
pub(crate) fn of_builtin(of: Derive) -> Arc<Schema> {
    let name = of(&mut generator());
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(schema) = done.get(&name) {
        return schema.clone();
    }
    let (_, sources) = definitions(&[of]);
    let mut definitions = Definitions { sources: &sources, done: std::mem::take(&mut done), open: Vec::new() };
    let schema = super::parse::Resolve::resolve(&mut definitions, &name);
    *done = definitions.done;
    schema
}

/// The names of some built-in kinds, and the definitions of all types they need, merge words included.
pub(crate) fn definitions(of: &[Derive]) -> (Vec<String>, Map<String, Value>) {
    let mut generator = generator();
    let names = of.iter().map(|derive| derive(&mut generator)).collect();
    let mut definitions = generator.take_definitions(true);
    for (name, schema) in &mut definitions {
        annotate(name, schema);
    }
    (names, definitions)
}

fn generator() -> SchemaGenerator {
    SchemaSettings::openapi3().into_generator()
}
