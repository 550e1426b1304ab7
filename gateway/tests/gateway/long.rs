//! Long answers of known length, which go from one connection to the other without being looked into.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::backend::Pod;
use crate::world::{World, import, route, topology};

const LONG: usize = 3 << 20;

fn octets(seed: usize) -> Vec<u8> {
    (0..LONG).map(|n| b'!' + ((n * 31 + n / 1000 + seed) % 89) as u8).collect()
}

/// Reads a head, and says its first line's target as a number; nothing at the end.
async fn asked(stream: &mut TcpStream) -> Option<usize> {
    let (mut head, mut octet) = (Vec::new(), [0; 1]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut octet).await.ok()? == 0 {
            return None;
        }
        head.push(octet[0]);
    }
    let head = String::from_utf8(head).unwrap();
    head.strip_prefix("GET /")?.split_once(' ')?.0.parse().ok()
}

/// An endpoint that answers `GET /N` with [`octets`] of N, in pieces; only half of them for 13.
async fn endpoint(at: &str) -> Pod {
    let listener = TcpListener::bind((at, 0)).await.unwrap();
    let pod = Pod::named(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                while let Some(seed) = asked(&mut stream).await {
                    let (head, body) = (format!("HTTP/1.1 200 OK\r\ncontent-length: {LONG}\r\n\r\n"), octets(seed));
                    stream.write_all(head.as_bytes()).await.unwrap();
                    let whole = if seed == 13 { LONG / 2 } else { LONG };
                    for piece in body[..whole].chunks(100_001) {
                        // A client that goes away takes its connection to us along.
                        if stream.write_all(piece).await.is_err() {
                            return;
                        }
                        tokio::task::yield_now().await;
                    }
                    if seed == 13 {
                        return;
                    }
                }
            });
        }
    });
    pod
}

async fn world(at: &str) -> World {
    let (world, pod) = (World::start().await, endpoint(at).await);
    world.publish(topology(&[("eu", &[&pod])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("x", "/7", |a| a.status == 200).await;
    world
}

async fn ask(stream: &mut TcpStream, seed: usize) {
    stream.write_all(format!("GET /{seed} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
}

/// Reads a head up to its end.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn one_after_the_other_arrives_octet_for_octet_over_the_same_connections() {
    let world = world("127.21.20.1").await;
    let mut client = TcpStream::connect(world.http).await.unwrap();
    for seed in 100..106 {
        // Two at once: what is asked meanwhile waits its turn.
        ask(&mut client, seed).await;
        ask(&mut client, seed + 50).await;
        for seed in [seed, seed + 50] {
            let head = head(&mut client).await;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            let mut body = vec![0; LONG];
            client.read_exact(&mut body).await.unwrap();
            assert!(body == octets(seed), "answer {seed}");
        }
    }
}

#[tokio::test]
async fn one_that_ends_in_the_middle_ends_the_clients_connection_there() {
    let world = world("127.21.20.2").await;
    let mut client = TcpStream::connect(world.http).await.unwrap();
    ask(&mut client, 13).await;
    head(&mut client).await;
    let mut body = Vec::new();
    client.read_to_end(&mut body).await.unwrap();
    assert!(body == octets(13)[..LONG / 2], "{} octets", body.len());
    // Nothing of it is left where the next one goes.
    world.until("x", "/8", |a| a.status == 200 && a.body.len() >= LONG / 2).await;
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_disturbs_nobody() {
    let world = world("127.21.20.3").await;
    for seed in 20..60 {
        let mut client = TcpStream::connect(world.http).await.unwrap();
        ask(&mut client, seed).await;
        client.read_exact(&mut vec![0; 100_000]).await.unwrap();
    }
    let mut client = TcpStream::connect(world.http).await.unwrap();
    ask(&mut client, 99).await;
    head(&mut client).await;
    let mut body = vec![0; LONG];
    tokio::time::timeout(Duration::from_secs(20), client.read_exact(&mut body)).await.unwrap().unwrap();
    assert!(body == octets(99));
}
