//! A bad link in user space, for kernels without netem: delay, loss and half-open links, for TCP and UDP.
//!
//! ```text
//! client ── Proxy ── each direction: held? lost? delayed ──> target
//! ```
//! TCP bytes are never lost, as on a real lossy link: a loss costs one retransmission's time, and held bytes wait, the
//! close included, until the link lets them through. UDP packets that are lost or held are gone. The link can be changed
//! while it carries traffic. Never touches the machine's own network.

mod dice;
mod tcp;
mod udp;

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::{Error, Result};

/// What a link does to what it carries.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// How long each direction takes.
    pub delay: Duration,
    /// The share of packets (TCP: of chunks read) that a direction loses, 0 to 1.
    pub loss: f64,
    /// Whether nothing passes from the client to the target.
    pub hold_to_target: bool,
    /// Whether nothing passes from the target to the client.
    pub hold_to_client: bool,
}

/// One of the two directions of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToTarget,
    ToClient,
}

impl Link {
    pub(crate) const fn holds(&self, direction: Direction) -> bool {
        match direction {
            Direction::ToTarget => self.hold_to_target,
            Direction::ToClient => self.hold_to_client,
        }
    }
}

impl FromStr for Link {
    type Err = Error;

    /// Parses `delay=100ms loss=0.1 hold=target|client|both|none`, in any order, each optional.
    fn from_str(text: &str) -> Result<Self> {
        let mut link = Self::default();
        for word in text.split_whitespace() {
            let bad = || Error::Refused(format!("`{word}`: delay=100ms, loss=0.1 or hold=target|client|both|none"));
            match word.split_once('=').ok_or_else(bad)? {
                ("delay", value) => {
                    let ms = value.strip_suffix("ms").unwrap_or(value).parse().map_err(|_| bad())?;
                    link.delay = Duration::from_millis(ms);
                }
                ("loss", value) => {
                    link.loss = value.parse().map_err(|_| bad())?;
                    if !(0.0..=1.0).contains(&link.loss) {
                        return Err(bad());
                    }
                }
                ("hold", value) => {
                    let (to_target, to_client) = match value {
                        "target" => (true, false),
                        "client" => (false, true),
                        "both" => (true, true),
                        "none" => (false, false),
                        _ => return Err(bad()),
                    };
                    (link.hold_to_target, link.hold_to_client) = (to_target, to_client);
                }
                _ => return Err(bad()),
            }
        }
        Ok(link)
    }
}

/// The protocol that a proxy carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Packets, with a socket of its own for each client.
    Udp,
}

/// A running proxy; it and its connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    link: watch::Sender<Link>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens at `listen` (port 0 takes a free one) and carries everything to `target`.
    ///
    /// # Errors
    /// The address can't be bound.
    pub async fn start(protocol: Protocol, listen: SocketAddr, target: SocketAddr, link: Link) -> Result<Self> {
        let (link, seen) = watch::channel(link);
        let what = || format!("proxy at {listen}");
        let mut tasks = JoinSet::new();
        let address = match protocol {
            Protocol::Tcp => {
                let listener = tokio::net::TcpListener::bind(listen).await.map_err(Error::io(what()))?;
                let address = listener.local_addr().map_err(Error::io(what()))?;
                tasks.spawn(tcp::serve(listener, target, seen));
                address
            }
            Protocol::Udp => {
                let socket = tokio::net::UdpSocket::bind(listen).await.map_err(Error::io(what()))?;
                let address = socket.local_addr().map_err(Error::io(what()))?;
                tasks.spawn(udp::serve(socket, target, seen));
                address
            }
        };
        Ok(Self { address, link, _tasks: tasks })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the link for everything that it carries from now on.
    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}
