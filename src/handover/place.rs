//! A gateway's place among processes: it takes it over or finds it empty, holds it while it serves, and gives it to the next one.
//!
//! In: where the Unix socket is, whether somebody may be there. Out: listeners that accept from when this process is ready until the next one is.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atoll_reach::{Accept, Listen, RelayTable};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Gate, Giver, Opened, Packets, Sockets, Taken, Turns, take};
use crate::config;
use crate::error::Exit;

/// A table is there within this time: of the hub, else of the last good objects.
const TABLE_MAX: Duration = Duration::from_secs(60);
/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(20);
/// Ports that no Gateway wanted by then are wanted by none.
const WANTED_MAX: Duration = Duration::from_secs(10);
/// Agents that were asked for a connection have opened it by then.
const AGENTS_MAX: Duration = Duration::from_secs(5);

/// The place.
pub(crate) struct Place {
    sockets: Arc<Sockets>,
    path: Option<PathBuf>,
    taken: Option<Taken>,
    turns: Turns,
    packets: Arc<Packets>,
    /// For the process before: where packets are handed back to it.
    back: Option<OwnedFd>,
    /// Whether this process is to say that it is not ready any more.
    leaves: CancellationToken,
}

impl Place {
    /// Finds it. `take_over`: a gateway that runs there is followed; else nobody is asked.
    ///
    /// # Errors
    /// Nothing says where that is, or the running gateway refuses; it goes on.
    pub(crate) async fn find(path: Option<PathBuf>, take_over: bool) -> anyhow::Result<Self> {
        let mut taken = match (&path, take_over) {
            (Some(path), true) => take(path).await?,
            (None, true) => {
                let why = "--take-over: set dataDir or gateway.handover, where the running gateway is found";
                return Err(Exit::Usage(why.to_owned()).into());
            }
            (_, false) => None,
        };
        if taken.is_none() && take_over {
            tracing::info!("no gateway runs there: this one starts as usual");
        }
        let turns = Turns::new(taken.is_none());
        let sockets = taken.as_mut().map(|taken| std::mem::take(&mut taken.sockets)).unwrap_or_default();
        let packets = Arc::new(Packets::new(turns.ports.clone()));
        let keys = taken.as_mut().map(|taken| std::mem::take(&mut taken.keys));
        let back = keys.map(|keys| packets.follow(keys)).transpose()?;
        let (sockets, leaves) = (Sockets::new(sockets), CancellationToken::new());
        Ok(Self { sockets, path, taken, turns, packets, back, leaves })
    }

    /// A port of the configuration, served while it is our turn.
    pub(crate) fn accept(&self, listen: config::Listen) -> anyhow::Result<Box<dyn Accept>> {
        let inner = self.sockets.accept(listen)?;
        Ok(Box::new(Gate { inner, turn: self.turns.ports.subscribe() }))
    }

    /// The relay's port, to which agents come before others.
    pub(crate) fn relay(&self, listen: config::Listen) -> anyhow::Result<Box<dyn Accept>> {
        let inner = self.sockets.accept(listen)?;
        Ok(Box::new(Gate { inner, turn: self.turns.relay.subscribe() }))
    }

    /// What opens the ports of Gateways.
    pub(crate) fn ports(&self) -> Arc<dyn Listen> {
        Arc::new(Opened { sockets: Arc::clone(&self.sockets), packets: Arc::clone(&self.packets) })
    }

    /// Whether this process is to say that it is ready, once it is.
    pub(crate) fn is_wanted(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let leaves = self.leaves();
        move || !leaves.is_cancelled()
    }

    /// Tells when this process is to be sent nothing new.
    pub(crate) fn leaves(&self) -> CancellationToken {
        self.leaves.clone()
    }

    /// Steps in once `ready`, and holds the place until `shutdown`, which it cancels when the next process serves; what that one hands back
    /// is taken until `end`.
    ///
    /// # Errors
    /// There is no table in time: the running gateway goes on.
    pub(crate) async fn hold(
        mut self,
        ready: impl Fn() -> bool,
        relays: RelayTable,
        shutdown: CancellationToken,
        end: CancellationToken,
    ) -> anyhow::Result<()> {
        let back = self.back.take();
        if let Some(taken) = &self.taken {
            let table = timeout(TABLE_MAX, async {
                while !ready() {
                    sleep(LOOK).await;
                }
            });
            match shutdown.run_until_cancelled(table).await {
                None => return Ok(()),
                Some(Err(_)) => {
                    shutdown.cancel();
                    let why = format!(
                        "handover: no route table within {} s; the running gateway goes on",
                        TABLE_MAX.as_secs()
                    );
                    return Err(Exit::Failed(why).into());
                }
                Some(Ok(())) => {}
            }
            self.turns.relay.send_replace(true);
            if let Err(error) = connected(taken, &relays).await {
                tracing::warn!(%error, "handover: not all agents relay to this gateway yet");
            }
            // Both accept from the same queues for a moment, so that nobody waits.
            self.turns.ports.send_replace(true);
            match taken.ready(back).await {
                Ok(()) => tracing::info!("serves in the place of the gateway that ran here"),
                Err(error) => tracing::warn!(%error, "handover: the gateway that ran here does not say that it ends"),
            }
        }
        let (sockets, packets, giver) = (Arc::clone(&self.sockets), Arc::clone(&self.packets), self.giver(relays));
        let tidy = async {
            sleep(WANTED_MAX).await;
            let closed = sockets.close_unwanted();
            if closed > 0 {
                tracing::info!(closed, "handover: closed ports that nobody wants any more");
            }
        };
        match giver {
            Some(giver) => {
                let (back, _) = tokio::join!(giver.serve(shutdown.clone()), shutdown.run_until_cancelled(tidy));
                if let Some(back) = back {
                    packets.receive(back, end).await;
                }
            }
            None => drop(shutdown.run_until_cancelled(tidy).await),
        }
        Ok(())
    }

    /// Opens the Unix socket; where nobody asked for one at that path, none is no reason not to serve.
    fn giver(&self, relays: RelayTable) -> Option<Giver> {
        let path = self.path.as_deref()?;
        let opened = made(path).and_then(|()| {
            let (sockets, leaves) = (Arc::clone(&self.sockets), self.leaves());
            Giver::open(path, sockets, leaves, self.turns.clone(), Arc::clone(&self.packets), relays)
        });
        match opened {
            Ok(giver) => Some(giver),
            Err(error) => {
                let shown = path.display();
                tracing::warn!(path = %shown, %error, "no handover to a next gateway: gateway.handover names another path");
                None
            }
        }
    }
}

/// Waits until agents relay to us that do so to the running gateway.
async fn connected(taken: &Taken, relays: &RelayTable) -> io::Result<()> {
    let clusters = taken.relays().await?;
    let mut changes = relays.changes();
    let live = async {
        while !clusters.iter().all(|cluster| relays.is_live(cluster)) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    Ok(timeout(AGENTS_MAX, live).await?)
}

/// Makes the directory where it is missing.
fn made(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)
}
