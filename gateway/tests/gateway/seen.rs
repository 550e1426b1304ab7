//! What people see of the gateway: its access log, traces, views; and clusters and endpoints that they take out.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atoll_api::topology::{ClusterFacts, Topology, endpoint_label};
use atoll_gateway::TracesTo;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::backend::{Manner, Pod};
use crate::client::{get, request, send, send_h2c};
use crate::world::{Made, World, import, policy, route, topology};

const WAIT_MAX: Duration = Duration::from_secs(20);

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The first line that is about `path`.
    async fn line(&self, path: &str) -> Value {
        let started = Instant::now();
        loop {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            if let Some(line) = lines.into_iter().find(|line| line["path"] == path) {
                return line;
            }
            assert!(started.elapsed() < WAIT_MAX, "{path} is not in {text}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn the_access_log_says_who_answered_after_how_many_attempts_and_who_failed() {
    let log = Log::default();
    let world = World::start_as(Made { access: Some(Box::new(log.clone())), ..Made::default() }).await;
    let (rude, us) = (Pod::start_as("rude", "127.34.0.1", 0, Manner::Rude).await, Pod::start("us", "127.34.0.2").await);
    world.publish(topology(&[("eu", &[&rude]), ("us", &[&us])]), true);
    world.apply(route("web", &["a.test"], json!([{"backendRefs": [import("web")]}]))).await;
    world.until_status(route("web", &[], json!([])), |s| !s["parents"][0].is_null()).await;
    let answer = world.until("a.test", "/good?q=1", |a| a.status != 404).await;
    assert_eq!(answer.status, 200);
    let started = Instant::now();
    let line = loop {
        let line = log.line("/good?q=1").await;
        if line["status"] == 200 {
            break line;
        }
        // Requests before the route was there.
        log.0.lock().unwrap().clear();
        assert!(started.elapsed() < WAIT_MAX, "{line}");
        get(world.http, "a.test", "/good?q=1").await;
    };
    assert_eq!(
        (&line["method"], &line["host"], &line["protocol"]),
        (&json!("GET"), &json!("a.test"), &json!("HTTP/1.1"))
    );
    assert_eq!((&line["cluster"], &line["client"]), (&json!("us"), &json!("127.0.0.1")), "{line}");
    assert!(line["endpoint"].as_str().unwrap().starts_with("us/127.34.0.2:"), "{line}");
    assert!(line["route"].as_str().unwrap().contains("web") && line["ms"].is_number(), "{line}");
    assert!(line["failed"].is_null(), "{line}");
    get(world.http, "b.test", "/nowhere").await;
    let line = log.line("/nowhere").await;
    assert_eq!((&line["status"], &line["failed"]), (&json!(404), &json!("client")), "{line}");
    let answer = send_h2c(world.http, &format!("http://{}/by-h2?q=1", world.http)).await;
    assert_eq!(answer.status, 404, "nobody takes that host");
    let line = log.line("/by-h2?q=1").await;
    assert_eq!((&line["protocol"], &line["host"]), (&json!("HTTP/2.0"), &json!("127.0.0.1")), "{line}");
    world
        .apply(policy("closed", ("HTTPRoute", "web"), json!([{"filter": "apiKeys", "secretRef": {"name": "none"}}])))
        .await;
    world.until("a.test", "/closed", |a| a.status == 503).await;
    log.0.lock().unwrap().clear();
    get(world.http, "a.test", "/closed").await;
    let line = log.line("/closed").await;
    assert_eq!((&line["status"], &line["failed"]), (&json!(503), &json!("gateway")), "{line}");
    assert!(line["why"].as_str().unwrap().contains("Secret `none`"), "{line}");
    world.delete(policy("closed", ("HTTPRoute", "web"), json!([]))).await;
    world.until("a.test", "/good", |a| a.status == 200).await;
    us.die();
    rude.die();
    send(world.http, request("a.test", "POST /lost", &[], "x")).await;
    let line = log.line("/lost").await;
    assert_eq!((&line["status"], &line["failed"]), (&json!(503), &json!("endpoint")), "{line}");
    assert!(line["attempts"].as_u64().unwrap() >= 1 && line["why"].is_string(), "{line}");
}

/// A collector: what it was sent, in octets.
async fn collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, got) = (listener.local_addr().unwrap().to_string(), Arc::<Mutex<Vec<u8>>>::default());
    let kept = Arc::clone(&got);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let kept = Arc::clone(&kept);
                async move {
                    assert_eq!(request.uri().path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
                    let body = request.into_body().collect().await?.to_bytes();
                    kept.lock().unwrap().extend_from_slice(&body);
                    let answer =
                        Response::builder().header("content-type", "application/grpc").header("grpc-status", "0");
                    Ok::<_, hyper::Error>(answer.body(Full::<Bytes>::default()).unwrap())
                }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    (at, got)
}

#[tokio::test]
async fn a_trace_goes_through_to_the_endpoint_and_to_the_collector() {
    let (collector, got) = collector().await;
    let traces = Some(TracesTo { collector, sample: 0.0 });
    let world = World::start_as(Made { traces, ..Made::default() }).await;
    let eu = Pod::start("eu", "127.34.1.1").await;
    world.publish(topology(&[("eu", &[&eu])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("x", "/", |a| a.status == 200).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let answer = send(world.http, request("x", "GET /", &[("traceparent", &parent)], "")).await;
    let told = answer.said()["headers"]["traceparent"].as_str().unwrap().to_owned();
    assert!(told.starts_with(&format!("00-{trace}-")) && told.ends_with("-01") && told != parent, "{told}");
    let octets = u128::from_str_radix(trace, 16).unwrap().to_be_bytes();
    let started = Instant::now();
    while !got.lock().unwrap().windows(16).any(|window| window == octets) {
        assert!(started.elapsed() < WAIT_MAX, "the span arrives");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let begun = get(world.http, "x", "/").await.said()["headers"]["traceparent"].as_str().unwrap().to_owned();
    assert!(begun.len() == 55 && begun.ends_with("-00"), "a trace begins, and is not recorded: {begun}");
}

fn labelled(mut known: Topology, cluster: &str, label: &str, word: &str) -> Topology {
    let mut facts = ClusterFacts::clone(known.clusters.get(cluster).unwrap());
    facts.labels.insert(label.to_owned(), word.to_owned());
    known.clusters.insert(facts.name.clone(), Arc::new(facts));
    known
}

#[tokio::test]
async fn views_show_what_there_is_and_what_people_take_out_is_out_at_once() {
    let world = World::start().await;
    let (eu, us) = (Pod::start("eu", "127.34.2.1").await, Pod::start("us", "127.34.2.2").await);
    let known = topology(&[("eu", &[&eu]), ("us", &[&us])]);
    world.publish(known.clone(), true);
    world.apply(route("web", &["a.test"], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("a.test", "/", |a| a.pod() == "eu").await;
    let routes = world.server.routes();
    let row = &routes["routes"][0];
    assert_eq!((&routes["all"], &row["hosts"][0]), (&json!(1), &json!("a.test")), "{routes:#}");
    let upstreams = world.server.upstreams();
    let clusters = &upstreams["upstreams"][0]["clusters"];
    assert_eq!(
        (&clusters[0]["cluster"], &clusters[0]["endpoints"][0]["usable"]),
        (&json!("eu"), &json!(true)),
        "{upstreams:#}"
    );
    let _client = TcpStream::connect(world.http).await.unwrap();
    let started = Instant::now();
    while world.server.connections()["connections"][0]["servedAt"] != "http" {
        assert!(started.elapsed() < WAIT_MAX, "{:#}", world.server.connections());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.server.config()["limits"]["drainSeconds"], 2);
    // A whole cluster: a request that is under way ends there.
    let at = world.http;
    let under_way = tokio::spawn(async move { get(at, "a.test", "/?wait_ms=700").await });
    while eu.busy.now.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        assert!(started.elapsed() < WAIT_MAX);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.publish(labelled(known.clone(), "eu", "gateway.atoll.dev/traffic", "drain"), true);
    world.until("a.test", "/", |a| a.pod() == "us").await;
    let ended = under_way.await.unwrap();
    assert_eq!((ended.status, ended.pod()), (200, "eu"), "what was under way ended in its time");
    let explained = world.server.explain("a.test", "/", None).await;
    let clusters = &explained["listeners"][0]["backends"][0]["clusters"];
    assert_eq!(clusters[0]["takenOut"], json!({"cluster": "drain"}), "{explained:#}");
    assert_eq!(world.server.upstreams()["upstreams"][0]["clusters"][0]["takenOut"], json!({"cluster": "drain"}));
    world.publish(known.clone(), true);
    world.until("a.test", "/", |a| a.pod() == "eu").await;
    // One endpoint: a tunnel that is open there is ended.
    let mut tunnel = TcpStream::connect(world.http).await.unwrap();
    let head = "GET /ws HTTP/1.1\r\nhost: a.test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    tunnel.write_all(head.as_bytes()).await.unwrap();
    let mut read = [0; 12];
    tunnel.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"HTTP/1.1 101");
    let label = endpoint_label(eu.address.ip());
    world.publish(labelled(known, "eu", &label, "disable"), true);
    let rest = tokio::time::timeout(WAIT_MAX, tunnel.read_to_end(&mut Vec::new())).await;
    assert!(rest.is_ok(), "the tunnel ends");
    world.until("a.test", "/", |a| a.pod() == "us").await;
}

#[tokio::test]
async fn requests_that_wait_at_a_disabled_cluster_go_on_elsewhere_or_hear_of_it_at_once() {
    let world = World::start().await;
    let first = Pod::start("eu-1", "127.34.4.1").await;
    let second = Pod::start_as("eu-2", "127.34.4.2", first.address.port(), Manner::Well).await;
    let us = Pod::start("us", "127.34.4.3").await;
    let known = topology(&[("eu", &[&first, &second]), ("us", &[&us])]);
    world.publish(known.clone(), true);
    world.apply(route("web", &["a.test"], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("a.test", "/", |a| a.status == 200).await;
    let (at, started) = (world.http, Instant::now());
    let waits = "/?wait_ms=10000";
    let gets: Vec<_> = (0..4).map(|_| tokio::spawn(async move { get(at, "a.test", waits).await })).collect();
    let asked = request("a.test", &format!("POST {waits}"), &[], "once");
    let post = tokio::spawn(async move { send(at, asked).await });
    let now = |pod: &Pod| pod.busy.now.load(std::sync::atomic::Ordering::SeqCst);
    while now(&first) + now(&second) < 5 {
        assert!(started.elapsed() < WAIT_MAX);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let hits = first.hits() + second.hits();
    world.publish(labelled(known, "eu", "gateway.atoll.dev/traffic", "disable"), true);
    let answer = tokio::time::timeout(Duration::from_secs(5), post).await.expect("at once").unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.body.trim(), "the endpoint was disabled while it worked on the request");
    // They wait at the other cluster now.
    while now(&us) < 4 {
        assert!(started.elapsed() < WAIT_MAX);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(first.hits() + second.hits(), hits, "none was sent into what is disabled");
    for get in gets {
        let answer = get.await.unwrap();
        assert_eq!((answer.status, answer.pod()), (200, "us"), "{}", answer.body);
    }
}

/// A pod whose answers begin and never end.
async fn endless(ip: &str) -> Pod {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let pod = Pod::named(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await?;
                std::future::pending::<std::io::Result<()>>().await
            });
        }
    });
    pod
}

#[tokio::test]
async fn an_answer_that_is_under_way_at_a_disabled_endpoint_is_broken_off() {
    let world = World::start().await;
    let pod = endless("127.34.3.1").await;
    let known = topology(&[("eu", &[&pod])]);
    world.publish(known.clone(), true);
    world.apply(route("web", &["a.test"], json!([{"backendRefs": [import("web")]}]))).await;
    let started = Instant::now();
    let head = b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";
    // By HTTP/1.1, where octets pass as they are.
    let mut plain = loop {
        let mut stream = TcpStream::connect(world.http).await.unwrap();
        stream.write_all(head).await.unwrap();
        let mut read = vec![0; 4096];
        let n = stream.read(&mut read).await.unwrap();
        if read[..n].starts_with(b"HTTP/1.1 200") {
            break stream;
        }
        assert!(started.elapsed() < WAIT_MAX, "{}", String::from_utf8_lossy(&read[..n]));
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    // And by HTTP/2, in frames.
    let stream = TcpStream::connect(world.http).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let asked = Request::get("http://a.test/").body(Full::<Bytes>::default()).unwrap();
    let mut framed = sender.send_request(asked).await.unwrap().into_body();
    assert_eq!(framed.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
    world.publish(labelled(known, "eu", &endpoint_label(pod.address.ip()), "disable"), true);
    let mut rest = Vec::new();
    tokio::time::timeout(WAIT_MAX, plain.read_to_end(&mut rest)).await.expect("the answer ends").unwrap();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it is not whole: {}", String::from_utf8_lossy(&rest));
    let next = tokio::time::timeout(WAIT_MAX, framed.frame()).await.expect("the answer ends");
    assert!(next.is_some_and(|frame| frame.is_err()), "it is not whole");
}
