//! QUIC connections for DoQ and DoH3: our own accept loop and limits over quinn.
//!
//! In: a bound UDP socket, a protocol name. Out: established connections, each in a task of its own, seated. hickory-net's servers are made
//! of the same quinn and h3, but take one handshake after another, so that a client that stops in the middle keeps all others out for five
//! seconds; here each handshake has its task and its time. When seats are scarce clients prove their address first (RFC 9000 §8.1.2); when
//! there are none they are refused. Connections stay at the address that they began from: who asks was looked up by it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::seats::{Seat, Seats};
use super::secure;
use crate::config::Limits;
use crate::error::Error;
use crate::respond::Responder;
use crate::transport::Serving;

/// A stream's window: the longest message and its length.
const STREAM_BYTES: u32 = 66 * 1024;
/// What a connection may have on the way, in each direction.
const CONNECTION_BYTES: u32 = 256 * 1024;
/// Handshakes that wait to be looked at, and their octets.
const INCOMING_MAX: usize = 1024;
const INCOMING_BYTES: u64 = 4 * 1024 * 1024;

/// An established connection.
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    pub(crate) from: SocketAddr,
    pub(crate) seat: Seat,
    pub(crate) responder: Responder,
}

/// What is different for each protocol over QUIC.
#[derive(Clone, Copy)]
pub(crate) struct Protocol {
    /// The transport's row.
    pub(crate) transport: &'static str,
    pub(crate) alpn: &'static [u8],
    /// Streams of one direction that a client opens.
    pub(crate) uni_streams: u32,
    /// With which code a connection ends when all is well.
    pub(crate) no_error: u32,
}

/// Serves a socket until the token ends: `talk` has each connection.
///
/// # Errors
/// A socket that can't be used.
pub(crate) fn serving<F>(
    protocol: Protocol,
    socket: std::net::UdpSocket,
    responder: &Responder,
    shutdown: &CancellationToken,
    talk: impl Fn(Peer) -> F + Clone + Send + Sync + 'static,
) -> Result<Serving, Error>
where
    F: Future<Output = ()> + Send + 'static,
{
    let failed = |source| Error::Socket { transport: protocol.transport, source };
    let tls = secure::config(&responder.edge, &[protocol.alpn], true);
    let tls = tls.ok_or_else(|| failed(io::Error::other("there is no certificate to show")))?;
    let crypto = QuicServerConfig::try_from(tls).map_err(|e| failed(io::Error::other(e)))?;
    let config = server(crypto, &responder.edge.limits, protocol.uni_streams);
    socket.set_nonblocking(true).map_err(failed)?;
    let endpoint = Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime));
    let endpoint = endpoint.map_err(failed)?;
    let (responder, shutdown) = (responder.clone(), shutdown.clone());
    Ok(Box::pin(async move {
        let connections = TaskTracker::new();
        let accepting = accept(&endpoint, protocol, responder, &connections, &shutdown, talk);
        shutdown.run_until_cancelled(accepting).await;
        endpoint.close(VarInt::from_u32(protocol.no_error), b"");
        connections.close();
        connections.wait().await;
        endpoint.wait_idle().await;
    }))
}

fn server(crypto: QuicServerConfig, limits: &Limits, uni_streams: u32) -> ServerConfig {
    let mut transport = TransportConfig::default();
    let queries = u32::try_from(limits.queries).unwrap_or(u32::MAX);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(queries))
        .max_concurrent_uni_streams(VarInt::from_u32(uni_streams))
        .stream_receive_window(VarInt::from_u32(STREAM_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_BYTES))
        .send_window(u64::from(CONNECTION_BYTES))
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        .max_idle_timeout(limits.idle.try_into().ok());
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport))
        .migration(false)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES);
    config
}

async fn accept<F>(
    endpoint: &Endpoint,
    protocol: Protocol,
    responder: Responder,
    connections: &TaskTracker,
    shutdown: &CancellationToken,
    talk: impl Fn(Peer) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let seats = Seats::new(responder.edge.limits, responder.metrics.connections(protocol.transport));
    while let Some(incoming) = endpoint.accept().await {
        let (incoming, seat) = match admit(incoming, &seats) {
            Ok(admitted) => admitted,
            Err(why) => {
                responder.metrics.dropped(protocol.transport, why);
                continue;
            }
        };
        let (responder, talk, shutdown) = (responder.clone(), talk.clone(), shutdown.clone());
        connections.spawn(async move {
            let from = incoming.remote_address();
            let established = timeout(responder.edge.limits.handshake, incoming);
            let Some(Ok(Ok(connection))) = shutdown.run_until_cancelled(established).await else {
                return responder.metrics.dropped(protocol.transport, "broken");
            };
            let peer = Peer { connection: connection.clone(), from, seat, responder };
            shutdown.run_until_cancelled(talk(peer)).await;
            connection.close(VarInt::from_u32(protocol.no_error), b"");
        });
    }
}

/// A seat for a client, if it proved its address where that is asked.
///
/// # Errors
/// Why it has none; it was told what to do.
fn admit(incoming: Incoming, seats: &Arc<Seats>) -> Result<(Incoming, Seat), &'static str> {
    if seats.is_crowded() && incoming.may_retry() && !incoming.remote_address_validated() {
        // It can't fail: whether it may be retried was asked just now.
        let _ = incoming.retry();
        return Err("unproven");
    }
    let refused = |incoming: Incoming, why| {
        incoming.refuse();
        Err(why)
    };
    let Some(mut seat) = seats.enter() else { return refused(incoming, "full") };
    if seat.sit(incoming.remote_address().ip()) { Ok((incoming, seat)) } else { refused(incoming, "client_full") }
}
