//! The near side of the relay (hub, DNS, gateway): the agents' connections, and streams opened through them.
//!
//! In: mTLS connections that agents opened to us with ALPN `atoll-relay/1`. After the handshake the roles turn: we are
//! the HTTP/2 client, the agent serves. Out: streams. Never dials anything itself, never decides what is allowed.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, StatusCode, Uri};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::keepalive::Keepalive;
use crate::stream::BoxStream;
use crate::tunnel::{CONNECTION_WINDOW_BYTES, REASON_HEADER, STREAM_WINDOW_BYTES, STREAMS_MAX, Tunnel, to_io};

/// The protocol name that an agent offers for a relay connection.
pub const RELAY_ALPN: &[u8] = b"atoll-relay/1";

/// Live connections of one cluster; the oldest goes when another comes.
const CONNECTIONS_MAX: usize = 8;
/// From the wish to the open stream, all tries together.
const OPEN_MAX: Duration = Duration::from_secs(8);

/// Why a stream could not be opened through a relay.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// No agent of this cluster is connected. A retry helps once it is back.
    #[error("no relay connection of cluster `{0}`")]
    NoRelay(String),
    /// The agent doesn't allow the address. A retry doesn't help.
    #[error("cluster `{cluster}` refuses {target}: {reason}")]
    Refused {
        /// The member.
        cluster: String,
        /// Host and port that were asked for.
        target: String,
        /// What its agent says.
        reason: String,
    },
    /// The agent could not reach the address: refused, no route, no such name.
    #[error("cluster `{cluster}` can't reach {target}: {reason}")]
    Unreachable {
        /// The member.
        cluster: String,
        /// Host and port that were asked for.
        target: String,
        /// What its agent says.
        reason: String,
    },
    /// Agent or address took too long, or all streams are in use.
    #[error("cluster `{cluster}`: opening {target} took too long")]
    TimedOut {
        /// The member.
        cluster: String,
        /// Host and port that were asked for.
        target: String,
    },
    /// The relay connection broke meanwhile. A retry helps.
    #[error("relay of cluster `{cluster}` broke")]
    Broken {
        /// The member.
        cluster: String,
        /// What broke it.
        #[source]
        source: io::Error,
    },
}

impl RelayError {
    /// As an I/O error, for those who know only streams.
    #[must_use]
    pub fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::NoRelay(_) => io::ErrorKind::HostUnreachable,
            Self::Refused { .. } => io::ErrorKind::PermissionDenied,
            Self::Unreachable { .. } => io::ErrorKind::ConnectionRefused,
            Self::TimedOut { .. } => io::ErrorKind::TimedOut,
            Self::Broken { .. } => io::ErrorKind::ConnectionReset,
        };
        io::Error::new(kind, self)
    }
}

struct Live {
    id: u64,
    sender: SendRequest<Bytes>,
    slots: Arc<Semaphore>,
    /// Ends the connection's task when this entry is dropped.
    _end: DropGuard,
}

/// The relay connections that are live, by cluster, the newest last. Clones share one table.
#[derive(Clone)]
pub struct RelayTable {
    inner: Arc<Inner>,
}

struct Inner {
    live: Mutex<HashMap<String, Vec<Arc<Live>>>>,
    next: AtomicU64,
    changed: watch::Sender<u64>,
    keepalive: Keepalive,
    /// What agents are told that they have reached.
    replica: OnceLock<String>,
}

/// A stream to this name, which nobody has (RFC 2606), asks the agent for one more connection.
pub const AGAIN: &str = "again.relay.invalid";
/// A stream to a name that ends so tells the agent which replica it has reached: what stands before it. Balancers may lead several connections
/// to one replica.
pub const REPLICA: &str = ".replica.relay.invalid";

impl Default for RelayTable {
    fn default() -> Self {
        Self::new(Keepalive::default())
    }
}

impl RelayTable {
    /// An empty table.
    #[must_use]
    pub fn new(keepalive: Keepalive) -> Self {
        let (live, next, changed) = (Mutex::default(), AtomicU64::new(1), watch::Sender::new(0));
        Self { inner: Arc::new(Inner { live, next, changed, keepalive, replica: OnceLock::new() }) }
    }

    /// Tells each agent that connects from now on that it has reached this replica. The first name counts.
    pub fn call(&self, replica: &str) {
        let _ = self.inner.replica.set(replica.to_owned());
    }

    /// Whether an agent of this cluster is connected.
    #[must_use]
    pub fn is_live(&self, cluster: &str) -> bool {
        self.lock().contains_key(cluster)
    }

    /// The clusters with a live connection, in no order.
    #[must_use]
    pub fn clusters(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Tells of every connection that comes or goes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// Asks each agent for one more connection, which comes to whoever listens at the relay port by then. Takes at most 8 s.
    pub async fn ask_again(&self) {
        // Whoever knows the name refuses it, and comes again; an older agent refuses it, and does not.
        let asks = self.clusters().into_iter().map(|cluster| async move { drop(self.open(&cluster, AGAIN, 1).await) });
        futures::future::join_all(asks).await;
    }

    /// Opens a stream to `host:port` as seen from inside the cluster. Takes at most 8 s. Cancel safe.
    ///
    /// # Errors
    /// See [`RelayError`]. A broken connection is passed over for the next one of the same cluster.
    pub async fn open(&self, cluster: &str, host: &str, port: u16) -> Result<BoxStream, RelayError> {
        let deadline = Instant::now() + OPEN_MAX;
        let candidates: Vec<Arc<Live>> = self.lock().get(cluster).cloned().unwrap_or_default();
        let mut last = RelayError::NoRelay(cluster.to_owned());
        for live in candidates.iter().rev() {
            let ask = ask(live, cluster, host, port);
            match tokio::time::timeout_at(deadline, ask).await {
                Ok(Ok(tunnel)) => return Ok(Box::new(tunnel)),
                Ok(Err(broken @ RelayError::Broken { .. })) => last = broken,
                Ok(Err(answered)) => return Err(answered),
                Err(_) => {
                    return Err(RelayError::TimedOut { cluster: cluster.to_owned(), target: authority(host, port) });
                }
            }
        }
        Err(last)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<Arc<Live>>>> {
        self.inner.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, cluster: &str, sender: SendRequest<Bytes>, end: CancellationToken) -> Arc<Live> {
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let slots = Arc::new(Semaphore::new(STREAMS_MAX));
        let live = Arc::new(Live { id, sender, slots, _end: end.drop_guard() });
        {
            let mut table = self.lock();
            let connections = table.entry(cluster.to_owned()).or_default();
            if connections.len() >= CONNECTIONS_MAX {
                connections.remove(0);
            }
            connections.push(Arc::clone(&live));
        }
        self.inner.changed.send_modify(|n| *n += 1);
        live
    }

    fn remove(&self, cluster: &str, id: u64) {
        {
            let mut table = self.lock();
            if let Some(connections) = table.get_mut(cluster) {
                connections.retain(|live| live.id != id);
                if connections.is_empty() {
                    table.remove(cluster);
                }
            }
        }
        self.inner.changed.send_modify(|n| *n += 1);
    }
}

async fn ask(live: &Live, cluster: &str, host: &str, port: u16) -> Result<Tunnel, RelayError> {
    let target = authority(host, port);
    let broken = |source| RelayError::Broken { cluster: cluster.to_owned(), source };
    let slot =
        Arc::clone(&live.slots).acquire_owned().await.map_err(|_| broken(io::ErrorKind::ConnectionReset.into()))?;
    let uri: Uri = target.parse().map_err(|_| RelayError::Refused {
        cluster: cluster.to_owned(),
        target: target.clone(),
        reason: "not a host".to_owned(),
    })?;
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = uri;
    let mut sender = live.sender.clone().ready().await.map_err(|e| broken(to_io(e)))?;
    let (response, send) = sender.send_request(request, false).map_err(|e| broken(to_io(e)))?;
    let response = response.await.map_err(|e| broken(to_io(e)))?;
    if response.status() == StatusCode::OK {
        return Ok(Tunnel::new(send, response.into_body(), Some(slot)));
    }
    let reason = response.headers().get(REASON_HEADER).and_then(|v| v.to_str().ok()).unwrap_or("no reason given");
    let (cluster, reason) = (cluster.to_owned(), reason.chars().take(200).collect());
    Err(match response.status() {
        StatusCode::FORBIDDEN => RelayError::Refused { cluster, target, reason },
        StatusCode::GATEWAY_TIMEOUT | StatusCode::SERVICE_UNAVAILABLE => RelayError::TimedOut { cluster, target },
        _ => RelayError::Unreachable { cluster, target, reason },
    })
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Serves one relay connection until it ends: registers it, drives it, and takes it out of the table again.
///
/// `cluster` is the name from the peer's certificate. Returns when the connection ends or on `shutdown`.
///
/// # Errors
/// What ended the connection. Streams that were open in it fail too.
pub async fn accept_relay(
    stream: BoxStream,
    cluster: String,
    table: &RelayTable,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let handshake = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(16 * 1024)
        .enable_push(false)
        .handshake::<_, Bytes>(stream);
    let (sender, mut connection) = tokio::time::timeout(Duration::from_secs(10), handshake)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the relay handshake took too long"))?
        .map_err(to_io)?;
    let pings = connection.ping_pong().expect("the first and only one to take it");
    let end = shutdown.child_token();
    let live = table.add(&cluster, sender, end.clone());
    let guard = Registered { table, cluster: &cluster, id: live.id };
    let told = Arc::downgrade(&live);
    drop(live);
    let tell = async {
        if let (Some(replica), Some(live)) = (table.inner.replica.get(), told.upgrade()) {
            // Whoever knows the name refuses it; an older agent does, too.
            drop(ask(&live, &cluster, &format!("{replica}{REPLICA}"), 1).await);
        }
        std::future::pending().await
    };
    let ended = tokio::select! {
        ended = connection => ended.map_err(to_io),
        ended = tell => ended,
        dead = table.inner.keepalive.watch(pings) => Err(dead),
        () = end.cancelled() => Ok(()),
    };
    drop(guard);
    ended
}

/// Takes the connection out of the table also when the task that drives it is dropped.
struct Registered<'a> {
    table: &'a RelayTable,
    cluster: &'a str,
    id: u64,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.table.remove(self.cluster, self.id);
    }
}
