//! Headers that are between us and one neighbour, and the host that is asked for.
//!
//! Sources: RFC 9110 §7.6.1 (hop-by-hop), §7.8 (Upgrade), RFC 9112 §3.2 (Host), RFC 9113 §8.3.1 (:authority).

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use super::refusal::Refusal;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The host asked for, in lower case, without port and last dot; the head is left with exactly one Host header.
///
/// # Errors
/// The request names none, several, or two that differ.
pub(super) fn host(head: &mut Parts) -> Result<String, Refusal> {
    let mut named = head.headers.get_all(header::HOST).iter();
    let written = named.next().cloned();
    if named.next().is_some() {
        return Err(Refusal::bad("more than one Host header"));
    }
    let authority = match (head.uri.authority(), &written) {
        // "the Host header field is ignored" where the target has an authority; HTTP/2 has both agree.
        (Some(authority), Some(host)) if head.version == Version::HTTP_2 => {
            if host.as_bytes() != authority.as_str().as_bytes() {
                return Err(Refusal::bad(":authority and Host differ"));
            }
            authority.clone()
        }
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => {
            host.to_str().ok().and_then(|h| h.parse().ok()).ok_or_else(|| Refusal::bad("Host is none"))?
        }
        (None, None) if head.version == Version::HTTP_10 => return Ok(String::new()),
        (None, None) => return Err(Refusal::bad("no Host header")),
    };
    if authority.as_str().contains('@') {
        return Err(Refusal::bad("Host holds a user"));
    }
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        head.headers.insert(header::HOST, host);
    }
    Ok(authority.host().trim_end_matches('.').to_ascii_lowercase())
}

/// The protocol that a client wants to go on with, if it may.
pub(super) fn upgrade(head: &Parts) -> Option<HeaderValue> {
    let asked = head.version == Version::HTTP_11 && tokens(&head.headers).any(|t| t.eq_ignore_ascii_case("upgrade"));
    let protocol = head.headers.get(header::UPGRADE).filter(|_| asked)?;
    // h2c by Upgrade is gone (RFC 9113 §3.1), and forwarding it is a known way to smuggle.
    (!protocol.as_bytes().to_ascii_lowercase().starts_with(b"h2c")).then(|| protocol.clone())
}

/// Takes away what is between us and one neighbour.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers).filter_map(|t| t.parse().ok()).collect();
    for name in named {
        headers.remove(name);
    }
    let trailers = headers.get_all(header::TE).iter().any(|v| v.as_bytes().eq_ignore_ascii_case(b"trailers"));
    for name in
        [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE, KEEP_ALIVE, PROXY_CONNECTION]
    {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Puts back what an upgrade needs.
pub(super) fn put_upgrade(headers: &mut HeaderMap, protocol: &HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol.clone());
}

/// The words of all Connection headers.
fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    type Headers = &'static [(&'static str, &'static str)];

    fn head(version: Version, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn one_host_is_asked_for_or_the_request_is_bad() {
        type Case = (&'static str, Version, &'static str, Headers, Result<&'static str, &'static str>);
        let cases: [Case; 11] = [
            ("plain", Version::HTTP_11, "/", &[("host", "A.example:8080")], Ok("a.example")),
            ("a last dot", Version::HTTP_11, "/", &[("host", "a.example.")], Ok("a.example")),
            ("an address", Version::HTTP_11, "/", &[("host", "[::1]:80")], Ok("[::1]")),
            ("absolute form", Version::HTTP_11, "http://a.example/", &[("host", "b.example")], Ok("a.example")),
            ("none", Version::HTTP_11, "/", &[], Err("no Host header")),
            ("none, HTTP/1.0", Version::HTTP_10, "/", &[], Ok("")),
            ("two", Version::HTTP_11, "/", &[("host", "a"), ("host", "a")], Err("more than one Host header")),
            ("garbage", Version::HTTP_11, "/", &[("host", "a b")], Err("Host is none")),
            ("a user", Version::HTTP_11, "/", &[("host", "u@a.example")], Err("Host holds a user")),
            ("HTTP/2", Version::HTTP_2, "https://a.example/", &[], Ok("a.example")),
            ("HTTP/2, two", Version::HTTP_2, "https://a/", &[("host", "b")], Err(":authority and Host differ")),
        ];
        for (name, version, uri, headers, expected) in cases {
            let mut head = head(version, uri, headers);
            let found = host(&mut head).map_err(|r| r.why);
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{name}");
        }
    }

    #[test]
    fn hop_by_hop_headers_go_and_the_others_stay() {
        let mut head = head(
            Version::HTTP_11,
            "/",
            &[
                ("connection", "close, X-Mine"),
                ("x-mine", "1"),
                ("keep-alive", "timeout=5"),
                ("te", "trailers"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "websocket"),
                ("x-stays", "1"),
            ],
        );
        strip(&mut head.headers);
        let left: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-stays", "te"]);
    }

    #[test]
    fn only_a_real_upgrade_is_one() {
        let cases: [(&str, Headers, bool); 4] = [
            ("websocket", &[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")], true),
            ("not named", &[("connection", "keep-alive"), ("upgrade", "websocket")], false),
            ("nothing to go on with", &[("connection", "upgrade")], false),
            ("h2c", &[("connection", "upgrade"), ("upgrade", "h2c")], false),
        ];
        for (name, headers, expected) in cases {
            assert_eq!(upgrade(&head(Version::HTTP_11, "/", headers)).is_some(), expected, "{name}");
        }
        let two = head(Version::HTTP_2, "/", &[("connection", "upgrade"), ("upgrade", "websocket")]);
        assert!(upgrade(&two).is_none());
    }
}
