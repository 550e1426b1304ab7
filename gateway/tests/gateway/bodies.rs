//! Bodies pass through as they come, whole and with trailers; connections to endpoints are used again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::backend::{Manner, Pod};
use crate::client::{get, request, send, send_h2c};
use crate::world::{World, import, route, service, topology};

#[tokio::test]
async fn an_answer_reaches_the_client_while_its_rest_is_still_to_come() {
    let world = World::start().await;
    let listener = TcpListener::bind("127.21.0.1:0").await.unwrap();
    let pod = Pod::named(listener.local_addr().unwrap());
    let (go_on, gone_on) = oneshot::channel::<()>();
    let slow = tokio::spawn(async move {
        // Probes come and go without a word.
        let mut stream = loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if stream.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {
                break stream;
            }
        };
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
        stream.write_all(head).await.unwrap();
        gone_on.await.unwrap();
        stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").await.unwrap();
    });
    world.publish(topology(&[("eu", &[&pod])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until_status(route("web", &[], json!([])), |s| !s["parents"][0].is_null()).await;
    let stream = TcpStream::connect(world.http).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut body = sender.send_request(request("x", "GET /", &[], "")).await.unwrap().into_body();
    let first =
        tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("it does not wait for the rest");
    assert_eq!(first.unwrap().unwrap().into_data().unwrap(), "first");
    go_on.send(()).unwrap();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "second");
    slow.await.unwrap();
}

#[tokio::test]
async fn large_bodies_pass_both_ways_and_connections_are_used_again() {
    let world = World::start().await;
    let web = Pod::start("web", "127.21.1.1").await;
    world.publish(topology(&[("eu", &[&web])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("x", "/", |a| a.status == 200).await;
    let large = "abcdefgh".repeat(512 * 1024);
    let answer = send(world.http, request("x", "PUT /", &[], &large)).await;
    assert!(answer.said()["body"] == json!(large), "{} bytes came back", answer.body.len());
    for _ in 0..30 {
        assert_eq!(get(world.http, "x", "/").await.status, 200);
    }
    let head = send(world.http, request("x", "HEAD /", &[], "")).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_ne!(head.header("content-length"), "0", "the length that a GET would have");
    let used = web.used.load(Ordering::Relaxed);
    assert!(used <= 3, "{used} connections for more than 30 requests one after the other");
}

#[tokio::test]
async fn http2_goes_through_to_endpoints_that_speak_it_with_trailers() {
    let world = World::start().await;
    let web = Pod::start("web", "127.21.2.1").await;
    let [mut object, slice] = service("grpc", &web);
    object["spec"]["ports"][0]["appProtocol"] = json!("kubernetes.io/h2c");
    world.apply(object).await;
    world.apply(slice).await;
    world.apply(route("web", &[], json!([{"backendRefs": [{"name": "grpc", "port": 80}]}]))).await;
    world.until("x.test", "/", |a| a.status == 200).await;
    let answer = send_h2c(world.http, "http://x.test/call").await;
    let said = answer.said();
    assert_eq!((&said["version"], &said["uri"]), (&json!("HTTP/2.0"), &json!("http://x.test/call")));
    assert_eq!(answer.trailers.get("grpc-status").map(|v| v.as_bytes()), Some(&b"0"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_at_once_are_served_over_few_connections_to_all_endpoints() {
    let world = World::start().await;
    let first = Pod::start("one", "127.21.3.1").await;
    let port = first.address.port();
    let pods = [
        first,
        Pod::start_as("two", "127.21.3.2", port, Manner::Well).await,
        Pod::start_as("three", "127.21.3.3", port, Manner::Well).await,
    ];
    world.publish(topology(&[("eu", &[&pods[0], &pods[1], &pods[2]])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("x", "/", |a| a.status == 200).await;
    let clients = (0..40).map(|_| {
        let at = world.http;
        tokio::spawn(async move {
            let stream = TokioIo::new(TcpStream::connect(at).await.unwrap());
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            let mut statuses = Vec::new();
            for _ in 0..25 {
                sender.ready().await.unwrap();
                let answer = sender.send_request(request("x", "GET /?wait_ms=2", &[], "")).await.unwrap();
                statuses.push(answer.status().as_u16());
                answer.into_body().collect().await.unwrap();
            }
            statuses
        })
    });
    for client in clients.collect::<Vec<_>>() {
        assert_eq!(client.await.unwrap(), vec![200; 25]);
    }
    let hits: Vec<usize> = pods.iter().map(Pod::hits).collect();
    assert!(hits.iter().all(|n| *n > 150), "about a third each: {hits:?}");
    let used: usize = pods.iter().map(|p| p.used.load(Ordering::Relaxed)).sum();
    assert!(used <= 200, "{used} connections for 1000 requests of 40 clients");
}
