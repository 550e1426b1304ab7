//! QUIC at one port: who may come, the handshake, and the end.
//!
//! In: a UDP socket, a slot. Out: established connections, each a task of the plane's tracker. Bounds: connections, together with those over TCP,
//! and handshakes, of which those beyond some must prove their address first (RFC 9000 §8.1.2). Whoever has not may not be sent more than three
//! times what came from it, which the library sees to (§8.1). A connection stays at the address that it came from, for rights and limits go
//! by that. Balancers that say whom they speak for by the PROXY protocol can't say so here, and are refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atoll_reach::proxy::Ends;
use quinn::{
    AsyncUdpSocket, Connection, Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime, TransportConfig,
};
use quinn_proto::HashedConnectionIdGenerator;
use rustls_pki_types::CertificateDer;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::frames::Code;
use super::hello::{Agreed, Names};
use super::talk::talk;
use crate::config::Limits;
use crate::http::{Client, PING_EVERY, PONG_MAX};
use crate::listen::Listening;
use crate::metrics::Cut;
use crate::plane::Plane;
use crate::table::Slot;
use crate::tls::Shown;

/// What one stream, and a whole connection, may have on the way in each direction.
const STREAM_BYTES: u32 = 256 * 1024;
const CONNECTION_BYTES: u32 = 1024 * 1024;
/// Streams of one direction: control, QPACK's two, and some that mean nothing (RFC 9114 §6.2).
const ONE_WAY_STREAMS_MAX: u32 = 8;
/// First packets that wait to be looked at, and their octets.
const INCOMING_MAX: usize = 1024;
const INCOMING_BYTES: u64 = 4 * 1024 * 1024;
/// Handshakes at once of which none has to prove its address.
const UNPROVEN_MAX: usize = 64;
/// What was said last has so long to go out.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves a port until `stop`; then those who are there finish what they do. `now`: they end at once. `key`: with what connection ids are made,
/// where other processes are to know them.
pub(super) async fn serve(
    listening: Listening,
    socket: Arc<dyn AsyncUdpSocket>,
    key: Option<u64>,
    slot: Slot,
    stop: CancellationToken,
    now: CancellationToken,
) {
    let plane = Arc::clone(&listening.plane);
    let started = Names::new(Arc::clone(&plane), slot).and_then(|names| {
        let config = Some(server(names, &plane.limits));
        let mut endpoint = EndpointConfig::default();
        if let Some(key) = key {
            endpoint.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
        }
        Endpoint::new_with_abstract_socket(endpoint, config, socket, Arc::new(TokioRuntime)).map_err(|e| e.to_string())
    });
    let endpoint = match started {
        Ok(endpoint) => endpoint,
        Err(error) => return tracing::error!(%slot, error, "no HTTP/3"),
    };
    let Ok(local) = endpoint.local_addr() else {
        return tracing::error!(%slot, "no HTTP/3: the socket has no address");
    };
    if stop.run_until_cancelled(listening.until_ready()).await.is_some() {
        let shaking = Arc::<AtomicUsize>::default();
        while let Some(Some(incoming)) = stop.run_until_cancelled(endpoint.accept()).await {
            let Some((incoming, seat)) = admit(&listening, incoming, &shaking) else { continue };
            let (plane, stop) = (Arc::clone(&plane), stop.clone());
            listening.plane.tracker.spawn(meet(plane, incoming, (slot, local), seat, stop));
        }
    }
    endpoint.set_server_config(None);
    tokio::select! {
        () = endpoint.wait_idle() => {}
        () = plane.end.cancelled() => {}
        () = now.cancelled() => {}
    }
    endpoint.close(Code::NoError.into(), b"");
    let _ = timeout(LAST_WORDS, endpoint.wait_idle()).await;
}

fn server(names: Names, limits: &Limits) -> ServerConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(limits.streams_max.into())
        .max_concurrent_uni_streams(ONE_WAY_STREAMS_MAX.into())
        .stream_receive_window(STREAM_BYTES.into())
        .receive_window(CONNECTION_BYTES.into())
        .send_window(CONNECTION_BYTES.into())
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        // Whether a client is there is asked as over HTTP/2; how long it may be without a stream is not QUIC's to know.
        .keep_alive_interval(Some(PING_EVERY))
        .max_idle_timeout((PING_EVERY + PONG_MAX).try_into().ok());
    let mut config = ServerConfig::with_crypto(Arc::new(names));
    config
        .transport_config(Arc::new(transport))
        .migration(false)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES);
    config
}

/// What a connection holds while it is there.
struct Seat {
    _permit: OwnedSemaphorePermit,
    shaking: Shaking,
}

/// One more handshake, until that is dropped.
struct Shaking(Arc<AtomicUsize>);

impl Shaking {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Shaking {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether somebody may begin; if not, it was told what to do.
fn admit(listening: &Listening, incoming: Incoming, shaking: &Arc<AtomicUsize>) -> Option<(Incoming, Seat)> {
    let plane = &listening.plane;
    if plane.is_proxy(incoming.remote_address().ip()) {
        incoming.refuse();
        return None;
    }
    let scarce = listening.slots.available_permits() < plane.limits.connections_max / 4;
    let crowded = scarce || shaking.load(Ordering::Relaxed) >= UNPROVEN_MAX;
    if crowded && !incoming.remote_address_validated() {
        // It can't fail: who has not proven its address may be asked to.
        let _ = incoming.retry();
        return None;
    }
    let Ok(permit) = Arc::clone(&listening.slots).try_acquire_owned() else {
        incoming.refuse();
        return None;
    };
    Some((incoming, Seat { _permit: permit, shaking: Shaking::begin(shaking) }))
}

/// Shakes hands, and serves the connection.
async fn meet(
    plane: Arc<Plane>,
    incoming: Incoming,
    (slot, local): (Slot, SocketAddr),
    seat: Seat,
    stop: CancellationToken,
) {
    let peer = incoming.remote_address();
    let connecting = plane.end.run_until_cancelled(timeout(plane.limits.handshake_timeout, incoming)).await;
    let connection = match connecting {
        None => return,
        Some(Ok(Ok(connection))) => connection,
        Some(Ok(Err(error))) => return tracing::debug!(%peer, %slot, %error, "connection ended"),
        Some(Err(_)) => return plane.metrics.cut(Cut::Tls),
    };
    let Seat { _permit, shaking } = seat;
    drop(shaking);
    let Some(client) = client(&connection, slot, local) else { return };
    plane.metrics.connections.inc();
    let open = plane.connections.open(peer, slot);
    talk(Arc::clone(&plane), connection, client, stop).await;
    drop(open);
    plane.metrics.connections.dec();
}

fn client(connection: &Connection, slot: Slot, local: SocketAddr) -> Option<Client> {
    let ip = connection.local_ip().unwrap_or(local.ip());
    let agreed = connection.handshake_data()?.downcast::<Agreed>().ok()?;
    let shown = connection.peer_identity().and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
    let certificate = shown.and_then(|chain| chain.into_iter().next());
    Some(Client {
        slot,
        ends: Ends { client: connection.remote_address(), server: SocketAddr::new(ip, local.port()) },
        tls: true,
        sni: agreed.name,
        certificate: certificate.map(|certificate| Box::new(Shown { certificate, verified: agreed.verifies })),
        direct: false,
    })
}
