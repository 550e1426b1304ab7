//! Heads that are large, or become large: CONTINUATION without an end (CVE-2024-27316), HPACK's bomb (CVE-2016-6581), crumbs of cookies, and
//! on HTTP/1.1 long heads of many connections and pipelined requests whose answers nobody reads.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::frames::{CONTINUATION, END_HEADERS, END_STREAM, HEADERS, Peer, asks, field_list, frame, headers};
use crate::stage::{LONG, Stage};

const KIB_MAX: usize = 32 * 1024;

/// Says a head that has no end, in CONTINUATIONs; how many octets were taken.
async fn endless(stage: &Stage, part: &[u8]) -> usize {
    let mut peer = Peer::connect(stage.world.http).await;
    peer.say(&frame(HEADERS, 0, 1, &field_list(&asks("GET", "/")))).await;
    let one = frame(CONTINUATION, 0, 1, part);
    let (began, mut taken) = (Instant::now(), 0);
    while began.elapsed() < LONG {
        match timeout(Duration::from_secs(5), peer.say(&one)).await {
            Ok(true) => taken += one.len(),
            _ => break,
        }
        // Whoever ended it may be heard before writing fails.
        if timeout(Duration::from_micros(100), peer.hear()).await.is_ok_and(|heard| heard.is_none()) {
            break;
        }
    }
    assert!(began.elapsed() < LONG, "it goes on after {taken} octets");
    taken
}

#[tokio::test]
async fn a_head_without_an_end_is_refused() {
    let stage = Stage::set("CONTINUATION, 16 KiB each", "127.34.20.1").await;
    let field = field_list(&[(b"x".to_vec(), vec![b'y'; 1000])]);
    let taken = endless(&stage, &field.repeat(16)).await;
    stage.holds(&format!("ended after {} KiB", taken / 1024), KIB_MAX).await;
    assert!(taken <= 1024 * 1024, "{taken} octets were taken");
}

#[tokio::test]
async fn a_head_of_empty_parts_is_refused() {
    let stage = Stage::set("CONTINUATION, empty", "127.34.21.1").await;
    let taken = endless(&stage, b"").await;
    stage.holds(&format!("ended after {taken} octets"), KIB_MAX).await;
    assert!(taken <= 1024 * 1024, "{taken} octets were taken");
}

/// What is said of a list of fields that are written in octets.
async fn answered(stage: &Stage, list: &[u8]) -> Option<u16> {
    let mut peer = Peer::connect(stage.world.http).await;
    let parts: Vec<&[u8]> = list.chunks(16_384).collect();
    for (at, part) in parts.iter().enumerate() {
        let last = if at + 1 == parts.len() { END_HEADERS } else { 0 };
        let (kind, first) = if at == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
        peer.say(&frame(kind, first | last, 1, part)).await;
    }
    while let Some(heard) = peer.hear().await {
        if heard.kind == HEADERS {
            return Some(heard.status());
        }
        if heard.error().is_some() {
            return None;
        }
    }
    None
}

#[tokio::test]
async fn a_head_that_unfolds_to_megabytes_is_refused() {
    let stage = Stage::set("HPACK's bomb, 64 MiB in 16 KiB", "127.34.22.1").await;
    let mut list = field_list(&asks("GET", "/"));
    // A literal that is indexed, of nearly all that the table holds; then it again, an octet each (RFC 7541 §6.2.1, §6.1).
    let mut literal = field_list(&[(b"x".to_vec(), vec![b'y'; 4000])]);
    literal[0] = 0x40;
    list.extend(literal);
    list.extend(std::iter::repeat_n(0x80 | 62, 16_000));
    for _ in 0..20 {
        let said = answered(&stage, &list).await;
        assert!(matches!(said, None | Some(431)), "{said:?}");
    }
    stage.holds("refused, 20 times", KIB_MAX).await;
    assert!(stage.pod.hits() < 10, "none reached the endpoint");
}

#[tokio::test]
async fn a_cookie_in_many_crumbs_is_refused() {
    let stage = Stage::set("5,000 crumbs of a cookie", "127.34.23.1").await;
    let mut fields = asks("GET", "/");
    fields.extend((0..5000).map(|n| (b"cookie".to_vec(), format!("a{n}=b").into_bytes())));
    let said = answered(&stage, &field_list(&fields)).await;
    assert!(matches!(said, None | Some(431)), "{said:?}");
    stage.holds(&format!("{said:?}"), KIB_MAX).await;
}

#[tokio::test]
async fn streams_with_large_heads_are_counted_like_others() {
    let stage = Stage::set("1,000 streams with heads of 50 KiB", "127.34.24.1").await;
    let mut peer = Peer::connect(stage.world.http).await;
    let mut fields = asks("GET", "/?wait_ms=300");
    fields.extend((0..50).map(|n| (format!("x-{n}").into_bytes(), vec![b'y'; 1000])));
    let mut begun = 0;
    for stream in (1..2000).step_by(2) {
        match timeout(Duration::from_secs(2), peer.say(&headers(stream, &fields, true))).await {
            Ok(true) => begun += 1,
            _ => break,
        }
    }
    let peak = stage.pod.busy.peak.load(std::sync::atomic::Ordering::SeqCst);
    stage.holds(&format!("{begun} begun, {peak} at once at the endpoint"), 96 * 1024).await;
    assert!(peak <= 128, "{peak} at once");
}

#[tokio::test]
async fn heads_that_are_as_long_as_may_be_and_not_whole_cost_what_they_are() {
    let stage = Stage::set("200 connections with 60 KiB of a head", "127.34.25.1").await;
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "y".repeat(60_000));
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(stage.world.http).await.unwrap();
        let _ = stream.write_all(head.as_bytes()).await;
        held.push(stream);
    }
    stage.world.until_cut("head", 200).await;
    stage.holds("all cut", 64 * 1024).await;
}

#[tokio::test]
async fn requests_that_wait_for_answers_nobody_reads_stay_in_the_socket() {
    let stage = Stage::set("pipelined requests, answers unread", "127.34.26.1").await;
    let mut stream = TcpStream::connect(stage.world.http).await.unwrap();
    socket2::SockRef::from(&stream).set_recv_buffer_size(4096).unwrap();
    // The pod says what it was asked.
    let many = format!("GET /?{} HTTP/1.1\r\nhost: a\r\n\r\n", "y".repeat(12_000)).repeat(100);
    let (began, mut taken) = (Instant::now(), 0);
    while began.elapsed() < LONG {
        match timeout(Duration::from_secs(5), stream.write_all(many.as_bytes())).await {
            Ok(Ok(())) => taken += many.len(),
            _ => break,
        }
    }
    assert!(began.elapsed() < LONG, "it goes on after {taken} octets");
    let hits = stage.pod.hits();
    stage.holds(&format!("{} KiB taken, {hits} reached the endpoint", taken / 1024), KIB_MAX).await;
    stage.world.until_cut("answer", 1).await;
}
