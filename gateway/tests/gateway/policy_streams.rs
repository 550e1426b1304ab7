//! Policies on routes of streams and packets: who may come, how many at once, how many in a time. What is refused is closed unanswered.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

use crate::backend::Pod;
use crate::client::tls;
use crate::l4::{free_port, stream_route};
use crate::world::{World, gateway, listener, policy, service};

const SOON: Duration = Duration::from_secs(5);

/// Sends back what it gets.
async fn echo(ip: &str) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                drop(tokio::io::copy(&mut from, &mut to).await);
            });
        }
    });
    at
}

/// Puts filters on a route, and waits until they are in force.
async fn put(world: &World, kind: &str, filters: Value) -> Value {
    world.apply(policy("limits", (kind, "r"), filters)).await;
    let of = policy("limits", (kind, "r"), json!([]));
    let generation = world.read(of.clone()).await["metadata"]["generation"].clone();
    let current = |s: &Value| s["ancestors"][0]["conditions"][0]["observedGeneration"] == generation;
    world.until_status(of, current).await["ancestors"][0]["conditions"][0].clone()
}

/// A connection that is carried, or nothing.
async fn open(at: SocketAddr) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(at).await.ok()?;
    let mut back = [0; 2];
    let talked = async {
        stream.write_all(b"hi").await.ok()?;
        stream.read_exact(&mut back).await.ok()
    };
    timeout(SOON, talked).await.expect("it is carried or closed")?;
    Some(stream)
}

async fn until_open(at: SocketAddr) {
    let began = Instant::now();
    while open(at).await.is_none() {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody carries it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn tcp_streams_are_let_in_counted_and_bounded() {
    let world = World::bare(None).await;
    for object in service("echo", &Pod::named(echo("127.22.0.1").await)) {
        world.apply(object).await;
    }
    let port = free_port().await;
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    world.apply(gateway("main", json!([listener("tcp", port, "TCP")]))).await;
    world.apply(stream_route("TCPRoute", "r", "tcp", json!({"name": "echo", "port": 80}))).await;
    until_open(at).await;
    for (name, filters, comes) in [
        ("denied", json!([{"filter": "deny", "cidrs": ["127.0.0.0/8"]}]), false),
        ("others are denied", json!([{"filter": "deny", "cidrs": ["10.0.0.0/8"]}]), true),
        ("allowed", json!([{"filter": "allow", "cidrs": ["127.0.0.1"]}]), true),
        ("others are allowed", json!([{"filter": "allow", "cidrs": ["10.0.0.0/8"]}]), false),
    ] {
        put(&world, "TCPRoute", filters).await;
        assert_eq!(open(at).await.is_some(), comes, "{name}");
    }
    put(&world, "TCPRoute", json!([{"filter": "connections", "max": 2}])).await;
    let (first, second) = (open(at).await, open(at).await);
    assert!(first.is_some() && second.is_some());
    assert!(open(at).await.is_none(), "a third at once");
    drop(first);
    until_open(at).await;
    drop(second);
    put(&world, "TCPRoute", json!([{"filter": "rate", "requests": 3, "per": "1h"}])).await;
    for comes in [true, true, true, false, false] {
        assert_eq!(open(at).await.is_some(), comes);
    }
    let said = put(&world, "TCPRoute", json!([{"filter": "basic", "secretRef": {"name": "users"}}])).await;
    assert_eq!((&said["status"], &said["reason"]), (&json!("False"), &json!("Invalid")), "{said}");
    assert!(open(at).await.is_none(), "what makes no sense on streams closes them");
    world.delete(policy("limits", ("TCPRoute", "r"), json!([]))).await;
    until_open(at).await;
    let mut login = policy("login", ("Gateway", "main"), json!([{"filter": "basic", "secretRef": {"name": "users"}}]));
    login["metadata"]["namespace"] = json!("infra");
    world.apply(login).await;
    let began = Instant::now();
    while open(at).await.is_some() {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody was asked who comes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn tls_that_is_passed_through_is_let_in_counted_and_bounded() {
    let world = World::bare(None).await;
    for object in service("echo", &Pod::named(echo("127.22.0.2").await)) {
        world.apply(object).await;
    }
    let port = free_port().await;
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let mut passes = listener("tls", port, "TLS");
    passes["tls"] = json!({"mode": "Passthrough"});
    world.apply(gateway("main", json!([passes]))).await;
    let mut route = stream_route("TLSRoute", "r", "tls", json!({"name": "echo", "port": 80}));
    route["spec"]["hostnames"] = json!(["db.test"]);
    world.apply(route).await;
    // The backend sends the client's own hello back, which is no answer of TLS; a stream that is not carried ends before any.
    let comes = async || {
        let error = timeout(SOON, tls(at, "db.test", &[], "h2")).await.expect("an end").unwrap_err();
        error.kind() == std::io::ErrorKind::InvalidData
    };
    let began = Instant::now();
    while TcpStream::connect(at).await.is_err() || !comes().await {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody carries it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (filters, expected) in [
        (json!([{"filter": "deny", "cidrs": ["127.0.0.1"]}]), &[false][..]),
        (json!([{"filter": "allow", "cidrs": ["127.0.0.1"]}]), &[true]),
        (json!([{"filter": "allow", "cidrs": ["10.0.0.1"]}]), &[false]),
        (json!([{"filter": "rate", "requests": 2, "per": "1h"}]), &[true, true, false]),
    ] {
        put(&world, "TLSRoute", filters.clone()).await;
        for (nth, expected) in expected.iter().enumerate() {
            assert_eq!(comes().await, *expected, "{filters} {nth}");
        }
    }
}

#[tokio::test]
async fn packets_are_let_in_counted_and_bounded() {
    let world = World::bare(None).await;
    let echo = UdpSocket::bind("127.22.0.3:0").await.unwrap();
    let echo_at = echo.local_addr().unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 100];
        while let Ok((n, from)) = echo.recv_from(&mut packet).await {
            echo.send_to(&packet[..n], from).await.unwrap();
        }
    });
    let [mut of, mut slice] = service("dns", &Pod::named(echo_at));
    of["spec"]["ports"][0]["protocol"] = json!("UDP");
    slice["ports"][0]["protocol"] = json!("UDP");
    world.apply(of).await;
    world.apply(slice).await;
    let port = free_port().await;
    world.apply(gateway("main", json!([listener("udp", port, "UDP")]))).await;
    world.apply(stream_route("UDPRoute", "r", "udp", json!({"name": "dns", "port": 80}))).await;
    let client = async || {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(("127.0.0.1", port)).await.unwrap();
        client
    };
    let comes = async |client: &UdpSocket, within: Duration| {
        let _ = client.send(b"hi").await;
        let mut back = [0; 10];
        timeout(within, client.recv(&mut back)).await.is_ok_and(|n| n.is_ok())
    };
    let began = Instant::now();
    while !comes(&client().await, Duration::from_millis(200)).await {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody carries it");
    }
    let never = Duration::from_millis(300);
    for (filters, expected) in [
        (json!([{"filter": "deny", "cidrs": ["127.0.0.1"]}]), false),
        (json!([{"filter": "allow", "cidrs": ["127.0.0.1"]}]), true),
        (json!([{"filter": "allow", "cidrs": ["10.0.0.1"]}]), false),
    ] {
        put(&world, "UDPRoute", filters.clone()).await;
        let within = if expected { SOON } else { never };
        assert_eq!(comes(&client().await, within).await, expected, "{filters}");
    }
    put(&world, "UDPRoute", json!([{"filter": "connections", "max": 1}])).await;
    let (one, two) = (client().await, client().await);
    assert!(comes(&one, SOON).await && !comes(&two, never).await, "a second flow at once");
    assert!(comes(&one, SOON).await, "the first goes on");
    put(&world, "UDPRoute", json!([{"filter": "rate", "requests": 1, "per": "1h"}])).await;
    let (one, two) = (client().await, client().await);
    assert!(comes(&one, SOON).await && comes(&one, SOON).await, "packets of one flow count once");
    assert!(!comes(&two, never).await, "a second flow in the time");
}
