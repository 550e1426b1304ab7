//! What people see of a login that is none of the provider's: where they are sent, what they are told, and who is sent at all.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::filter::said;

/// An answer that nobody may keep.
pub(crate) fn own(status: StatusCode, why: &str) -> Response<Bytes> {
    let mut answer = said(status, why);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

pub(crate) fn redirect(to: &str) -> Response<Bytes> {
    let mut answer = own(StatusCode::FOUND, "go on there");
    match HeaderValue::from_str(to) {
        Ok(to) => drop(answer.headers_mut().insert(header::LOCATION, to)),
        Err(_) => return own(StatusCode::BAD_GATEWAY, "the provider's address is none"),
    }
    answer
}

pub(crate) fn failed(why: &str) -> Response<Bytes> {
    tracing::warn!(why, "oidc: nobody was logged in");
    own(StatusCode::SERVICE_UNAVAILABLE, "nobody can log in now")
}

/// Whether a browser asks for a page, and would show whatever it is sent to.
pub(crate) fn is_page(method: &Method, headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| {
        headers.get(name).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
    };
    let html = headers.get_all(header::ACCEPT).iter().any(|v| v.to_str().is_ok_and(|v| v.contains("text/html")));
    let navigates = !headers.contains_key("sec-fetch-mode") || is("sec-fetch-mode", "navigate");
    [Method::GET, Method::HEAD].contains(method) && html && navigates && !is("x-requested-with", "XMLHttpRequest")
}

/// A path of this host, whatever was written: what browsers take for another host is none.
pub(crate) fn within(target: &str) -> String {
    let is_path = target.starts_with('/') && !target[1..].starts_with(['/', '\\']);
    if is_path { target.to_owned() } else { "/".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_another_host() {
        for (target, expected) in [
            ("/a?b=c", "/a?b=c"),
            ("/", "/"),
            ("//evil.test/", "/"),
            ("/\\evil.test/", "/"),
            ("https://evil.test/", "/"),
            ("", "/"),
            ("/a//b", "/a//b"),
        ] {
            assert_eq!(within(target), expected, "{target}");
        }
    }

    #[test]
    fn only_browsers_that_ask_for_a_page_are_sent_away() {
        for (method, headers, expected) in [
            (Method::GET, &[("accept", "text/html,application/xhtml+xml")][..], true),
            (Method::GET, &[("accept", "text/html"), ("sec-fetch-mode", "navigate")], true),
            (Method::GET, &[("accept", "text/html"), ("sec-fetch-mode", "cors")], false),
            (Method::GET, &[("accept", "text/html"), ("x-requested-with", "XMLHttpRequest")], false),
            (Method::GET, &[("accept", "application/json")], false),
            (Method::GET, &[("accept", "*/*")], false),
            (Method::GET, &[], false),
            (Method::POST, &[("accept", "text/html")], false),
        ] {
            let mut map = HeaderMap::new();
            headers.iter().for_each(|(n, v)| drop(map.insert(*n, v.parse().unwrap())));
            assert_eq!(is_page(&method, &map), expected, "{method} {headers:?}");
        }
    }
}
