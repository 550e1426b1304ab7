//! One form of a request's path and header names, before anything is matched. Pure.
//!
//! In: a head as it came. Out: the same in the one form that is matched and forwarded alike, or why it is refused. The default, and the only
//! way: `.` and `..` segments are resolved (RFC 3986 §5.2.4), also where their dots are escaped; `//` is one slash; escapes of unreserved
//! octets are undone and the others written in capitals (§6.2.2); `%2F` and `%5C` stay as they are and separate nothing; NUL, a bare
//! backslash and broken escapes are refused (400), as is a path that leads above the root. A header whose name has an underscore is left
//! out: servers that read `_` as `-` would take it for another.

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Uri};

/// Puts a head into its form.
///
/// # Errors
/// Why no server should guess what is meant.
pub(crate) fn normalise(head: &mut Parts) -> Result<(), &'static str> {
    drop_underscores(&mut head.headers);
    let written = head.uri.path();
    if written == "*" || written.is_empty() {
        return Ok(());
    }
    let Some(path) = path(written)? else { return Ok(()) };
    let whole = head.uri.query().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    let whole: PathAndQuery = whole.parse().map_err(|_| "the path is none")?;
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.path_and_query = Some(whole);
    head.uri = Uri::from_parts(parts).map_err(|_| "the target is none")?;
    Ok(())
}

fn drop_underscores(headers: &mut HeaderMap) {
    if headers.keys().any(|name| name.as_str().contains('_')) {
        let named: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
        named.iter().for_each(|name| drop(headers.remove(name)));
    }
}

/// The path in its form; nothing where it is already.
///
/// # Errors
/// Why it is refused.
pub(crate) fn path(written: &str) -> Result<Option<String>, &'static str> {
    let bytes = written.as_bytes();
    let plain = |pair: &[u8]| !(pair[0] == b'/' && matches!(pair[1], b'/' | b'.'));
    if !bytes.iter().any(|b| matches!(b, b'%' | b'\\' | 0)) && bytes.windows(2).all(plain) {
        return Ok(None);
    }
    let decoded = escapes(bytes)?;
    let joined = segments(&decoded)?;
    Ok((joined != written).then_some(joined))
}

/// Whether an octet stands for itself everywhere in a URL (RFC 3986 §2.3).
pub(crate) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Undoes escapes of what needs none (RFC 3986 §2.3).
fn escapes(bytes: &[u8]) -> Result<String, &'static str> {
    let mut out = String::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let digits = bytes.get(at + 1..at + 3).ok_or("the path has a broken escape")?;
                let digit = |b: u8| char::from(b).to_digit(16).ok_or("the path has a broken escape");
                let value = u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).unwrap_or_default();
                match value {
                    0 => return Err("the path holds NUL"),
                    value if is_unreserved(value) => out.push(char::from(value)),
                    _ => out.push_str(&format!("%{value:02X}")),
                }
                at += 3;
                continue;
            }
            0 => return Err("the path holds NUL"),
            b'\\' => return Err("the path holds a backslash"),
            byte if byte.is_ascii() => out.push(char::from(*byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
        at += 1;
    }
    Ok(out)
}

fn segments(path: &str) -> Result<String, &'static str> {
    let mut kept: Vec<&str> = Vec::new();
    let mut all = path.split('/').skip(1).peekable();
    let mut slash = path.len() == 1;
    while let Some(segment) = all.next() {
        let last = all.peek().is_none();
        match segment {
            "" | "." => slash = last,
            ".." => {
                kept.pop().ok_or("the path leads above the root")?;
                slash = last;
            }
            other => kept.push(other),
        }
    }
    let slash = if slash && !kept.is_empty() { "/" } else { "" };
    Ok(format!("/{}{slash}", kept.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_form_or_is_refused() {
        for (written, form) in [
            ("/", Ok("/")),
            ("/a/b", Ok("/a/b")),
            ("/a/b/", Ok("/a/b/")),
            ("//a///b", Ok("/a/b")),
            ("//", Ok("/")),
            ("/a/./b", Ok("/a/b")),
            ("/a/.", Ok("/a/")),
            ("/a/../b", Ok("/b")),
            ("/a/b/..", Ok("/a/")),
            ("/a/..", Ok("/")),
            ("/a/%2e%2e/b", Ok("/b")),
            ("/a/%2E/b", Ok("/a/b")),
            ("/a/.hidden", Ok("/a/.hidden")),
            ("/a/...", Ok("/a/...")),
            ("/%61dmin", Ok("/admin")),
            ("/a%2fb", Ok("/a%2Fb")),
            ("/a%2F..%2Fb", Ok("/a%2F..%2Fb")),
            ("/a%20b", Ok("/a%20b")),
            ("/a%5cb", Ok("/a%5Cb")),
            ("/%252e", Ok("/%252e")),
            ("/..", Err("the path leads above the root")),
            ("/a/../../b", Err("the path leads above the root")),
            ("/a%00", Err("the path holds NUL")),
            ("/a%", Err("the path has a broken escape")),
            ("/a%zz", Err("the path has a broken escape")),
            ("/a\\b", Err("the path holds a backslash")),
        ] {
            let found = path(written).map(|p| p.unwrap_or_else(|| written.to_owned()));
            assert_eq!(found.as_deref(), form.as_ref().map(|f| *f), "{written}");
            if let Ok(form) = form {
                assert_eq!(path(form), Ok(None), "the form of `{written}` is its own form");
            }
        }
    }

    #[test]
    fn heads_are_put_into_their_form() {
        let head = http::Request::builder().uri("/a/../b//c?x=/../y").header("x_user", "root").header("x-user", "me");
        let mut head = head.body(()).unwrap().into_parts().0;
        normalise(&mut head).unwrap();
        assert_eq!(head.uri.to_string(), "/b/c?x=/../y", "a query is left alone");
        assert_eq!(head.headers.len(), 1, "x_user is no x-user");
    }
}
