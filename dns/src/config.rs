//! What the DNS server is told and handed when it starts. Nothing here reads a file or opens a socket.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::MemberDns;
use atoll_api::names::ClusterName;
use atoll_api::topology::Standing;
use atoll_reach::{Accept, Connect, Dialer, Listen};
use atoll_wire::follow::{Line, Report, Snapshot};
use hickory_proto::rr::Name;
use ipnet::IpNet;
use rustls::server::ResolvesServerCert;
use tokio::sync::{oneshot, watch};

use crate::client::Origin;
use crate::geo::Files;
use crate::guard::{Rate, Secrets};
use crate::run::Server;
use crate::tap::Tap;

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
    /// What answers that are kept as octets may take; absent: 32 MiB.
    pub cache_bytes: Option<usize>,
    /// Whose word on their clients' networks counts (RFC 7871).
    pub ecs: Vec<IpNet>,
    /// Who sees what; the first that takes an asker counts.
    pub views: Vec<View>,
    /// Who may ask at all; empty: everybody.
    pub allow: Vec<IpNet>,
    /// How many replies strangers get by UDP.
    pub rate: Rate,
    /// What one client and all may hold open.
    pub limits: Limits,
    /// Whose TCP, DoT and DoH connections begin with a PROXY protocol header that says who the client is.
    pub proxies: Vec<IpNet>,
    /// What is kept of others' answers.
    pub caching: Caching,
    /// Names that are not ours and addresses of inside networks.
    pub rebinding: Rebinding,
    /// The member whose node-local DNS this server is.
    pub home: Option<Home>,
}

/// The member that a node-local DNS serves: everybody who asks stands in it, its own names are asked of its own DNS and given as it says
/// them, and what lies in other members is asked there where that is reached, else of the federation's DNS servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Its name.
    pub cluster: ClusterName,
    /// Its own DNS.
    pub dns: MemberDns,
    /// The federation's domain, while no topology says it: nothing below it is asked of the member.
    pub apex: String,
}

/// What some askers see: their cluster set, their zones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// What people call it.
    pub name: String,
    /// From these ranges; empty: from anywhere.
    pub cidrs: Vec<IpNet>,
    /// Signed with one of these keys; empty: signed or not.
    pub tsig_keys: Vec<Name>,
    /// Over one of these transports; empty: over any.
    pub listeners: Vec<String>,
    /// Their cluster set; else as they stand.
    pub cluster_set: Option<String>,
    /// The zones that they see, by apex; empty: all.
    pub zones: Vec<Name>,
}

impl View {
    /// Whether it is for who asks from `ip`.
    pub(crate) fn takes(&self, ip: IpAddr, origin: &Origin<'_>) -> bool {
        (self.cidrs.is_empty() || self.cidrs.iter().any(|net| net.contains(&ip)))
            && (self.listeners.is_empty() || self.listeners.iter().any(|l| l == origin.listener))
            && (self.tsig_keys.is_empty() || origin.key.is_some_and(|key| self.tsig_keys.contains(key)))
    }
}

/// What connections may take, for each transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all clients.
    pub connections: usize,
    /// Connections of one client: an IPv4 address, a /64.
    pub client_connections: usize,
    /// Queries in flight on one connection; the next one is not read before.
    pub queries: usize,
    /// A connection without a query for so long ends; when three quarters of all are taken, after a fifth of it.
    pub idle: Duration,
    /// From the first octet of a connection to its first query's: PROXY header and handshake.
    pub handshake: Duration,
    /// One write to a client that does not read.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2048,
            client_connections: 128,
            queries: 64,
            idle: Duration::from_secs(10),
            handshake: Duration::from_secs(5),
            write: Duration::from_secs(5),
        }
    }
}

/// What is kept of others' answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caching {
    /// Octets of all answers.
    pub bytes_max: u64,
    /// So long after its end an answer may be given when there is no other (RFC 8767).
    pub stale_max: Duration,
}

impl Default for Caching {
    fn default() -> Self {
        Self { bytes_max: 64 * 1024 * 1024, stale_max: Duration::from_secs(3600) }
    }
}

/// Whether names that are not ours may have addresses of inside networks: private, loopback, link local, the members' own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebinding {
    /// Such addresses are taken out of upstreams' answers.
    pub guard: bool,
    /// Names that may have them, with all below them.
    pub names: Vec<String>,
    /// Ranges that anybody's names may have.
    pub ranges: Vec<IpNet>,
}

impl Default for Rebinding {
    fn default() -> Self {
        Self { guard: true, names: Vec::new(), ranges: Vec::new() }
    }
}

/// What the DNS server is handed.
pub struct Resources {
    /// The topology as it is known here.
    pub topology: watch::Receiver<Snapshot>,
    /// The way into members.
    pub dialer: Dialer,
    /// Where our probes of the members go; the site in it is the caller's.
    pub report: watch::Sender<Report>,
    /// The connection to the hub, for updates of zones.
    pub line: Line,
    /// The way to upstream resolvers by TCP.
    pub connect: Arc<dyn Connect>,
    /// Opens the UDP sockets from which members and upstreams are asked.
    pub listen: Arc<dyn Listen>,
    /// Bound; one for each local address, so that answers leave from the address that was asked, and for each thread that answers.
    pub udp: Vec<std::net::UdpSocket>,
    /// The TCP listener on the same port.
    pub tcp: Box<dyn Accept>,
    /// The encrypted transports that there are to be.
    pub encrypted: Encrypted,
    /// Secrets of cookies that several servers share (RFC 9018 §5), as they are changed; `None` in it or without it: our own, rolled daily.
    pub cookies: Option<watch::Receiver<Option<Secrets>>>,
    /// Files that say where addresses are, as they are changed.
    pub files: Files,
    /// Who looks on at queries.
    pub taps: Vec<Tap>,
    /// Where metrics are registered.
    pub metrics: prometheus::Registry,
    /// A directory of its own. The server keeps no file today: everything it could keep is in the topology, or cache.
    pub dir: Option<PathBuf>,
    /// Told once queries are answered.
    pub started: Option<oneshot::Sender<Server>>,
}

/// Sockets of encrypted transports, and what they show.
#[derive(Default)]
pub struct Encrypted {
    /// DoT.
    pub tls: Option<Box<dyn Accept>>,
    /// DoH.
    pub https: Option<Box<dyn Accept>>,
    /// DoQ.
    pub quic: Option<std::net::UdpSocket>,
    /// DoH3.
    pub h3: Option<std::net::UdpSocket>,
    /// The certificate in use at each handshake; without it none of them can be.
    pub certificate: Option<Arc<dyn ResolvesServerCert>>,
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
