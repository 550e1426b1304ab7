//! Upgraded connections: bytes both ways through the gateway.

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
