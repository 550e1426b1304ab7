//! The rules that hold the tree together, as a test: who may know whom, what belongs to `src/`, what stays pure, how large
//! files may get, and whether the map is true.
//!
//! ```text
//!   tree (files) → lexer (what is code) → rules (crates, process, purity, tables, shape, map) → breaches
//! ```
//!
//! Each rule has a test of its own that breaks it on a tree of a few lines. Never changes a file. Source: ARCHITECTURE.md,
//! "Invariants".

#[path = "tidy/crates.rs"]
mod crates;
#[path = "tidy/lexer.rs"]
mod lexer;
#[path = "tidy/map.rs"]
mod map;
#[path = "tidy/process.rs"]
mod process;
#[path = "tidy/purity.rs"]
mod purity;
#[path = "tidy/shape.rs"]
mod shape;
#[path = "tidy/tables.rs"]
mod tables;
#[path = "tidy/tree.rs"]
mod tree;

use std::{fmt, path::Path};

use tree::Tree;

/// One place where a rule is broken.
#[derive(Debug)]
struct Breach {
    /// The file, with its line where one is to blame.
    at: String,
    /// What is there.
    what: String,
    /// What to do about it.
    todo: &'static str,
}

impl Breach {
    fn new(at: impl Into<String>, what: impl Into<String>, todo: &'static str) -> Self {
        Self { at: at.into(), what: what.into(), todo }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    {}", self.at, self.what, self.todo)
    }
}

/// Runs one rule over the project.
fn holds(rule: fn(&Tree) -> Vec<Breach>) {
    let breaches = rule(&Tree::read(Path::new(env!("CARGO_MANIFEST_DIR"))));
    let list: Vec<String> = breaches.iter().map(Breach::to_string).collect();
    assert!(list.is_empty(), "\n\n{}\n", list.join("\n"));
}

#[test]
fn parts_know_only_whom_they_may() {
    holds(crates::directions);
}

#[test]
fn every_crate_keeps_the_workspace_rules() {
    holds(crates::manners);
}

#[test]
fn there_is_one_of_each_protocol_stack() {
    holds(crates::one_of_each);
}

#[test]
fn the_process_belongs_to_src() {
    holds(process::belongs_to_src);
}

#[test]
fn pure_modules_stay_pure() {
    holds(purity::pure_stays_pure);
}

#[test]
fn data_paths_never_name_the_control_plane() {
    holds(purity::data_paths);
}

#[test]
fn every_plugin_has_a_row() {
    holds(tables::rows);
}

#[test]
fn every_file_says_what_it_is_for() {
    holds(shape::module_docs);
}

#[test]
fn no_folder_is_a_drawer_for_odds_and_ends() {
    holds(shape::folders);
}

#[test]
fn nothing_is_left_for_later() {
    holds(shape::leftovers);
}

#[test]
fn files_stay_small() {
    holds(shape::sizes);
}

#[test]
fn the_map_is_true() {
    holds(map::truth);
}
