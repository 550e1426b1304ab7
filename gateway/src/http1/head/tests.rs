//! Heads that must be refused, because somebody may read them otherwise, and those that must not.

use super::*;

fn framing(head: &str) -> Result<Framing, Bad> {
    let mut read = Head::default();
    read.request(head.as_bytes(), 100)?.expect("it is whole");
    read.request_framing(head.as_bytes())
}

#[test]
fn a_request_has_one_framing_or_is_refused() {
    let head = |rest: &str| format!("POST /x HTTP/1.1\r\nhost: a\r\n{rest}\r\n");
    for (rest, expected) in [
        ("", Ok(Framing::None)),
        ("content-length: 0\r\n", Ok(Framing::Length(0))),
        ("Content-Length: 18446744073709551615\r\n", Ok(Framing::Length(u64::MAX))),
        ("transfer-encoding: Chunked\r\n", Ok(Framing::Chunked)),
        ("content-length: 18446744073709551616\r\n", Err("Content-Length is no number")),
        ("content-length: +1\r\n", Err("Content-Length is no number")),
        ("content-length: -1\r\n", Err("Content-Length is no number")),
        ("content-length: 0x1\r\n", Err("Content-Length is no number")),
        ("content-length: 1 2\r\n", Err("Content-Length is no number")),
        ("content-length: 1,1\r\n", Err("Content-Length is no number")),
        ("content-length: \r\n", Err("Content-Length is no number")),
        ("content-length: 1\r\ncontent-length: 1\r\n", Err("more than one Content-Length")),
        ("content-length: 1\r\nContent-length: 2\r\n", Err("more than one Content-Length")),
        ("content-length: 1\r\ntransfer-encoding: chunked\r\n", Err("both Content-Length and Transfer-Encoding")),
        ("transfer-encoding: chunked\r\ncontent-length: 1\r\n", Err("both Content-Length and Transfer-Encoding")),
        ("transfer-encoding: identity\r\n", Err("Transfer-Encoding is another than chunked")),
        ("transfer-encoding: gzip, chunked\r\n", Err("Transfer-Encoding is another than chunked")),
        ("transfer-encoding: chunked, identity\r\n", Err("Transfer-Encoding is another than chunked")),
        ("transfer-encoding: chunked\r\ntransfer-encoding: x\r\n", Err("Transfer-Encoding is another than chunked")),
        ("transfer-encoding: xchunked\r\n", Err("Transfer-Encoding is another than chunked")),
        ("transfer-encoding: \"chunked\"\r\n", Err("Transfer-Encoding is another than chunked")),
        ("transfer-encoding:\r\n", Err("Transfer-Encoding is another than chunked")),
        ("content-length : 1\r\n", Err("a header's name is none")),
        ("transfer-encoding : chunked\r\n", Err("a header's name is none")),
        ("transfer-encoding\t: chunked\r\n", Err("a header's name is none")),
        ("x: a\r\n b\r\n", Err("a header's name is none")),
        ("x: a\r\n\tcontent-length: 1\r\n", Err("a header's name is none")),
        ("x: a\ncontent-length: 1\r\n", Err("a line ends in LF alone")),
        ("x: a\rcontent-length: 1\r\n", Err("a header's value is none")),
        ("x: a\0b\r\n", Err("a header's value is none")),
        (": 1\r\n", Err("a header's name is none")),
        ("no colon\r\n", Err("a header's name is none")),
        ("x(y): 1\r\n", Err("a header's name is none")),
    ] {
        assert_eq!(framing(&head(rest)).map_err(|bad| (bad.0, bad.1)), expected.map_err(|why| (400, why)), "{rest:?}");
    }
    let old = "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(framing(old), Err(Bad(400, "HTTP/1.0 has no transfer codings")));
}

#[test]
fn what_is_no_request_line_is_refused_at_once() {
    for line in [
        "GET  / HTTP/1.1\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/1.1 \r\n\r\n",
        "GET / HTTP/1.2\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / http/1.1\r\n\r\n",
        "G(T / HTTP/1.1\r\n\r\n",
        " GET / HTTP/1.1\r\n\r\n",
        "GET\t/ HTTP/1.1\r\n\r\n",
        "GET /\x01 HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\n\r\n",
        "GET / HTTP/1.1\r\nx: y\n\n",
        "\nGET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\n",
    ] {
        assert!(Head::default().request(line.as_bytes(), 100).is_err(), "{line:?}");
    }
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(101));
    assert_eq!(Head::default().request(many.as_bytes(), 100), Err(Bad(431, "too many headers")));
}

#[test]
fn a_head_is_read_where_it_lies_however_it_comes() {
    let bytes = b"\r\nGET /a?b HTTP/1.1\r\nHost: x \r\nConnection: close, X-Mine\r\nconnection: keep-alive\r\n\r\nrest";
    let mut head = Head::default();
    let whole = bytes.len() - 4;
    for n in 0..whole {
        assert_eq!(head.request(&bytes[..n], 100), Ok(None), "{n}");
    }
    assert_eq!(head.request(bytes, 100), Ok(Some(())));
    assert_eq!((head.len, head.method(bytes), head.target(bytes), head.minor), (whole, &b"GET"[..], &b"/a?b"[..], 1));
    assert_eq!(head.values(bytes, "host").collect::<Vec<_>>(), [b"x"]);
    let words: Vec<&[u8]> = head.connection(bytes).collect();
    assert_eq!(words, [&b"close"[..], b"X-Mine", b"keep-alive"]);
    assert!(!head.persists(bytes));
}

#[test]
fn answers_end_as_their_status_and_framing_say() {
    for (bytes, head, expected) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", false, Ok(Framing::Length(3))),
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", true, Ok(Framing::None)),
        ("HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\n", false, Ok(Framing::None)),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n", false, Ok(Framing::None)),
        ("HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\n", false, Ok(Framing::Chunked)),
        ("HTTP/1.0 200 OK\r\n\r\n", false, Ok(Framing::Close)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n", false, Err(502)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", false, Err(502)),
        ("HTTP/1.1 200 OK\nx: y\r\n\r\n", false, Err(502)),
    ] {
        let mut read = Head::default();
        let found = read.answer(bytes.as_bytes(), 100).map(|_| ());
        let found = found.and_then(|()| read.answer_framing(bytes.as_bytes(), head)).map_err(|bad| bad.0);
        assert_eq!(found, expected, "{bytes:?}");
    }
}
