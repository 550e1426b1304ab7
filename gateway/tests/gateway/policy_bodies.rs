//! Filters that change answers' bodies: compression.

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::backend::Pod;
use crate::policy_auth::{Answered, plain, serve};
use crate::policy_filters::{ask, put};
use crate::world::{World, import, route, topology};

/// A gateway with a route `web` of `shop.test` to the server at `at`.
pub(crate) async fn world_to(at: SocketAddr) -> World {
    let world = World::start().await;
    let web = Pod::named(at);
    world.publish(topology(&[("eu", &[&web])]), true);
    world.apply(route("web", &["shop.test"], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("shop.test", "/", |a| a.status == 200).await;
    world
}

fn page(head: &http::request::Parts) -> Answered {
    let text = "a page that says the same again and again. ".repeat(500);
    match head.uri.path() {
        "/coded" => {
            plain(200, &[("content-type", "text/html"), ("content-encoding", "gzip")], "x".repeat(5000).as_str())
        }
        "/part" => plain(206, &[("content-type", "text/html"), ("content-range", "bytes 0-9/100")], &text),
        "/short" => plain(200, &[("content-type", "text/html")], "short"),
        "/image" => plain(200, &[("content-type", "image/png")], &text),
        _ => plain(200, &[("content-type", "text/html"), ("etag", "\"v1\""), ("accept-ranges", "bytes")], &text),
    }
}

#[tokio::test]
async fn answers_are_written_shorter_for_clients_that_take_it() {
    let at = serve("127.13.4.1", |head, _| page(head)).await;
    let world = world_to(at).await;
    put(&world, json!([{"filter": "compression"}])).await;
    let text = "a page that says the same again and again. ".repeat(500);
    for (accepted, coding) in [("br, gzip", "br"), ("zstd, gzip", "zstd"), ("gzip", "gzip"), ("deflate", "")] {
        let answer = ask(&world, "GET /", &[("accept-encoding", accepted)], "").await;
        assert_eq!((answer.status, answer.header("content-encoding")), (200, coding), "{accepted}");
        assert_eq!(answer.header("vary"), "accept-encoding", "{accepted}");
        let (mut read, octets) = (Vec::new(), &answer.octets[..]);
        match coding {
            "br" => brotli::Decompressor::new(octets, 4096).read_to_end(&mut read).unwrap(),
            "zstd" => zstd::stream::read::Decoder::new(octets).unwrap().read_to_end(&mut read).unwrap(),
            "gzip" => flate2::read::GzDecoder::new(octets).read_to_end(&mut read).unwrap(),
            _ => {
                read = octets.to_vec();
                read.len()
            }
        };
        assert_eq!(read, text.as_bytes(), "{accepted}");
        if coding.is_empty() {
            assert_eq!((answer.header("etag"), answer.header("accept-ranges")), ("\"v1\"", "bytes"));
        } else {
            assert!(octets.len() < 500, "{accepted}: {}", octets.len());
            assert_eq!((answer.header("etag"), answer.header("accept-ranges")), ("W/\"v1\"", ""), "{accepted}");
        }
    }
    for line in ["GET /coded", "GET /part", "GET /short", "GET /image"] {
        let answer = ask(&world, line, &[("accept-encoding", "br")], "").await;
        assert_ne!(answer.header("content-encoding"), "br", "{line}");
    }
    let answer = ask(&world, "HEAD /", &[("accept-encoding", "br")], "").await;
    assert_eq!((answer.header("content-encoding"), answer.header("etag"), answer.octets.len()), ("br", "W/\"v1\"", 0));
}

/// Says `data: N` for every number that comes on the channel, and never ends.
async fn events(ip: &str, told: tokio::sync::mpsc::Receiver<u32>) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let (at, told) = (listener.local_addr().unwrap(), Arc::new(tokio::sync::Mutex::new(told)));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let told = Arc::clone(&told);
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let Ok(n) = stream.read(&mut head).await else { return };
                if !head[..n].starts_with(b"GET /events") {
                    let none = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    return drop(stream.write_all(none).await);
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await.unwrap();
                while let Some(n) = told.lock().await.recv().await {
                    stream.write_all(format!("data: {n}\n\n").as_bytes()).await.unwrap();
                }
            });
        }
    });
    at
}

#[tokio::test]
async fn each_event_of_a_stream_comes_when_it_was_said() {
    let (tell, told) = tokio::sync::mpsc::channel(1);
    let at = events("127.13.4.2", told).await;
    let world = world_to(at).await;
    put(&world, json!([{"filter": "compression"}])).await;
    let stream = TcpStream::connect(world.http).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().uri("/events").header("host", "shop.test").header("accept-encoding", "gzip");
    let asked = sender.send_request(request.body(Full::<Bytes>::default()).unwrap());
    let head = tokio::time::timeout(Duration::from_secs(5), asked).await;
    let mut answer = head.expect("the head comes before anything is said").unwrap();
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let mut all = Vec::new();
    for n in 0..5 {
        tell.send(n).await.unwrap();
        let wanted = format!("data: {n}\n\n");
        let arrives = async {
            loop {
                let mut plain = Vec::new();
                let _ = flate2::read::GzDecoder::new(&all[..]).read_to_end(&mut plain);
                if plain.ends_with(wanted.as_bytes()) {
                    return;
                }
                all.extend_from_slice(&answer.frame().await.unwrap().unwrap().into_data().unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(5), arrives).await.expect("the event comes before the next is said");
    }
}
