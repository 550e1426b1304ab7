//! What clients say on streams before and around their messages: PROXY headers, lengths, heads of HTTP requests.
//!
//! In: octets. Checked: a header takes its own octets and no more; messages are cut where their lengths say; a request is a message by the
//! rules or refused; how long a reply may be kept is the least time to live of its answers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::BytesMut;
use futures::FutureExt as _;
use hickory_proto::op::{Message, ResponseCode};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::stream::converse::frame;
use crate::stream::message::{MESSAGE_BYTES_MAX, Query, freshness, query};
use crate::stream::proxy;

/// Signature, command, family, length.
const HEAD_BYTES: usize = 16;

/// One octet that says what the rest is.
///
/// # Panics
/// When a rule does not hold.
pub fn stream(octets: &[u8]) {
    let Some((how, rest)) = octets.split_first() else { return };
    match how & 3 {
        0 => header(rest),
        1 => messages(rest),
        2 => head(how >> 2, rest),
        _ => reply(rest),
    }
}

fn header(octets: &[u8]) {
    let mut left = octets;
    // What is there is read at once.
    let Some(Ok(ends)) = proxy::take(&mut left).now_or_never() else { return };
    assert!(octets.starts_with(proxy::SIGNATURE), "a header without its signature");
    let length = usize::from(u16::from_be_bytes([octets[14], octets[15]]));
    assert_eq!(left, &octets[HEAD_BYTES + length..], "what follows the header");
    let said = ends.map(|ends| (ends.client.is_ipv4(), octets[12] & 0x0f, octets[13]));
    assert!(matches!(said, None | Some((true, 1, 0x11) | (false, 1, 0x21))), "an address of nowhere");
}

fn messages(octets: &[u8]) {
    let mut input = BytesMut::from(octets);
    let mut seen = Vec::new();
    while let Some(message) = frame(&mut input) {
        seen.extend_from_slice(&(message.len() as u16).to_be_bytes());
        seen.extend_from_slice(&message);
    }
    seen.extend_from_slice(&input);
    assert_eq!(seen, octets, "cut and put together");
    let more = input.first_chunk().is_some_and(|length| usize::from(u16::from_be_bytes(*length)) + 2 <= input.len());
    assert!(!more, "a whole message is left");
}

/// Lines: the address, type and length of the body.
fn head(how: u8, octets: &[u8]) {
    let mut lines = octets.splitn(3, |octet| *octet == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (Ok(uri), mut headers) = (http::Uri::try_from(line()), HeaderMap::new()) else { return };
    for name in [CONTENT_TYPE, CONTENT_LENGTH] {
        if let Ok(value) = HeaderValue::from_bytes(line()) {
            headers.insert(name, value);
        }
    }
    let method = [Method::GET, Method::POST, Method::PUT, Method::HEAD][usize::from(how & 3)].clone();
    match query(&method, &uri, &headers) {
        Ok(Query::Here(packet)) => {
            assert!(method == Method::GET && (12..=MESSAGE_BYTES_MAX).contains(&packet.len()), "{uri}");
            let said = URL_SAFE_NO_PAD.encode(&packet);
            assert!(uri.query().is_some_and(|pairs| pairs.contains(&format!("dns={said}"))), "{uri}");
        }
        Ok(Query::Body) => assert_eq!(method, Method::POST),
        Err(status) => assert!(status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT, "{status}"),
    }
}

fn reply(octets: &[u8]) {
    let fresh = freshness(octets);
    let Ok(message) = Message::from_vec(octets) else { return };
    let decided = matches!(message.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain);
    if message.metadata.truncation || !decided || message.answers.is_empty() {
        return;
    }
    let least = message.answers.iter().map(|record| record.ttl).min();
    assert_eq!(fresh, least, "how long the reply may be kept");
}
