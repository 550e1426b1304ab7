//! A gateway gives its place to the next process on the machine: its listening sockets go over a Unix socket, so that no client notices.
//!
//! ```text
//!   next                                    running
//!   hello (protocol, version) ────────────► same user? same protocol?
//!   takes the sockets ◄──────────────────── names and descriptors (SCM_RIGHTS)
//!   has its table: accepts, says ready ───► accepts no more; drains; ends with 0
//!   hands back packets of QUIC ───────────► of connections that end there
//!   opens the Unix socket for the one after it ◄── drains
//! ```
//!
//! In: the path of the Unix socket (`gateway.handover`, else in the data directory). Both processes share the sockets and their queues, so that no
//! connection is lost on the way. One that fails before it is ready leaves the running one as it was. Source: unix(7), HAProxy's `expose-fd`.

mod gate;
mod give;
mod packets;
mod place;
mod sockets;
mod take;
#[cfg(test)]
mod tests;
mod wire;

use std::path::{Path, PathBuf};

use tokio::sync::watch;

use gate::Gate;
use give::Giver;
use packets::Packets;
pub(crate) use place::Place;
use sockets::{Opened, Sockets};
pub(crate) use take::leave;
use take::{Taken, take};

/// Raised where a message or its meaning changes: programs that differ in it refuse each other.
const PROTOCOL: u32 = 2;

/// Whose turn it is: that of this process, or not.
#[derive(Clone)]
struct Turns {
    /// At all ports but the relay's.
    ports: watch::Sender<bool>,
    /// At the relay's, which agents come to first.
    relay: watch::Sender<bool>,
}

impl Turns {
    fn new(ours: bool) -> Self {
        Self { ports: watch::Sender::new(ours), relay: watch::Sender::new(ours) }
    }

    fn set(&self, ours: bool) {
        self.ports.send_replace(ours);
        self.relay.send_replace(ours);
    }
}

/// Where the Unix socket is: as written, else in the gateway's directory; nowhere without one.
pub(crate) fn path(said: Option<&Path>, dir: Option<&Path>) -> Option<PathBuf> {
    said.map(Path::to_owned).or_else(|| dir.map(|dir| dir.join("handover.sock")))
}
