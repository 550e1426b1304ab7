//! Queries by TCP: many on one connection, answered as the answers come (RFC 7766 §6.2.1.1).
//!
//! In: a listener. Out: replies. Bounds: connections in all and for each client, queries in flight for each connection, time without
//! a whole query. When descriptors run out accepting pauses (never spins) and goes on.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_reach::{Accept, BoxStream};
use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{SinkExt as _, StreamExt as _};
use tokio::time::{sleep, timeout};
use tokio_util::codec::Framed;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Serving, Sockets, reply};
use crate::error::Error;
use crate::forward::codec;
use crate::respond::{Responder, Via};

/// Connections of all clients.
const CONNECTIONS_MAX: usize = 1024;
/// Connections of one client.
const CLIENT_CONNECTIONS_MAX: usize = 128;
/// Queries in flight on one connection; the next one is not read before.
const IN_FLIGHT_MAX: usize = 64;
/// A connection without a whole query for so long ends.
const IDLE: Duration = Duration::from_secs(10);
/// One write to a client.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// After an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);

const VIA: Via = Via { transport: "tcp", stream: true, encrypted: false, keepalive: Some(100) };

pub(super) fn serve(
    sockets: &mut Sockets,
    responder: &Responder,
    shutdown: &CancellationToken,
) -> Result<Vec<Serving>, Error> {
    let Some(listener) = sockets.tcp.take() else { return Ok(Vec::new()) };
    let (responder, shutdown) = (responder.clone(), shutdown.clone());
    Ok(vec![Box::pin(async move {
        let connections = TaskTracker::new();
        shutdown.run_until_cancelled(accept(listener, responder, &connections, &shutdown)).await;
        connections.close();
        connections.wait().await;
    })])
}

/// Connections by client.
type Counts = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One connection in the counts, until it is dropped.
struct Counted(Counts, IpAddr);

impl Counted {
    fn new(counts: &Counts, ip: IpAddr) -> Option<Self> {
        let mut clients = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = clients.entry(ip).or_default();
        (*count < CLIENT_CONNECTIONS_MAX).then(|| {
            *count += 1;
            Self(Arc::clone(counts), ip)
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.1);
            }
        }
    }
}

async fn accept(
    mut listener: Box<dyn Accept>,
    responder: Responder,
    connections: &TaskTracker,
    shutdown: &CancellationToken,
) {
    let counts = Counts::default();
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting DNS connections fails");
                sleep(PAUSE).await;
                continue;
            }
        };
        let counted = Counted::new(&counts, from.ip()).filter(|_| connections.len() < CONNECTIONS_MAX);
        let Some(counted) = counted else {
            responder.metrics.dropped(VIA.transport, "full");
            continue;
        };
        let (responder, shutdown) = (responder.clone(), shutdown.clone());
        connections.spawn(async move {
            shutdown.run_until_cancelled(converse(stream, from, responder)).await;
            drop(counted);
        });
    }
}

/// One connection, until the client ends it, is idle, or does not read.
async fn converse(stream: BoxStream, from: SocketAddr, responder: Responder) {
    let mut framed = Framed::new(stream, codec());
    let mut answering = FuturesUnordered::new();
    let mut open = true;
    while open || !answering.is_empty() {
        tokio::select! {
            frame = framed.next(), if open && answering.len() < IN_FLIGHT_MAX => match frame {
                Some(Ok(packet)) => answering.push(reply(responder.clone(), packet.to_vec(), from, VIA)),
                // The client has said all; what it asked is still answered.
                Some(Err(_)) | None => open = false,
            },
            Some(octets) = answering.next(), if !answering.is_empty() => {
                let Some(octets) = octets else { return };
                match timeout(WRITE_MAX, framed.send(Bytes::from(octets))).await {
                    Ok(Ok(())) => {}
                    _ => return,
                }
            }
            () = sleep(IDLE), if answering.is_empty() => return,
        }
    }
}
