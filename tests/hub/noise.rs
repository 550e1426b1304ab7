//! Noise: what is no request of ours is dropped at the door, and nobody else notices.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{World, throughout, within};

#[tokio::test]
async fn bytes_that_are_no_request_are_dropped_and_disturb_nobody() {
    let world = World::start().await;
    let (_member, agent) = world.joined("dev", |_| ()).await;
    let console = world.running.as_ref().unwrap().console.to_string();
    let link = world.config.advertise.clone();
    let long = vec![b'A'; 200_000];
    let hello: &[u8] = &[0x16, 0x03, 0x01, 0xff, 0xff, 0x01];
    for (name, address, bytes) in [
        ("HTTP at the link port", &link, b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n".as_slice()),
        ("zeros at the link port", &link, &[0; 64]),
        ("a torn hello at the link port", &link, hello),
        ("a flood at the link port", &link, &long),
        ("TLS at the console", &console, hello),
        ("no HTTP at the console", &console, b"\x00\x01 nonsense\r\n\r\n"),
        ("endless headers at the console", &console, &long),
        ("another protocol at the console", &console, b"EHLO relay\r\n"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Whoever hangs up on us while we write has answered, too.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = within(name, stream.read_to_end(&mut answer)).await;
        let refused = answer.starts_with(b"HTTP/1.1 4") || !answer.starts_with(b"HTTP/1.1");
        assert!(refused, "{name}: {}", String::from_utf8_lossy(&answer));
    }
    // Some that say nothing at all stay for a while.
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(TcpStream::connect(&link).await.unwrap());
    }
    throughout("the member stays Ready", Duration::from_secs(3), async || {
        let status = world.clusters().get("dev").await.unwrap().status.unwrap_or_default();
        let ready = status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
        if ready { Ok(()) } else { Err(status.conditions) }
    })
    .await;
    world.end([agent]).await;
}
