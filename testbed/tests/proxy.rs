//! The bad link: what it delays, loses and holds, for TCP and UDP, on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use atoll_testbed::proxy::{Link, Protocol, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

const LOOPBACK: &str = "127.0.0.1:0";
const SOON: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(300);

fn loopback() -> SocketAddr {
    LOOPBACK.parse().expect("an address")
}

async fn tcp_echo() -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).await.expect("bind");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

async fn udp_echo() -> SocketAddr {
    let socket = UdpSocket::bind(LOOPBACK).await.expect("bind");
    let address = socket.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((size, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..size], from).await;
        }
    });
    address
}

async fn tcp(link: &str) -> (Proxy, TcpStream) {
    let link = link.parse().expect("a link");
    let proxy = Proxy::start(Protocol::Tcp, loopback(), tcp_echo().await, link).await.expect("a proxy");
    let stream = TcpStream::connect(proxy.address()).await.expect("connect");
    (proxy, stream)
}

async fn udp(link: &str) -> (Proxy, UdpSocket) {
    let link = link.parse().expect("a link");
    let proxy = Proxy::start(Protocol::Udp, loopback(), udp_echo().await, link).await.expect("a proxy");
    let socket = UdpSocket::bind(LOOPBACK).await.expect("bind");
    socket.connect(proxy.address()).await.expect("connect");
    (proxy, socket)
}

async fn round_trip(stream: &mut TcpStream) -> Duration {
    let started = Instant::now();
    stream.write_all(b"ping").await.expect("write");
    let mut said = [0; 4];
    timeout(SOON, stream.read_exact(&mut said)).await.expect("in time").expect("read");
    assert_eq!(&said, b"ping");
    started.elapsed()
}

#[tokio::test]
async fn a_delay_is_paid_in_both_directions_of_tcp() {
    let (_proxy, mut stream) = tcp("delay=50ms").await;
    // The first pays the handshake to the target too.
    round_trip(&mut stream).await;
    assert!(round_trip(&mut stream).await >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_good_tcp_link_carries_everything_and_the_close() {
    let (_proxy, mut stream) = tcp("").await;
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let (mut read, mut write) = stream.split();
    let mut received = Vec::new();
    let (written, carried) = tokio::join!(
        async {
            write.write_all(&sent).await?;
            write.shutdown().await
        },
        timeout(SOON, read.read_to_end(&mut received)),
    );
    written.expect("written");
    carried.expect("closed in time").expect("read");
    assert!(received == sent);
}

#[tokio::test]
async fn a_lossy_tcp_link_is_slow_and_loses_nothing() {
    let (_proxy, mut stream) = tcp("loss=1").await;
    round_trip(&mut stream).await;
    assert!(round_trip(&mut stream).await >= Duration::from_millis(400));
}

#[tokio::test]
async fn a_half_open_tcp_link_is_silent_and_goes_on_where_it_stopped() {
    let (proxy, mut stream) = tcp("").await;
    round_trip(&mut stream).await;
    for hold in ["hold=target", "hold=client"] {
        proxy.set(hold.parse().expect("a link"));
        stream.write_all(b"ping").await.expect("the kernel takes it");
        let mut said = [0; 4];
        assert!(timeout(QUIET, stream.read_exact(&mut said)).await.is_err(), "{hold}: silent, not closed");
        proxy.set(Link::default());
        timeout(SOON, stream.read_exact(&mut said)).await.expect("in time").expect("read");
        assert_eq!(&said, b"ping", "{hold}");
    }
}

#[tokio::test]
async fn udp_packets_are_delayed_and_lost_as_asked() {
    let (proxy, socket) = udp("delay=50ms").await;
    let mut buffer = [0; 16];
    let started = Instant::now();
    socket.send(b"one").await.expect("send");
    let size = timeout(SOON, socket.recv(&mut buffer)).await.expect("in time").expect("receive");
    assert_eq!((&buffer[..size], started.elapsed() >= Duration::from_millis(100)), (&b"one"[..], true));

    for silent in ["loss=1", "hold=target", "hold=client"] {
        proxy.set(silent.parse().expect("a link"));
        socket.send(b"two").await.expect("send");
        assert!(timeout(QUIET, socket.recv(&mut buffer)).await.is_err(), "{silent}");
    }
}

#[tokio::test]
async fn half_the_udp_packets_of_a_half_lossy_link_come_through() {
    let (_proxy, socket) = udp("loss=0.3").await;
    let mut answered = 0;
    let mut buffer = [0; 16];
    for _ in 0..200 {
        socket.send(b"x").await.expect("send");
        if timeout(Duration::from_millis(20), socket.recv(&mut buffer)).await.is_ok() {
            answered += 1;
        }
    }
    // 0.7 × 0.7 of 200 is 98; the dice are seeded, the bounds allow for late answers.
    assert!((60..140).contains(&answered), "{answered}");
}

#[test]
fn a_link_that_makes_no_sense_is_refused_with_what_would() {
    for bad in ["delay", "delay=x", "loss=2", "loss=-1", "hold=left", "speed=9"] {
        let error = bad.parse::<Link>().expect_err(bad).to_string();
        assert!(error.contains(bad) && error.contains("hold=target"), "{error}");
    }
}
