//! Upgraded connections: bytes both ways through the gateway.

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::backend::Pod;
use crate::world::{World, import, route, topology};

#[tokio::test]
async fn a_websocket_is_a_tunnel_after_its_handshake() {
    let world = World::start().await;
    let web = Pod::start("ws", "127.13.0.1").await;
    world.publish(topology(&[("eu", &[&web])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("x", "/", |a| a.status == 200).await;
    let mut stream = TcpStream::connect(world.http).await.unwrap();
    let head = "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nhello";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut got = String::new();
    stream.read_to_string(&mut got).await.unwrap();
    let (head, rest) = got.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.to_ascii_lowercase().contains("upgrade: websocket"), "{head}");
    assert_eq!(rest, "ws heard hello");
}

/// A CONNECT over HTTP/2 without TLS, once the gateway has said that it takes those.
async fn connect(
    at: std::net::SocketAddr,
    protocol: Option<&'static str>,
) -> Result<http::Response<hyper::body::Incoming>, hyper::Error> {
    let stream = TcpStream::connect(at).await.unwrap();
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.unwrap();
    tokio::spawn(connection);
    // An answer shows that the settings are there.
    let first = http::Request::builder().uri("http://x/").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(sender.send_request(first).await.unwrap().status(), 200);
    let mut request =
        http::Request::builder().method("CONNECT").uri("http://x/ws").header("sec-websocket-version", "13");
    if let Some(protocol) = protocol {
        request = request.extension(hyper::ext::Protocol::from_static(protocol));
    } else {
        request = request.uri("x:80");
    }
    let answer = sender.send_request(request.body(Full::default()).unwrap()).await;
    // The connection lives as long as its sender.
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        drop(sender);
    });
    answer
}

#[tokio::test]
async fn a_websocket_comes_by_extended_connect_too_and_any_other_connect_is_refused() {
    let world = World::start().await;
    let web = Pod::start("ws", "127.13.1.1").await;
    world.publish(topology(&[("eu", &[&web])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("x", "/", |a| a.status == 200).await;
    let answer = connect(world.http, Some("websocket")).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("sec-websocket-accept") && !answer.headers().contains_key("upgrade"));
    let mut stream = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut got = String::new();
    stream.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "ws heard hello");
    for protocol in [None, Some("connect-udp")] {
        assert_eq!(connect(world.http, protocol).await.unwrap().status(), 405, "{protocol:?}");
    }
    let mut plain = TcpStream::connect(world.http).await.unwrap();
    plain.write_all(b"CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    plain.read_exact(&mut head).await.unwrap();
    assert_eq!(&head[..9], b"HTTP/1.1 ");
    assert!([b"405", b"400"].contains(&head[9..].try_into().unwrap()), "{}", String::from_utf8_lossy(&head));
}
