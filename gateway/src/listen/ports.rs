//! Ports beside the shared ones: opened when a Gateway wants them, closed when none does.
//!
//! In: the ports wanted. Out: those that could not be opened, and why; they are tried again with the next call. Established connections of a
//! port that is closed finish what they do.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Listening;
use crate::l4::packets;
use crate::table::{Slot, Unopened};

/// The ports that are open.
pub(crate) struct OpenPorts {
    listening: Listening,
    /// Where the shared ports are, and so all others without an address of their own.
    ip: IpAddr,
    open: BTreeMap<Slot, CancellationToken>,
    tasks: JoinSet<()>,
}

impl OpenPorts {
    pub(crate) fn new(listening: Listening, ip: IpAddr) -> Self {
        Self { listening, ip, open: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Opens and closes until the ports open are those wanted. Returns those that could not be opened.
    pub(crate) async fn settle(&mut self, wanted: &BTreeSet<Slot>) -> BTreeMap<Slot, Unopened> {
        let (shared, listen) = (self.ip, &self.listening.listen);
        self.open.retain(|slot, stop| {
            let keep = wanted.contains(slot);
            if !keep {
                tracing::info!(%slot, "listener closed");
                stop.cancel();
                if let Slot::Udp(ip, port) = slot {
                    listen.closed_udp(SocketAddr::new(ip.unwrap_or(shared), *port));
                }
            }
            keep
        });
        while self.tasks.try_join_next().is_some() {}
        let mut failed = BTreeMap::new();
        for slot in wanted {
            if self.open.contains_key(slot) {
                continue;
            }
            match self.open(*slot).await {
                Ok(stop) => drop(self.open.insert(*slot, stop)),
                Err(error) => {
                    let foreign = error.kind() == io::ErrorKind::AddrNotAvailable;
                    failed.insert(*slot, Unopened { foreign, why: error.to_string() });
                }
            }
        }
        failed
    }

    async fn open(&mut self, slot: Slot) -> io::Result<CancellationToken> {
        let stop = self.listening.plane.drain.child_token();
        let at = |ip: Option<IpAddr>, port| SocketAddr::new(ip.unwrap_or(self.ip), port);
        match slot {
            Slot::Udp(ip, port) => {
                let socket = self.listening.listen.udp(at(ip, port)).await?;
                self.tasks.spawn(packets(self.listening.clone(), socket, slot, stop.clone()));
            }
            Slot::Tcp(ip, port) => {
                let listener = self.listening.listen.tcp(at(ip, port)).await?;
                self.tasks.spawn(self.listening.clone().accept(listener, slot, stop.clone()));
            }
            // The shared ports are open from the start.
            Slot::Http | Slot::Https => {}
        }
        tracing::info!(%slot, "listener opened");
        Ok(stop)
    }

    /// Waits for the accept loops, which end with the plane's token.
    pub(crate) async fn finish(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}
