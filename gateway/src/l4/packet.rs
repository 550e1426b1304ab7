//! UDP: packets of one client go to one endpoint as long as they come, and what that sends goes back.
//!
//! A flow is a client's address and port. It ends after a while without packets, when its endpoint is gone, or when the route no longer
//! leads there. Only endpoints that are reached directly: agents relay streams.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{Endpoints, admit};
use crate::endpoint::Endpoint;
use crate::http::InFlight;
use crate::listen::Listening;
use crate::table::{Slot, StreamRule};

/// The largest packet that there is.
const PACKET_BYTES_MAX: usize = 65_535;
/// Flows at once at one port; a new one pushes out the one that was quiet for longest.
const FLOWS_MAX: usize = 8192;
/// A flow without packets ends after this time.
const QUIET_MAX: Duration = Duration::from_secs(60);

struct Flow {
    route: Arc<str>,
    endpoint: Arc<Endpoint>,
    to: Arc<UdpSocket>,
    last: Instant,
    end: CancellationToken,
}

/// Carries packets at one port until `stop`.
pub(crate) async fn packets(listening: Listening, socket: UdpSocket, slot: Slot, stop: CancellationToken) {
    let port = Port { listening, socket: Arc::new(socket), slot };
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut backs = JoinSet::new();
    let mut packet = vec![0; PACKET_BYTES_MAX];
    while let Some(received) = stop.run_until_cancelled(port.socket.recv_from(&mut packet)).await {
        while backs.try_join_next().is_some() {}
        let (length, client) = match received {
            Ok(received) => received,
            // What an earlier packet met with; the port itself is well.
            Err(error) => {
                tracing::debug!(%slot, %error, "receive");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let Err(error) = port.forward(&mut flows, &mut backs, client, &packet[..length]).await else { continue };
        tracing::debug!(%slot, %client, %error, "packet dropped");
        flows.remove(&client);
    }
    backs.shutdown().await;
}

struct Port {
    listening: Listening,
    socket: Arc<UdpSocket>,
    slot: Slot,
}

impl Port {
    async fn forward(
        &self,
        flows: &mut HashMap<SocketAddr, Flow>,
        backs: &mut JoinSet<()>,
        client: SocketAddr,
        packet: &[u8],
    ) -> io::Result<()> {
        let plane = &self.listening.plane;
        let nobody = || io::Error::new(io::ErrorKind::NotFound, "no route takes it");
        let snapshot = plane.snapshots.load_full().ok_or_else(nobody)?;
        let listener = snapshot.table.listener(self.slot, "").cloned().ok_or_else(nobody)?;
        let rule: &StreamRule = listener.streams.find("").ok_or_else(nobody)?;
        let denied = |why| io::Error::new(io::ErrorKind::PermissionDenied, why);
        if let Some(terms) = &rule.terms {
            terms.admit(client.ip()).map_err(denied)?;
        }
        let now = Instant::now();
        let lives = |flow: &Flow| {
            flow.route == rule.route
                && !flow.endpoint.is_retired()
                && !flow.end.is_cancelled()
                && now.duration_since(flow.last) < QUIET_MAX
        };
        if let Some(flow) = flows.get_mut(&client).filter(|flow| lives(flow)) {
            flow.last = now;
            return flow.to.send(packet).await.map(drop);
        }
        if let Some(old) = flows.remove(&client) {
            old.end.cancel();
        }
        let permits = admit(plane, &listener, rule, client.ip()).map_err(denied)?;
        let mut endpoints = Endpoints::of(plane, snapshot, rule, client.ip()).ok_or_else(nobody)?;
        let (endpoint, seat) = endpoints.next().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        let at = plane.pool.packets_to(&endpoint);
        let any = if at.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        let to = Arc::new(self.listening.listen.udp(SocketAddr::new(any, 0)).await?);
        to.connect(at).await?;
        to.send(packet).await?;
        endpoints.keep(&endpoint);
        make_room(flows, now);
        let end = CancellationToken::new();
        let back = back(Arc::clone(&to), Arc::clone(&self.socket), client, InFlight::new(Arc::clone(&endpoint), seat));
        let (token, guard) = (end.clone(), end.clone().drop_guard());
        backs.spawn(async move {
            let _held = (guard, permits);
            token.run_until_cancelled(back).await;
        });
        flows.insert(client, Flow { route: Arc::clone(&rule.route), endpoint, to, last: now, end });
        Ok(())
    }
}

/// Forgets flows that ended; where there are too many, also the quietest.
fn make_room(flows: &mut HashMap<SocketAddr, Flow>, now: Instant) {
    if flows.len() < FLOWS_MAX {
        return;
    }
    flows.retain(|_, flow| !flow.end.is_cancelled() && now.duration_since(flow.last) < QUIET_MAX);
    if flows.len() >= FLOWS_MAX
        && let Some(quietest) = flows.iter().min_by_key(|(_, flow)| flow.last).map(|(client, _)| *client)
        && let Some(flow) = flows.remove(&quietest)
    {
        flow.end.cancel();
    }
}

/// Sends what the endpoint says back to the client, until it is quiet.
async fn back(from: Arc<UdpSocket>, to: Arc<UdpSocket>, client: SocketAddr, in_flight: InFlight) {
    let mut packet = vec![0; PACKET_BYTES_MAX];
    while let Ok(Ok(length)) = timeout(QUIET_MAX, from.recv(&mut packet)).await {
        if let Err(error) = to.send_to(&packet[..length], client).await {
            tracing::debug!(%client, %error, "packet back dropped");
        }
    }
    drop(in_flight);
}
