//! What one client may cost: heads, streams given up, time, connections. Each bound is met, and others are served.

use std::sync::atomic::Ordering;
use std::time::Duration;

use atoll_gateway::Limits;
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use crate::backend::{Manner, Pod};
use crate::peer::{Became, DATA, HEADERS, frame, get, integer, read, section};
use crate::quic::{LONG, asks};
use crate::stage::{Stage, resident};
use crate::world::Made;

const SHORT: Duration = Duration::from_secs(1);

fn short() -> Made<'static> {
    let made = Made::default();
    let limits =
        Limits { header_timeout: SHORT, body_timeout: SHORT, write_timeout: SHORT, idle_timeout: SHORT, ..made.limits };
    Made { limits, ..made }
}

fn status(became: &Became) -> u16 {
    match became {
        Became::Answered(octets) => read(octets).0,
        _ => 0,
    }
}

#[tokio::test]
async fn a_head_is_as_long_as_it_may_be_and_what_it_claims_takes_no_memory() {
    let stage = Stage::set("127.55.0.1", short()).await;
    let peer = stage.peer().await;
    let before = resident();
    let long = "x".repeat(70_000);
    let too_long = [get("/"), vec![("x-long", long.as_str())]].concat();
    assert_eq!(status(&peer.ask(&too_long).await), 431, "64 KiB at most");
    let many = [get("/"), vec![("x-a", "1"); 100]].concat();
    assert_eq!(status(&peer.ask(&many).await), 431, "100 fields at most");
    // A gigabyte that never comes, and one that begins to.
    let (mut send, recv) = peer.connection.open_bi().await.unwrap();
    send.write_all(&[integer(HEADERS), integer(1 << 30)].concat()).await.unwrap();
    assert_eq!(status(&peer.hear(recv).await), 431);
    // A frame that means nothing is skipped, however long: it is read, and not kept.
    let (mut send, recv) = peer.connection.open_bi().await.unwrap();
    send.write_all(&[integer(0x21), integer(64 << 20)].concat()).await.unwrap();
    let filler = vec![0; 1 << 20];
    for _ in 0..64 {
        if timeout(LONG, send.write_all(&filler)).await.unwrap().is_err() {
            break;
        }
    }
    // It may have taken longer than a head may.
    let _ = send.write_all(&frame(HEADERS, &section(&get("/")))).await;
    let _ = send.finish();
    let became = timeout(LONG, peer.hear(recv)).await.unwrap();
    let grown = resident().saturating_sub(before);
    println!("heads: {grown} KiB more memory after 64 MiB of frames that mean nothing: {became:?}");
    assert!(grown < 32 * 1024, "{grown} KiB");
    assert!(status(&became) == 200 || became == Became::Reset(0x10d), "{became:?}");
    assert_eq!(status(&peer.ask(&get("/")).await), 200, "the connection lives on");
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let stage = Stage::set("127.55.1.1", short()).await;
    let peer = stage.peer().await;
    let (mut send, recv) = peer.connection.open_bi().await.unwrap();
    send.write_all(&[integer(HEADERS), integer(50), b"abc".to_vec()].concat()).await.unwrap();
    assert_eq!(peer.hear(recv).await, Became::Reset(0x10d));
    stage.world.until_cut("head", 1).await;
}

#[tokio::test]
async fn a_body_that_does_not_go_on_is_given_up() {
    let stage = Stage::set("127.55.2.1", short()).await;
    let mut client = stage.open().await;
    let mut stream = client.sender.send_request(asks("a.test", "POST /", &[])).await.unwrap();
    stream.send_data(Bytes::from_static(b"abc")).await.unwrap();
    let head = timeout(LONG, stream.recv_response()).await.unwrap().unwrap();
    assert_eq!(head.status(), 408);
    stage.world.until_cut("body", 1).await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_and_only_its_stream() {
    let flood = Pod::start_as("flood", "127.55.3.1", 0, Manner::Flood).await;
    let stage = Stage::before(flood, short()).await;
    let caller = crate::quic::Caller { window: 20_000, ..stage.caller() };
    let mut client = caller.open(stage.world.https).await.unwrap();
    let mut stream = client.sender.send_request(asks("a.test", "GET /", &[])).await.unwrap();
    stream.finish().await.unwrap();
    assert_eq!(stream.recv_response().await.unwrap().status(), 200);
    stage.world.until_cut("answer", 1).await;
    let ended = async { while matches!(stream.recv_data().await, Ok(Some(_))) {} };
    timeout(LONG, ended).await.expect("its stream ends");
    assert!(client.connection.close_reason().is_none(), "the connection does not");
}

#[tokio::test]
async fn a_connection_without_requests_ends_in_order() {
    let stage = Stage::set("127.55.4.1", short()).await;
    let mut client = stage.open().await;
    assert_eq!(client.get("a.test", "/").await.unwrap().status, 200);
    let ended = timeout(LONG, client.driver).await.expect("it ends").unwrap();
    assert!(ended.is_h3_no_error(), "{ended}");
    stage.world.until_cut("idle", 1).await;
}

#[tokio::test]
async fn a_rapid_reset_ends_its_connection() {
    let stage = Stage::set("127.55.5.1", Made::default()).await;
    let peer = stage.peer().await;
    let (before, began) = (stage.pod.hits(), Instant::now());
    let mut begun = 0;
    let request = frame(HEADERS, &section(&get("/?wait_ms=200")));
    while peer.connection.close_reason().is_none() {
        assert!(began.elapsed() < LONG, "the connection goes on after {begun} streams");
        let opened = timeout(Duration::from_millis(500), peer.connection.open_bi()).await;
        let Ok(Ok((mut send, mut recv))) = opened else { continue };
        let _ = send.write_all(&request).await;
        let _ = send.finish();
        let _ = recv.stop(0x10c_u32.into());
        begun += 1;
        if begun % 100 == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    assert_eq!(peer.ended().await, Became::Ended(0x107));
    let (hits, peak) = (stage.pod.hits() - before, stage.pod.busy.peak.load(Ordering::SeqCst));
    println!("rapid reset: ended after {begun} streams, of which {hits} reached the endpoint, {peak} at once");
    assert!(hits <= 400, "{hits} requests reached the endpoint");
    stage.world.until_cut("resets", 1).await;
    assert_eq!(stage.open().await.get("a.test", "/").await.unwrap().status, 200, "others are served");
}

#[tokio::test]
async fn a_patient_rapid_reset_ends_its_connection_too() {
    let stage = Stage::set("127.55.10.1", Made::default()).await;
    let peer = stage.peer().await;
    let request = frame(HEADERS, &section(&get("/?wait_ms=5000")));
    let (first, mut begun) = (stage.pod.hits(), 0);
    while peer.connection.close_reason().is_none() {
        assert!(begun <= 600, "the connection goes on after {begun} streams");
        let before = stage.pod.hits();
        let Ok((mut send, mut recv)) = peer.connection.open_bi().await else { break };
        let _ = send.write_all(&request).await;
        let _ = send.finish();
        begun += 1;
        // Only once it is worked on.
        let worked = async {
            while stage.pod.hits() == before && peer.connection.close_reason().is_none() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LONG, worked).await.expect("it reaches the endpoint");
        let _ = recv.stop(0x10c_u32.into());
    }
    assert_eq!(peer.ended().await, Became::Ended(0x107));
    println!("rapid reset, one by one: ended after {begun} streams, {} reached the endpoint", stage.pod.hits() - first);
    stage.world.until_cut("resets", 1).await;
}

#[tokio::test]
async fn streams_at_once_are_bounded() {
    let made = Made::default();
    let limits = Limits { streams_max: 10, ..made.limits };
    let stage = Stage::set("127.55.6.1", Made { limits, ..made }).await;
    let peer = stage.peer().await;
    let request = frame(HEADERS, &section(&get("/?wait_ms=1000")));
    let mut open = Vec::new();
    while let Ok(Ok((mut send, recv))) = timeout(Duration::from_millis(300), peer.connection.open_bi()).await {
        send.write_all(&request).await.unwrap();
        send.finish().unwrap();
        open.push(recv);
        assert!(open.len() <= 10, "more than ten at once");
    }
    assert_eq!(open.len(), 10);
    for recv in open {
        assert_eq!(status(&peer.hear(recv).await), 200);
    }
    assert!(stage.pod.busy.peak.load(Ordering::SeqCst) <= 10);
}

#[tokio::test]
async fn connections_are_bounded_together_with_those_of_tcp() {
    let made = Made::default();
    let limits = Limits { connections_max: 6, ..made.limits };
    let stage = Stage::set("127.55.7.1", Made { limits, ..made }).await;
    // One each is kept by the two TCP ports for whoever comes next; the one that found out that it is open is gone soon.
    let began = Instant::now();
    let mut all = Vec::new();
    while all.len() < 3 {
        match stage.caller().connect(stage.world.https).await {
            Ok(connection) => all.push(connection),
            Err(error) => assert!(began.elapsed() < LONG, "{error}"),
        }
    }
    let mut refused = false;
    for _ in 0..3 {
        match stage.caller().connect(stage.world.https).await {
            Ok(connection) => all.push(connection),
            Err(error) => {
                refused = true;
                assert!(error.contains("refused"), "{error}");
            }
        }
    }
    assert!(refused && all.len() <= 4, "{} connections", all.len());
    all.clear();
    stage.until_open().await;
}

#[tokio::test]
async fn under_load_clients_prove_their_address_first() {
    use tokio::net::UdpSocket;

    let stage = Stage::set("127.55.8.1", Made::default()).await;
    // First packets of many handshakes that never go on, as from addresses that nobody has: taken from a real client, each from a port of its
    // own.
    let sink = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = sink.local_addr().unwrap();
    let roots = stage.roots.clone();
    let mut packet = vec![0; 2048];
    let (mut packets, mut callers) = (Vec::new(), std::collections::HashSet::new());
    let (mut hellos, mut retries) = (0, 0);
    for _ in 0..80 {
        let roots = roots.clone();
        let calling = tokio::spawn(async move { crate::quic::Caller::new("a.test", &roots).connect(at).await.is_ok() });
        // A hello may take more than one packet: the first of each is taken.
        let length = loop {
            let (length, from) = timeout(LONG, sink.recv_from(&mut packet)).await.unwrap().unwrap();
            if callers.insert(from) {
                break length;
            }
        };
        calling.abort();
        packets.push(packet[..length].to_vec());
    }
    // All at once, because handshakes that don't go on are given up.
    let mut senders = Vec::new();
    for packet in packets {
        let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        sender.send_to(&packet, stage.world.https).await.unwrap();
        senders.push(sender);
    }
    for sender in &senders {
        let (mut answer, mut got) = (vec![0; 65_536], 0);
        let patience = |got| if got == 0 { LONG } else { Duration::from_millis(50) };
        while let Ok(Ok(length)) = timeout(patience(got), sender.recv(&mut answer)).await {
            // Long header packets of version 1: type 3 is Retry (RFC 9000 §17.2.5).
            let is_retry = answer[0] & 0xf0 == 0xf0;
            if got == 0 {
                *(if is_retry { &mut retries } else { &mut hellos }) += 1;
            }
            got += length;
            assert!(got <= 3 * 1200 + 1200, "{got} octets to somebody who sent 1200 and proved nothing");
        }
    }
    println!("under load: {hellos} handshakes begun, {retries} sent back to prove their address");
    assert!(hellos <= 64, "{hellos} of 80 were not asked");
    assert!(retries >= 10, "{retries} of 80 had to prove their address");
    let proven = stage.open().await.get("a.test", "/").await.unwrap();
    assert_eq!(proven.status, 200, "who does is served");
}

#[tokio::test]
async fn data_of_nothing_is_no_progress() {
    let stage = Stage::set("127.55.9.1", short()).await;
    let peer = stage.peer().await;
    let mut fields = get("/");
    fields[0].1 = "POST";
    let (mut send, recv) = peer.connection.open_bi().await.unwrap();
    send.write_all(&frame(HEADERS, &section(&fields))).await.unwrap();
    let feeding = tokio::spawn(async move {
        while send.write_all(&frame(DATA, &[])).await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
    });
    assert_eq!(status(&peer.hear(recv).await), 408);
    timeout(LONG, feeding).await.expect("it is told to stop").unwrap();
}
