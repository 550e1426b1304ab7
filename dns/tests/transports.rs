//! What transports must bear: crowds, idlers, clients that drip or do not read, balancers, requests that are no queries, and a process
//! without descriptors left.

#![allow(clippy::unwrap_used, reason = "a stage that can't be set ends the test")]

mod stage;

#[path = "transports/exhausted.rs"]
mod exhausted;

use std::sync::Arc;
use std::time::Duration;

use atoll_api::topology::Topology;
use atoll_dns::{Config, Limits};
use bytes::Bytes;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use serde_json::json;
use stage::member::{Manner, MemberDns};
use stage::ways::{WAYS, dial, framed, https_post, proxied, receive, send};
use stage::*;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

const DB: &str = "db.atoll.internal";

fn topology() -> Topology {
    let mut t = federation();
    let endpoints = json!({"endpoints": [
        {"dnsName": DB, "recordType": "A", "recordTTL": 30, "targets": ["192.0.2.7"]},
        {"dnsName": DB, "recordType": "TXT", "recordTTL": 7, "targets": ["x".repeat(60_000)]},
    ]});
    t.records.insert("ops/a".into(), Arc::new(serde_json::from_value(endpoints).unwrap()));
    t
}

fn octets(name: &str, kind: RecordType) -> Vec<u8> {
    query(name, kind).to_vec().unwrap()
}

/// Few seats.
fn few() -> Config {
    let limits = Limits { connections: 4, client_connections: 2, ..Limits::default() };
    Config { limits, ..Config::default() }
}

/// Little time.
fn brief() -> Config {
    let limits =
        Limits { idle: Duration::from_millis(800), handshake: Duration::from_millis(1500), ..Limits::default() };
    Config { limits, ..Config::default() }
}

/// Whether the server ends it, without having said more.
async fn is_closed(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the connection stays open");
    rest.is_empty() || ended.is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_as_they_are_ready_on_tcp_and_dot() {
    let member = MemberDns::new("cluster.local").await;
    member.behave(Manner::Silent);
    let mut t = topology();
    add(&mut t, "prod-eu", "prod", "eu-central", 21, json!({"servers": [member.addr.to_string()]}));
    let stage = Stage::everywhere(Config::default(), t).await;
    for secure in [false, true] {
        let mut stream = stage.talk("127.0.0.1", secure).await.unwrap();
        // A name of its own: what failed once fails at once for a while.
        let slow = octets(&format!("web-{secure}.shop.svc.prod-eu.atoll.internal"), RecordType::A);
        let fast = octets(DB, RecordType::A);
        // RFC 7766 §6.2.1.1: both in one segment.
        let both: Vec<u8> =
            [&slow, &fast].iter().flat_map(|q| [&(q.len() as u16).to_be_bytes()[..], q].concat()).collect();
        stream.write_all(&both).await.unwrap();
        let replies = [receive(&mut stream).await.unwrap(), receive(&mut stream).await.unwrap()];
        assert_eq!([&replies[0][..2], &replies[1][..2]], [&fast[..2], &slow[..2]], "TLS: {secure}");
        assert_eq!(replies[1][3] & 15, ResponseCode::ServFail.low());
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_queries_are_read_than_may_be_in_flight() {
    let member = MemberDns::new("cluster.local").await;
    member.behave(Manner::Silent);
    let mut t = topology();
    add(&mut t, "prod-eu", "prod", "eu-central", 21, json!({"servers": [member.addr.to_string()]}));
    let limits = Limits { queries: 1, ..Limits::default() };
    let stage = Stage::everywhere(Config { limits, ..Config::default() }, t).await;
    let mut stream = stage.talk("127.0.0.1", false).await.unwrap();
    let (slow, fast) = (octets("web.shop.svc.prod-eu.atoll.internal", RecordType::A), octets(DB, RecordType::A));
    send(&mut stream, &slow).await.unwrap();
    send(&mut stream, &fast).await.unwrap();
    assert_eq!(receive(&mut stream).await.unwrap()[..2], slow[..2], "the second one waits for the first");
    assert_eq!(receive(&mut stream).await.unwrap()[..2], fast[..2]);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_and_all_clients_have_so_many_connections_and_no_more() {
    let stage = Stage::everywhere(few(), topology()).await;
    let ask = octets(DB, RecordType::A);
    for secure in [false, true] {
        let mut kept = Vec::new();
        for (case, from, served) in [
            ("the first", "127.0.0.1", true),
            ("the second", "127.0.0.1", true),
            ("the third of one client", "127.0.0.1", false),
            ("another client", "127.0.0.2", true),
            ("the last seat", "127.0.0.3", true),
            ("no seat", "127.0.0.4", false),
        ] {
            let mut stream = stage.talk(from, secure).await;
            let got = match &mut stream {
                Some(stream) => framed(stream, &ask).await,
                None => None,
            };
            assert_eq!(got.is_some(), served, "{case}, TLS: {secure}");
            kept.push(stream);
        }
        // A seat is free again once somebody has left.
        drop(kept);
        until(async || match stage.talk("127.0.0.4", secure).await {
            Some(mut stream) => framed(&mut stream, &ask).await.is_some(),
            None => false,
        })
        .await;
    }
    let ends = stage.ends();
    for (at, alpn) in [(ends.quic, "doq"), (ends.h3, "h3")] {
        let mut kept = Vec::new();
        for (case, served) in [("the first", true), ("the second", true), ("the third of one client", false)] {
            let connection = timeout(PATIENCE, ends.quic("127.0.0.1", at, alpn)).await.unwrap();
            assert_eq!(connection.is_some(), served, "{case} by {alpn}");
            kept.push(connection);
        }
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_idle_or_drips_or_shakes_no_hands_is_cut() {
    let stage = Stage::everywhere(brief(), topology()).await;
    let ends = stage.ends();
    for secure in [false, true] {
        let mut stream = stage.talk("127.0.0.1", secure).await.unwrap();
        assert!(framed(&mut stream, &octets(DB, RecordType::A)).await.is_some());
        assert!(is_closed(&mut stream).await, "idle, TLS: {secure}");
        // Octets that never make a query do not keep a connection open.
        let mut stream = stage.talk("127.0.0.1", secure).await.unwrap();
        let dripped = async {
            while stream.write_all(&[1]).await.is_ok() && stream.flush().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, dripped).await.expect("a connection that drips is cut");
    }
    for at in [ends.tls, ends.https] {
        let mut stream = dial("127.0.0.1", at).await.unwrap();
        assert!(is_closed(&mut stream).await, "no handshake");
    }
    // Nor does an open connection without requests stay.
    let mut quiet = ends.secured("127.0.0.1", ends.https, "http/1.1").await.unwrap();
    quiet.write_all(b"GET /dns-query?dns=AAAA HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    timeout(PATIENCE, quiet.read_to_end(&mut said)).await.expect("an idle HTTP connection ends").unwrap();
    assert!(said.starts_with(b"HTTP/1.1 400"));
    for (at, alpn) in [(ends.quic, "doq"), (ends.h3, "h3")] {
        let (_endpoint, connection) = ends.quic("127.0.0.1", at, alpn).await.unwrap();
        timeout(PATIENCE, connection.closed()).await.expect("an idle QUIC connection ends");
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_cut() {
    let limits = Limits { write: Duration::from_millis(400), ..Limits::default() };
    let stage = Stage::everywhere(Config { limits, ..Config::default() }, topology()).await;
    let ask = octets(DB, RecordType::TXT);
    for secure in [false, true] {
        // 60 KB each, more of them than the kernel's buffers hold.
        let mut stream = stage.talk("127.0.0.1", secure).await.unwrap();
        let asking = async {
            while send(&mut stream, &ask).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE * 4, asking).await.expect("the server cuts the connection");
    }
    let text = prometheus::TextEncoder::new().encode_to_string(&stage.metrics.gather()).unwrap();
    for transport in ["tcp", "dot"] {
        assert!(
            text.contains(&format!("atoll_dns_dropped_total{{transport=\"{transport}\",why=\"slow\"}} 1")),
            "{text}"
        );
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_says_who_the_client_is_and_nobody_else_does() {
    let config = Config {
        proxies: vec!["127.0.0.9/32".parse().unwrap()],
        allow: vec!["127.0.0.1/32".parse().unwrap(), "198.51.100.0/24".parse().unwrap()],
        ..Config::default()
    };
    let stage = Stage::everywhere(config, topology()).await;
    let ask = octets(DB, RecordType::A);
    let allowed = proxied([198, 51, 100, 7].into());
    let other = proxied([203, 0, 113, 7].into());
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
    for (case, from, first, code) in [
        ("a client that may ask", "127.0.0.9", &allowed, Some(ResponseCode::NoError)),
        ("a client that may not", "127.0.0.9", &other, Some(ResponseCode::Refused)),
        ("the balancer's own, which may not ask", "127.0.0.9", &local, Some(ResponseCode::Refused)),
        ("a balancer without a header", "127.0.0.9", &Vec::new(), None),
        ("a stranger with a header", "127.0.0.1", &allowed, None),
        ("a stranger without one", "127.0.0.1", &Vec::new(), Some(ResponseCode::NoError)),
    ] {
        for transport in ["tcp", "dot", "doh"] {
            let asked = stage.behind(transport, from, first, &ask);
            let reply = timeout(PATIENCE * 2, asked).await.expect("neither an answer nor an end");
            let got = reply.map(|octets| Message::from_vec(&octets).unwrap().metadata.response_code);
            assert_eq!(got, code, "{case} by {transport}");
        }
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_http_are_answered_with_the_status_that_fits() {
    let stage = Stage::everywhere(Config::default(), topology()).await;
    let request = |method: &str, path: &str, kind: &str, body: &[u8]| {
        let builder = http::Request::builder().method(method).uri(format!("https://localhost{path}"));
        builder.header("content-type", kind).body(Bytes::copy_from_slice(body)).unwrap()
    };
    let message = "application/dns-message";
    let (small, large) = (octets(DB, RecordType::A), vec![0; 70_000]);
    // RFC 8484 §4.1.1: `db.atoll.internal A`, without padding.
    let get = "/dns-query?dns=AAABAAABAAAAAAAAAmRiBWF0b2xsCGludGVybmFsAAABAAE";
    for (method, path, kind, body, status) in [
        ("POST", "/dns-query", message, &small, 200),
        ("GET", get, "", &Vec::new(), 200),
        ("GET", "/dns-query", "", &Vec::new(), 400),
        ("GET", "/dns-query?dns=A", "", &Vec::new(), 400),
        ("POST", "/dns-query", message, &vec![1; 5], 400),
        ("POST", "/other", message, &small, 404),
        ("DELETE", "/dns-query", message, &small, 405),
        ("POST", "/dns-query", message, &large, 413),
        ("POST", "/dns-query", "text/plain", &small, 415),
    ] {
        let asked = || request(method, path, kind, body);
        let (by_h2, headers, reply) = stage.https("127.0.0.1", asked()).await.unwrap();
        let (by_h3, over_h3) = stage.by_h3("127.0.0.1", asked()).await.unwrap();
        let by_h1 = stage.https1(asked()).await;
        assert_eq!((by_h2, by_h3), (status, status), "{method} {path} {kind}");
        // HTTP/1.1 may end the connection before a body that is too large has gone out.
        assert!(by_h1.is_none_or(|(by_h1, _)| by_h1 == status), "{method} {path} {kind}");
        if status == 200 {
            assert_eq!(headers["content-type"], message);
            assert_eq!(headers["cache-control"], "private, max-age=30");
            for reply in [reply, over_h3] {
                assert_eq!(data(&Message::from_vec(&reply).unwrap()), "192.0.2.7");
            }
        }
        assert!(status != 405 || headers["allow"] == "GET, POST");
    }
    // RFC 8484 §5.1: the smallest time to live.
    let (_, headers, _) = stage.https("127.0.0.1", https_post(&octets(DB, RecordType::TXT))).await.unwrap();
    assert_eq!(headers["cache-control"], "private, max-age=7");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_rules_of_quic_ends_the_connection_with_the_code_that_says_so() {
    let stage = Stage::everywhere(Config::default(), topology()).await;
    let mut good = octets(DB, RecordType::A);
    good[..2].fill(0);
    let framed = |packet: &[u8]| [&(packet.len() as u16).to_be_bytes()[..], packet].concat();
    let mut kept = good.clone();
    // An OPT whose only option is the keep-alive.
    kept.truncate(good.len() - 2);
    kept.extend([0, 4, 0, 11, 0, 0]);
    let mut numbered = good.clone();
    numbered[1] = 1;
    let mut reply = good.clone();
    reply[2] |= 0x80;
    const PROTOCOL_ERROR: u64 = 2;
    for (case, octets, want) in [
        ("a query", framed(&good), Ok(())),
        ("an identifier (RFC 9250 §4.2.1)", framed(&numbered), Err(PROTOCOL_ERROR)),
        ("the keep-alive option (§5.5.2)", framed(&kept), Err(PROTOCOL_ERROR)),
        ("a reply", framed(&reply), Err(PROTOCOL_ERROR)),
        ("two queries (§4.3.3)", framed(&good).repeat(2), Err(PROTOCOL_ERROR)),
        ("half a query (§4.3.3)", framed(&good)[..20].to_vec(), Err(PROTOCOL_ERROR)),
        ("nothing", Vec::new(), Err(PROTOCOL_ERROR)),
        ("more than a message", vec![0; 70_000], Err(PROTOCOL_ERROR)),
    ] {
        let got = timeout(PATIENCE, stage.by_quic_stream("127.0.0.1", &octets)).await.unwrap();
        assert_eq!(got.as_ref().map(|_| ()).map_err(|code| *code), want, "{case}");
        if let Ok(octets) = got {
            assert_eq!(data(&Message::from_vec(&octets).unwrap()), "192.0.2.7");
        }
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_on_every_transport_are_served_at_once() {
    let stage = Arc::new(Stage::everywhere(Config::default(), topology()).await);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..10 {
        for way in WAYS {
            let stage = Arc::clone(&stage);
            asking.spawn(async move {
                let reply = (way.ask)(&stage, "127.0.0.1", &octets(DB, RecordType::A)).await;
                (way.transport, reply.map(|octets| data(&Message::from_vec(&octets).unwrap())))
            });
        }
    }
    while let Some(got) = asking.join_next().await {
        let (transport, reply) = got.unwrap();
        assert_eq!(reply.as_deref(), Some("192.0.2.7"), "{transport}");
    }
    Arc::into_inner(stage).unwrap().end().await;
}
