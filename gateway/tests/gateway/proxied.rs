//! The PROXY protocol, from balancers before the gateway and to endpoints behind it.

use std::net::SocketAddr;

use atoll_reach::proxy::{Ends, Version, header, take_any};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::backend::Pod;
use crate::world::{Made, World, import, route, topology, with_traffic};

async fn asked(at: SocketAddr, first: &[u8]) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(&[first, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"].concat()).await.unwrap();
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got).await;
    String::from_utf8_lossy(&got).into_owned()
}

#[tokio::test]
async fn the_client_is_who_the_balancers_header_names_and_without_one_nobody_is_served() {
    let made = Made { proxies: vec!["127.0.0.1/32".parse().unwrap()], ..Made::default() };
    let world = World::start_as(made).await;
    let eu = Pod::start("eu", "127.35.0.1").await;
    world.publish(topology(&[("eu", &[&eu])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    let ends = Ends { client: "192.0.2.7:4711".parse().unwrap(), server: "192.0.2.1:80".parse().unwrap() };
    let started = tokio::time::Instant::now();
    for version in [Version::V1, Version::V2] {
        let answer = loop {
            let answer = asked(world.http, &header(version, ends)).await;
            if answer.starts_with("HTTP/1.1 200") {
                break answer;
            }
            assert!(started.elapsed().as_secs() < 20, "{answer}");
        };
        assert!(answer.contains(r#""x-forwarded-for":"192.0.2.7""#), "{version:?}: {answer}");
    }
    assert_eq!(asked(world.http, b"").await, "", "no header, no answer");
}

#[tokio::test]
async fn endpoints_are_told_of_both_ends_where_the_policy_says_so() {
    for (net, word) in [(1, "V1"), (2, "V2")] {
        let listener = TcpListener::bind(format!("127.35.{net}.1:0")).await.unwrap();
        let pod = Pod::named(listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    // A probe says nothing.
                    let Ok(Some(ends)) = take_any(&mut stream).await else { return };
                    let mut bytes = [0; 1024];
                    let _ = stream.read(&mut bytes).await;
                    let body = format!("{} {} {}", ends.client.ip(), ends.client.port() > 0, ends.server);
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    let _ = stream.write_all(answer.as_bytes()).await;
                    // It would take a second request: none may come.
                    assert_eq!(stream.read(&mut bytes).await.unwrap_or(0), 0, "a connection is for one client");
                });
            }
        });
        let world = World::start().await;
        let known = with_traffic(topology(&[("eu", &[&pod])]), "web", json!({"service": "web", "proxyProtocol": word}));
        world.publish(known, true);
        world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
        let told = format!("127.0.0.1 true {}", world.http);
        world.until("x", "/", |a| a.status == 200 && a.body == told).await;
        for _ in 0..3 {
            assert_eq!(crate::client::get(world.http, "x", "/").await.body, told, "{word}");
        }
    }
}
