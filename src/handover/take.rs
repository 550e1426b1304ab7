//! The next gateway's half: asks the running one for its sockets, and says once it serves.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::timeout;

use super::PROTOCOL;
use super::wire::{ANSWER_MAX, Message, Peer, knock};
use crate::error::Exit;

/// Agents are asked within this time.
const RELAYS_MAX: Duration = Duration::from_secs(10);

/// The sockets of a running gateway, which goes on until it is told that we serve.
pub(super) struct Taken {
    peer: Peer,
    pub(super) sockets: BTreeMap<String, OwnedFd>,
    /// With what it makes connection ids, and those before it.
    pub(super) keys: Vec<u64>,
}

/// Takes the sockets of the gateway that has `path`; nothing where none has.
///
/// # Errors
/// [`Exit::Refused`]: it runs as another user, or by another protocol. Else it broke off; it goes on as before.
pub(super) async fn take(path: &Path) -> anyhow::Result<Option<Taken>> {
    let shown = path.display();
    let Some(peer) = knock(path).with_context(|| format!("handover `{shown}`"))? else { return Ok(None) };
    let hello = hello();
    if !peer.is_ours()? {
        let why = format!("handover `{shown}`: the running gateway is another user's: run this one as that user");
        return Err(Exit::Refused(why).into());
    }
    peer.send(&hello, &[]).await.with_context(|| format!("handover `{shown}`"))?;
    let mut sockets = BTreeMap::new();
    loop {
        let heard = timeout(ANSWER_MAX, peer.receive()).await;
        let (said, descriptors) = heard
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))
            .flatten()
            .with_context(|| format!("handover `{shown}`: the running gateway does not answer; it goes on"))?;
        match said {
            Message::Sockets { names, more, keys } if names.len() == descriptors.len() => {
                sockets.extend(names.into_iter().zip(descriptors));
                if !more {
                    return Ok(Some(Taken { peer, sockets, keys }));
                }
            }
            Message::Refused { why } => {
                return Err(
                    Exit::Refused(format!("handover `{shown}`: the running gateway refuses this one: {why}")).into()
                );
            }
            other => {
                bail!("handover `{shown}`: the running gateway says `{other:?}`, which makes no sense; it goes on")
            }
        }
    }
}

fn hello() -> Message {
    Message::Hello { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id() }
}

impl Taken {
    /// Lets agents open relay connections to us. Whose that are.
    ///
    /// # Errors
    /// The running gateway is gone, or says nothing.
    pub(super) async fn relays(&self) -> io::Result<Vec<String>> {
        self.peer.send(&Message::Relays, &[]).await?;
        match timeout(RELAYS_MAX, self.peer.receive()).await??.0 {
            Message::Relayed { clusters } => Ok(clusters),
            other => Err(io::Error::other(format!("`{other:?}` where it was to name clusters"))),
        }
    }

    /// Says that we serve, and where packets are handed back; comes back once the running gateway takes no more connections.
    ///
    /// # Errors
    /// It is gone, or says nothing: it may go on beside us, on the same sockets.
    pub(super) async fn ready(&self, packets: Option<OwnedFd>) -> io::Result<()> {
        self.peer.send(&Message::Ready, packets.as_slice()).await?;
        match timeout(ANSWER_MAX, self.peer.receive()).await??.0 {
            Message::Drains => Ok(()),
            other => Err(io::Error::other(format!("`{other:?}` where it was to drain"))),
        }
    }
}

/// Tells the gateway that has `path` to say that it is not ready any more.
///
/// # Errors
/// [`Exit::Unreachable`]: nobody has it. Else it does not do so.
pub(crate) async fn leave(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let found = knock(path).with_context(|| format!("handover `{shown}`"))?;
    let Some(peer) = found else {
        return Err(Exit::Unreachable(format!("handover `{shown}`: no gateway runs there")).into());
    };
    peer.send(&Message::Leave, &[]).await?;
    match timeout(ANSWER_MAX, peer.receive()).await??.0 {
        Message::Leaves => Ok(()),
        Message::Refused { why } => Err(Exit::Refused(format!("handover `{shown}`: refused: {why}")).into()),
        other => bail!("handover `{shown}`: the gateway says `{other:?}`"),
    }
}
