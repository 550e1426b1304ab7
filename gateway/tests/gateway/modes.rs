//! Ten ways in which gateways fail, and what holds each of them here; those that no other file looks at are below.
//!
//! | what happens | what holds it |
//! |---|---|
//! | a backend's cluster dies within a request | `failures`, `failover` (what is sent again, and what never twice), `health` (budgets) |
//! | a region is swallowed, without a reset | `failover` (out after a second), `capacity` (what nobody takes gets 503 and Retry-After), `failures` |
//! | endpoints come and go under load | here, `failures` (pods die and are rolled) |
//! | slowloris, slow reading, idle connections | `slow`, `tests/floods` (`slow`, `heads`) |
//! | requests that two readers read as two | `smuggling`, `bad_input`; `benches/gateway/tests/peers.rs` beside nginx and HAProxy |
//! | heads that are too much | `bad_input`, `tests/floods` (`heads`); of endpoints here |
//! | rapid reset, MadeYouReset, floods of frames | `tests/floods` (`resets`, `control`, `heads`); h2spec in `benches/gateway/tests/peers.rs` |
//! | a certificate that expires or breaks | `tls` (the one before is served on), here (an expired one is served) |
//! | configuration that is wrong | `bad_objects`, `policies`, `ingress` |
//! | hub or API server gone | `survive`, `failover` (own probes without hub), `policies` (kept over restarts) |

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine as _;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::backend::{Manner, Pod};
use crate::client::{get, tls};
use crate::world::{World, gateway, import, listener, route, service, topology};

/// The slice of `web` with these endpoints: address, ready.
fn slice(port: u16, pods: &[(&Pod, bool)]) -> Value {
    let endpoints: Vec<Value> = pods
        .iter()
        .map(|(pod, ready)| {
            let conditions = json!({"ready": ready, "serving": true, "terminating": !ready});
            json!({"addresses": [pod.address.ip()], "conditions": conditions})
        })
        .collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": endpoints, "ports": [{"name": "http", "port": port, "protocol": "TCP"}]})
}

#[tokio::test]
async fn endpoints_that_come_and_go_a_hundred_times_a_second_cost_no_request() {
    let world = World::start().await;
    let first = Pod::start("a", "127.35.0.1").await;
    let port = first.address.port();
    let mut pods = vec![first];
    for (name, ip) in [("b", "127.35.0.2"), ("c", "127.35.0.3"), ("d", "127.35.0.4")] {
        pods.push(Pod::start_as(name, ip, port, Manner::Well).await);
    }
    let [service, _] = service("web", &pods[0]);
    world.apply(service).await;
    world.apply(slice(port, &[(&pods[0], true)])).await;
    world.apply(route("web", &[], json!([{"backendRefs": [{"name": "web", "port": 80}]}]))).await;
    world.until("x", "/", |a| a.status == 200).await;
    let (stop, asked, at) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)), world.http);
    let load = tokio::spawn({
        let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
        async move {
            let mut failed = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let answer = get(at, "x", "/").await;
                asked.fetch_add(1, Ordering::Relaxed);
                if answer.status != 200 {
                    failed.push(answer.status);
                }
            }
            failed
        }
    });
    let began = Instant::now();
    // On a busy machine more changes, until enough was asked.
    for n in (0..3000_u32).take_while(|n| *n < 300 || asked.load(Ordering::Relaxed) < 100) {
        // One of the four is there for sure, one is leaving, and the others are gone.
        let (there, leaving) = (n as usize % 4, (n as usize + 1) % 4);
        world.apply(slice(port, &[(&pods[there], true), (&pods[leaving], false)])).await;
        tokio::time::sleep_until(began + Duration::from_millis(10) * n).await;
    }
    world.apply(slice(port, &[(&pods[2], true), (&pods[3], false)])).await;
    world.until("x", "/", |a| a.pod() == "c").await;
    stop.store(true, Ordering::Relaxed);
    let (failed, asked) = (load.await.unwrap(), asked.load(Ordering::Relaxed));
    assert!(asked >= 100 && failed.is_empty(), "{failed:?} of {asked}");
    let hits = |at: usize| pods[at].hits();
    let before = (hits(0), hits(1), hits(3));
    for _ in 0..20 {
        assert_eq!(get(at, "x", "/").await.pod(), "c", "whoever is gone or leaving is not asked");
    }
    assert_eq!((hits(0), hits(1), hits(3)), before);
    let seen = world.server.explain("x", "/", None).await;
    let endpoints = seen.pointer("/listeners/0/backends/0/tiers/0/0/endpoints").and_then(Value::as_array);
    assert_eq!(endpoints.map(Vec::len), Some(1), "nothing is left behind: {seen}");
}

/// An endpoint that answers with these octets.
async fn saying(ip: &str, octets: Vec<u8>) -> Pod {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let pod = Pod::named(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let octets = octets.clone();
            tokio::spawn(async move {
                // A probe says nothing.
                if stream.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {
                    let _ = stream.write_all(&octets).await;
                    sleep(Duration::from_millis(200)).await;
                }
            });
        }
    });
    pod
}

#[tokio::test]
async fn an_answer_that_is_none_or_too_much_is_502() {
    let world = World::start().await;
    let ok = "HTTP/1.1 200 OK\r\n";
    for (n, (name, octets)) in [
        ("a head of 300 KiB", format!("{ok}x: {}\r\ncontent-length: 2\r\n\r\nok", "y".repeat(300_000))),
        ("a head of 65 KiB", format!("{ok}x: {}\r\ncontent-length: 2\r\n\r\nok", "y".repeat(66_000))),
        ("no end of heads before it", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(2000)),
        ("101 fields", format!("{ok}{}content-length: 2\r\n\r\nok", "x: y\r\n".repeat(100))),
        ("1,000 fields", format!("{ok}{}content-length: 2\r\n\r\nok", "x: y\r\n".repeat(1000))),
        ("two lengths", format!("{ok}content-length: 2\r\ncontent-length: 3\r\n\r\nok")),
        ("two framings", format!("{ok}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")),
        ("a bare line feed", "HTTP/1.1 200 OK\ncontent-length: 2\n\nok".to_owned()),
        ("a NUL", format!("{ok}x: \0\r\ncontent-length: 2\r\n\r\nok")),
        ("words", "hello\r\n\r\n".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let pod = saying(&format!("127.35.1.{}", n + 1), octets.into_bytes()).await;
        let service_name = format!("web-{n}");
        for object in service(&service_name, &pod) {
            world.apply(object).await;
        }
        let host = format!("h{n}");
        world.apply(route(&host, &[&host], json!([{"backendRefs": [{"name": service_name, "port": 80}]}]))).await;
        let answer = world.until(&host, "/", |a| a.status != 404 && a.status != 503 && a.status != 500).await;
        assert_eq!(answer.status, 502, "{name}: {answer:?}");
        assert!(answer.body.starts_with("the endpoint's answer is malformed: "), "{name}: {}", answer.body);
        // It answered: it is as well as it was.
        let said = world.server.explain(&host, "/", None).await;
        let endpoint = &said["listeners"][0]["backends"][0]["tiers"][0][0]["endpoints"][0];
        assert!(endpoint["usable"] == true && endpoint["why"].is_null(), "{name}: {endpoint:#}");
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_not_asked_for_elsewhere_and_takes_nobody_out() {
    let world = World::start().await;
    let eu = saying("127.35.3.1", b"hello\r\n\r\n".to_vec()).await;
    let us = Pod::start("us", "127.35.3.2").await;
    world.publish(topology(&[("eu", &[&eu]), ("us", &[&us])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("x", "/", |a| a.status == 502).await;
    for _ in 0..5 {
        let answer = get(world.http, "x", "/").await;
        assert_eq!(answer.status, 502);
        assert!(answer.body.starts_with("the endpoint's answer is malformed: "), "{}", answer.body);
    }
    assert_eq!(us.hits(), 0);
    world.report.clone().wait_for(|r| r.probes.get("eu") == Some(&true)).await.unwrap();
}

#[tokio::test]
async fn an_expired_certificate_is_served_rather_than_nothing() {
    let world = World::bare(None).await;
    let web = Pod::start("web", "127.35.2.1").await;
    world.publish(topology(&[("eu", &[&web])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    world
        .apply(json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "old", "namespace": "infra"},
            "data": {"tls.crt": encode(&certificate.pem()), "tls.key": encode(&key.serialize_pem())}}))
        .await;
    let mut https = listener("old", 443, "HTTPS");
    https["hostname"] = json!("a.test");
    https["tls"] = json!({"certificateRefs": [{"name": "old"}]});
    world.apply(gateway("main", json!([https]))).await;
    let began = Instant::now();
    loop {
        let refused = tls(world.https, "a.test", std::slice::from_ref(certificate.der()), "h2").await.unwrap_err();
        // It is the client that judges it.
        if refused.to_string().to_ascii_lowercase().contains("expired") {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{refused}");
        sleep(Duration::from_millis(20)).await;
    }
}
