//! Matches without their regular expressions, for routes whose requests are refused: they take all that the whole ones would, and perhaps more.
//!
//! In: matches as written. Out: matches that cost little, in the same order of precedence. Of an expression that a path must match stays what it
//! begins with; of one that a value must match, that there is a value. What can't be read is left out, so that the rest takes more. Never fails.

use atoll_api::kinds::gateway::{GRPCRouteMatch, HTTPRouteMatch, NamedMatch};
use http::HeaderName;

use super::{Match, PathMatch, ValueMatch, call, path, whole};

/// What an expression is written with that stands for itself nowhere.
const SIGNS: &[char] = &['\\', '.', '^', '$', '|', '?', '*', '+', '(', ')', '[', ']', '{', '}'];
const REGEX: &str = "RegularExpression";

impl Match {
    /// A match of requests, outlined.
    pub(crate) fn outline(written: &HTTPRouteMatch) -> Self {
        let named = written.path.as_ref().filter(|path| path.match_type.as_deref() == Some(REGEX));
        let path = match named.map(|path| path.value.as_deref().unwrap_or("/")) {
            Some(pattern) => outlined(pattern, begin(pattern).to_owned()),
            None => path(written).unwrap_or_else(|_| every()),
        };
        let mut query: Vec<(String, ValueMatch)> = Vec::new();
        for m in &written.query_params {
            if query.iter().all(|(seen, _)| *seen != m.name) {
                query.push((m.name.clone(), value(m)));
            }
        }
        let method = written.method.as_deref().and_then(|method| method.parse().ok());
        Self { path, method, headers: headers(&written.headers), query }
    }

    /// A match of gRPC calls, outlined.
    pub(crate) fn outline_grpc(written: &GRPCRouteMatch) -> Self {
        let named = written.method.as_ref().filter(|method| method.match_type.as_deref() == Some(REGEX));
        let path = match named {
            Some(method) => {
                let part = |part: &Option<String>| part.clone().unwrap_or_default();
                let (service, method) = (part(&method.service), part(&method.method));
                outlined(&format!("/{service}/{method}"), format!("/{}", begin(&service)))
            }
            None => call(written).unwrap_or_else(|_| every()),
        };
        Self { path, method: None, headers: headers(&written.headers), query: Vec::new() }
    }
}

fn every() -> PathMatch {
    PathMatch::Prefix(String::new())
}

fn outlined(pattern: &str, begin: String) -> PathMatch {
    PathMatch::Outline { begin, length: whole(pattern).len() }
}

fn headers(written: &[NamedMatch]) -> Vec<(HeaderName, ValueMatch)> {
    let mut headers: Vec<(HeaderName, ValueMatch)> = Vec::new();
    for m in written {
        if let Ok(name) = m.name.parse::<HeaderName>()
            && headers.iter().all(|(seen, _)| *seen != name)
        {
            headers.push((name, value(m)));
        }
    }
    headers
}

fn value(written: &NamedMatch) -> ValueMatch {
    match written.match_type.as_deref() {
        None | Some("Exact") => ValueMatch::Exact(written.value.clone()),
        _ => ValueMatch::Any,
    }
}

/// What everything begins with that matches an expression as a whole.
fn begin(pattern: &str) -> &str {
    let end = pattern.find(SIGNS).unwrap_or(pattern.len());
    // Of several any may be meant.
    if pattern.contains('|') {
        return "";
    }
    let letters = &pattern[..end];
    // The last letter may not be there at all.
    let may_lack = matches!(pattern[end..].chars().next(), Some('?' | '*' | '{'));
    let last = if may_lack { letters.chars().next_back().map_or(0, char::len_utf8) } else { 0 };
    &letters[..letters.len() - last]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_expression_begins_with_its_letters() {
        for (pattern, expected) in [
            ("/admin/.*", "/admin/"),
            ("/admin", "/admin"),
            ("/admins?", "/admin"),
            ("/a/b*c", "/a/"),
            ("/ä{2}", "/"),
            ("/a+", "/a"),
            (r"/v\d+", "/v"),
            ("/a|/b", ""),
            ("(?i)/admin", ""),
            ("/admin(/x|/y)", ""),
            (".*", ""),
            ("", ""),
        ] {
            assert_eq!(begin(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn an_outline_takes_all_that_the_whole_takes_in_the_same_order() {
        let exact = json!({"path": {"type": "Exact", "value": "/x"}, "headers": [{"name": "a", "value": "1"}]});
        let path = json!({"path": {"type": "RegularExpression", "value": "/admin/[a-z]+"}});
        let named = json!([{"type": "RegularExpression", "name": "a", "value": "v.*"}]);
        for (written, taken, left) in [
            (exact, "/x", "/y"),
            (path, "/admin/x", "/other"),
            (json!({"headers": named, "method": "GET"}), "/anything", ""),
            (json!({"path": {"value": "/p"}, "queryParams": named}), "/p/x?a=v1", "/p/x"),
        ] {
            let written = serde_json::from_value(written).unwrap();
            let (whole, outline) = (Match::compile(&written).unwrap(), Match::outline(&written));
            assert_eq!(whole.key(), outline.key(), "{outline}");
            let request = |target: &str| {
                let value = if written.headers.iter().any(|m| m.value == "1") { "1" } else { "v1" };
                let request = http::Request::builder().uri(target).header("a", value).body(()).unwrap();
                request.into_parts().0
            };
            assert!(whole.takes(&request(taken)) && outline.takes(&request(taken)), "{outline}");
            assert!(left.is_empty() || !outline.takes(&request(left)), "{outline}");
        }
        let odd = serde_json::from_value(json!({"headers": [{"name": "no name", "value": "x"}]})).unwrap();
        assert!(
            Match::compile(&odd).is_err() && Match::outline(&odd).headers.is_empty(),
            "what can't be read is left out"
        );
    }

    #[test]
    fn calls_are_outlined_by_their_service() {
        let of = |service: &str, method: &str| {
            let written = json!({"method": {"type": "RegularExpression", "service": service, "method": method}});
            let written = serde_json::from_value(written).unwrap();
            (Match::compile_grpc(&written).unwrap(), Match::outline_grpc(&written))
        };
        let (whole, outline) = of("shop\\.Cart", "Add|Remove");
        assert!(matches!(&outline.path, PathMatch::Outline { begin, .. } if begin == "/shop"), "{outline}");
        assert!(whole.path.takes("/shop.Cart/Add") && outline.path.takes("/shop.Cart/Add"));
    }
}
