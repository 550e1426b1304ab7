//! Streams that are begun and ended before their answers: by the client (rapid reset, CVE-2023-44487), or by what it makes the server do
//! (MadeYouReset, CVE-2025-8671). What endpoints work on for nobody is bounded by connection, whatever the pace.

use std::sync::atomic::Ordering;

use tokio::time::{Instant, sleep, timeout};

use crate::frames::{Peer, RST_STREAM, WINDOW_UPDATE, asks, frame, headers};
use crate::stage::{LONG, SHORT, Stage};

/// Requests that may go to endpoints for one connection that gives them up.
const BEGUN_MAX: usize = 400;
const KIB_MAX: usize = 64 * 1024;

/// Begins streams until the connection ends, `at_once` of them in one write; how many. `gives_up`: what ends a stream.
async fn begin(stage: &Stage, target: &str, at_once: u32, gives_up: fn(u32) -> Vec<u8>) -> usize {
    let mut peer = Peer::connect(stage.world.http).await;
    let mut stream = 1;
    let began = Instant::now();
    while began.elapsed() < LONG {
        let mut said = Vec::new();
        for _ in 0..at_once {
            said.extend(headers(stream, &asks("GET", target), true));
            if at_once > 1 {
                said.extend(gives_up(stream));
            }
            stream += 2;
        }
        let before = stage.pod.hits();
        if !peer.say(&said).await {
            break;
        }
        if at_once == 1 {
            // Patiently: only once it is worked on.
            let worked = timeout(2 * SHORT, async {
                while stage.pod.hits() == before {
                    sleep(std::time::Duration::from_millis(1)).await;
                }
            });
            if worked.await.is_err() || !peer.say(&gives_up(stream - 2)).await {
                break;
            }
        }
    }
    assert!(began.elapsed() < LONG, "the connection goes on after {} streams", stream / 2);
    usize::try_from(stream / 2).unwrap()
}

fn cancel(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

/// A window that overflows is an error of the stream (RFC 9113 §6.9.1).
fn provoke(stream: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())
}

async fn bounded(stage: Stage, target: &str, at_once: u32, gives_up: fn(u32) -> Vec<u8>) {
    let begun = begin(&stage, target, at_once, gives_up).await;
    let (hits, peak) = (stage.pod.hits(), stage.pod.busy.peak.load(Ordering::SeqCst));
    stage
        .holds(&format!("ended after {begun} streams, of which {hits} reached the endpoint, {peak} at once"), KIB_MAX)
        .await;
    assert!(hits <= BEGUN_MAX, "{hits} requests reached the endpoint");
    assert_eq!(stage.world.cut("resets"), 1, "whoever ends it");
}

#[tokio::test]
async fn a_rapid_reset_ends_its_connection() {
    let stage = Stage::set("rapid reset, 100 at once", "127.34.0.1").await;
    bounded(stage, "/?wait_ms=200", 100, cancel).await;
}

#[tokio::test]
async fn a_patient_rapid_reset_ends_its_connection_too() {
    let stage = Stage::set("rapid reset, one by one", "127.34.1.1").await;
    bounded(stage, "/?wait_ms=200", 1, cancel).await;
}

#[tokio::test]
async fn who_makes_the_gateway_reset_streams_is_ended() {
    let stage = Stage::set("MadeYouReset, 100 at once", "127.34.2.1").await;
    bounded(stage, "/?wait_ms=200", 100, provoke).await;
}

#[tokio::test]
async fn who_makes_the_gateway_reset_streams_patiently_is_ended() {
    let stage = Stage::set("MadeYouReset, one by one", "127.34.3.1").await;
    bounded(stage, "/?wait_ms=200", 1, provoke).await;
}

#[tokio::test]
async fn who_gives_up_now_and_then_is_served() {
    let stage = Stage::set("some requests given up", "127.34.4.1").await;
    let mut peer = Peer::connect(stage.world.http).await;
    for n in 0..300_u32 {
        let stream = 2 * n + 1;
        peer.say(&headers(stream, &asks("GET", "/"), true)).await;
        if n % 3 == 0 {
            peer.say(&cancel(stream)).await;
            continue;
        }
        loop {
            let heard = peer.hear().await.expect("the connection goes on");
            if heard.kind == crate::frames::HEADERS && heard.stream == stream {
                assert_eq!(heard.status(), 200);
                break;
            }
        }
    }
    stage.holds("300 requests, a third of them given up", KIB_MAX).await;
}
