//! Heads and chunked bodies of HTTP/1.1.
//!
//! In: octets. Checked: a head is read alike however it comes, has one framing, and holds no octet that ends a line elsewhere; what an endpoint
//! is sent of it reads as the same request. Chunks hold the same data however they come, and again once they were written by us.

use http::HeaderMap;

use crate::http1::fuzzed::{
    Asker, Chunked, Framing, Head, Piece, chunk, last_chunk, parts, pass_request, render_request,
};

const FIELDS: usize = 100;

/// A request's head.
///
/// # Panics
/// When a rule does not hold.
pub fn head(octets: &[u8]) {
    let mut head = Head::default();
    let whole = head.request(octets, FIELDS);
    for n in [octets.len() / 2, octets.len().saturating_sub(1)] {
        let begun = Head::default().request(&octets[..n], FIELDS);
        match whole {
            Ok(Some(())) if n < head.len => assert_eq!(begun, Ok(None), "the beginning of a head is one"),
            Ok(None) => assert_eq!(begun, Ok(None), "what is not whole was not whole before"),
            _ => {}
        }
    }
    if whole != Ok(Some(())) {
        return;
    }
    let written = &octets[..head.len];
    let ends = written.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at);
    assert!(ends.clone().all(|at| at > 0 && written[at - 1] == b'\r'), "lines end in CR LF");
    for (name, value) in head.fields(octets) {
        assert!(
            !name.is_empty() && !name.iter().any(|b| b.is_ascii_control() || b" :".contains(b)),
            "a name is a token"
        );
        assert!(!value.iter().any(|b| matches!(b, 0..=8 | 10..=31 | 127)), "a value has no controls");
    }
    let Ok(framing) = head.request_framing(octets) else { return };
    let frames = |name: &str| head.values(octets, name).count();
    assert!(frames("content-length") + frames("transfer-encoding") <= 1, "one framing");
    passed(&head, octets, framing);
    long(&head, octets);
}

/// The short way: the head's octets rewritten.
fn passed(head: &Head, octets: &[u8], framing: Framing) {
    let target = head.target(octets);
    let Some(authority) = head.values(octets, "host").next() else { return };
    let mut out = Vec::new();
    let asker = Asker { client: std::net::Ipv4Addr::LOCALHOST.into(), scheme: "http", authority, id: 7 };
    pass_request(&mut out, head, octets, target, &asker, framing);
    let mut again = Head::default();
    assert_eq!(again.request(&out, FIELDS + 8), Ok(Some(())), "what is sent is a head");
    assert_eq!((again.len, again.method(&out), again.target(&out)), (out.len(), head.method(octets), target));
    assert_eq!(again.request_framing(&out), Ok(framing), "framed as it was");
    assert_eq!(again.values(&out, "host").collect::<Vec<_>>(), [authority], "one host");
    assert_eq!(again.connection(&out).count(), 0, "nothing between neighbours");
}

/// The long way: its parts.
fn long(head: &Head, octets: &[u8]) {
    let Ok(parts) = parts(head, octets) else { return };
    let mut out = Vec::new();
    render_request(&mut out, &parts, Some(3));
    let mut again = Head::default();
    // A target without a path gets its slash later.
    if parts.uri.path_and_query().is_some_and(|target| target.as_str().starts_with('?')) {
        return;
    }
    assert_eq!(again.request(&out, 2 * FIELDS), Ok(Some(())), "what is sent is a head");
    assert_eq!(again.method(&out), parts.method.as_str().as_bytes());
    assert!(matches!(again.request_framing(&out), Ok(Framing::None | Framing::Length(3))), "framed by us");
}

type Read = Option<(Vec<u8>, usize, Option<HeaderMap>)>;

/// Data, length and trailers; nothing where they are none, or not whole. `step`: how many octets come at once.
fn read(octets: &[u8], step: usize) -> Read {
    let (mut chunked, mut data, mut total) = (Chunked::default(), Vec::new(), 0);
    for part in octets.chunks(step) {
        let mut at = 0;
        while let Some(piece) = chunked.next(&part[at..]).ok()? {
            match piece {
                Piece::Data(n) => {
                    assert!(n > 0 && at + n <= part.len(), "data that is there");
                    data.extend_from_slice(&part[at..at + n]);
                    at += n;
                }
                Piece::Framing(n) => at += n,
                Piece::End(n) => return Some((data, total + at + n, chunked.trailers())),
            }
        }
        total += part.len();
    }
    None
}

/// A chunked body.
///
/// # Panics
/// When a rule does not hold.
pub fn chunks(octets: &[u8]) {
    let at_once = read(octets, octets.len().max(1));
    for step in [1, 7] {
        assert_eq!(read(octets, step), at_once, "however it comes");
    }
    let mut chunked = Chunked::default();
    let span = chunked.span(octets).ok().filter(|(_, end)| *end).map(|(len, _)| len);
    assert_eq!(span, at_once.as_ref().map(|(_, len, _)| *len), "passed on as it is read");
    let Some((data, _, trailers)) = at_once else { return };
    let mut out = Vec::new();
    for part in data.chunks(1000) {
        chunk(&mut out, part);
    }
    last_chunk(&mut out, trailers.as_ref());
    assert_eq!(read(&out, out.len()), Some((data, out.len(), trailers)), "written by us");
}
