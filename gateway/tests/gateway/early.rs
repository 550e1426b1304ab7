//! What an endpoint says before its answer reaches the client before it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::backend::Pod;
use crate::world::{World, route, service};

const LONG: Duration = Duration::from_secs(20);

/// An endpoint that hints at once, and answers when it is let.
async fn hinting(ip: &str, may: Arc<Semaphore>) -> Pod {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let pod = Pod::named(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let may = Arc::clone(&may);
            tokio::spawn(async move {
                let mut octets = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut octets).await {
                    let (hints, answer) = if octets[..n].starts_with(b"OPTIONS") {
                        ("", "HTTP/1.1 204 No Content\r\n\r\n")
                    } else {
                        let hint = "HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\nconnection: x-near\r\nx-near: 1\r\n\r\n";
                        (hint, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    };
                    let _ = stream.write_all(hints.as_bytes()).await;
                    if !hints.is_empty() {
                        may.acquire().await.unwrap().forget();
                    }
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    pod
}

/// Reads until `end` is there.
async fn read(stream: &mut TcpStream, end: &str) -> String {
    let mut octets = Vec::new();
    let reading = async {
        while !octets.ends_with(end.as_bytes()) {
            octets.push(stream.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(LONG, reading).await.expect("it comes in time");
    String::from_utf8(octets).unwrap()
}

async fn asked(at: SocketAddr, host: &str, version: &str) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(format!("GET / HTTP/{version}\r\nhost: {host}\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn hints_reach_the_client_while_the_answer_is_still_to_come() {
    let world = World::start().await;
    let may = Arc::new(Semaphore::new(0));
    let pod = hinting("127.36.0.1", Arc::clone(&may)).await;
    for object in service("web", &pod) {
        world.apply(object).await;
    }
    let backends = json!([{"name": "web", "port": 80}]);
    let changed = json!([{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-set", "value": "1"}]}}]);
    world.apply(route("plain", &["plain"], json!([{"backendRefs": backends}]))).await;
    world.apply(route("filtered", &["filtered"], json!([{"backendRefs": backends, "filters": changed}]))).await;
    for host in ["plain", "filtered"] {
        may.add_permits(1);
        world.until(host, "/", |answer| answer.status == 200).await;
        let permits = may.available_permits();
        assert_eq!(permits, 0, "whoever asked before was answered");
        let mut client = asked(world.http, host, "1.1").await;
        let hints = read(&mut client, "\r\n\r\n").await;
        assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n", "{host}");
        may.add_permits(1);
        let answer = read(&mut client, "\r\n\r\nok").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && !answer.contains("link"), "{host}: {answer}");
        // "A server MUST NOT send a 1xx response to an HTTP/1.0 client" (RFC 9110 §15.2).
        may.add_permits(1);
        let answer = read(&mut asked(world.http, host, "1.0").await, "\r\n\r\nok").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{host}: {answer}");
    }
}
