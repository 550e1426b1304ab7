//! Heads as they are written: those of requests and answers that pass through, and our own.
//!
//! In: a head that was read, or the parts of one. Out: octets. What is between two neighbours is never passed on (RFC 9110 §7.6.1), and each
//! head has one framing, which is ours.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::IpAddr;

use http::{HeaderMap, StatusCode};

use super::head::{Framing, Head, is};

/// Fields that end here, of requests and answers alike.
const HOP: &[&str] =
    &["connection", "transfer-encoding", "upgrade", "te", "keep-alive", "proxy-connection", "http2-settings"];

/// And of requests: who asked for what is said by us, and expectations are met by us.
const OURS: &[&str] =
    &["host", "content-length", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "expect"];

/// Who asks.
pub(crate) struct Asker<'a> {
    pub(crate) client: IpAddr,
    pub(crate) scheme: &'static str,
    /// The host as it was written.
    pub(crate) authority: &'a [u8],
    /// Of the request.
    pub(crate) id: u128,
}

fn ends_here(name: &[u8], list: &[&str]) -> bool {
    list.iter().any(|hop| is(name, hop))
}

/// Fields that the head itself says are between neighbours.
fn is_named(head: &Head, bytes: &[u8], name: &[u8]) -> bool {
    head.connection(bytes).any(|word| word.eq_ignore_ascii_case(name))
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn number(out: &mut Vec<u8>, n: u64) {
    // Writing to memory does not fail.
    let _ = write!(out, "{n}");
}

fn length(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(b"content-length: ");
    number(out, n);
    out.extend_from_slice(b"\r\n");
}

/// Data as a chunk (RFC 9112 §7.1); empty data would be the last one.
pub(crate) fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    let _ = write!(out, "{:x}\r\n", data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// The last chunk, and the trailers.
pub(crate) fn last_chunk(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        line(out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// A request on its way to an endpoint, as it was read.
pub(crate) fn pass_request(
    out: &mut Vec<u8>,
    head: &Head,
    bytes: &[u8],
    target: &[u8],
    asker: &Asker<'_>,
    framing: Framing,
) {
    out.extend_from_slice(head.method(bytes));
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    line(out, b"host", asker.authority);
    let names = head.connection(bytes).next().is_some();
    let mut trailers = false;
    for (name, value) in head.fields(bytes) {
        if is(name, "te") {
            trailers |= value.eq_ignore_ascii_case(b"trailers");
        }
        if ends_here(name, HOP) || ends_here(name, OURS) || names && is_named(head, bytes, name) {
            continue;
        }
        line(out, name, value);
    }
    if trailers {
        line(out, b"te", b"trailers");
    }
    out.extend_from_slice(b"x-forwarded-for: ");
    let _ = write!(out, "{}", asker.client.to_canonical());
    out.extend_from_slice(b"\r\n");
    line(out, b"x-forwarded-proto", asker.scheme.as_bytes());
    line(out, b"x-forwarded-host", asker.authority);
    let _ = write!(out, "x-request-id: {:032x}\r\n", asker.id);
    match framing {
        Framing::Length(n) => length(out, n),
        Framing::Chunked => line(out, b"transfer-encoding", b"chunked"),
        Framing::None | Framing::Close => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// A request on its way to an endpoint, by its parts. `length`: of its body; nothing: that is not known.
pub(crate) fn request(out: &mut Vec<u8>, head: &http::request::Parts, body: Option<u64>) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.uri.path_and_query().map_or("/", |p| p.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    fields(out, &head.headers);
    let empty = matches!(head.method, http::Method::GET | http::Method::HEAD | http::Method::DELETE);
    match body {
        Some(0) if empty || !head.headers.contains_key(http::header::CONTENT_LENGTH) && !is_post(&head.method) => {}
        Some(n) => length(out, n),
        None => line(out, b"transfer-encoding", b"chunked"),
    }
    out.extend_from_slice(b"\r\n");
}

/// "A user agent SHOULD send Content-Length in a request when the method defines a meaning for enclosed content" (RFC 9110 §8.6).
fn is_post(method: &http::Method) -> bool {
    matches!(*method, http::Method::POST | http::Method::PUT | http::Method::PATCH)
}

/// Every field but those that frame.
fn fields(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        if *name != http::header::CONTENT_LENGTH && *name != http::header::TRANSFER_ENCODING {
            line(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
}

/// How a connection goes on after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// As everybody thinks.
    Keep,
    /// It goes on although the client speaks HTTP/1.0.
    KeepOld,
    Close,
}

fn after(out: &mut Vec<u8>, after: After) {
    match after {
        After::Keep => {}
        After::KeepOld => line(out, b"connection", b"keep-alive"),
        After::Close => line(out, b"connection", b"close"),
    }
}

fn status(out: &mut Vec<u8>, status: u16) {
    out.extend_from_slice(b"HTTP/1.1 ");
    number(out, u64::from(status));
    out.push(b' ');
    let reason = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
    out.extend_from_slice(reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

thread_local! {
    /// The second that was written last, and how.
    static DATE: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

/// "A recipient with a clock that receives a response message without a Date header field MUST … append a corresponding Date header field …
/// if it is … forwarded downstream" (RFC 9110 §6.6.1).
fn date(out: &mut Vec<u8>) {
    let now = jiff::Timestamp::now();
    DATE.with_borrow_mut(|(second, written)| {
        if *second != now.as_second() {
            *second = now.as_second();
            *written = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        }
        line(out, b"date", written.as_bytes());
    });
}

/// An answer on its way to a client, as it was read.
/// `alternative`: where else clients are served, if the answer does not say so itself.
pub(super) fn pass_answer(
    out: &mut Vec<u8>,
    head: &Head,
    bytes: &[u8],
    framing: Framing,
    then: After,
    mut alternative: Option<&http::HeaderValue>,
) {
    status(out, head.status);
    let names = head.connection(bytes).next().is_some();
    let mut dated = head.status < 200;
    for (name, value) in head.fields(bytes) {
        if ends_here(name, HOP) || names && is_named(head, bytes, name) {
            continue;
        }
        dated |= is(name, "date");
        if alternative.is_some() && is(name, "alt-svc") {
            alternative = None;
        }
        line(out, name, value);
    }
    if !dated {
        date(out);
    }
    if let Some(alternative) = alternative {
        line(out, b"alt-svc", alternative.as_bytes());
    }
    if framing == Framing::Chunked {
        line(out, b"transfer-encoding", b"chunked");
    }
    after(out, then);
    out.extend_from_slice(b"\r\n");
}

/// An answer of status 1xx.
pub(super) fn early(out: &mut Vec<u8>, code: StatusCode, headers: &HeaderMap) {
    status(out, code.as_u16());
    fields(out, headers);
    out.extend_from_slice(b"\r\n");
}

/// An answer by its parts, framed as `framing` says; nothing: as the parts say.
pub(super) fn answer(out: &mut Vec<u8>, head: &http::response::Parts, framing: Option<Framing>, then: After) {
    status(out, head.status.as_u16());
    if !(head.headers.contains_key(http::header::DATE) || head.status.is_informational()) {
        date(out);
    }
    match framing {
        None => {
            for (name, value) in &head.headers {
                line(out, name.as_str().as_bytes(), value.as_bytes());
            }
        }
        Some(framing) => {
            fields(out, &head.headers);
            match framing {
                Framing::Length(n) => length(out, n),
                Framing::Chunked => line(out, b"transfer-encoding", b"chunked"),
                Framing::None | Framing::Close => {}
            }
        }
    }
    after(out, then);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(head: &str, framing: Framing) -> String {
        let (mut read, mut out) = (Head::default(), Vec::new());
        read.request(head.as_bytes(), 100).unwrap().unwrap();
        let client = "::ffff:192.0.2.1".parse().unwrap();
        let asker = Asker { client, scheme: "https", authority: b"a", id: 7 };
        pass_request(&mut out, &read, head.as_bytes(), read.target(head.as_bytes()), &asker, framing);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_between_neighbours_or_said_by_us_does_not_pass() {
        let head = "POST /x HTTP/1.1\r\nHost: b\r\nConnection: close, X-Mine\r\nx-mine: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
            Upgrade: h2c\r\nProxy-Connection: x\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=x\r\nExpect: 100-continue\r\n\
            Content-Length: 3\r\nX-Stays: yes\r\n\r\n";
        let ours = "x-forwarded-for: 192.0.2.1\r\nx-forwarded-proto: https\r\nx-forwarded-host: a\r\n";
        let id = "x-request-id: 00000000000000000000000000000007\r\n";
        let expected = format!(
            "POST /x HTTP/1.1\r\nhost: a\r\nX-Stays: yes\r\nte: trailers\r\n{ours}{id}content-length: 3\r\n\r\n"
        );
        assert_eq!(passed(head, Framing::Length(3)), expected);
    }

    #[test]
    fn an_answer_has_one_framing_and_a_date() {
        let head = "HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\nConnection: x-a\r\nX-A: 1\r\nX-B: 2\r\n\r\n";
        let (mut read, mut out) = (Head::default(), Vec::new());
        read.answer(head.as_bytes(), 100).unwrap().unwrap();
        pass_answer(&mut out, &read, head.as_bytes(), Framing::Chunked, After::Close, None);
        let out = String::from_utf8(out).unwrap();
        let (before, rest) = out.split_once("date: ").unwrap();
        let (date, after) = rest.split_once("\r\n").unwrap();
        assert_eq!(before, "HTTP/1.1 200 OK\r\nX-B: 2\r\n");
        assert_eq!((date.len(), &date[25..]), (29, " GMT"));
        assert_eq!(after, "transfer-encoding: chunked\r\nconnection: close\r\n\r\n");
    }
}
