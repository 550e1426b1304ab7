//! Both sides of the relay against each other, over in-memory and real streams.

use std::net::SocketAddr;

use super::*;
use crate::relay::{RelayError, RelayTable, accept_relay};
use crate::stream::{Accept, Listen, System};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

struct Loopback;

impl Allow for Loopback {
    fn allow(&self, host: &str, port: u16) -> Result<(String, u16), String> {
        match host {
            "127.0.0.1" | "255.255.255.255" => Ok((host.to_owned(), port)),
            _ => Err(format!("{host} is not in this member's ranges")),
        }
    }
}

struct Pair {
    table: RelayTable,
    agent: JoinHandle<io::Result<()>>,
    hub: JoinHandle<io::Result<()>>,
    stop: CancellationToken,
}

/// One agent `dev`, connected to a table.
async fn pair(keepalive: Keepalive) -> Pair {
    let (near, far) = tokio::io::duplex(256 * 1024);
    join(Box::new(near), Box::new(far), keepalive).await
}

async fn join(near: BoxStream, far: BoxStream, keepalive: Keepalive) -> Pair {
    join_with(near, far, keepalive, Arc::new(System::default())).await
}

async fn join_with(near: BoxStream, far: BoxStream, keepalive: Keepalive, connect: Arc<dyn Connect>) -> Pair {
    let (table, stop) = (RelayTable::new(keepalive), CancellationToken::new());
    let mut changes = table.changes();
    let agent = tokio::spawn(serve_relay(far, Arc::new(Loopback), connect, keepalive, stop.clone()));
    let hub = tokio::spawn({
        let (table, stop) = (table.clone(), stop.clone());
        async move { accept_relay(near, "dev".into(), &table, stop).await }
    });
    while !table.is_live("dev") {
        changes.changed().await.unwrap();
    }
    Pair { table, agent, hub, stop }
}

/// A server that gives each connection to `serve`.
async fn backend<F, R>(serve: F) -> SocketAddr
where
    F: Fn(BoxStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let mut listener: Box<dyn Accept> = System::default().tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = listener.local_addr();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    addr
}

#[tokio::test]
async fn a_half_closed_stream_still_brings_the_answer() {
    let pair = pair(Keepalive::default()).await;
    let addr = backend(|mut stream| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(format!("{} bytes", all.len()).as_bytes()).await.unwrap();
    })
    .await;
    let mut stream = pair.table.open("dev", "127.0.0.1", addr.port()).await.unwrap();
    stream.write_all(&vec![7; 1_000_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "1000000 bytes");
    assert!(!pair.hub.is_finished());
}

/// A member in which everything echoes, without a socket.
struct Echo;

#[async_trait::async_trait]
impl Connect for Echo {
    async fn connect(&self, _host: &str, _port: u16) -> io::Result<BoxStream> {
        let (near, far) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(far);
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        Ok(Box::new(near))
    }
}

#[tokio::test]
async fn a_thousand_streams_share_one_connection_and_the_next_waits_for_a_place() {
    let (near, far) = tokio::io::duplex(256 * 1024);
    let pair = join_with(Box::new(near), Box::new(far), Keepalive::default(), Arc::new(Echo)).await;
    let opens = (0..STREAMS_MAX as u64).map(|n| {
        let table = pair.table.clone();
        async move {
            let mut stream = table.open("dev", "127.0.0.1", 80).await.unwrap();
            stream.write_u64(n).await.unwrap();
            (n, stream)
        }
    });
    let mut open = futures::future::join_all(opens).await;
    for (n, stream) in &mut open {
        assert_eq!(stream.read_u64().await.unwrap(), *n);
    }
    let mut next = std::pin::pin!(pair.table.open("dev", "127.0.0.1", 80));
    assert!(futures::poll!(&mut next).is_pending());
    open.pop();
    next.await.unwrap();
}

#[tokio::test]
async fn a_slow_reader_slows_its_writer_and_nobody_else() {
    let pair = pair(Keepalive::default()).await;
    let flood = backend(|mut stream| async move {
        let chunk = [1; 64 * 1024];
        while stream.write_all(&chunk).await.is_ok() {}
    })
    .await;
    let echo = backend(|mut stream| async move {
        let byte = stream.read_u8().await.unwrap();
        stream.write_u8(byte).await.unwrap();
    })
    .await;
    let mut slow = pair.table.open("dev", "127.0.0.1", flood.port()).await.unwrap();
    assert_eq!(slow.read_u8().await.unwrap(), 1);
    for byte in 0..20 {
        let mut quick = pair.table.open("dev", "127.0.0.1", echo.port()).await.unwrap();
        quick.write_u8(byte).await.unwrap();
        assert_eq!(quick.read_u8().await.unwrap(), byte);
    }
    // What lay ready for us is bounded by the stream's window, not by what the flood could write meanwhile.
    let mut got = 0;
    let mut buf = vec![0; 64 * 1024];
    while let std::task::Poll::Ready(read) = futures::poll!(std::pin::pin!(slow.read(&mut buf))) {
        got += read.unwrap();
        assert!(got <= STREAM_WINDOW_BYTES as usize, "{got} bytes were buffered");
    }
}

#[tokio::test]
async fn an_agent_killed_in_the_middle_is_an_error_and_not_an_end() {
    let pair = pair(Keepalive::default()).await;
    let addr = backend(|mut stream| async move {
        stream.write_all(b"first").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let mut stream = pair.table.open("dev", "127.0.0.1", addr.port()).await.unwrap();
    let mut first = [0; 5];
    stream.read_exact(&mut first).await.unwrap();
    pair.agent.abort();
    assert!(stream.read_u8().await.unwrap_err().kind() != io::ErrorKind::UnexpectedEof);
    assert!(stream.write_all(&[0; 1024]).await.is_err());
    pair.hub.await.unwrap().ok();
    assert!(!pair.table.is_live("dev"));
    let gone = pair.table.open("dev", "127.0.0.1", addr.port()).await.err().unwrap();
    assert!(matches!(gone, RelayError::NoRelay(_)), "{gone}");
}

#[tokio::test]
async fn a_backend_that_breaks_off_is_an_error_and_not_an_end() {
    let pair = pair(Keepalive::default()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut stream = pair.table.open("dev", "127.0.0.1", port).await.unwrap();
    let (tcp, _) = listener.accept().await.unwrap();
    // Closing with a zero linger sends RST.
    socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
    drop(tcp);
    let error = stream.read_u8().await.unwrap_err();
    assert_ne!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let pair = pair(Keepalive::default()).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (host, port, want) in [
        ("10.1.2.3", 80, "refuses"),
        ("169.254.169.254", 80, "refuses"),
        ("fd00::1", 80, "refuses"),
        ("a b", 80, "refuses"),
        ("127.0.0.1", closed, "can't reach"),
        ("255.255.255.255", 80, "can't reach"),
    ] {
        let error = pair.table.open("dev", host, port).await.err().unwrap().to_string();
        assert!(error.contains(want), "{host}:{port}: {error}");
    }
    let error = pair.table.open("test", "127.0.0.1", 80).await.err().unwrap();
    assert!(matches!(error, RelayError::NoRelay(_)));
}

#[tokio::test(start_paused = true)]
async fn a_silent_partition_is_noticed_by_both_sides_within_ten_seconds() {
    // Two pipes with a forwarder between them that stops forwarding, and closes nothing.
    let ((near, near_end), (far, far_end)) = (tokio::io::duplex(64 * 1024), tokio::io::duplex(64 * 1024));
    let forward = tokio::spawn(async move {
        let (mut a, mut b) = (near_end, far_end);
        let cut = CancellationToken::new();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut a, &mut b) => {}
            () = tokio::time::sleep(Duration::from_secs(60)) => cut.cancel(),
        }
        std::future::pending::<()>().await;
    });
    let pair = join(Box::new(near), Box::new(far), Keepalive::default()).await;
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert!(pair.table.is_live("dev"), "a healthy idle connection stays");
    let (hub, agent) = tokio::time::timeout(Duration::from_secs(12), async { (pair.hub.await, pair.agent.await) })
        .await
        .expect("both notice");
    assert!(hub.unwrap().is_err() && agent.unwrap().is_err());
    assert!(!pair.table.is_live("dev"));
    forward.abort();
}

#[tokio::test]
async fn shutdown_ends_both_sides_and_their_streams() {
    let pair = pair(Keepalive::default()).await;
    let addr = backend(|_stream| std::future::pending::<()>()).await;
    let mut stream = pair.table.open("dev", "127.0.0.1", addr.port()).await.unwrap();
    pair.stop.cancel();
    pair.agent.await.unwrap().unwrap();
    pair.hub.await.unwrap().unwrap();
    assert!(stream.read_u8().await.is_err());
}

/// Keeps the first name that it is asked for.
struct Asked(std::sync::Mutex<Option<tokio::sync::oneshot::Sender<String>>>);

impl Allow for Asked {
    fn allow(&self, host: &str, _: u16) -> Result<(String, u16), String> {
        if let Some(tell) = self.0.lock().unwrap().take() {
            let _ = tell.send(host.to_owned());
        }
        Err("heard".to_owned())
    }
}

#[tokio::test]
async fn an_agent_is_told_which_replica_it_has_reached() {
    let (near, far) = tokio::io::duplex(256 * 1024);
    let (table, stop) = (RelayTable::default(), CancellationToken::new());
    table.call("gateway-7d_9.x");
    let (tell, told) = tokio::sync::oneshot::channel();
    let allow = Arc::new(Asked(std::sync::Mutex::new(Some(tell))));
    let connect = Arc::new(System::default());
    tokio::spawn(serve_relay(Box::new(far), allow, connect, Keepalive::default(), stop.clone()));
    tokio::spawn(async move { accept_relay(Box::new(near), "dev".into(), &table, stop).await });
    assert_eq!(told.await.unwrap(), format!("gateway-7d_9.x{}", crate::REPLICA));
}
