//! Headers that are between us and one neighbour, and the host that is asked for.
//!
//! Sources: RFC 9110 §7.6.1 (hop-by-hop), §7.8 (Upgrade), RFC 9112 §3.2 (Host), RFC 9113 §8.3.1 (:authority).

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use super::refusal::Refusal;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

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
    let named: Option<Authority> = match &written {
        Some(host) => {
            Some(host.to_str().ok().and_then(|h| h.parse().ok()).ok_or_else(|| Refusal::bad("Host is none"))?)
        }
        None => None,
    };
    let authority = match (head.uri.authority(), &written) {
        // HTTP/2 and HTTP/3 have both agree (RFC 9113 §8.3.1, RFC 9114 §4.3.1).
        (Some(authority), Some(host)) if matches!(head.version, Version::HTTP_2 | Version::HTTP_3) => {
            if host.as_bytes() != authority.as_str().as_bytes() {
                return Err(Refusal::bad(":authority and Host differ"));
            }
            authority.clone()
        }
        // "A server MUST respond with a 400 … to any HTTP/1.1 request message that lacks a Host header field" (RFC 9112 §3.2), and where the
        // target has an authority Host is ignored (§3.2.2).
        (Some(authority), None) if head.version != Version::HTTP_11 => authority.clone(),
        (Some(authority), Some(_)) => authority.clone(),
        (None, Some(_)) => named.ok_or_else(|| Refusal::bad("Host is none"))?,
        (None, None) if head.version == Version::HTTP_10 => {
            // "A client MUST send a Host header field" (RFC 9112 §3.2), and towards the endpoint we are one.
            head.headers.insert(header::HOST, HeaderValue::from_static(""));
            return Ok(String::new());
        }
        (_, None) => return Err(Refusal::bad("no Host header")),
    };
    if authority.as_str().contains('@') {
        return Err(Refusal::bad("Host holds a user"));
    }
    if !is_host(authority.as_str()) {
        return Err(Refusal::bad("Host is none"));
    }
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        head.headers.insert(header::HOST, host);
    }
    let host = authority.host();
    Ok(host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase())
}

/// The authority that a request names, as it is written.
pub(super) fn authority<'a>(uri: &'a http::Uri, headers: &'a HeaderMap) -> &'a [u8] {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    uri.authority().map(|authority| authority.as_str().as_bytes()).or(host).unwrap_or_default()
}

/// Whether that is a name or an address, and perhaps a port: what else a URI may hold there (RFC 3986 §3.2.2) no name has.
fn is_host(written: &str) -> bool {
    let (name, port) = match written.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", port),
        Some(_) => return false,
        None => written.split_at(written.find(':').unwrap_or(written.len())),
    };
    let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    are_labels(name.strip_suffix('.').unwrap_or(name))
        && letters
        && (port.is_empty() || port.strip_prefix(':').is_some_and(|p| is_port(p.as_bytes())))
}

/// Whether a name without the dot at its end has labels, none of them empty (RFC 1035 §3.1).
pub(crate) fn are_labels(name: &str) -> bool {
    !name.split('.').any(str::is_empty)
}

/// Whether that is a port, or nothing, which is the scheme's (RFC 3986 §3.2.3).
pub(crate) fn is_port(written: &[u8]) -> bool {
    written.is_empty()
        || written.iter().all(u8::is_ascii_digit)
            && std::str::from_utf8(written).is_ok_and(|port| port.parse::<u16>().is_ok())
}

/// The protocol that a client wants to go on with, if it may.
pub(super) fn upgrade(head: &Parts) -> Option<HeaderValue> {
    let asked = head.version == Version::HTTP_11 && tokens(&head.headers).any(|t| t.eq_ignore_ascii_case("upgrade"));
    let protocol = head.headers.get(header::UPGRADE).filter(|_| asked)?;
    // h2c by Upgrade is gone (RFC 9113 §3.1), and forwarding it is a known way to smuggle, among others too.
    let mut several = head.headers.get_all(header::UPGRADE).iter();
    let h2c = several.any(|value| value.as_bytes().to_ascii_lowercase().windows(3).any(|word| word == b"h2c"));
    let named = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._/".contains(byte);
    let is_one = !protocol.is_empty() && protocol.as_bytes().iter().all(named);
    (is_one && !h2c).then(|| protocol.clone())
}

/// Takes away what is between us and one neighbour.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers).filter_map(|t| t.parse().ok()).collect();
    // "Intermediaries ought to be careful": what says whom the request is for is no neighbour's.
    for name in named.into_iter().filter(|name| *name != header::HOST) {
        headers.remove(name);
    }
    let trailers = headers.get_all(header::TE).iter().any(|v| v.as_bytes().eq_ignore_ascii_case(b"trailers"));
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TE,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        HTTP2_SETTINGS,
    ] {
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
