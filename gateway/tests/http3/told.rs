//! Clients of the other versions are told of HTTP/3 where it is served, and nowhere else.

use std::time::Duration;

use serde_json::json;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep};

use crate::client::{Answer, get_tls};
use crate::quic::{Caller, LONG};
use crate::stage::{Stage, https};
use crate::world::{Made, World, gateway, import, listener, route};

async fn by_tls(stage: &Stage, alpn: &str, host: &str, path: &str) -> Answer {
    get_tls(stage.world.https, "a.test", &stage.roots, alpn, host, path).await.unwrap()
}

async fn until_told(stage: &Stage, host: &str, wanted: &str) {
    let began = Instant::now();
    loop {
        let answer = by_tls(stage, "http/1.1", host, "/").await;
        if answer.header("alt-svc") == wanted {
            return;
        }
        assert!(began.elapsed() < LONG, "{answer:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn answers_over_tls_say_where_http3_is_and_a_routes_own_word_wins() {
    let stage = Stage::set("127.51.0.1", Made::default()).await;
    let own = json!([
        {"matches": [{"path": {"type": "PathPrefix", "value": "/own"}}], "backendRefs": [import("web")],
            "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "alt-svc", "value": "clear"}]}}]},
        {"backendRefs": [import("web")]},
    ]);
    stage.world.apply(route("web", &[], own)).await;
    let port = stage.world.https.port();
    let (named, told) = (format!("a.test:{port}"), format!("h3=\":{port}\"; ma=86400"));
    until_told(&stage, &named, &told).await;
    for alpn in ["h2", "http/1.1"] {
        let began = Instant::now();
        while by_tls(&stage, alpn, "a.test", "/own").await.header("alt-svc") != "clear" {
            assert!(began.elapsed() < LONG);
        }
        for (host, path, expected) in [
            ("a.test", "/", "h3=\":443\"; ma=86400"),
            (named.as_str(), "/", told.as_str()),
            ("a.test", "/own", "clear"),
            // What is refused is told, too.
            ("b.test", "/", "h3=\":443\"; ma=86400"),
        ] {
            let answer = by_tls(&stage, alpn, host, path).await;
            assert_eq!(answer.header("alt-svc"), expected, "{alpn} {host}{path}: {answer:?}");
            assert_eq!(answer.headers.get_all("alt-svc").iter().count(), 1);
        }
    }
    // The short way of HTTP/1.1 is the one without filters.
    stage.world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    until_told(&stage, &named, &told).await;
    let plain = listener("http", 80, "HTTP");
    stage.world.apply(gateway("main", json!([https("a", "a.test", "a"), plain]))).await;
    let answer = stage.world.until("a.test", "/", |answer| answer.status == 200).await;
    assert_eq!(answer.header("alt-svc"), "", "without TLS there is no HTTP/3");
}

#[tokio::test]
async fn where_it_is_switched_off_nobody_listens_and_nobody_is_told() {
    let made = || Made { http3: false, ..Made::default() };
    let on = Stage::set("127.51.1.1", Made::default()).await;
    let off: World = on.world.beside(made()).await;
    let began = Instant::now();
    let answer = loop {
        match get_tls(off.https, "a.test", &on.roots, "h2", "a.test", "/").await {
            Ok(answer) if answer.status == 200 => break answer,
            other => assert!(began.elapsed() < LONG, "{other:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(answer.header("alt-svc"), "");
    UdpSocket::bind(off.https).await.expect("its UDP port is free");
    assert!(UdpSocket::bind(on.world.https).await.is_err(), "the other's is not");
}

#[tokio::test]
async fn behind_balancers_that_speak_for_others_there_is_none() {
    use atoll_reach::proxy::{Ends, Version, header};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let on = Stage::set("127.51.2.1", Made::default()).await;
    let made = Made { proxies: vec!["127.0.0.1/32".parse().unwrap()], ..Made::default() };
    let behind = on.world.beside(made).await;
    let ends = Ends { client: "192.0.2.7:4711".parse().unwrap(), server: "192.0.2.1:443".parse().unwrap() };
    let began = Instant::now();
    let text = loop {
        let mut stream = tokio::net::TcpStream::connect(behind.https).await.unwrap();
        stream.write_all(&header(Version::V2, ends)).await.unwrap();
        let mut store = rustls::RootCertStore::empty();
        store.add(on.roots[0].clone()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = std::sync::Arc::new(config.with_root_certificates(store).with_no_client_auth());
        let shaken = tokio_rustls::TlsConnector::from(config).connect("a.test".try_into().unwrap(), stream).await;
        let mut text = String::new();
        if let Ok(mut stream) = shaken {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n").await.unwrap();
            let _ = stream.read_to_string(&mut text).await;
        }
        if text.starts_with("HTTP/1.1 200") {
            break text;
        }
        assert!(began.elapsed() < LONG, "{text}");
    };
    assert!(!text.contains("alt-svc") && text.contains("192.0.2.7"), "{text}");
    let refused = Caller::new("a.test", &on.roots).connect(behind.https).await;
    assert!(refused.is_err(), "a balancer that has to say whom it speaks for can't say it here");
}
