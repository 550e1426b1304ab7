//! Which crate may depend on which, and what every crate's manifest says.
//!
//! In: the Cargo.toml files and Cargo.lock. A nested crate counts as its parent; dev- and build-dependencies count too.

use toml::{Table, Value};

use crate::{Breach, tree::Tree};

/// What each part may depend on besides itself and `api`; the root may have all.
const MAY_USE: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("federation", &[]),
    ("dns", &[]),
    ("gateway", &[]),
    ("agents", &[]),
    ("demo", &["federation/apiserver", "federation/registry"]),
    ("testbed", &[]),
    ("benches", &["dns", "gateway", "federation", "federation/apiserver", "testbed"]),
    ("fuzz", &["dns", "gateway"]),
];

/// For anybody's tests.
const TEST_DOUBLE: &str = "federation/apiserver";

/// Crates of which the whole build has exactly one version.
const ONE_OF_EACH: &[&str] = &["rustls", "hyper", "http", "h2", "tonic", "kube"];

const TABLES: &[&str] = &["dependencies", "build-dependencies", "dev-dependencies"];

/// The parts never import one another; `api` is for all, `federation/apiserver` for anybody's tests.
pub(crate) fn directions(tree: &Tree) -> Vec<Breach> {
    let crates = crates(tree);
    let mut breaches = Vec::new();
    for krate in crates.iter().filter(|krate| !krate.folder.is_empty()) {
        for (table, dependency) in krate.dependencies() {
            let Some(other) = crates.iter().find(|other| other.name == dependency) else { continue };
            let (part, other_part) = (part(&krate.folder), part(&other.folder));
            let allowed = MAY_USE.iter().find(|(name, _)| *name == part).map_or(&[][..], |(_, uses)| uses);
            let fine = part == other_part && !outwards(&krate.folder, &other.folder)
                || other_part == "api" && part != "api"
                || allowed.contains(&other.folder.as_str())
                || table == "dev-dependencies" && other.folder == TEST_DOUBLE && part != "api";
            if !fine {
                breaches.push(Breach::new(
                    krate.path(),
                    format!("`{part}` depends on `{}` ({table})", other.folder),
                    "put what both need into `api`, or let `src/` hand it in behind a trait of `api`",
                ));
            }
        }
    }
    breaches
}

/// Within a part only the outer crate may use the nested one.
fn outwards(from: &str, to: &str) -> bool {
    from.len() > to.len() && from.starts_with(to) && to != "api"
}

/// Lints inherited, no features, and `anyhow` only where nothing calls us.
pub(crate) fn manners(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for krate in crates(tree) {
        let lints = krate.manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool);
        if lints != Some(true) {
            breaches.push(Breach::new(
                krate.path(),
                "no `[lints] workspace = true`",
                "add it: the lints hold everywhere",
            ));
        }
        if krate.manifest.contains_key("features") {
            let todo = "make it configuration: a build that behaves in another way is never tested";
            breaches.push(Breach::new(krate.path(), "a `[features]` table", todo));
        }
        let part = !["", "testbed"].contains(&krate.folder.as_str());
        if part && krate.dependencies().any(|(table, name)| name == "anyhow" && table == "dependencies") {
            breaches.push(Breach::new(
                krate.path(),
                "depends on `anyhow`",
                "give the part an error of its own (thiserror)",
            ));
        }
    }
    breaches
}

/// Cargo.lock holds one version of what all parts must share.
pub(crate) fn one_of_each(tree: &Tree) -> Vec<Breach> {
    let lock: Table = tree.text("Cargo.lock").unwrap_or_default().parse().expect("Cargo.lock is TOML");
    let packages = lock.get("package").and_then(Value::as_array).cloned().unwrap_or_default();
    let count = |name: &str| packages.iter().filter(|package| package["name"].as_str() == Some(name)).count();
    let wrong = ONE_OF_EACH.iter().filter(|name| count(name) != 1);
    let todo = "`cargo tree -d` shows who brings the other; move or drop it";
    wrong.map(|name| Breach::new("Cargo.lock", format!("{} versions of `{name}`", count(name)), todo)).collect()
}

struct Crate {
    /// Relative to the top; empty for the root.
    folder: String,
    name: String,
    manifest: Table,
}

impl Crate {
    fn path(&self) -> String {
        format!("{}/Cargo.toml", self.folder).trim_start_matches('/').to_owned()
    }

    /// Table and package name of each dependency, those for some targets only included.
    fn dependencies(&self) -> impl Iterator<Item = (&'static str, String)> {
        let targets = self.manifest.get("target").and_then(Value::as_table);
        let scopes =
            std::iter::once(&self.manifest).chain(targets.into_iter().flatten().filter_map(|(_, t)| t.as_table()));
        scopes.flat_map(|scope| {
            TABLES.iter().flat_map(move |table| {
                let entries = scope.get(*table).and_then(Value::as_table).into_iter().flatten();
                entries.map(move |(key, value)| {
                    (*table, value.get("package").and_then(Value::as_str).unwrap_or(key).to_owned())
                })
            })
        })
    }
}

fn crates(tree: &Tree) -> Vec<Crate> {
    let manifests = tree.files().filter(|(path, _)| path.ends_with("Cargo.toml"));
    let parsed = manifests.filter_map(|(path, text)| {
        let manifest: Table = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        let name = manifest.get("package")?.get("name")?.as_str()?.to_owned();
        Some(Crate { folder: path.trim_end_matches("Cargo.toml").trim_end_matches('/').to_owned(), name, manifest })
    });
    parsed.collect()
}

fn part(folder: &str) -> &str {
    folder.split('/').next().unwrap_or(folder)
}

#[cfg(test)]
fn broken(files: &[(&str, &str)], rule: fn(&Tree) -> Vec<Breach>) -> usize {
    let texts: Vec<(String, String)> = files
        .iter()
        .map(|(folder, rest)| {
            let name = if folder.is_empty() { "atoll".into() } else { folder.replace('/', "-") };
            let path = format!("{folder}/Cargo.toml").trim_start_matches('/').to_owned();
            (path, format!("[package]\nname = \"{name}\"\n{rest}"))
        })
        .collect();
    let pairs: Vec<(&str, &str)> = texts.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    rule(&Tree::of(&pairs)).len()
}

#[test]
fn a_wrong_direction_is_found() {
    let cases = [
        ("dns", "[dependencies]\napi = {}", 0),
        ("dns", "[dependencies]\napi-reach = {}", 0),
        ("dns", "[dependencies]\ngateway = {}", 1),
        ("dns", "[dev-dependencies]\ngateway.workspace = true", 1),
        ("dns", "[build-dependencies]\ngateway = {}", 1),
        ("dns", "[target.'cfg(unix)'.dependencies]\nx = {package = \"gateway\"}", 1),
        ("dns", "[dependencies]\nfederation-apiserver = {}", 1),
        ("dns", "[dev-dependencies]\nfederation-apiserver = {}", 0),
        ("demo", "[dependencies]\nfederation-apiserver = {}", 0),
        ("demo", "[dependencies]\nfederation = {}", 1),
        ("federation", "[dependencies]\nfederation-apiserver = {}", 0),
        ("federation/registry", "[dependencies]\nfederation = {}", 1),
        ("agents", "[dependencies]\nfederation-registry = {}", 1),
        ("api", "[dependencies]\ndns = {}", 1),
        ("api/wire", "[dependencies]\napi = {}", 0),
        ("", "[dependencies]\ndns = {}\ngateway = {}", 0),
    ];
    for (folder, text, expected) in cases {
        let others =
            ["api", "api/reach", "dns", "gateway", "federation", "federation/apiserver", "federation/registry"];
        let mut files: Vec<(&str, &str)> =
            others.iter().filter(|other| **other != folder).map(|other| (*other, "")).collect();
        files.push((folder, text));
        assert_eq!(broken(&files, directions), expected, "{folder}: {text}");
    }
}

#[test]
fn bad_manners_are_found() {
    let lints = "[lints]\nworkspace = true\n";
    let cases = [("", 1), (lints, 0)];
    for (text, expected) in cases {
        assert_eq!(broken(&[("dns", text)], manners), expected, "{text}");
    }
    assert_eq!(broken(&[("dns", &format!("[features]\nfast = []\n{lints}"))], manners), 1);
    assert_eq!(broken(&[("dns", &format!("[dependencies]\nanyhow = \"1\"\n{lints}"))], manners), 1);
    assert_eq!(broken(&[("", &format!("[dependencies]\nanyhow = \"1\"\n{lints}"))], manners), 0);
}

#[test]
fn a_second_version_is_found() {
    let lock =
        |names: &[&str]| names.iter().map(|name| format!("[[package]]\nname = \"{name}\"\n")).collect::<String>();
    let all = lock(ONE_OF_EACH);
    assert_eq!(one_of_each(&Tree::of(&[("Cargo.lock", &all)])).len(), 0);
    assert_eq!(one_of_each(&Tree::of(&[("Cargo.lock", &(all.clone() + &lock(&["hyper"])))])).len(), 1);
    assert_eq!(one_of_each(&Tree::of(&[("Cargo.lock", &lock(&ONE_OF_EACH[1..]))])).len(), 1);
}
