//! Frames that want an answer or are free of charge: SETTINGS, PING, empty DATA, WINDOW_UPDATE. Nothing is queued for who does not read, and
//! who does read delays nobody.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, timeout};

use crate::client::get;
use crate::frames::{DATA, PING, Peer, SETTINGS, WINDOW_UPDATE, asks, frame, headers};
use crate::stage::{LONG, Stage};

/// The kernel's buffers of both ends, and what is read at once.
const TAKEN_MAX: usize = 24 * 1024 * 1024;
const KIB_MAX: usize = 32 * 1024;

/// Says a frame again and again and never reads, until the connection ends; how many octets were taken.
async fn unread(stage: &Stage, one: &[u8]) -> usize {
    let mut peer = Peer::connect(stage.world.http).await;
    socket2::SockRef::from(&peer.stream).set_recv_buffer_size(4096).unwrap();
    let many = one.repeat(1000);
    let (began, mut taken) = (Instant::now(), 0);
    while began.elapsed() < LONG {
        match timeout(Duration::from_secs(5), peer.say(&many)).await {
            Ok(true) => taken += many.len(),
            _ => break,
        }
    }
    assert!(began.elapsed() < LONG, "it goes on after {taken} octets");
    taken
}

#[tokio::test]
async fn settings_that_nobody_acknowledges_are_not_queued() {
    let stage = Stage::set("SETTINGS, answers unread", "127.34.10.1").await;
    let taken = unread(&stage, &frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])).await;
    stage.holds(&format!("stopped after {} KiB", taken / 1024), KIB_MAX).await;
    assert!(taken <= TAKEN_MAX, "{taken} octets were taken");
}

#[tokio::test]
async fn pings_whose_answers_nobody_reads_are_not_queued() {
    let stage = Stage::set("PING, answers unread", "127.34.11.1").await;
    let taken = unread(&stage, &frame(PING, 0, 0, b"12345678")).await;
    stage.holds(&format!("stopped after {} KiB", taken / 1024), KIB_MAX).await;
    assert!(taken <= TAKEN_MAX, "{taken} octets were taken");
}

/// Says a frame again and again and reads what comes, for a while; meanwhile others are served.
async fn read(stage: Stage, before: &[u8], one: &[u8]) {
    let at = stage.world.http;
    let (before, many) = (before.to_vec(), one.repeat(200));
    let flood = tokio::spawn(async move {
        let mut peer = Peer::connect(at).await;
        peer.say(&before).await;
        let mut sent = 0_usize;
        let (mut part, until) = (vec![0; 65_536], Instant::now() + Duration::from_secs(2));
        while Instant::now() < until && peer.say(&many).await {
            sent += 200;
            while let Ok(Ok(n)) = timeout(Duration::from_millis(1), peer.stream.read(&mut part)).await {
                if n < part.len() {
                    break;
                }
            }
        }
        sent
    });
    let (mut asked, mut slowest) = (0, Duration::ZERO);
    while !flood.is_finished() {
        let began = Instant::now();
        assert_eq!(get(at, "a", "/").await.status, 200);
        (asked, slowest) = (asked + 1, slowest.max(began.elapsed()));
    }
    let sent = flood.await.unwrap();
    let what = format!("{sent} frames; {asked} others answered meanwhile, the slowest in {} ms", slowest.as_millis());
    stage.holds(&what, KIB_MAX).await;
    assert!(slowest < Duration::from_secs(5), "somebody waited {slowest:?}");
}

#[tokio::test]
async fn pings_that_are_read_delay_nobody() {
    read(Stage::set("PING, answers read", "127.34.12.1").await, b"", &frame(PING, 0, 0, b"12345678")).await;
}

#[tokio::test]
async fn settings_that_are_read_delay_nobody() {
    read(Stage::set("SETTINGS, answers read", "127.34.13.1").await, b"", &frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]))
        .await;
}

#[tokio::test]
async fn small_increments_of_windows_delay_nobody() {
    read(Stage::set("WINDOW_UPDATE", "127.34.14.1").await, b"", &frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()))
        .await;
}

#[tokio::test]
async fn a_body_of_empty_frames_does_not_go_on() {
    let stage = Stage::set("empty DATA", "127.34.15.1").await;
    let mut peer = Peer::connect(stage.world.http).await;
    peer.say(&headers(1, &asks("POST", "/"), false)).await;
    let began = Instant::now();
    let mut frames = 0;
    let ended = loop {
        let heard = timeout(Duration::from_millis(200), peer.hear()).await;
        match heard {
            Ok(None) => break 0,
            Ok(Some(heard)) if heard.kind == crate::frames::HEADERS => break heard.status(),
            Ok(Some(heard)) if heard.error().is_some() => break 0,
            _ => {}
        }
        assert!(began.elapsed() < LONG, "it goes on after {frames} frames");
        peer.say(&frame(DATA, 0, 1, b"")).await;
        frames += 1;
    };
    assert!(matches!(ended, 0 | 408), "{ended}");
    stage.holds(&format!("given up after {frames} frames, {ended}"), KIB_MAX).await;
}
