//! The accept loop of the link port.
//!
//! Bounds: connections in all; those without a certificate, in all and from one address, and in time (they enrol, and go); those of one
//! peer. Who is a member gets in however many strangers stand at the port.

use std::any::Any;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use atoll_reach::{
    Accept, BoxStream, ClientAuth, Door, Guest, Peer, RELAY_ALPN, RelayTable, Role, Secured, TlsIdentity, accept_relay,
    neighbourhood, sniff,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::{Connected, Router};

use super::PeerInfo;

/// Connections at once of peers with a certificate. A member has one link and one relay connection, twice while it renews.
const CONNECTIONS_MAX: usize = 4096;
const PEER_CONNECTIONS_MAX: usize = 16;
/// Connections at once that have shown no certificate, in all and from one address.
const STRANGERS_MAX: usize = 1024;
const NEIGHBOURS_MAX: usize = 256;
/// Who has no certificate comes for one, which takes a moment.
const STRANGER_STAYS: Duration = Duration::from_secs(30);
/// From the end of the handshake to the first octets.
const BEGIN_MAX: Duration = Duration::from_secs(10);
const H2: &[u8] = b"h2";
const KEEPALIVE: Duration = Duration::from_secs(5);

/// What the accept loop needs.
pub(crate) struct Port {
    pub(crate) listener: Box<dyn Accept>,
    pub(crate) tls: TlsIdentity,
    pub(crate) relays: RelayTable,
    /// Whether a member of this name is ours.
    pub(crate) is_member: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

/// A server with the keep-alives that notice a half-open connection.
pub(crate) fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(Some(32))
        .http2_max_header_list_size(Some(16 * 1024))
}

/// Serves `services` and relay connections until `shutdown`; gives the listener back.
pub(crate) async fn serve(port: &mut Port, services: Router, shutdown: CancellationToken) -> Result<(), io::Error> {
    let (streams, incoming) = mpsc::channel::<io::Result<Io>>(64);
    let rpc = services.serve_with_incoming_shutdown(ReceiverStream::new(incoming), shutdown.clone().cancelled_owned());
    let tracker = TaskTracker::new();
    let peers = Door::new(CONNECTIONS_MAX, PEER_CONNECTIONS_MAX);
    let strangers = Door::new(STRANGERS_MAX, NEIGHBOURS_MAX);
    let config = port.tls.server(ClientAuth::Optional, &[H2, RELAY_ALPN]);
    let accepting = async {
        loop {
            let (stream, from) = match port.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let stranger = strangers.enter(neighbourhood(from.ip()));
            let handshake = Handshake {
                from: from.ip(),
                peers: peers.clone(),
                tls: port.tls.clone(),
                config: Arc::clone(&config),
                relays: port.relays.clone(),
                is_member: Arc::clone(&port.is_member),
                streams: streams.clone(),
                shutdown: shutdown.clone(),
            };
            tracker.spawn(async move {
                if let Err(error) = handshake.run(stream, stranger).await {
                    tracing::debug!(%from, %error, "connection ended");
                }
            });
        }
    };
    let ended = tokio::select! {
        ended = accepting => ended,
        ended = rpc => ended.map_err(io::Error::other),
        () = shutdown.cancelled() => Ok(()),
    };
    tracker.close();
    // Connections end with their token; one that does not is not waited for longer than this.
    let _ = timeout(Duration::from_secs(2), tracker.wait()).await;
    ended
}

struct Handshake {
    from: IpAddr,
    peers: Door<String>,
    tls: TlsIdentity,
    config: Arc<rustls::ServerConfig>,
    relays: RelayTable,
    is_member: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    streams: mpsc::Sender<io::Result<Io>>,
    shutdown: CancellationToken,
}

impl Handshake {
    async fn run(self, stream: BoxStream, stranger: Guest<IpAddr>) -> io::Result<()> {
        let too_many = || io::Error::other("too many connections of its kind");
        let shaken = stranger.end().run_until_cancelled(self.tls.accept(self.config, stream)).await;
        let Secured { stream, peer, alpn } = shaken.ok_or_else(too_many)??;
        let mut place = match &peer {
            Some(Peer { role, .. }) => {
                // Replicas of a site share its name.
                let key =
                    if matches!(role, Role::Cluster(_)) { role.to_string() } else { format!("{role} {}", self.from) };
                let peer = self.peers.enter(key);
                let end = peer.end().clone().cancelled_owned();
                Place { _guest: Box::new(peer), end: Box::pin(end) }
            }
            None => {
                let end = stranger.end().clone();
                let end = async move {
                    let _ = timeout(STRANGER_STAYS, end.cancelled()).await;
                };
                Place { _guest: Box::new(stranger), end: Box::pin(end) }
            }
        };
        match (alpn.as_deref(), &peer) {
            (Some(RELAY_ALPN), Some(peer)) => {
                let Role::Cluster(name) = &peer.role else {
                    return Err(io::Error::new(
                        io::ErrorKind::PermissionDenied,
                        format!("{} may not relay", peer.role),
                    ));
                };
                if !(self.is_member)(name) {
                    return Err(io::Error::new(
                        io::ErrorKind::PermissionDenied,
                        format!("cluster `{name}` is no member"),
                    ));
                }
                accept_relay(stream, name.clone(), &self.relays, self.shutdown).await
            }
            (Some(RELAY_ALPN), None) => Err(io::ErrorKind::PermissionDenied.into()),
            _ => {
                let (_, stream) = tokio::select! {
                    begun = sniff(stream, BEGIN_MAX) => begun?,
                    () = &mut place.end => return Err(too_many()),
                };
                let io = Io { stream, peer: PeerInfo(peer), place };
                self.streams.send(Ok(io)).await.map_err(|_| io::ErrorKind::ConnectionAborted.into())
            }
        }
    }
}

/// A stream that knows its peer, as tonic wants it.
struct Io {
    stream: BoxStream,
    peer: PeerInfo,
    place: Place,
}

/// What the connection takes up, and when it has to end.
struct Place {
    /// Held until the connection ends, and never read.
    _guest: Box<dyn Any + Send>,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Connected for Io {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.place.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
