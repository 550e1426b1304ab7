//! The cases as they are written in `*.cases`: what must come of which octets. `README.md` says the notation.

use std::path::Path;

/// A case.
#[derive(Debug)]
pub(crate) struct Case {
    /// File and line.
    pub(crate) at: String,
    /// Whether the octets are fields of HTTP/2.
    pub(crate) h2: bool,
    pub(crate) name: String,
    /// What must come of it, one after the other.
    pub(crate) outcomes: Vec<Outcome>,
    /// In the notation, repetitions written out.
    pub(crate) written: String,
}

/// What comes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An endpoint gets it.
    Passes { method: String, target: String, host: String, body: Vec<u8> },
    /// Refused; `begun`: an endpoint may have seen its beginning.
    Refused { status: u16, begun: bool },
    /// The connection ends without a word.
    Closed,
    /// The stream or the connection of HTTP/2 is ended.
    Reset,
}

/// The request that must reach nobody.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1⏎Host: a⏎⏎";

/// All cases of the folder, in the order of the files' names.
pub(crate) fn all(folder: &Path) -> Vec<Case> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "cases")).collect();
    files.sort();
    files.iter().flat_map(|file| of(file)).collect()
}

fn of(file: &Path) -> Vec<Case> {
    let stem = file.file_stem().unwrap().to_str().unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    let (mut head, mut cases) = (String::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        if let Some(written) = line.strip_prefix("head: ") {
            head = written.to_owned();
        } else if !line.is_empty() && !line.starts_with('#') {
            let at = format!("{stem}.cases:{}", number + 1);
            let parts: Vec<&str> = line.splitn(4, " | ").collect();
            let [outcomes, section, name, written] = parts[..] else { panic!("{at}: `{line}` is no case") };
            assert!(section.contains('§'), "{at}: `{section}` is no section");
            cases.push(Case {
                h2: stem == "h2",
                name: name.to_owned(),
                outcomes: outcomes.split(" + ").map(|outcome| self::outcome(outcome, &at)).collect(),
                written: expand(&written.replace('…', &head).replace('»', SMUGGLED)),
                at,
            });
        }
    }
    cases
}

fn outcome(written: &str, at: &str) -> Outcome {
    match written {
        "closed" => return Outcome::Closed,
        "reset" => return Outcome::Reset,
        _ => {}
    }
    let begun = written.ends_with('~');
    if let Ok(status) = written.trim_end_matches('~').parse() {
        return Outcome::Refused { status, begun };
    }
    let mut words = written.splitn(3, ' ');
    let (Some(method), Some(asked)) = (words.next(), words.next()) else { panic!("{at}: `{written}` is no outcome") };
    let (target, host) = asked.split_once('@').unwrap_or((asked, "a"));
    let body = octets(&expand(&words.next().unwrap_or_default().replace('»', SMUGGLED)));
    Outcome::Passes { method: method.to_owned(), target: target.to_owned(), host: host.to_owned(), body }
}

/// Writes repetitions out.
fn expand(written: &str) -> String {
    let (mut out, mut rest) = (String::new(), written);
    while let Some(at) = rest.find('{') {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        out.push_str(before);
        match repeated(after) {
            Some((count, what, behind)) => {
                out.push_str(&expand(what).repeat(count));
                rest = behind;
            }
            None => {
                out.push('{');
                rest = after;
            }
        }
    }
    out + rest
}

/// The octets of a text in the notation.
pub(crate) fn octets(written: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = written;
    while let Some(next) = rest.chars().next() {
        let after = &rest[next.len_utf8()..];
        rest = after;
        match next {
            '⏎' => out.extend_from_slice(b"\r\n"),
            '␊' => out.push(b'\n'),
            '␍' => out.push(b'\r'),
            '␀' => out.push(0),
            '␉' => out.push(b'\t'),
            '␠' => out.push(b' '),
            '\\' if after.starts_with('x') => {
                out.push(u8::from_str_radix(&after[1..3], 16).unwrap());
                rest = &after[3..];
            }
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out
}

/// How often what is repeated, and what follows: of `3×ab}…`. Repetitions hold one another.
fn repeated(written: &str) -> Option<(usize, &str, &str)> {
    let (count, what) = written.split_once('×')?;
    let count = count.parse().ok()?;
    let mut depth = 1;
    for (at, next) in what.char_indices() {
        depth = match next {
            '{' => depth + 1,
            '}' => depth - 1,
            _ => depth,
        };
        if depth == 0 {
            return Some((count, &what[..at], &what[at + 1..]));
        }
    }
    None
}
