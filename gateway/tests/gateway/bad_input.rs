//! Bytes that are not HTTP, heads that are too much, clients that are too slow: refused, and nobody else notices.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::backend::Pod;
use crate::client::get;
use crate::world::{World, import, route, topology};

async fn world() -> (World, Pod) {
    let world = World::start().await;
    let web = Pod::start("web", "127.14.0.1").await;
    world.publish(topology(&[("eu", &[&web])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("x", "/", |a| a.status == 200).await;
    (world, web)
}

/// Sends bytes, reads what comes until the connection ends or falls silent.
async fn say(world: &World, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(world.http).await.unwrap();
    // A server that refuses may close before everything is written.
    let _ = stream.write_all(bytes).await;
    let mut got = Vec::new();
    let mut part = [0; 4096];
    while let Ok(Ok(n)) = tokio::time::timeout(Duration::from_millis(700), stream.read(&mut part)).await {
        if n == 0 {
            break;
        }
        got.extend_from_slice(&part[..n]);
    }
    String::from_utf8_lossy(&got).into_owned()
}

#[tokio::test]
async fn what_is_not_a_request_gets_an_error_and_others_go_on() {
    let (world, _web) = world().await;
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(20_000));
    let wide = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(200));
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0; 200]].concat();
    for (name, bytes, status) in [
        ("garbage", &b"\x00\x01\x02\x03 garbage \xff\xfe\r\n\r\n"[..], "400"),
        ("words", b"hello world, are you there?\r\n\r\n", "400"),
        ("a TLS hello", &hello, "400"),
        ("a bad version", b"GET / HTTP/9.9\r\nhost: x\r\n\r\n", "400"),
        ("no host", b"GET / HTTP/1.1\r\n\r\n", "400"),
        ("two hosts", b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", "400"),
        ("a bad host", b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n", "400"),
        ("a space before the colon", b"GET / HTTP/1.1\r\nhost : x\r\n\r\n", "400"),
        ("two lengths", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "400"),
        ("a length that is none", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1x\r\n\r\na", "400"),
        ("a coding that is not last", b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, x\r\n\r\n", "400"),
        ("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n", "405"),
        ("a long target", long.as_bytes(), "414"),
        ("a long header", wide.as_bytes(), "431"),
        ("many headers", many.as_bytes(), "431"),
    ] {
        let got = say(&world, bytes).await;
        assert!(got.starts_with(&format!("HTTP/1.1 {status}")), "{name}: {got:?}");
        assert_eq!(get(world.http, "x", "/").await.status, 200, "after {name}");
    }
}

#[tokio::test]
async fn a_body_with_two_framings_is_one_request_for_everybody() {
    let (world, web) = world().await;
    let before = web.hits();
    let smuggled = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nhost: x\r\n\r\n";
    let got = say(&world, smuggled).await;
    assert_eq!(got.matches("HTTP/1.1 ").count(), 1, "one answer, then the connection ends: {got}");
    assert!(web.hits() <= before + 1, "the second request never reached a backend");
    assert!(!got.contains("/admin"));
}

#[tokio::test]
async fn what_two_readers_may_read_as_two_requests_is_refused_and_reaches_nobody() {
    let (world, web) = world().await;
    let smuggled = "GET /admin HTTP/1.1\r\nhost: x\r\n\r\n";
    let before = web.hits();
    for (name, head) in [
        ("equal lengths", "content-length: 3\r\ncontent-length: 3\r\n\r\nabc"),
        ("a list of lengths", "content-length: 3, 3\r\n\r\nabc"),
        ("a signed length", "content-length: +3\r\n\r\nabc"),
        ("both, the coding last", "content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("a coding with a space", "transfer-encoding : chunked\r\n\r\n0\r\n\r\n"),
        ("a coding with a tab", "transfer-encoding:\tchunked, identity\r\n\r\n0\r\n\r\n"),
        ("two codings", "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n"),
        ("a folded coding", "x: y\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("a bare line feed", "x: y\ncontent-length: 3\r\n\r\nabc"),
        ("a bare carriage return", "x: y\rcontent-length: 3\r\n\r\nabc"),
        ("a NUL", "x: y\0\r\n\r\n"),
        ("a chunk with a bare line feed", "transfer-encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n"),
        ("a chunk extension with a line feed", "transfer-encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n0\r\n\r\n"),
        ("a chunk that is longer than it says", "transfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n"),
        ("a trailer that frames", "transfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 3\r\n\r\n"),
    ] {
        let got = say(&world, format!("POST / HTTP/1.1\r\nhost: x\r\n{head}{smuggled}").as_bytes()).await;
        assert!(got.starts_with("HTTP/1.1 400"), "{name}: {got:?}");
        assert_eq!(got.matches("HTTP/1.1 ").count(), 1, "{name}: {got:?}");
        assert!(!got.contains("/admin"), "{name}: {got:?}");
    }
    let old = say(&world, b"POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.1 400"), "{old:?}");
    // A body that breaks off may have begun to reach its endpoint; what follows it never does.
    assert!(web.hits() <= before + 4, "{} requests reached the endpoint", web.hits() - before);
}

#[tokio::test]
async fn requests_that_come_at_once_are_answered_one_after_the_other() {
    let (world, _web) = world().await;
    let body = "POST /b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let all = format!(
        "GET /a HTTP/1.1\r\nhost: x\r\n\r\n{body}HEAD /c HTTP/1.1\r\nhost: x\r\n\r\nGET /d HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\nGET /e HTTP/1.1\r\nhost: x\r\n\r\n"
    );
    let got = say(&world, all.as_bytes()).await;
    assert_eq!(got.matches("HTTP/1.1 200").count(), 4, "nothing after `close`: {got}");
    let at = |word: &str| got.find(word).unwrap_or_else(|| panic!("{word} in {got}"));
    assert!(at("/a") < at("/b") && at("/b") < at("/d"), "{got}");
    assert!(got.contains("abc") && !got.contains("/e"), "{got}");
}

#[tokio::test]
async fn a_client_that_waits_is_told_to_go_on_once_its_body_is_wanted() {
    let (world, _web) = world().await;
    let head = "POST /b HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    let mut stream = TcpStream::connect(world.http).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut part = [0; 25];
    tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut part)).await.expect("in time").unwrap();
    assert_eq!(&part, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut got = [0; 4096];
    let n = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut got)).await.expect("in time").unwrap();
    let got = String::from_utf8_lossy(&got[..n]).into_owned();
    assert!(got.starts_with("HTTP/1.1 200") && got.contains("hello"), "{got}");
    let old = say(&world, b"GET / HTTP/1.0\r\nhost: x\r\nconnection: keep-alive\r\n\r\n").await;
    assert!(old.contains("connection: keep-alive"), "{old}");
}

#[tokio::test]
async fn a_client_that_breaks_its_body_harms_no_endpoint() {
    let (world, web) = world().await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\n";
    for _ in 0..3 {
        let got = say(&world, format!("{head}transfer-encoding: chunked\r\n\r\nZZ\r\nhello\r\n").as_bytes()).await;
        assert!(got.starts_with("HTTP/1.1 400"), "{got:?}");
        let mut stream = TcpStream::connect(world.http).await.unwrap();
        stream.write_all(format!("{head}content-length: 9000\r\n\r\nabc").as_bytes()).await.unwrap();
        let before = web.hits();
        world.until("x", "/", |_| web.hits() > before).await;
        drop(stream);
    }
    let seen = world.server.explain("x", "/", None).await;
    assert_eq!(seen.pointer("/listeners/0/backends/0/tiers/0/0/out"), Some(&json!(false)), "{seen}");
    assert_eq!(seen.pointer("/listeners/0/backends/0/tiers/0/0/endpoints/0/usable"), Some(&json!(true)), "{seen}");
}

#[tokio::test]
async fn slow_clients_are_cut_off() {
    let (world, _web) = world().await;
    for begin in [&b""[..], b"PRI * HT", b"GET / HTTP/1.1\r\nhost:"] {
        let mut stream = TcpStream::connect(world.http).await.unwrap();
        stream.write_all(begin).await.unwrap();
        let mut got = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut got)).await;
        assert!(ended.is_ok(), "still open after 10 s: {begin:?}");
    }
    world.until_cut("head", 3).await;
}
