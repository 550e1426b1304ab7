//! Where HTTP/3 is served: beside every port of HTTPS, where nobody else has the UDP port of that number.
//!
//! In: the table, and the UDP ports that its listeners want. Out: endpoints of QUIC, opened and closed as those change, and the slots where one
//! listens, so that clients are told of no other. A port that can't be opened is said (in the log, a metric, by listeners' condition
//! `atoll.dev/HTTP3`), and tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{AsyncUdpSocket, Runtime as _, TokioRuntime};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::endpoint::serve;
use super::socket::Socket;
use crate::listen::Listening;
use crate::table::{Mode, Protocol, Slot, Table};

/// A socket has so long to be closed before its port is opened for something else.
const CLOSED_WITHIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The ports that are open.
pub(crate) struct Doors {
    listening: Listening,
    /// Where the shared ports are, and so all others without an address of their own.
    https: SocketAddr,
    enabled: bool,
    open: BTreeMap<Slot, Door>,
    /// Those that close: their clients finish what they do.
    closing: Vec<Door>,
    /// Those that are not open, and why.
    lacking: BTreeMap<Slot, String>,
}

struct Door {
    at: SocketAddr,
    stop: CancellationToken,
    now: CancellationToken,
    task: JoinHandle<()>,
}

impl Doors {
    pub(crate) fn new(listening: Listening, https: SocketAddr, enabled: bool) -> Self {
        Self { listening, https, enabled, open: BTreeMap::new(), closing: Vec::new(), lacking: BTreeMap::new() }
    }

    /// Those that could not be opened and are to be tried again, and why.
    pub(crate) fn lacking(&self) -> &BTreeMap<Slot, String> {
        &self.lacking
    }

    /// Closes what UDP listeners want, before they open it.
    pub(crate) async fn give_way(&mut self, wanted: &BTreeSet<Slot>) {
        let takers = self.takers(wanted);
        let given: Vec<Slot> =
            self.open.iter().filter(|(_, d)| is_taken(&takers, d.at)).map(|(slot, _)| *slot).collect();
        for slot in given {
            self.close(slot);
        }
        for door in self.closing.extract_if(.., |door| is_taken(&takers, door.at)).collect::<Vec<_>>() {
            door.now.cancel();
            // The listener is told by its own bind where that takes longer.
            let _ = timeout(CLOSED_WITHIN, door.task).await;
        }
    }

    /// Opens and closes until the ports open are those of the table. `wanted`: what its other listeners want.
    pub(crate) async fn settle(&mut self, table: &Table, wanted: &BTreeSet<Slot>) {
        self.closing.retain(|door| !door.task.is_finished());
        let speaks = if self.enabled { of(table) } else { BTreeSet::new() };
        let gone: Vec<Slot> = self.open.keys().filter(|slot| !speaks.contains(slot)).copied().collect();
        for slot in gone {
            self.close(slot);
        }
        let takers = self.takers(wanted);
        let mut lacking = BTreeMap::new();
        for slot in speaks {
            if self.open.contains_key(&slot) {
                continue;
            }
            let Some(at) = self.at(slot) else { continue };
            let opened = if is_taken(&takers, at) {
                Err(format!("a UDP listener has port {}", at.port()))
            } else {
                self.open(slot, at).await.map_err(|error| error.to_string())
            };
            if let Err(why) = opened {
                if self.lacking.get(&slot) != Some(&why) {
                    tracing::warn!(%slot, udp = %at, why, "no HTTP/3");
                }
                lacking.insert(slot, why);
            }
        }
        if self.lacking != lacking {
            let gauge = &self.listening.plane.metrics.http3_lacking;
            gauge.reset();
            lacking.keys().for_each(|slot| gauge.with_label_values(&[&slot.to_string()]).set(1));
            self.lacking = lacking;
        }
    }

    async fn open(&mut self, slot: Slot, at: SocketAddr) -> std::io::Result<()> {
        let socket = self.listening.listen.udp(at).await?.into_std()?;
        let mut socket: Arc<dyn AsyncUdpSocket> = TokioRuntime.wrap_udp_socket(socket)?;
        // Its connections can't be moved: where another process takes our place they end here, by the packets that it hands back.
        let place = self.listening.listen.succession();
        let key = place.as_ref().map(|place| place.key());
        if let Some(place) = place {
            socket = Socket::succeeding(socket, at, place);
        }
        let (stop, now) = (self.listening.plane.drain.child_token(), CancellationToken::new());
        let (listening, stopped, hurried) = (self.listening.clone(), stop.clone(), now.clone());
        // It ends after the connections, which have the drain time.
        let task = self.listening.plane.tracker.spawn(async move {
            let held = Arc::downgrade(&socket);
            serve(listening, socket, key, slot, stopped, hurried).await;
            // The port is free once the library's own task let it go.
            let closed = async {
                while held.strong_count() > 0 {
                    sleep(LOOK_AGAIN).await;
                }
            };
            let _ = timeout(CLOSED_WITHIN, closed).await;
        });
        self.open.insert(slot, Door { at, stop, now, task });
        self.listening.plane.http3.put(slot, true);
        tracing::info!(%slot, udp = %at, "HTTP/3 opened");
        Ok(())
    }

    fn close(&mut self, slot: Slot) {
        let Some(door) = self.open.remove(&slot) else { return };
        self.listening.plane.http3.put(slot, false);
        tracing::info!(%slot, udp = %door.at, "HTTP/3 closed");
        self.listening.listen.closed_udp(door.at);
        door.stop.cancel();
        self.closing.push(door);
    }

    /// The UDP port of a slot of HTTPS.
    fn at(&self, slot: Slot) -> Option<SocketAddr> {
        match slot {
            Slot::Https => Some(self.https),
            Slot::Tcp(ip, port) => Some(SocketAddr::new(ip.unwrap_or(self.https.ip()), port)),
            Slot::Http | Slot::Udp(..) => None,
        }
    }

    /// Where UDP listeners are.
    fn takers(&self, wanted: &BTreeSet<Slot>) -> Vec<SocketAddr> {
        let udp = wanted.iter().filter_map(|slot| match slot {
            Slot::Udp(ip, port) => Some(SocketAddr::new(ip.unwrap_or(self.https.ip()), *port)),
            _ => None,
        });
        udp.collect()
    }
}

fn is_taken(takers: &[SocketAddr], at: SocketAddr) -> bool {
    let meet = |a: IpAddr, b: IpAddr| a == b || a.is_unspecified() || b.is_unspecified();
    takers.iter().any(|taker| taker.port() == at.port() && meet(taker.ip(), at.ip()))
}

/// The slots where requests come by TLS that ends here.
fn of(table: &Table) -> BTreeSet<Slot> {
    let takes = |slot: &crate::table::SlotTable| {
        let mut listeners = slot.listeners.values();
        slot.protocol == Protocol::Tls && listeners.any(|l| l.mode == Mode::Requests && l.server.is_some())
    };
    table.slots.iter().filter(|(_, slot)| takes(slot)).map(|(slot, _)| *slot).collect()
}
