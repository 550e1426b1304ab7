//! Endpoints that say nothing: a cluster of them is out after a second; who is merely slow is waited for, and so is the last one left.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::backend::{Manner, Pod};
use crate::client::{get, request, send};
use crate::world::{World, import, route, topology, with_traffic};

/// A second, and what a busy machine adds.
const OUT_MAX: Duration = Duration::from_millis(2500);

async fn world(clusters: &[(&str, &[&Pod])], policy: Option<Value>) -> World {
    let world = World::start().await;
    let topology = topology(clusters);
    let topology = match policy {
        Some(policy) => with_traffic(topology, "web", policy),
        None => topology,
    };
    world.publish(topology, true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until_status(route("web", &[], json!([])), |s| !s["parents"][0].is_null()).await;
    world
}

/// A server of one thread that takes a while for each request: nobody else hears anything from it meanwhile.
async fn busy(ip: &str, takes: Duration) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 4096];
            let read = stream.read(&mut bytes).await.unwrap_or_default();
            if bytes[..read].starts_with(b"GET ") {
                sleep(takes).await;
            }
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nx-pod: busy\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
                .await;
        }
    });
    (at, serving)
}

#[tokio::test]
async fn a_cluster_whose_connections_fall_silent_is_out_after_a_second_and_who_waits_there_goes_on_elsewhere() {
    let first = Pod::start("eu-1", "127.41.0.1").await;
    let second = Pod::start_as("eu-2", "127.41.0.2", first.address.port(), Manner::Well).await;
    let us = Pod::start("us", "127.41.0.3").await;
    let world = world(&[("eu", &[&first, &second]), ("us", &[&us])], None).await;
    let at = world.http;
    // Connections to both are there, and kept.
    while first.hits() == 0 || second.hits() == 0 {
        let many = (0..8).map(|_| get(at, "x", "/?wait_ms=20"));
        for answer in futures::future::join_all(many).await {
            assert!(answer.status == 404 || answer.pod().starts_with("eu"));
        }
    }
    first.freeze();
    second.freeze();
    let began = Instant::now();
    let many = (0..16).map(|_| get(at, "x", "/"));
    for answer in futures::future::join_all(many).await {
        assert_eq!((answer.status, answer.pod()), (200, "us"), "{}", answer.body);
    }
    assert!(began.elapsed() < OUT_MAX, "{:?}", began.elapsed());
    let again = Instant::now();
    assert_eq!(get(at, "x", "/").await.pod(), "us");
    assert!(again.elapsed() < Duration::from_millis(900), "it is known to be out: {:?}", again.elapsed());
}

#[tokio::test]
async fn a_server_that_takes_connections_and_says_nothing_is_out_after_a_second() {
    let us = Pod::start("us", "127.41.1.2").await;
    // The system takes connections for it; nobody reads them.
    let mute = TcpListener::bind("127.41.1.1:0").await.unwrap();
    let eu = Pod::named(mute.local_addr().unwrap());
    let world = world(&[("eu", &[&eu]), ("us", &[&us])], None).await;
    let began = Instant::now();
    let answer = world.until("x", "/", |a| a.status != 404 && a.status != 503).await;
    assert_eq!((answer.status, answer.pod()), (200, "us"), "{}", answer.body);
    assert!(began.elapsed() < OUT_MAX, "{:?}", began.elapsed());
    world.report.clone().wait_for(|r| r.probes.get("eu") == Some(&false)).await.unwrap();
    // And stays out, though connections are taken.
    sleep(Duration::from_secs(4)).await;
    assert_eq!(world.report.borrow().probes.get("eu"), Some(&false));
}

#[tokio::test]
async fn requests_that_take_their_time_take_nobody_out_and_are_sent_once() {
    let first = Pod::start("eu-1", "127.41.2.1").await;
    let second = Pod::start_as("eu-2", "127.41.2.2", first.address.port(), Manner::Well).await;
    let us = Pod::start("us", "127.41.2.3").await;
    let world = world(&[("eu", &[&first, &second]), ("us", &[&us])], None).await;
    world.until("x", "/", |a| a.status == 200).await;
    let before = first.hits() + second.hits();
    let (at, began) = (world.http, Instant::now());
    for answer in futures::future::join_all((0..6).map(|_| get(at, "x", "/?wait_ms=3000"))).await {
        assert!(answer.pod().starts_with("eu"), "{} {}", answer.status, answer.body);
    }
    assert!(began.elapsed() >= Duration::from_secs(3));
    assert_eq!((first.hits() + second.hits() - before, us.hits()), (6, 0));
    assert_eq!(world.report.borrow().probes.get("eu"), Some(&true));
}

#[tokio::test]
async fn the_last_cluster_left_is_waited_for() {
    let (at, _serving) = busy("127.41.3.1", Duration::from_millis(2500)).await;
    let world = world(&[("eu", &[&Pod::named(at)])], None).await;
    let answer = world.until("x", "/", |a| a.status != 404 && a.body != "no endpoint is ready\n").await;
    assert_eq!((answer.status, answer.pod()), (200, "busy"), "{}", answer.body);
}

#[tokio::test]
async fn a_policy_whose_check_is_a_connection_waits_for_a_server_that_is_busy() {
    let us = Pod::start("us", "127.41.4.2").await;
    let connection = json!({"service": "web", "healthCheck": {"protocol": "TCP", "interval": "1s", "timeout": "1s"}});
    for (policy, pod) in [(None, "us"), (Some(connection), "busy")] {
        let (at, _serving) = busy("127.41.4.1", Duration::from_millis(2500)).await;
        let world = world(&[("eu", &[&Pod::named(at)]), ("us", &[&us])], policy.clone()).await;
        let answer = world.until("x", "/", |a| a.status != 404 && a.status != 503).await;
        assert_eq!((answer.status, answer.pod()), (200, pod), "{policy:?}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_post_that_waits_at_a_silent_cluster_is_sent_to_nobody_else() {
    let eu = Pod::start("eu", "127.41.5.1").await;
    let us = Pod::start("us", "127.41.5.2").await;
    let world = world(&[("eu", &[&eu]), ("us", &[&us])], None).await;
    world.until("x", "/", |a| a.status == 200).await;
    let at = world.http;
    let post = tokio::spawn(async move { send(at, request("x", "POST /?wait_ms=600", &[], "once")).await });
    while eu.busy.now.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    eu.freeze();
    world.report.clone().wait_for(|r| r.probes.get("eu") == Some(&false)).await.unwrap();
    assert_eq!(get(at, "x", "/").await.pod(), "us");
    let answer = post.await.unwrap();
    assert_eq!(answer.status, 504, "{}", answer.body);
    assert!(us.busy.posts.lock().unwrap().is_empty());
}
