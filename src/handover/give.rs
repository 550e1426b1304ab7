//! The running gateway's half: gives its sockets to whoever may have them, and ends once that one serves.
//!
//! In: the Unix socket. One after the other: a second one waits, and finds the first. Whatever goes wrong before `ready` changes nothing.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atoll_reach::RelayTable;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::wire::{ANSWER_MAX, DESCRIPTORS_MAX, Door, Message, Peer};
use super::{PROTOCOL, Packets, Sockets, Turns};

/// The next process has its table within this time.
const READY_MAX: Duration = Duration::from_secs(90);

/// Gives the sockets away.
pub(crate) struct Giver {
    door: Door,
    path: PathBuf,
    sockets: Arc<Sockets>,
    /// Whether we say that we are not ready any more.
    leaves: CancellationToken,
    turns: Turns,
    packets: Arc<Packets>,
    /// Relay connections of agents, which are to come to the next process, too.
    relays: RelayTable,
}

/// What came of one who knocked.
enum Came {
    /// The next process serves, and hands packets back there.
    Served(Option<OwnedFd>),
    Nothing,
}

impl Giver {
    /// Opens the Unix socket.
    ///
    /// # Errors
    /// The path is too long, or can't be written.
    pub(crate) fn open(
        path: &Path,
        sockets: Arc<Sockets>,
        leaves: CancellationToken,
        turns: Turns,
        packets: Arc<Packets>,
        relays: RelayTable,
    ) -> io::Result<Self> {
        Ok(Self { door: Door::open(path)?, path: path.to_owned(), sockets, leaves, turns, packets, relays })
    }

    /// Waits for the next process until `shutdown`, or until it serves: then that is cancelled. Where the next process hands packets back.
    pub(crate) async fn serve(self, shutdown: CancellationToken) -> Option<OwnedFd> {
        while let Some(came) = shutdown.run_until_cancelled(self.one()).await {
            match came {
                Ok(Came::Served(packets)) => {
                    self.turns.set(false);
                    shutdown.cancel();
                    return packets;
                }
                Ok(Came::Nothing) => {}
                Err(error) => tracing::warn!(%error, "handover: the next gateway broke off; this one goes on"),
            }
            self.turns.set(true);
        }
        // Nobody comes after us: who knocks is to find nobody.
        let _ = std::fs::remove_file(&self.path);
        None
    }

    async fn one(&self) -> io::Result<Came> {
        let peer = match self.door.accept().await {
            Ok(peer) => peer,
            Err(error) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                return Err(error);
            }
        };
        if !peer.is_ours()? {
            let why = "it runs as another user than the running gateway: run it as that one".to_owned();
            tracing::warn!("handover: refused to a process of another user");
            peer.send(&Message::Refused { why }, &[]).await?;
            return Ok(Came::Nothing);
        }
        match timeout(ANSWER_MAX, peer.receive()).await??.0 {
            Message::Hello { protocol: PROTOCOL, version, pid } => self.give(&peer, &version, pid).await,
            Message::Hello { protocol, version, .. } => {
                let own = env!("CARGO_PKG_VERSION");
                let why = format!(
                    "it is version {version} and hands over by protocol {protocol}, the running gateway is {own} and does by {PROTOCOL}: stop \
                     the running one, and start it"
                );
                tracing::warn!(version, protocol, "handover: refused to another version");
                peer.send(&Message::Refused { why }, &[]).await?;
                Ok(Came::Nothing)
            }
            Message::Leave => {
                self.leaves.cancel();
                tracing::info!("not ready any more, as was asked; connections are served as before");
                peer.send(&Message::Leaves, &[]).await?;
                Ok(Came::Nothing)
            }
            other => Err(io::Error::other(format!("`{other:?}` is no beginning"))),
        }
    }

    async fn give(&self, peer: &Peer, version: &str, pid: u32) -> io::Result<Came> {
        let mut open = self.sockets.open()?;
        tracing::info!(pid, version, sockets = open.len(), "handover: the next gateway gets the sockets");
        while !open.is_empty() {
            let (names, descriptors): (Vec<_>, Vec<_>) = open.drain(..open.len().min(DESCRIPTORS_MAX)).unzip();
            let (more, keys) = (!open.is_empty(), self.packets.keys());
            peer.send(&Message::Sockets { names, more, keys }, &descriptors).await?;
        }
        let packets = loop {
            let (said, descriptors) = timeout(READY_MAX, peer.receive()).await??;
            match said {
                Message::Relays => {
                    self.turns.relay.send_replace(false);
                    self.relays.ask_again().await;
                    peer.send(&Message::Relayed { clusters: self.relays.clusters() }, &[]).await?;
                }
                Message::Ready => break descriptors.into_iter().next(),
                other => return Err(io::Error::other(format!("`{other:?}` where it was to be ready"))),
            }
        };
        // It serves already; whether it hears that we drain makes no difference to that.
        let _ = peer.send(&Message::Drains, &[]).await;
        tracing::info!(pid, "handover: the next gateway serves; this one ends what it has");
        Ok(Came::Served(packets))
    }
}
