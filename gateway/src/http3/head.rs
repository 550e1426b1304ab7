//! Heads and trailers of HTTP/3: what fields say, strictly. Pure.
//!
//! In: a field section. Out: the parts of a request, or why it is none; the section of an answer. What RFC 9114 calls malformed is never
//! passed on, whatever the library behind it would make of it. Source: RFC 9114 §4.1.2, §4.2, §4.3, §4.4; RFC 9220 §3.

use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, header};

use super::qpack::{self, Bounds, Undecoded};

/// Fields that are between two neighbours: "An endpoint MUST NOT generate an HTTP/3 field section containing connection-specific fields; any
/// message containing connection-specific fields MUST be treated as malformed" (RFC 9114 §4.2).
const BETWEEN: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// Why a section is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    /// It is malformed: an error of its stream.
    Malformed(&'static str),
    /// It is longer than it may be.
    TooLong,
    /// It can't be decoded: an error of the connection.
    Undecodable,
}

impl From<Undecoded> for Bad {
    fn from(why: Undecoded) -> Self {
        match why {
            Undecoded::Broken => Self::Undecodable,
            Undecoded::TooLong => Self::TooLong,
        }
    }
}

/// A request's head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) parts: Parts,
    /// What an extended CONNECT is to become.
    pub(super) protocol: Option<String>,
    /// How long the body says that it is.
    pub(super) length: Option<u64>,
}

/// The pseudo-header fields of a request.
#[derive(Default)]
struct Pseudo {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
    protocol: Option<String>,
}

/// The head of a request.
///
/// # Errors
/// It is none.
pub(super) fn request(section: &[u8], bounds: Bounds) -> Result<Head, Bad> {
    let (mut pseudo, mut headers) = (Pseudo::default(), HeaderMap::new());
    let mut begun = false;
    qpack::decode(section, bounds, |name, value| {
        if name.first() == Some(&b':') {
            return if begun { Err("a pseudo-header field behind others") } else { pseudo.take(name, value) };
        }
        begun = true;
        let (name, value) = field(name, value)?;
        headers.try_append(name, value).map(drop).map_err(|_| "more fields than can be held")
    })?
    .map_err(Bad::Malformed)?;
    joined(&mut headers);
    let length = length(&headers).map_err(Bad::Malformed)?;
    let protocol = pseudo.protocol.take();
    let (mut parts, ()) = Request::new(()).into_parts();
    (parts.method, parts.uri) = pseudo.target(&headers, protocol.is_some()).map_err(Bad::Malformed)?;
    parts.version = Version::HTTP_3;
    parts.headers = headers;
    Ok(Head { parts, protocol, length })
}

/// The trailers of a request.
///
/// # Errors
/// They are none.
pub(super) fn trailers(section: &[u8], bounds: Bounds) -> Result<HeaderMap, Bad> {
    let mut trailers = HeaderMap::new();
    qpack::decode(section, bounds, |name, value| {
        // "Pseudo-header fields MUST NOT appear in trailer sections" (RFC 9114 §4.3); no field's name begins with a colon.
        let (name, value) = field(name, value)?;
        trailers.try_append(name, value).map(drop).map_err(|_| "more fields than can be held")
    })?
    .map_err(Bad::Malformed)?;
    Ok(trailers)
}

impl Pseudo {
    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        // "If these fields are present, they MUST NOT be empty" (§4.3.1).
        let text = std::str::from_utf8(value).ok().filter(|text| !text.is_empty() && text.is_ascii());
        let text = text.ok_or("a pseudo-header field that is empty or not ASCII")?;
        match name {
            b":method" => once(&mut self.method, text.parse().map_err(|_| ":method is none")?),
            b":scheme" => once(&mut self.scheme, text.parse().map_err(|_| ":scheme is none")?),
            b":authority" => once(&mut self.authority, text.parse().map_err(|_| ":authority is none")?),
            b":path" if text.contains('#') => Err(":path holds a fragment"),
            b":path" => once(&mut self.path, text.parse().map_err(|_| ":path is none")?),
            b":protocol" => once(&mut self.protocol, text.to_owned()),
            _ => Err("a pseudo-header field that no request has"),
        }
    }

    /// Method and target; `extended`: a protocol is named.
    fn target(self, headers: &HeaderMap, extended: bool) -> Result<(Method, Uri), &'static str> {
        let method = self.method.ok_or(":method is missing")?;
        let connects = method == Method::CONNECT;
        if extended && !connects {
            return Err(":protocol without CONNECT");
        }
        let mut parts = http::uri::Parts::default();
        if connects && !extended {
            // "The :scheme and :path pseudo-header fields are omitted" (§4.4).
            if self.scheme.is_some() || self.path.is_some() {
                return Err("CONNECT with :scheme or :path");
            }
            parts.authority = Some(self.authority.ok_or("CONNECT without :authority")?);
            return Ok((method, Uri::from_parts(parts).map_err(|_| "the target is none")?));
        }
        let scheme = self.scheme.ok_or(":scheme is missing")?;
        if scheme != Scheme::HTTPS && scheme != Scheme::HTTP {
            return Err(":scheme is neither http nor https");
        }
        let path = self.path.ok_or(":path is missing")?;
        if !(path.as_str().starts_with('/') || path.as_str() == "*" && method == Method::OPTIONS) {
            return Err(":path has no form of a request's");
        }
        parts.authority = Some(authority(self.authority, headers)?);
        (parts.scheme, parts.path_and_query) = (Some(scheme), Some(path));
        Ok((method, Uri::from_parts(parts).map_err(|_| "the target is none")?))
    }
}

/// "The request MUST contain either an :authority pseudo-header field or a Host header field … If both fields are present, they MUST contain the
/// same value" (§4.3.1).
fn authority(pseudo: Option<Authority>, headers: &HeaderMap) -> Result<Authority, &'static str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (pseudo, hosts.next(), hosts.next()) {
        (_, _, Some(_)) => Err("more than one Host"),
        (Some(authority), None, _) => Ok(authority),
        (Some(authority), Some(host), _) if host.as_bytes() == authority.as_str().as_bytes() => Ok(authority),
        (Some(_), Some(_), _) => Err(":authority and Host differ"),
        (None, Some(host), _) => {
            host.to_str().ok().and_then(|host| host.parse().ok()).ok_or("neither :authority nor a Host that is one")
        }
        (None, None, _) => Err("neither :authority nor Host"),
    }
}

fn once<T>(held: &mut Option<T>, value: T) -> Result<(), &'static str> {
    if held.replace(value).is_some() { Err("a pseudo-header field twice") } else { Ok(()) }
}

/// A field that may stand in a request.
fn field(name: &[u8], value: &[u8]) -> Result<(HeaderName, HeaderValue), &'static str> {
    // "A request or response containing uppercase characters in field names MUST be treated as malformed" (§4.2).
    let name = HeaderName::from_lowercase(name).map_err(|_| "a field's name is none")?;
    if BETWEEN.contains(&name.as_str()) {
        return Err("a field that is between neighbours");
    }
    if name == header::TE && !value.eq_ignore_ascii_case(b"trailers") {
        return Err("TE says more than trailers");
    }
    // No value begins or ends with a space (RFC 9110 §5.5): whoever cuts it off reads another one.
    let spaced = |octet: Option<&u8>| matches!(octet, Some(b' ' | b'\t'));
    if spaced(value.first()) || spaced(value.last()) {
        return Err("a field's value begins or ends with a space");
    }
    Ok((name, HeaderValue::from_bytes(value).map_err(|_| "a field's value is none")?))
}

/// "If there are multiple Cookie header fields after decompression, these MUST be concatenated into a single byte string using the two-byte
/// delimiter of "; " … before being passed into a context other than HTTP/2 or HTTP/3" (§4.2.1).
fn joined(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(one) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(header::COOKIE, one);
    }
}

fn length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut said = headers.get_all(header::CONTENT_LENGTH).iter();
    let (Some(length), more) = (said.next(), said.next()) else { return Ok(None) };
    let text = length.to_str().ok().filter(|text| more.is_none() && text.bytes().all(|b| b.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).map(Some).ok_or("Content-Length is none")
}

/// The section of an answer's head, and its size as peers count it.
pub(super) fn answer(status: StatusCode, headers: &HeaderMap) -> (Vec<u8>, u64) {
    let mut section = Vec::with_capacity(256);
    qpack::begin(&mut section);
    qpack::status(&mut section, status.as_u16());
    let size = fields(&mut section, headers) + qpack::size(":status", b"200");
    (section, size)
}

/// The section of an answer's trailers, and its size as peers count it.
pub(super) fn last(trailers: &HeaderMap) -> (Vec<u8>, u64) {
    let mut section = Vec::with_capacity(64);
    qpack::begin(&mut section);
    let size = fields(&mut section, trailers);
    (section, size)
}

fn fields(section: &mut Vec<u8>, headers: &HeaderMap) -> u64 {
    let mut size = 0;
    for (name, value) in headers {
        if BETWEEN.contains(&name.as_str()) {
            continue;
        }
        size += qpack::size(name.as_str(), value.as_bytes());
        qpack::field(section, name.as_str(), value.as_bytes(), value.is_sensitive());
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes_max: 64 * 1024, fields_max: 100 };

    fn section(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut section = Vec::new();
        qpack::begin(&mut section);
        for (name, value) in fields {
            qpack::field(&mut section, name, value.as_bytes(), false);
        }
        section
    }

    const GET: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/x?y")];

    fn with(more: &[(&str, &str)]) -> Result<Head, Bad> {
        request(&section(&[&GET[..], more].concat()), BOUNDS)
    }

    #[test]
    fn a_request_is_what_its_fields_say() {
        let head = with(&[("cookie", "a=1"), ("x-a", "1"), ("cookie", "b=2"), ("content-length", "7")]).unwrap();
        assert_eq!((head.parts.method, head.parts.uri.to_string()), (Method::GET, "https://a.test/x?y".to_owned()));
        assert_eq!((head.parts.version, head.length), (Version::HTTP_3, Some(7)));
        assert_eq!(head.parts.headers["cookie"], "a=1; b=2");
        let by_host = section(&[(":method", "GET"), (":scheme", "https"), (":path", "/"), ("host", "b.test:8443")]);
        assert_eq!(request(&by_host, BOUNDS).unwrap().parts.uri.authority().unwrap(), "b.test:8443");
        let connect = section(&[(":method", "CONNECT"), (":authority", "a.test:443")]);
        assert_eq!(request(&connect, BOUNDS).unwrap().parts.uri, "a.test:443");
        let fields = [&[(":method", "CONNECT"), (":protocol", "websocket")], &GET[1..]].concat();
        let extended = request(&section(&fields), BOUNDS).unwrap();
        assert_eq!(extended.protocol.as_deref(), Some("websocket"));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for (case, more) in [
            ("a pseudo-header field behind others", &[("x-a", "1"), (":path", "/")][..]),
            ("one twice", &[(":path", "/")]),
            ("one of answers", &[(":status", "200")]),
            ("one that there is not", &[(":foo", "1")]),
            (":protocol without CONNECT", &[(":protocol", "websocket")]),
            ("uppercase", &[("X-A", "1")]),
            ("no name", &[("", "1")]),
            ("a name with a space", &[("a b", "1")]),
            ("a line break", &[("x-a", "1\r\nx-b: 2")]),
            ("a space before a value", &[("x-a", " 1")]),
            ("connection", &[("connection", "close")]),
            ("keep-alive", &[("keep-alive", "5")]),
            ("proxy-connection", &[("proxy-connection", "x")]),
            ("transfer-encoding", &[("transfer-encoding", "chunked")]),
            ("upgrade", &[("upgrade", "websocket")]),
            ("te", &[("te", "gzip")]),
            ("another host", &[("host", "b.test")]),
            ("two hosts", &[("host", "a.test"), ("host", "a.test")]),
            ("two lengths", &[("content-length", "1"), ("content-length", "1")]),
            ("a length that is none", &[("content-length", "+1")]),
        ] {
            assert!(matches!(with(more), Err(Bad::Malformed(_))), "{case}");
        }
        for missing in 0..GET.len() {
            let mut fields = GET.to_vec();
            let (gone, _) = fields.remove(missing);
            assert!(matches!(request(&section(&fields), BOUNDS), Err(Bad::Malformed(_))), "without {gone}");
        }
        for (at, value) in
            [(0, ""), (0, "G T"), (1, "ftp"), (2, ""), (2, "a b"), (3, ""), (3, "x"), (3, "*"), (3, "/#a"), (3, "/ä")]
        {
            let mut fields = GET.to_vec();
            fields[at].1 = value;
            assert!(matches!(request(&section(&fields), BOUNDS), Err(Bad::Malformed(_))), "{:?}", fields[at]);
        }
        let connect = [(":method", "CONNECT"), (":authority", "a.test:443"), (":path", "/")];
        assert!(matches!(request(&section(&connect), BOUNDS), Err(Bad::Malformed(_))));
        assert!(matches!(trailers(&section(&[(":path", "/")]), BOUNDS), Err(Bad::Malformed(_))));
        assert!(matches!(trailers(&section(&[("te", "x")]), BOUNDS), Err(Bad::Malformed(_))));
        assert_eq!(trailers(&section(&[("x-sum", "1")]), BOUNDS).unwrap()["x-sum"], "1");
    }

    #[test]
    fn what_is_too_long_or_no_section_is_told_apart() {
        let long = "x".repeat(300);
        let bounds = Bounds { bytes_max: 400, fields_max: 100 };
        assert!(matches!(request(&section(&[&GET[..], &[("x", long.as_str())]].concat()), bounds), Err(Bad::TooLong)));
        assert!(matches!(request(&[0, 0, 0x80], BOUNDS), Err(Bad::Undecodable)));
    }
}
