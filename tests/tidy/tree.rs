//! The files that the rules look at, and what is code in them.
//!
//! In: a folder, or pairs of path and text in a rule's own tests. Out: files by path relative to the top. Never looks into
//! `target`, `.git` or what is not text.

use std::{collections::BTreeMap, fs, path::Path};

use crate::lexer;

/// Every text file of the project, by path.
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
}

/// A Rust file in three layers, lines kept.
pub(crate) struct Source<'a> {
    pub(crate) path: &'a str,
    /// As it stands.
    pub(crate) text: &'a str,
    /// Without comments and the insides of strings.
    pub(crate) code: String,
    /// `code` without what is built for tests only; empty where the whole file is a test.
    pub(crate) product: String,
}

impl Tree {
    pub(crate) fn read(top: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut folders = vec![top.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder of the project can be read") {
                let path = entry.expect("an entry can be read").path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if path.is_symlink() || [".git", "target"].contains(&name.as_str()) {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(text) = fs::read_to_string(&path) {
                    let short = path.strip_prefix(top).expect("it lies under the top");
                    files.insert(short.to_string_lossy().into_owned(), text);
                }
            }
        }
        Self { files }
    }

    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        Self { files: files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect() }
    }

    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Whether a path is a file, or a folder that holds one.
    pub(crate) fn has(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        self.files.contains_key(path) || self.files.keys().any(|file| file.starts_with(&folder))
    }

    /// The names of the folders at the top.
    pub(crate) fn top_folders(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.files.keys().filter_map(|path| path.split_once('/')).map(|(top, _)| top).collect();
        names.dedup();
        names
    }

    pub(crate) fn sources(&self) -> impl Iterator<Item = Source<'_>> {
        self.files().filter(|(path, _)| path.ends_with(".rs")).map(|(path, text)| {
            let code = lexer::code(text);
            let product = if is_test(path) { String::new() } else { lexer::without_tests(&code) };
            Source { path, text, code, product }
        })
    }
}

/// Whether a file is built for tests alone: by the folder or name it has.
pub(crate) fn is_test(path: &str) -> bool {
    let mut parts = path.split('/');
    parts.any(|part| ["tests", "tests.rs", "testing", "testing.rs", "benches", "examples", "fuzz"].contains(&part))
}

/// The lines, from 1, in which one of the words stands with no letter before it.
pub(crate) fn lines_with<'a>(text: &'a str, words: &'a [&'a str]) -> impl Iterator<Item = (usize, &'a str)> {
    text.lines()
        .enumerate()
        .flat_map(move |(at, line)| words.iter().filter(move |word| names(line, word)).map(move |word| (at + 1, *word)))
}

fn names(line: &str, word: &str) -> bool {
    let letter = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(letter) && word.starts_with(letter);
        let after = line[at + word.len()..].chars().next().is_some_and(letter) && word.ends_with(letter);
        !before && !after
    })
}

#[test]
fn a_word_is_found_whole() {
    let at = |line: &str, word: &str| lines_with(line, &[word]).count();
    assert_eq!(at("use tokio::net;", "tokio::"), 1);
    assert_eq!(at("my_tokio::net", "tokio::"), 0);
    assert_eq!(at("let random = 1;", "rand"), 0);
    assert_eq!(at("rand::random()", "rand"), 1);
    assert_eq!(at("TcpListener::bind(a)", "Listener::bind("), 0);
}

#[test]
fn folders_and_files_are_known_by_path() {
    let tree = Tree::of(&[("api/src/lib.rs", ""), ("Cargo.toml", "")]);
    assert!(tree.has("api") && tree.has("api/") && tree.has("api/src/lib.rs") && tree.has("Cargo.toml"));
    assert!(!tree.has("api/src/li") && !tree.has("dns"));
    assert_eq!(tree.top_folders(), ["api"]);
}
