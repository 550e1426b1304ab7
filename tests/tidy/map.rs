//! ARCHITECTURE.md is short, names every top folder, and no path that is gone.
//!
//! In: its text and the tree. A path is what stands in backticks, or begins a line of a drawing, and has a slash or the ending
//! of a file of ours.

use crate::{Breach, tree::Tree};

const MAP: &str = "ARCHITECTURE.md";
const LINES_MAX: usize = 250;
const ENDINGS: &[&str] = &[".rs", ".md", ".toml"];

/// The map agrees with the land.
pub(crate) fn truth(tree: &Tree) -> Vec<Breach> {
    let Some(text) = tree.text(MAP) else {
        return vec![Breach::new(MAP, "no map", "draw one: folders, invariants, flows")];
    };
    let mut breaches = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        breaches.push(Breach::new(
            MAP,
            format!("{lines} lines, not {LINES_MAX}"),
            "say it in fewer words, or in docs/",
        ));
    }
    let named: Vec<&str> = paths(text);
    for folder in tree.top_folders() {
        if !named.iter().any(|path| path.split('/').next() == Some(folder)) {
            breaches.push(Breach::new(MAP, format!("says nothing of `{folder}/`"), "say in a line what it is for"));
        }
    }
    for path in named.iter().filter(|path| !tree.has(path)) {
        breaches.push(Breach::new(MAP, format!("names `{path}`, which is not there"), "correct it"));
    }
    breaches
}

fn paths(text: &str) -> Vec<&str> {
    let ticked = text.split('`').skip(1).step_by(2);
    let drawn = text.lines().filter(|line| line.starts_with("    ")).filter_map(|line| line.split_whitespace().next());
    ticked.chain(drawn).filter(|word| is_path(word)).collect()
}

fn is_path(word: &str) -> bool {
    let letters = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    let ours = word.contains('/') || ENDINGS.iter().any(|ending| word.ends_with(ending));
    let group = word
        .split('/')
        .next()
        .is_some_and(|first| first.contains('.') && !first.starts_with('.') && word.contains('/'));
    letters && ours && !group && !word.starts_with('/') && !word.contains("//")
}

#[test]
fn a_map_that_lies_is_found() {
    let tree = |map: &str| Tree::of(&[(MAP, map), ("api/src/lib.rs", ""), ("dns/src/lib.rs", ""), ("Cargo.toml", "")]);
    let cases = [
        ("`api/` and `dns/src/lib.rs` and `Cargo.toml`", 0),
        ("    api/    the language\n    dns/    names\n", 0),
        ("`api/`", 1),
        ("`api/`, `dns/`, `gone/`", 1),
        ("`api/`, `dns/`, `dns/src/gone.rs`", 1),
        ("`api/`, `dns/`, `atoll.dev/v1alpha1`, `<svc>.<ns>.svc`, `a::b`", 0),
    ];
    for (map, expected) in cases {
        assert_eq!(truth(&tree(map)).len(), expected, "{map}");
    }
    assert_eq!(truth(&tree(&format!("`api/` `dns/`{}", "\n".repeat(251)))).len(), 1);
    assert_eq!(truth(&Tree::of(&[])).len(), 1);
}
