//! Byte streams and how they are opened: the seam at which simulation puts its own network.
//!
//! In: host and port, or a socket address. Out: streams. Never: TLS, HTTP or who may talk to whom.

use std::any::Any;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixStream};

use crate::packets::Succession;

/// A connected byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + Any {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A stream of any kind: TCP, TLS, a relayed tunnel, a simulated one.
pub type BoxStream = Box<dyn Stream>;

/// Host (without brackets) and port of `host:port` or `[v6]:port`; `None` for anything else, a URL included.
#[must_use]
pub fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (written, port) = address.rsplit_once(':')?;
    let bracketed = written.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host = bracketed.unwrap_or(written);
    let fits =
        !host.is_empty() && (bracketed.is_some() || !host.contains(':')) && !host.contains(['/', ' ', '@', '[', ']']);
    fits.then_some((host, port.parse().ok()?))
}

/// Opens streams to a host and port.
#[async_trait]
pub trait Connect: Send + Sync {
    /// Connects to `host` (an address without brackets, or a name) and `port`.
    ///
    /// # Errors
    /// As a TCP connect's; `TimedOut` once the connector's own bound has passed. A retry may help.
    async fn connect(&self, host: &str, port: u16) -> io::Result<BoxStream>;

    /// Connects to a Unix socket.
    ///
    /// # Errors
    /// As a connect's; `Unsupported` where there are none.
    async fn unix(&self, path: &Path) -> io::Result<BoxStream> {
        Err(io::Error::new(io::ErrorKind::Unsupported, format!("no Unix sockets here: {}", path.display())))
    }
}

/// Opens listeners that appear at run time (Gateway listeners, for example).
#[async_trait]
pub trait Listen: Send + Sync {
    /// Binds a TCP listener.
    ///
    /// # Errors
    /// As `bind`'s: the address is taken, not ours, or not permitted.
    async fn tcp(&self, addr: SocketAddr) -> io::Result<Box<dyn Accept>>;

    /// Binds a UDP socket.
    ///
    /// # Errors
    /// As `bind`'s: the address is taken, not ours, or not permitted.
    async fn udp(&self, addr: SocketAddr) -> io::Result<UdpSocket>;

    /// A UDP socket that was bound there is not wanted any more. Who keeps an account of sockets hears so; others need not.
    fn closed_udp(&self, addr: SocketAddr) {
        let _ = addr;
    }

    /// This process's place among those that have these sockets one after the other; `None`: it is alone with them.
    fn succession(&self) -> Option<Arc<dyn Succession>> {
        None
    }
}

/// A UDP socket that hears `server` alone, on a port of the system's choice. Waits for nobody where `listen` doesn't.
///
/// # Errors
/// As `bind`'s and `connect`'s.
pub async fn udp_connected(listen: &dyn Listen, server: SocketAddr) -> io::Result<UdpSocket> {
    let any = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = listen.udp(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    Ok(socket)
}

/// Accepts streams on one listener.
#[async_trait]
pub trait Accept: Send {
    /// Waits for the next stream and says who opened it. Cancel safe.
    ///
    /// # Errors
    /// As `accept`'s. When descriptors run out the caller backs off rather than spin.
    async fn accept(&mut self) -> io::Result<(BoxStream, SocketAddr)>;

    /// Where this listener listens, with the port that was really taken.
    fn local_addr(&self) -> SocketAddr;
}

/// The operating system's network.
#[derive(Debug, Clone)]
pub struct System {
    connect_timeout: Duration,
}

impl System {
    /// Connects with a bound on the time one connect may take.
    #[must_use]
    pub fn new(connect_timeout: Duration) -> Self {
        Self { connect_timeout }
    }
}

impl Default for System {
    fn default() -> Self {
        Self::new(Duration::from_secs(5))
    }
}

#[async_trait]
impl Connect for System {
    async fn connect(&self, host: &str, port: u16) -> io::Result<BoxStream> {
        let tcp = tokio::time::timeout(self.connect_timeout, TcpStream::connect((host, port)))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("connect to {host}:{port} timed out")))??;
        settle(&tcp)?;
        Ok(Box::new(tcp))
    }

    async fn unix(&self, path: &Path) -> io::Result<BoxStream> {
        let stream = tokio::time::timeout(self.connect_timeout, UnixStream::connect(path)).await;
        Ok(Box::new(stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?))
    }
}

#[async_trait]
impl Listen for System {
    async fn tcp(&self, addr: SocketAddr) -> io::Result<Box<dyn Accept>> {
        let listener = TcpListener::bind(addr).await?;
        let local = listener.local_addr()?;
        Ok(Box::new(Listener { listener, local }))
    }

    async fn udp(&self, addr: SocketAddr) -> io::Result<UdpSocket> {
        UdpSocket::bind(addr).await
    }
}

/// A listener that was bound before, for the traits' users. To be called inside a runtime.
///
/// # Errors
/// When the system refuses to make it non-blocking.
pub fn listener(bound: std::net::TcpListener) -> io::Result<Box<dyn Accept>> {
    bound.set_nonblocking(true)?;
    let local = bound.local_addr()?;
    Ok(Box::new(Listener { listener: TcpListener::from_std(bound)?, local }))
}

struct Listener {
    listener: TcpListener,
    local: SocketAddr,
}

#[async_trait]
impl Accept for Listener {
    async fn accept(&mut self) -> io::Result<(BoxStream, SocketAddr)> {
        let (tcp, peer) = self.listener.accept().await?;
        // A peer that has gone already makes these fail; its stream says so at the first read.
        let _ = settle(&tcp);
        Ok((Box::new(tcp), peer))
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// No Nagle (small messages must not wait), and keep-alive, so that a peer that vanished is noticed within a minute.
fn settle(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let probes = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket2::SockRef::from(tcp).set_tcp_keepalive(&probes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_listener_opened_at_run_time_is_reached_by_the_connector() {
        let system = System::default();
        let mut listener = system.tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().port();
        let (dialed, accepted) = tokio::join!(system.connect("127.0.0.1", port), listener.accept());
        let (mut near, (mut far, _)) = (dialed.unwrap(), accepted.unwrap());
        near.write_all(b"hello").await.unwrap();
        near.shutdown().await.unwrap();
        let mut got = String::new();
        far.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "hello");
    }

    #[test]
    fn host_and_port_are_read_from_what_people_write_for_them() {
        for (written, read) in [
            ("hub.example.com:7443", Some(("hub.example.com", 7443))),
            ("127.0.0.1:7443", Some(("127.0.0.1", 7443))),
            ("[::1]:7443", Some(("::1", 7443))),
            ("::1:7443", None),
            ("[::1:7443", None),
            ("[]:7443", None),
            ("hub", None),
            ("hub:", None),
            (":7443", None),
            ("hub:99999", None),
            ("https://hub:7443", None),
            ("user@hub:7443", None),
        ] {
            assert_eq!(host_and_port(written), read, "{written}");
        }
    }
}
