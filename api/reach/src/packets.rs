//! Packets of one UDP port where one process follows another: connections over QUIC end where they began, and new ones begin with who came last.
//!
//! ```text
//!   clients ──► socket ──► the process that came last ─┬─► its own connections, and new ones
//!                                                      └─► handed back to the process before ─┬─► its own
//!                                                                                             └─► and so on
//! ```
//!
//! Whose a packet is its connection id says, which each process makes with a key of its own (RFC 9000 §5.1). All of them send by the socket.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};

use tokio::sync::{mpsc, watch};

/// What came at once from one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The port where it came in, as it was opened.
    pub at: SocketAddr,
    /// Who sent it.
    pub from: SocketAddr,
    /// The address of ours that it was sent to, where the system says so.
    pub to: Option<IpAddr>,
    /// The two bits of congestion, where the system says so.
    pub ecn: Option<u8>,
    /// The length of one packet; `octets` holds several one after the other, the last of which may be shorter.
    pub stride: usize,
    /// The packets.
    pub octets: Vec<u8>,
}

/// A process's place among those that have the same sockets.
pub trait Succession: Debug + Send + Sync {
    /// With what this process makes connection ids; no other has the same.
    fn key(&self) -> u64;

    /// Whether the sockets are this process's to read from.
    fn turn(&self) -> watch::Receiver<bool>;

    /// The keys of the processes before it that may still have connections.
    fn before(&self) -> Vec<u64>;

    /// Hands packets to the process before. Whether that is still there; what it has no room for is lost, as packets may be.
    fn hand_back(&self, packet: &Packet) -> bool;

    /// What the process after this one hands back of a port, from now on.
    fn handed(&self, at: SocketAddr) -> mpsc::Receiver<Packet>;
}
