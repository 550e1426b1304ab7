//! What the DNS server is told and handed when it starts. Nothing here reads a file or opens a socket.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use atoll_api::topology::Standing;
use atoll_reach::{Accept, Connect, Dialer, Listen};
use atoll_wire::follow::{Report, Snapshot};
use ipnet::IpNet;
use tokio::sync::{oneshot, watch};

use crate::run::Server;

/// What the operator says.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// This replica's name among the sites.
    pub instance: String,
    /// Where this replica stands; askers from loopback and from nowhere that is known count as standing there too.
    pub standing: Standing,
    /// Who stands where, beside the members' own ranges; the longest prefix counts.
    pub clients: Vec<(IpNet, Standing)>,
    /// Resolvers for names that are not ours.
    pub upstreams: Vec<SocketAddr>,
    /// Who may ask for such names.
    pub recursion: Vec<IpNet>,
}

/// What the DNS server is handed.
pub struct Resources {
    /// The topology as it is known here.
    pub topology: watch::Receiver<Snapshot>,
    /// The way into members.
    pub dialer: Dialer,
    /// Where our probes of the members go; the site in it is the caller's.
    pub report: watch::Sender<Report>,
    /// The way to upstream resolvers by TCP.
    pub connect: Arc<dyn Connect>,
    /// Opens the UDP sockets from which members and upstreams are asked.
    pub listen: Arc<dyn Listen>,
    /// Bound, non-blocking; one for each local address, so that answers leave from the address that was asked.
    pub udp: Vec<std::net::UdpSocket>,
    /// The TCP listener on the same port.
    pub tcp: Box<dyn Accept>,
    /// Where metrics are registered.
    pub metrics: prometheus::Registry,
    /// A directory of its own. The server keeps no file today: everything it could keep is in the topology, or cache.
    pub dir: Option<PathBuf>,
    /// Told once queries are answered.
    pub started: Option<oneshot::Sender<Server>>,
}

/// A question for [`Server::explain`].
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// The name.
    pub name: String,
    /// Its type, for example `A`.
    pub qtype: String,
    /// Ask as if from this region.
    pub from: Option<String>,
    /// Ask as if from this address range; comes before `from`.
    pub ecs: Option<IpNet>,
}
