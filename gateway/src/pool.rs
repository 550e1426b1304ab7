//! Connections to endpoints: dialed, kept while idle, given to one request after the other.
//!
//! In: an endpoint. Out: a [`Connection`] that takes a request. HTTP/1.1 connections are kept last in, first out, as streams without a task
//! or memory; of HTTP/2 there is one an endpoint, whose task belongs to the tracker and ends with the token.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_api::health::{Check, Target};
use atoll_reach::proxy::{self, Ends};
use atoll_reach::{BoxStream, Checks, Connect, Dialer, Route};
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::endpoint::Endpoint;
use crate::http::Outgoing;
use crate::http1::is_alive;
use crate::metrics::Metrics;

/// A connect that takes longer has failed.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(1);
/// And so has a TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(2);
/// While nobody knows yet whether a member is reached directly, its relay gets its turn too.
pub(crate) const CONNECT_UNKNOWN_MAX: Duration = Duration::from_millis(2500);
/// A node that takes longer is passed by; so long it is not tried again.
const DOOR_MAX: Duration = Duration::from_millis(400);
const DOOR_AGAIN: Duration = Duration::from_secs(10);
/// Idle connections of one endpoint.
const IDLE_LEN_MAX: usize = 512;
/// Servers close idle connections too; the sooner of both should be us.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// An idle or fresh connection.
pub(crate) enum Connection {
    H1 {
        stream: BoxStream,
        /// It served a request before.
        reused: bool,
    },
    H2(http2::SendRequest<Outgoing>),
}

/// Idle connections of one endpoint.
#[derive(Default)]
pub(crate) struct Idle {
    h1: Mutex<VecDeque<(BoxStream, Instant)>>,
    h2: Mutex<Option<http2::SendRequest<Outgoing>>>,
}

impl Idle {
    /// Closes all of them.
    pub(crate) fn clear(&self) {
        self.h1.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.h2.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn take(&self) -> Option<BoxStream> {
        loop {
            let (mut stream, since) = self.h1.lock().unwrap_or_else(PoisonError::into_inner).pop_back()?;
            // Those before it are older still; the sweep forgets them.
            if Instant::now().saturating_duration_since(since) <= IDLE_MAX && is_alive(&mut stream) {
                return Some(stream);
            }
        }
    }

    fn put(&self, stream: BoxStream) {
        let now = Instant::now();
        let mut idle = self.h1.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= IDLE_LEN_MAX {
            idle.pop_front();
        }
        idle.push_back((stream, now));
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.h1.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Forgets those that were idle for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut idle = self.h1.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain_mut(|(c, since)| now.saturating_duration_since(*since) <= IDLE_MAX && is_alive(c));
    }
}

/// How an endpoint is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// At its own address.
    Direct,
    /// At the port that its node has for its Service: its own address is not routed, the node's is.
    NodePort(SocketAddr),
    /// Through its agent.
    Relay,
    /// Nobody knows yet whether its address is routed: that is tried, then the agent.
    Unknown,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Direct => f.write_str("Direct"),
            Self::NodePort(at) => write!(f, "NodePort {at}"),
            Self::Relay => f.write_str("Relay"),
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}

/// Dials endpoints.
#[derive(Clone)]
pub(crate) struct Pool {
    pub(crate) dialer: Dialer,
    pub(crate) connect: Arc<dyn Connect>,
    pub(crate) checks: Arc<Checks>,
    pub(crate) tracker: TaskTracker,
    pub(crate) shutdown: CancellationToken,
    pub(crate) metrics: Metrics,
}

impl Pool {
    /// A connection to `endpoint` for a client's: an idle one unless `fresh`, else a new one.
    ///
    /// # Errors
    /// The connect failed or took too long. Another endpoint may do.
    pub(crate) async fn get(&self, endpoint: &Arc<Endpoint>, ends: Ends, fresh: bool) -> io::Result<Connection> {
        if endpoint.address.h2 {
            return self.h2(endpoint, ends).await.map(Connection::H2);
        }
        if !fresh && let Some(idle) = Self::idle(endpoint) {
            return Ok(idle);
        }
        Ok(Connection::H1 { stream: self.open(endpoint, ends).await?, reused: false })
    }

    /// An idle connection that speaks HTTP/1.1, where there is one.
    pub(crate) fn idle(endpoint: &Endpoint) -> Option<Connection> {
        let stream = endpoint.idle.take()?;
        Some(Connection::H1 { stream, reused: true })
    }

    /// Keeps a connection whose answer was read to its end.
    pub(crate) fn give_back(endpoint: &Endpoint, stream: BoxStream) {
        // One that began with the name of a client is that client's.
        if !endpoint.is_retired() && endpoint.care().proxy.is_none() {
            endpoint.idle.put(stream);
        }
    }

    async fn h2(&self, endpoint: &Arc<Endpoint>, ends: Ends) -> io::Result<http2::SendRequest<Outgoing>> {
        let known = endpoint.idle.h2.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known.filter(|c| !c.is_closed()) {
            return Ok(known);
        }
        let stream = self.open(endpoint, ends).await?;
        let shaken = http2::Builder::new(Tasks)
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(3))
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) = shaken.map_err(io::Error::other)?;
        let shutdown = self.shutdown.clone();
        let end = endpoint.end.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = shutdown.cancelled_owned() => {}
                // The endpoint is disabled.
                () = end.cancelled_owned() => {}
                _ = connection => {}
            }
        });
        if endpoint.care().proxy.is_none() {
            *endpoint.idle.h2.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender.clone());
        }
        Ok(sender)
    }

    /// Opens a stream to `endpoint` for a client's, with the PROXY protocol and TLS where that is to be spoken.
    ///
    /// # Errors
    /// As a TCP connect's; `InvalidData` where its certificate is not trusted.
    pub(crate) async fn open(&self, endpoint: &Endpoint, ends: Ends) -> io::Result<BoxStream> {
        self.open_as(endpoint, ends, endpoint.care().proxy).await
    }

    /// The same with that version of the PROXY protocol, or with none.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn open_as(
        &self,
        endpoint: &Endpoint,
        ends: Ends,
        version: Option<proxy::Version>,
    ) -> io::Result<BoxStream> {
        let mut stream = self.dial(endpoint).await?;
        if let Some(version) = version {
            stream.write_all(&proxy::header(version, ends)).await?;
        }
        let Some(tls) = &endpoint.address.tls else { return Ok(stream) };
        let connector = TlsConnector::from(Arc::clone(&tls.config));
        let secured = timeout(HANDSHAKE_MAX, connector.connect(tls.name.clone(), stream)).await;
        let secured = secured.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no handshake in time")));
        match secured {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => {
                self.metrics.distrusted(endpoint.address.cluster_name());
                Err(io::Error::new(error.kind(), format!("TLS: {error}")))
            }
        }
    }

    /// How `endpoint` is reached now.
    pub(crate) fn way(&self, endpoint: &Endpoint) -> Way {
        let Some(cluster) = &endpoint.address.cluster else { return Way::Direct };
        match self.dialer.route(cluster.as_str()) {
            Route::Direct => Way::Direct,
            Route::Unknown => Way::Unknown,
            Route::Relay => endpoint.door(Instant::now()).map_or(Way::Relay, Way::NodePort),
        }
    }

    /// Where packets for `endpoint` go: they have no relay.
    pub(crate) fn packets_to(&self, endpoint: &Endpoint) -> SocketAddr {
        match self.way(endpoint) {
            Way::NodePort(door) => door,
            _ => SocketAddr::new(endpoint.address.ip, endpoint.address.port),
        }
    }

    /// Whether `endpoint` passes a health check.
    pub(crate) async fn check(&self, endpoint: &Endpoint, check: &Arc<Check>) -> bool {
        let (cluster, ip) = (endpoint.address.cluster.clone(), endpoint.address.ip);
        let (cluster, address) = match (self.way(endpoint), check.port) {
            (Way::NodePort(door), None) => (None, door),
            (_, port) => (cluster, SocketAddr::new(ip, port.unwrap_or(endpoint.address.port))),
        };
        self.checks.probe(&Target { cluster, address, check: Arc::clone(check), group: String::new() }).await
    }

    /// Opens a stream to `endpoint` without TLS: directly, at its node, or by way of its agent.
    ///
    /// # Errors
    /// As a TCP connect's; `TimedOut` after about a second.
    pub(crate) async fn dial(&self, endpoint: &Endpoint) -> io::Result<BoxStream> {
        let address = &endpoint.address;
        let host = address.ip.to_string();
        if let Way::NodePort(door) = self.way(endpoint) {
            match timeout(DOOR_MAX, self.connect.connect(&door.ip().to_string(), door.port())).await {
                Ok(Ok(stream)) => {
                    self.metrics.connected(address.cluster_name(), true);
                    return Ok(stream);
                }
                // The agent's turn.
                _ => endpoint.shut_door(Instant::now() + DOOR_AGAIN),
            }
        }
        let opened = match &address.cluster {
            None => timeout(CONNECT_MAX, self.connect.connect(&host, address.port)).await,
            Some(cluster) => {
                let unknown = self.dialer.route(cluster.as_str()) == Route::Unknown;
                let bound = if unknown { CONNECT_UNKNOWN_MAX } else { CONNECT_MAX };
                let dial = self.dialer.dial(cluster.as_str(), &host, address.port);
                timeout(bound, async { dial.await.map_err(atoll_reach::DialError::into_io) }).await
            }
        };
        let opened = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        self.metrics.connected(address.cluster_name(), opened.is_ok());
        opened
    }
}

/// Runs what hyper has to run for the requests of a connection. What is spawned is moved several times, so that it moves as a pointer.
#[derive(Clone)]
struct Tasks;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        tokio::spawn(Box::pin(task));
    }
}
