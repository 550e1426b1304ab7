//! Whether an endpoint read in what it got what everybody reads in what was sent.

use super::origin::Got;
use super::reading::{Read, Request, read, unlike_ours};

/// What came of an input.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The endpoint has every request that was sent.
    Alike,
    /// It has some of them, or none.
    Refused,
    /// It has something else: what.
    Otherwise(String),
}

/// The requests that everybody reads in octets, until one is none, or the last of its connection.
pub(super) fn sent(octets: &[u8]) -> Vec<Request> {
    let (mut rest, mut all) = (octets, Vec::new());
    while let Read::Whole(request, len) = read(rest) {
        rest = &rest[len..];
        let says = |word: &[u8]| {
            let mut words = request.values("connection").flat_map(|value| value.split(|b| *b == b','));
            words.any(|w| w.trim_ascii().eq_ignore_ascii_case(word))
        };
        let last = says(b"close") || request.minor == 0 && !says(b"keep-alive");
        all.push(*request);
        if last {
            break;
        }
    }
    all
}

/// Compares what an endpoint got with `sent`. `strict`: every octet has to be as ours are.
pub(super) fn judge(sent: &[Request], got: &Got, strict: bool) -> Verdict {
    if let Some((why, octets)) = got.bad.first() {
        return Verdict::Otherwise(format!("{why}: {}", octets.escape_ascii()));
    }
    let mut left = sent.iter();
    for (request, octets) in &got.requests {
        // A request that is refused alone may stand between others.
        let Some(_) = left.find(|sent| is_same(sent, request)) else {
            return Verdict::Otherwise(format!("nobody sent: {}", octets.escape_ascii()));
        };
        if let Some(why) = unlike_ours(request).filter(|_| strict) {
            return Verdict::Otherwise(format!("{why}: {}", octets.escape_ascii()));
        }
    }
    if got.requests.len() == sent.len() && !sent.is_empty() { Verdict::Alike } else { Verdict::Refused }
}

fn is_same(sent: &Request, got: &Request) -> bool {
    sent.method == got.method
        && sent.body == got.body
        && (sent.target == got.target || form(&sent.target) == form(&got.target))
}

/// A target as servers look things up: without an authority, escapes of letters undone, segments resolved.
fn form(target: &str) -> String {
    let lower = target.to_ascii_lowercase();
    let rest = match lower.find("://").filter(|_| lower.starts_with("http")) {
        Some(at) => target[at + 3..].find(['/', '?']).map_or("", |slash| &target[at + 3 + slash..]),
        None => target,
    };
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    let (mut written, bytes, mut at) = (String::new(), path.as_bytes(), 0);
    while at < bytes.len() {
        let digits = path.get(at + 1..at + 3).filter(|digits| bytes[at] == b'%' && !digits.starts_with('+'));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                let plain = value.is_ascii_alphanumeric() || b"-._~".contains(&value);
                if plain {
                    written.push(char::from(value))
                } else {
                    written.push_str(&format!("%{value:02X}"))
                }
                at += 3;
            }
            None => {
                written.push(char::from(bytes[at]));
                at += 1;
            }
        }
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in written.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    let slash = if kept.is_empty() {
        ""
    } else if written.ends_with('/') || written.ends_with("/.") || written.ends_with("/..") {
        "/"
    } else {
        ""
    };
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    format!("/{}{slash}{query}", kept.join("/"))
}
