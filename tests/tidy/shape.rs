//! What every file and folder looks like: its first line, its name, its size, nothing left for later.
//!
//! In: all Rust files, tests included. The size rule is a ratchet: lower its numbers when the tree allows, never raise them.

use crate::{
    Breach,
    tree::{Tree, lines_with},
};

const MEDIAN_LINES_MAX: usize = 150;
const NINE_IN_TEN_LINES_MAX: usize = 400;

const DRAWERS: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc", "shared", "lib"];

/// Words that put something off; in pieces, so that this file does not hold them.
const LATER: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
const LATER_CODE: &[&str] = &["dbg!", "todo!", "unimplemented!"];

/// The first line of every file says what it is for.
pub(crate) fn module_docs(tree: &Tree) -> Vec<Breach> {
    let silent = tree.sources().filter(|source| !source.text.starts_with("//! "));
    silent
        .map(|source| Breach::new(source.path, "no module doc", "begin with `//! ` and what the file is for"))
        .collect()
}

/// A folder is named after what is in it.
pub(crate) fn folders(tree: &Tree) -> Vec<Breach> {
    let named = |path: &str| path.split('/').rev().skip(1).any(|part| DRAWERS.contains(&part));
    let mut found: Vec<&str> = tree.files().map(|(path, _)| path).filter(|path| named(path)).collect();
    found.extend(tree.sources().map(|source| source.path).filter(|path| {
        let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs");
        DRAWERS.contains(&stem) && stem != "lib"
    }));
    found.iter().map(|path| Breach::new(*path, "a name that says nothing", "name it after what it holds")).collect()
}

/// No note to self, no debugging aid.
pub(crate) fn leftovers(tree: &Tree) -> Vec<Breach> {
    let todo = "do it now, or open an issue and say in the code what holds today";
    let found = tree.sources().flat_map(|source| {
        let notes = lines_with(source.text, LATER);
        let code = lines_with(&source.code, LATER_CODE);
        let at =
            |(line, word): (usize, &str)| Breach::new(format!("{}:{line}", source.path), format!("`{word}`"), todo);
        notes.chain(code).map(at).collect::<Vec<_>>()
    });
    found.collect()
}

/// Half the files fit on three screens; nine in ten on eight.
pub(crate) fn sizes(tree: &Tree) -> Vec<Breach> {
    let mut sizes: Vec<(usize, &str)> =
        tree.sources().map(|source| (source.text.lines().count(), source.path)).collect();
    sizes.sort_unstable();
    let Some(last) = sizes.len().checked_sub(1) else { return Vec::new() };
    let todo = "split the files with two reasons to change; move tests past 200 lines to `tests.rs` beside them";
    let rules =
        [("the median", last / 2, MEDIAN_LINES_MAX), ("the ninth of ten", last * 9 / 10, NINE_IN_TEN_LINES_MAX)];
    let broken = rules.into_iter().filter(|(_, at, max)| sizes[*at].0 > *max);
    broken
        .map(|(which, at, max)| {
            let over = sizes.iter().filter(|(lines, _)| *lines > max).rev().take(12);
            let over: Vec<String> = over.map(|(lines, path)| format!("{path} ({lines})")).collect();
            Breach::new(
                "sizes",
                format!("{which} file has {} lines, not {max}; the largest: {}", sizes[at].0, over.join(", ")),
                todo,
            )
        })
        .collect()
}

#[test]
fn a_file_that_does_not_say_what_it_is_for_is_found() {
    let cases = [("//! For this.\n", 0), ("use a;\n//! Late.", 1), ("", 1), ("//!\n", 1)];
    for (text, expected) in cases {
        assert_eq!(module_docs(&Tree::of(&[("a/b.rs", text)])).len(), expected, "{text:?}");
    }
}

#[test]
fn a_drawer_is_found() {
    let cases = [
        ("dns/src/utils/a.rs", 1),
        ("dns/src/helpers.rs", 1),
        ("dns/src/lib.rs", 0),
        ("docs/common/a.md", 1),
        ("dns/src/name.rs", 0),
    ];
    for (path, expected) in cases {
        assert_eq!(folders(&Tree::of(&[(path, "")])).len(), expected, "{path}");
    }
}

#[test]
fn a_note_to_self_is_found() {
    let note = format!("// {}: later", LATER[0]);
    let cases = [(note.as_str(), 1), ("dbg!(x)", 1), ("// dbg! is banned", 0), ("todo!()", 1), ("let todo = 1;", 0)];
    for (text, expected) in cases {
        assert_eq!(leftovers(&Tree::of(&[("a.rs", text)])).len(), expected, "{text}");
    }
}

#[test]
fn large_files_are_found() {
    let cases: [(&[usize], usize); 4] = [
        (&[10, 10, 151], 0),
        (&[10, 151, 151], 1),
        (&[10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 500], 0),
        (&[10, 10, 10, 10, 10, 10, 10, 10, 500, 500], 1),
    ];
    for (lines, expected) in cases {
        let texts: Vec<(String, String)> =
            lines.iter().enumerate().map(|(at, lines)| (format!("{at}.rs"), "x\n".repeat(*lines))).collect();
        let files: Vec<(&str, &str)> = texts.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        assert_eq!(sizes(&Tree::of(&files)).len(), expected, "{lines:?}");
    }
}
