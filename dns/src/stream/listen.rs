//! Accepts connections for one transport.
//!
//! In: a listener. Out: clients, each in a task of its own, seated and known by their address. Where descriptors run out accepting pauses
//! (it never spins), those who are there are served on, and it goes on once some are free. What waits meanwhile waits in the kernel.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use atoll_reach::{Accept, BoxStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::proxy;
use super::seats::{Seat, Seats};
use crate::edge::Edge;
use crate::respond::Responder;
use crate::transport::Serving;

/// After an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// A connected client.
pub(crate) struct Client {
    pub(crate) stream: BoxStream,
    /// Whose queries these are.
    pub(crate) from: SocketAddr,
    /// Kept as long as it is connected.
    pub(crate) seat: Seat,
    /// Whether a PROXY header would be a stranger's.
    pub(crate) direct: bool,
    pub(crate) responder: Responder,
    pub(crate) tasks: Tasks,
}

/// Tasks that a connection needs beside its own: they end with the server, which awaits them.
#[derive(Clone)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Tasks {
    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let shutdown = self.shutdown.clone();
        self.tracker.spawn(async move { shutdown.run_until_cancelled(task).await });
    }
}

/// Serves a listener until the token ends: `talk` has each connection.
pub(crate) fn serving<F>(
    transport: &'static str,
    listener: Box<dyn Accept>,
    responder: &Responder,
    shutdown: &CancellationToken,
    talk: impl Fn(Client) -> F + Clone + Send + Sync + 'static,
) -> Serving
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let (responder, shutdown) = (responder.clone(), shutdown.clone());
    Box::pin(async move {
        let connections = TaskTracker::new();
        let door = Door { transport, responder, connections: connections.clone(), shutdown: shutdown.clone() };
        shutdown.run_until_cancelled(door.open(listener, talk)).await;
        connections.close();
        connections.wait().await;
    })
}

struct Door {
    transport: &'static str,
    responder: Responder,
    connections: TaskTracker,
    shutdown: CancellationToken,
}

impl Door {
    async fn open<F>(self, mut listener: Box<dyn Accept>, talk: impl Fn(Client) -> F + Clone + Send + Sync + 'static)
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let seats = Seats::new(self.responder.edge.limits, self.responder.metrics.connections(self.transport));
        let mut failing = false;
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(transport = self.transport, %error, "accepting DNS connections fails");
                    }
                    sleep(PAUSE).await;
                    continue;
                }
            };
            if std::mem::take(&mut failing) {
                tracing::info!(transport = self.transport, "accepting DNS connections again");
            }
            let Some(seat) = seats.enter() else {
                self.responder.metrics.dropped(self.transport, "full");
                continue;
            };
            let (transport, responder, talk) = (self.transport, self.responder.clone(), talk.clone());
            let shutdown = self.shutdown.clone();
            let tasks = Tasks { tracker: self.connections.clone(), shutdown: shutdown.clone() };
            self.connections.spawn(async move {
                let metrics = responder.metrics.clone();
                let served = async { talk(admit(stream, from, seat, responder, tasks).await?).await };
                if let Some(Err(error)) = shutdown.run_until_cancelled(served).await {
                    metrics.dropped(transport, why(&error));
                    tracing::debug!(transport, %from, %error, "a DNS connection ended early");
                }
            });
        }
    }
}

/// Finds out whose connection it is and gives it its seat.
async fn admit(
    mut stream: BoxStream,
    from: SocketAddr,
    mut seat: Seat,
    responder: Responder,
    tasks: Tasks,
) -> io::Result<Client> {
    let edge: &Edge = &responder.edge;
    let direct = !edge.is_proxy(from.ip());
    let mut client = from;
    if !direct {
        let taken = timeout(edge.limits.handshake, proxy::take(&mut stream)).await;
        let said = taken.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no PROXY protocol header"))??;
        client = said.map_or(from, |ends| ends.client);
    }
    // A balancer may hold many: those it speaks for are counted.
    if (direct || client != from) && !seat.sit(client.ip()) {
        return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the client has as many connections as it may"));
    }
    Ok(Client { stream, from: client, seat, direct, responder, tasks })
}

/// What a connection that ended early is counted as.
fn why(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::QuotaExceeded => "client_full",
        io::ErrorKind::TimedOut => "slow",
        io::ErrorKind::InvalidData => "malformed",
        _ => "broken",
    }
}
