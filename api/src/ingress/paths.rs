//! How paths of an Ingress are matched, and how rewrite-target changes them. Pure.
//!
//! As ingress-nginx does: where any Ingress of a host has use-regex or rewrite-target, all paths of the host are regular expressions that
//! stand at the beginning, letters large or small; else Exact and Prefix mean what Kubernetes says, and ImplementationSpecific is what a path
//! begins with.

use crate::kinds::gateway::HTTPPathMatch;

/// The type of a match that a path begins with, segments or not; it is none of the Gateway API's.
pub const BEGINS: &str = "Begins";

/// A path as an Ingress writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) value: String,
    /// Exact, Prefix, or ImplementationSpecific.
    pub(super) kind: String,
}

impl Path {
    pub(super) fn of(value: Option<&String>, kind: &str) -> Self {
        let value = value.filter(|v| !v.is_empty()).cloned().unwrap_or_else(|| "/".to_owned());
        Self { value, kind: kind.to_owned() }
    }

    /// What a request's path must be; else what begins as those that it would mean, and why it can't be carried out.
    pub(super) fn matched(&self, regex: bool) -> (HTTPPathMatch, Option<String>) {
        let of = |kind: &str, value: String| HTTPPathMatch { match_type: Some(kind.to_owned()), value: Some(value) };
        if regex {
            let whole = format!("(?i:{}).*", self.value);
            return match regex::RegexBuilder::new(&whole).size_limit(256 * 1024).build() {
                Ok(_) => (of("RegularExpression", whole), None),
                Err(error) => {
                    let why = error.to_string().lines().last().unwrap_or_default().to_owned();
                    (of("RegularExpression", format!("(?i:{}).*", regex::escape(literal(&self.value)))), Some(why))
                }
            };
        }
        let matched = match (self.kind.as_str(), self.value.as_str()) {
            ("Exact", path) => of("Exact", path.to_owned()),
            ("Prefix", path) => of("PathPrefix", path.to_owned()),
            (_, "/") => of("PathPrefix", "/".to_owned()),
            (_, path) => of(BEGINS, path.to_owned()),
        };
        (matched, None)
    }

    /// The regular expression and the substitution of a rewrite, which takes the place of the whole path.
    ///
    /// # Errors
    /// The target holds a variable that is no capture.
    pub(super) fn rewrite(&self, target: &str) -> Result<(String, String), String> {
        Ok((format!("^(?i:{}).*$", self.value), substitution(target)?))
    }
}

/// What every path that an expression means begins with.
fn literal(expression: &str) -> &str {
    let end = expression
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '~' | '%')))
        .unwrap_or(expression.len());
    let found = &expression[..end];
    // What is repeated may be absent.
    let loose = expression[end..].starts_with(['?', '*', '{', '|']) || expression.contains('|');
    if !loose {
        return found;
    }
    found.rfind('/').map_or("/", |at| &found[..=at])
}

/// `$1` of nginx as regular expressions here write it.
fn substitution(target: &str) -> Result<String, String> {
    let mut out = String::with_capacity(target.len() + 4);
    let mut rest = target;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let Some(digit) = rest[at + 1..].chars().next().filter(char::is_ascii_digit) else {
            return Err(format!("`{target}` holds a variable that is no capture"));
        };
        out.push_str(&format!("${{{digit}}}"));
        rest = &rest[at + 2..];
    }
    out.push_str(rest);
    // What begins with a capture may be a path once it is there.
    let is_path = out.starts_with('/') || out.starts_with("${");
    Ok(if is_path { out } else { format!("/{out}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_what_ingress_nginx_makes_of_them() {
        for (value, kind, regex, expected) in [
            ("/a", "Exact", false, "Exact /a"),
            ("/a", "Prefix", false, "PathPrefix /a"),
            ("/a", "ImplementationSpecific", false, "Begins /a"),
            ("/", "ImplementationSpecific", false, "PathPrefix /"),
            ("/a", "Exact", true, "RegularExpression (?i:/a).*"),
            ("/a(/|$)(.*)", "ImplementationSpecific", true, "RegularExpression (?i:/a(/|$)(.*)).*"),
            ("/a(?!b)", "ImplementationSpecific", true, "RegularExpression (?i:/a).* refused"),
            ("/a/b?(?!b)", "ImplementationSpecific", true, "RegularExpression (?i:/a/).* refused"),
        ] {
            let (matched, why) = Path::of(Some(&value.to_owned()), kind).matched(regex);
            let refused = if why.is_some() { " refused" } else { "" };
            assert_eq!(format!("{} {}{refused}", matched.match_type.unwrap(), matched.value.unwrap()), expected);
        }
    }

    #[test]
    fn a_rewrite_takes_the_place_of_the_whole_path() {
        for (path, target, asked, expected) in [
            ("/a(/|$)(.*)", "/$2", "/a/b/c", "/b/c"),
            ("/a(/|$)(.*)", "/$2", "/a", "/"),
            ("/a", "/", "/a/b", "/"),
            ("/A/(.*)", "/x$1y", "/a/b", "/xby"),
        ] {
            let (pattern, new) = Path::of(Some(&path.to_owned()), "Prefix").rewrite(target).unwrap();
            assert_eq!(regex::Regex::new(&pattern).unwrap().replace(asked, new.as_str()), expected, "{path} {target}");
        }
        assert!(Path::of(None, "Prefix").rewrite("/$request_uri").is_err());
    }
}
