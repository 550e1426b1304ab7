//! `atoll diff -f FILE`: what applying a file would change, as the API server sees it (server-side apply, dry run).
//!
//! Exit code 0: nothing; 1: something differs.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use atoll_api::kinds::FIELD_MANAGER;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::Globals;
use super::connect::Connection;
use super::failure::{Failure, Outcome};
use super::get::plain;
use super::kinds::{self, Kind};
use super::output::yaml;

/// Lines around a change.
const AROUND: usize = 3;
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Of the table that finds what two texts share; what is larger differs as a whole.
const CELLS_MAX: usize = 4 << 20;

/// Show what applying files would change.
#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    /// YAML or JSON; - for stdin
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

impl Diff {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let at = globals.hub().await?;
        let mut changed = Vec::new();
        let mut text = String::new();
        for file in &self.files {
            for object in documents(file)? {
                if let Some((name, diff)) = compare(&at, object).await? {
                    changed.push(json!({"object": name, "diff": diff}));
                    text.push_str(&diff);
                }
            }
        }
        globals.output.show(&json!({"changed": changed}), || text)?;
        if changed.is_empty() { Ok(()) } else { Err(Failure::negative()) }
    }
}

async fn compare(at: &Connection, object: Value) -> Outcome<Option<(String, String)>> {
    let word = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind_word, name) = (word("/apiVersion"), word("/kind"), word("/metadata/name"));
    if api_version.is_empty() || kind_word.is_empty() || name.is_empty() {
        return Err(Failure::failed(format!("object `{kind_word}/{name}`: needs apiVersion, kind and metadata.name")));
    }
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let dotted = if group.is_empty() { kind_word.clone() } else { format!("{kind_word}.{group}") };
    let kind = kinds::find(&at.client, &dotted).await?;
    let namespace = Some(word("/metadata/namespace")).filter(|n| !n.is_empty()).unwrap_or_else(|| at.namespace.clone());
    let shown = format!("{} {}", kind.resource.kind.to_lowercase(), kinds::place(&kind, &namespace, &name));
    let api = kind.api(&at.client, Some(&namespace));
    let live = api.get_opt(&name).await.map_err(Failure::api(&shown))?;
    let params = PatchParams { dry_run: true, ..PatchParams::apply(FIELD_MANAGER).force() };
    let merged = api.patch(&name, &params, &Patch::Apply(&object)).await.map_err(Failure::api(&shown))?;
    let (old, new) = (live.map_or(Ok(String::new()), |live| clean(&kind, live))?, clean(&kind, merged)?);
    Ok((old != new).then(|| (shown.clone(), unified(&shown, &old, &new))))
}

/// As YAML, without what changes with every write.
fn clean(kind: &Kind, object: DynamicObject) -> Outcome<String> {
    let mut value = plain(kind, object);
    if let Some(map) = value.as_object_mut() {
        map.remove("status");
    }
    if let Some(meta) = value["metadata"].as_object_mut() {
        for field in ["resourceVersion", "generation", "uid", "creationTimestamp", "managedFields"] {
            meta.remove(field);
        }
    }
    yaml(&value)
}

/// The objects of a file, lists taken apart.
pub(crate) fn documents(file: &Path) -> Outcome<Vec<Value>> {
    let shown = file.display();
    let failed = |e: std::io::Error| Failure::failed(format!("{shown}: {e}"));
    let mut octets = Vec::new();
    let read = match file == Path::new("-") {
        true => std::io::stdin().take(FILE_BYTES_MAX + 1).read_to_end(&mut octets),
        false => std::fs::File::open(file).map_err(failed)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut octets),
    };
    if read.map_err(failed)? as u64 > FILE_BYTES_MAX {
        return Err(Failure::failed(format!("{shown}: longer than {} MiB: take it apart", FILE_BYTES_MAX >> 20)));
    }
    let text = String::from_utf8(octets).map_err(|e| Failure::failed(format!("{shown}: {e}")))?;
    let parsed: Vec<Value> =
        serde_saphyr::from_multiple(&text).map_err(|e| Failure::failed(format!("{shown}: {e}")))?;
    let apart = parsed.into_iter().flat_map(|value| match value["kind"].as_str() {
        Some("List") => value["items"].as_array().cloned().unwrap_or_default(),
        _ => vec![value],
    });
    Ok(apart.filter(|value| value.is_object()).collect())
}

/// A unified diff.
fn unified(name: &str, old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let edits = edits(&old, &new);
    let mut out = format!("--- {name} (now)\n+++ {name} (applied)\n");
    let is_near = |i: usize| {
        let (from, to) = (i.saturating_sub(AROUND), (i + AROUND + 1).min(edits.len()));
        edits[from..to].iter().any(|(sign, _)| *sign != ' ')
    };
    let mut skipped = true;
    for (i, (sign, line)) in edits.iter().enumerate() {
        if is_near(i) {
            if skipped {
                out.push_str("@@\n");
            }
            out.push_str(&format!("{sign}{line}\n"));
        }
        skipped = !is_near(i);
    }
    out
}

/// Lines kept, taken away and added: common head and tail, the longest common subsequence between.
fn edits<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (gone, come) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let mut out: Vec<(char, &str)> = old[..head].iter().map(|line| (' ', *line)).collect();
    if gone.len().saturating_mul(come.len()) > CELLS_MAX {
        out.extend(gone.iter().map(|line| ('-', *line)));
        out.extend(come.iter().map(|line| ('+', *line)));
    } else {
        between(gone, come, &mut out);
    }
    out.extend(old[old.len() - tail..].iter().map(|line| (' ', *line)));
    out
}

/// By the longest common subsequence of `a` and `b`.
fn between<'a>(a: &[&'a str], b: &[&'a str], out: &mut Vec<(char, &'a str)>) {
    let mut longest = vec![vec![0u32; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i][j] =
                if a[i] == b[j] { longest[i + 1][j + 1] + 1 } else { longest[i + 1][j].max(longest[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            out.push((' ', a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || i < a.len() && longest[i + 1][j] >= longest[i][j + 1] {
            out.push(('-', a[i]));
            i += 1;
        } else {
            out.push(('+', b[j]));
            j += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_shown_with_what_is_around_it() {
        let old = "a\nb\nc\nd\ne\nf\ng\n";
        let new = "a\nb\nc\nD\ne\nf\ng\nh\n";
        let diff = unified("x", old, new);
        assert_eq!(diff, "--- x (now)\n+++ x (applied)\n@@\n a\n b\n c\n-d\n+D\n e\n f\n g\n+h\n");
        assert!(unified("x", "", "a\n").ends_with("@@\n+a\n"));
    }

    #[test]
    fn lines_far_from_any_change_are_left_out() {
        let old: Vec<String> = (0..40).map(|i| i.to_string()).collect();
        let mut new = old.clone();
        new[20] = "x".into();
        let diff = unified("x", &old.join("\n"), &new.join("\n"));
        assert_eq!(diff.lines().count(), 2 + 1 + 2 + 2 * AROUND, "{diff}");
    }

    #[test]
    fn texts_that_are_all_different_and_long_are_told_at_once() {
        let text = |word: &str| (0..20_000).map(|i| format!("{word}{i}\n")).collect::<String>();
        let diff = unified("x", &text("a"), &text("b"));
        assert_eq!(diff.lines().count(), 2 + 1 + 40_000);
        assert!(diff.contains("@@\n-a0\n-a1\n") && diff.ends_with("+b19999\n"));
    }

    #[test]
    fn a_file_that_is_too_long_is_refused_and_not_cut() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("long.yaml");
        std::fs::write(&file, vec![b'#'; usize::try_from(FILE_BYTES_MAX).unwrap() + 1]).unwrap();
        let refused = documents(&file).unwrap_err().message;
        assert!(refused.contains("long.yaml") && refused.contains("16 MiB"), "{refused}");
    }
}
