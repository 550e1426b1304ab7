//! The accept loop of the link port.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use atoll_reach::{Accept, BoxStream, ClientAuth, RELAY_ALPN, RelayTable, Role, Secured, TlsIdentity, accept_relay};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::{Connected, Router};

use super::PeerInfo;

/// Connections at once, in all. A member has one link and one relay connection.
const CONNECTIONS_MAX: usize = 4096;
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
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let config = port.tls.server(ClientAuth::Optional, &[H2, RELAY_ALPN]);
    let accepting = async {
        loop {
            let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
            let (stream, from) = match port.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let handshake = Handshake {
                tls: port.tls.clone(),
                config: Arc::clone(&config),
                relays: port.relays.clone(),
                is_member: Arc::clone(&port.is_member),
                streams: streams.clone(),
                shutdown: shutdown.clone(),
            };
            tracker.spawn(async move {
                if let Err(error) = handshake.run(stream, slot).await {
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
    let _ = tokio::time::timeout(Duration::from_secs(2), tracker.wait()).await;
    ended
}

struct Handshake {
    tls: TlsIdentity,
    config: Arc<rustls::ServerConfig>,
    relays: RelayTable,
    is_member: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    streams: mpsc::Sender<io::Result<Io>>,
    shutdown: CancellationToken,
}

impl Handshake {
    async fn run(self, stream: BoxStream, slot: OwnedSemaphorePermit) -> io::Result<()> {
        let Secured { stream, peer, alpn } = self.tls.accept(self.config, stream).await?;
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
                let io = Io { stream, peer: PeerInfo(peer), _slot: slot };
                self.streams.send(Ok(io)).await.map_err(|_| io::ErrorKind::ConnectionAborted.into())
            }
        }
    }
}

/// A stream that knows its peer, as tonic wants it.
struct Io {
    stream: BoxStream,
    peer: PeerInfo,
    /// Given back when the connection ends.
    _slot: OwnedSemaphorePermit,
}

impl Connected for Io {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
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
