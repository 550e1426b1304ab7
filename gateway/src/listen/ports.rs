//! Ports beside the shared ones: opened when a Gateway wants them, closed when none does.
//!
//! In: the ports wanted. Out: those that could not be opened, and why; they are tried again with the next call. Established connections of a
//! port that is closed finish what they do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use atoll_reach::Listen;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Listening;
use crate::table::Slot;
use crate::tls;

/// The ports that are open.
pub(crate) struct OpenPorts {
    listening: Listening,
    listen: Arc<dyn Listen>,
    /// Where the shared ports are, and so all others.
    ip: IpAddr,
    open: BTreeMap<u16, CancellationToken>,
    tasks: JoinSet<()>,
}

impl OpenPorts {
    pub(crate) fn new(listening: Listening, listen: Arc<dyn Listen>, ip: IpAddr) -> Self {
        Self { listening, listen, ip, open: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Opens and closes until the ports open are those wanted. Returns those that could not be opened.
    pub(crate) async fn settle(&mut self, wanted: &BTreeSet<u16>) -> BTreeMap<u16, String> {
        self.open.retain(|port, stop| {
            let keep = wanted.contains(port);
            if !keep {
                tracing::info!(port, "listener closed");
                stop.cancel();
            }
            keep
        });
        while self.tasks.try_join_next().is_some() {}
        let mut failed = BTreeMap::new();
        for port in wanted {
            if self.open.contains_key(port) {
                continue;
            }
            match self.open(*port).await {
                Ok(stop) => drop(self.open.insert(*port, stop)),
                Err(why) => drop(failed.insert(*port, why)),
            }
        }
        failed
    }

    async fn open(&mut self, port: u16) -> Result<CancellationToken, String> {
        let slot = Slot::Port(port);
        let plane = &self.listening.plane;
        let tls = tls::server(Arc::clone(&plane.snapshots), slot).map_err(|e| e.to_string())?;
        let listener = self.listen.tcp(SocketAddr::new(self.ip, port)).await.map_err(|e| e.to_string())?;
        let stop = plane.drain.child_token();
        tracing::info!(at = %listener.local_addr(), "listener opened");
        self.tasks.spawn(self.listening.clone().accept(listener, slot, tls, stop.clone()));
        Ok(stop)
    }

    /// Waits for the accept loops, which end with the plane's token.
    pub(crate) async fn finish(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}
