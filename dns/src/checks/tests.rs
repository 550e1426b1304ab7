//! What is probed, when, and what is made of it; and probes of servers that answer in each way.

use std::net::SocketAddr;

use atoll_api::facts::Facts;
use atoll_api::health::Check;
use atoll_api::kinds::HealthCheck;
use atoll_api::topology::Version;
use atoll_reach::{Dialer, RelayTable, Routes, System};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn topology(addresses: &[&str], policy: Value) -> Arc<Topology> {
    let mut facts = Facts::default();
    let endpoints: Vec<Value> = addresses.iter().map(|a| json!({"address": a, "ready": true})).collect();
    facts.put("cluster/eu", &json!({"name": "eu", "spec": {"environment": "prod"}, "ready": true}));
    facts.put("service/prod/shop/web", &json!({"clusters": ["eu"]}));
    facts.put("endpoints/eu/shop/web", &json!({"endpoints": endpoints, "ports": [{"protocol": "TCP", "port": 8080}]}));
    facts.put("traffic/shop/a", &policy);
    facts.put("traffic/shop/b", &policy);
    Arc::new(Topology::from_facts(Version::default(), &facts))
}

#[test]
fn each_target_is_probed_once_whoever_asks_for_it_and_found_ill_after_three() {
    let start = Instant::now();
    let policy = json!({"service": "web", "healthCheck": {"protocol": "HTTP", "interval": "5s"}, "ttlSeconds": 1});
    let mut watch = Watch::default();
    watch.follow(&topology(&["10.0.0.1", "10.0.0.2", "10.0.0.3"], policy.clone()), start);
    assert_eq!((watch.policies.len(), watch.watched.len()), (6, 3));
    let mut now = start + SOON;
    for (round, well, out) in [(0, false, 0), (1, false, 0), (2, false, 2), (3, true, 2), (4, true, 0)] {
        let due = watch.due(now, 10);
        assert_eq!(due.len(), 3, "round {round}");
        assert!(watch.due(now, 10).is_empty(), "one probe of each at a time");
        for target in due {
            let ill = target.address.ip().to_string() == "10.0.0.2";
            watch.take(&target.key(), well || !ill, now);
        }
        let soonest = watch.watched.values().map(|w| w.due).min().unwrap();
        assert!(soonest >= now + Duration::from_millis(4500), "jittered by a tenth at most");
        let found = watch.findings(now.saturating_duration_since(start));
        assert_eq!(found.values().map(|f| f.len()).sum::<usize>(), out, "round {round}: {found:?}");
        assert!(found.values().all(|f| f.keys().all(|place| place == "eu/10.0.0.2")));
        now += Duration::from_secs(6);
    }
    assert_eq!(watch.told().values().filter(|up| **up).count(), 3);
    watch.follow(&topology(&["10.0.0.2", "10.0.0.9"], policy), now);
    assert_eq!(watch.watched.len(), 2, "those that are gone are forgotten");
    assert_eq!(watch.told().len(), 1, "of a new one nothing is told yet");
}

#[test]
fn at_most_so_many_probes_begin_at_once() {
    let start = Instant::now();
    let ips: Vec<String> = (1..=200).map(|i| format!("10.0.0.{i}")).collect();
    let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
    let mut watch = Watch::default();
    watch.follow(&topology(&ips, json!({"service": "web", "healthCheck": {}})), start);
    assert_eq!(watch.due(start + SOON, 128).len(), 128);
    assert_eq!(watch.due(start + SOON, 128).len(), 72);
}

/// A server that gives `reply` to every connection and closes it.
async fn server(reply: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked).await;
            let _ = stream.write_all(reply).await;
        }
    });
    at
}

fn way() -> Checks {
    let system = Arc::new(System::default());
    Checks::new(Dialer::new(system.clone(), RelayTable::default(), Routes::default()), system)
}

async fn probe(at: SocketAddr, check: Value) -> bool {
    let spec: HealthCheck = serde_json::from_value(check).unwrap();
    let check = Arc::new(Check::parse(&spec, &[]).unwrap());
    way().probe(&Target { cluster: None, address: at, check, group: String::new() }).await
}

#[tokio::test]
async fn a_status_that_is_expected_is_well_and_anything_else_is_not() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    for (name, reply, check, well) in [
        ("200", &b"HTTP/1.1 200 OK\r\n\r\n"[..], json!({"protocol": "HTTP"}), true),
        ("a redirect", b"HTTP/1.0 302 Found\r\n\r\n", json!({"protocol": "HTTP"}), true),
        ("503", b"HTTP/1.1 503 Service Unavailable\r\n\r\n", json!({"protocol": "HTTP"}), false),
        ("503 as wanted", b"HTTP/1.1 503 x\r\n\r\n", json!({"protocol": "HTTP", "expectedStatus": [503]}), true),
        ("another protocol", b"220 mail.example ESMTP\r\n", json!({"protocol": "HTTP"}), false),
        ("nothing", b"", json!({"protocol": "HTTP"}), false),
        ("a connection is enough", b"", json!({"protocol": "TCP"}), true),
        ("no TLS there", b"HTTP/1.1 200 OK\r\n\r\n", json!({"protocol": "HTTPS"}), false),
        ("no HTTP/2 there", b"HTTP/1.1 200 OK\r\n\r\n", json!({"protocol": "GRPC"}), false),
    ] {
        assert_eq!(probe(server(reply).await, check).await, well, "{name}");
    }
    for protocol in ["TCP", "HTTP", "HTTPS", "GRPC"] {
        assert!(!probe(closed, json!({"protocol": protocol})).await, "{protocol} where nobody listens");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_ill_when_its_time_is_over() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    assert!(!probe(at, json!({"protocol": "HTTP", "timeout": "50ms"})).await);
    held.abort();
}

#[tokio::test]
async fn a_grpc_server_says_itself_whether_it_serves() {
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::body::{Bytes, Frame};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                let path = request.uri().path().to_owned();
                let asked = request.into_body().collect().await.unwrap().to_bytes();
                // `shop` serves, everything else does not.
                let status =
                    if path == "/grpc.health.v1.Health/Check" && asked.ends_with(b"\x0a\x04shop") { 1 } else { 2 };
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                let frames = [
                    Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]))),
                    Ok(Frame::trailers(trailers)),
                ];
                let body = StreamBody::new(futures::stream::iter(frames));
                Ok::<_, std::convert::Infallible>(http::Response::new(body))
            });
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(async move { serving.serve_connection(TokioIo::new(stream), service).await });
        }
    });
    for (service, well) in [("shop", true), ("cart", false)] {
        assert_eq!(probe(at, json!({"protocol": "GRPC", "service": service})).await, well, "{service}");
    }
}
