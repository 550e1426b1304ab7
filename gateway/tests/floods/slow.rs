//! Clients that go on, but hardly: slowloris with heads on both versions of HTTP, bodies an octet at a time, windows of nothing.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::frames::{CONTINUATION, HEADERS, Peer, SETTINGS, asks, field_list, frame, headers};
use crate::stage::{LONG, SHORT, Stage};

const KIB_MAX: usize = 64 * 1024;

#[tokio::test]
async fn a_head_that_comes_octet_by_octet_has_no_longer_than_another() {
    let stage = Stage::set("slowloris, 200 connections of HTTP/1.1", "127.34.30.1").await;
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(TcpStream::connect(stage.world.http).await.unwrap());
    }
    let began = Instant::now();
    for octet in b"GET / HTTP/1.1\r\nhost: a\r\nx: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy" {
        for stream in &mut held {
            let _ = stream.write_all(&[*octet]).await;
        }
        sleep(Duration::from_millis(50)).await;
        if stage.world.cut("head") == 200 {
            break;
        }
    }
    stage.world.until_cut("head", 200).await;
    let took = began.elapsed();
    stage.holds(&format!("all cut {} ms after they began", took.as_millis()), KIB_MAX).await;
    assert!(took < 5 * SHORT, "{took:?}");
}

#[tokio::test]
async fn a_head_of_http2_that_does_not_end_ends_its_connection() {
    let stage = Stage::set("slowloris, CONTINUATION now and then", "127.34.31.1").await;
    let mut peer = Peer::connect(stage.world.http).await;
    peer.say(&frame(HEADERS, 0, 1, &field_list(&asks("GET", "/")))).await;
    let part = frame(CONTINUATION, 0, 1, &field_list(&[(b"x".to_vec(), b"y".to_vec())]));
    let began = Instant::now();
    let mut parts = 0;
    while began.elapsed() < LONG {
        // The end is heard, or writing fails.
        if matches!(timeout(Duration::from_millis(200), peer.hear()).await, Ok(None)) || !peer.say(&part).await {
            break;
        }
        parts += 1;
    }
    let took = began.elapsed();
    assert!(took < LONG, "it goes on after {parts} parts");
    stage.holds(&format!("ended after {} ms", took.as_millis()), KIB_MAX).await;
}

#[tokio::test]
async fn a_body_that_comes_octet_by_octet_holds_one_request_and_no_more() {
    let stage = Stage::set("200 bodies an octet at a time", "127.34.32.1").await;
    // Each goes on by itself and many times within the bound, so that a busy machine doesn't go over it.
    let (stop, at) = (CancellationToken::new(), stage.world.http);
    let (said, mut heard) = mpsc::channel(200);
    let mut clients = JoinSet::new();
    for _ in 0..200 {
        let (stop, said) = (stop.clone(), said.clone());
        clients.spawn(async move {
            let mut stream = TcpStream::connect(at).await.unwrap();
            stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n").await.unwrap();
            for octet in 0.. {
                if octet == 40 {
                    said.send(()).await.unwrap();
                }
                if timeout(SHORT / 20, stop.cancelled()).await.is_ok() {
                    break;
                }
                let _ = stream.write_all(b"x").await;
            }
            stream
        });
    }
    for _ in 0..200 {
        heard.recv().await.unwrap();
    }
    assert_eq!(stage.world.cut("body"), 0);
    stage.holds("none cut while they go on", KIB_MAX).await;
    stop.cancel();
    let _held = clients.join_all().await;
    stage.world.until_cut("body", 200).await;
}

#[tokio::test]
async fn answers_that_nobody_takes_are_reset_stream_by_stream() {
    let stage = Stage::set("100 streams with windows of nothing", "127.34.33.1").await;
    let mut peer = Peer::connect(stage.world.http).await;
    // SETTINGS_INITIAL_WINDOW_SIZE 0.
    let mut said = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    for stream in (1..200).step_by(2) {
        said.extend(headers(stream, &asks("GET", "/"), true));
    }
    peer.say(&said).await;
    stage.world.until_cut("answer", 100).await;
    stage.holds("all reset", KIB_MAX).await;
}

#[tokio::test]
async fn connections_that_say_nothing_are_cut() {
    let stage = Stage::set("500 connections that say nothing", "127.34.34.1").await;
    let mut held = Vec::new();
    for _ in 0..500 {
        held.push(TcpStream::connect(stage.world.http).await.unwrap());
    }
    stage.world.until_cut("head", 500).await;
    let mut one = held.pop().unwrap();
    assert_eq!(timeout(LONG, one.read(&mut [0; 10])).await.unwrap().unwrap_or(0), 0, "it is over");
    stage.holds("all cut", KIB_MAX).await;
}
