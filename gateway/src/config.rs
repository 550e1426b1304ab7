//! What the gateway is told, and what it is given: the face that `src/` wires.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::topology::Standing;
use atoll_reach::{Accept, Connect, Dialer, Listen};
use atoll_wire::follow::{Report, Snapshot};
use atoll_wire::kept::Seal;
use ipnet::IpNet;
use tokio::sync::{oneshot, watch};

use crate::policy::Trusted;
use crate::{AccessLog, AcmeSettings, NameSettings, ProviderSettings, Server, TracesTo};

/// What a gateway is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// This replica's name, the same over its restarts.
    pub instance: String,
    /// Where it stands: what is near is preferred. Loopback clients and those that nothing is known of count as there too.
    pub standing: Standing,
    /// Where clients stand, by address range; the longest range counts.
    pub clients: Vec<(IpNet, Standing)>,
    /// What the status of Gateways gives as their addresses; empty: the address that HTTP is served at.
    pub addresses: Vec<String>,
    /// From which each Gateway gets addresses of its own; empty: all Gateways share the ports.
    pub pool: Vec<IpNet>,
    /// Whether a Service of type LoadBalancer is made for each Gateway; not with `pool`.
    pub service: bool,
    /// The addresses of this process, to which these Services send.
    pub own: Vec<IpAddr>,
    /// Its node.
    pub node: Option<String>,
    /// The GatewayClasses that are served, and the IngressClasses of their names; empty: all of our controller.
    pub classes: Vec<String>,
    /// Whether listeners of HTTPS answer HTTP/3, too.
    pub http3: bool,
    /// Bounds on what clients may do.
    pub limits: Limits,
    /// Whose word on clients counts.
    pub trusted: Trusted,
    /// Whose connections begin with a PROXY protocol header.
    pub proxies: Vec<IpNet>,
    /// What the access log says; `None`: there is none, or it says all.
    pub access_log: Option<AccessLog>,
    /// Whether requests are counted by route, too: as many series as there are routes.
    pub count_routes: bool,
    /// Where traces go; `None`: what clients say of theirs passes untouched.
    pub traces: Option<TracesTo>,
    /// Balancers that others own.
    pub providers: Vec<ProviderSettings>,
    /// The CA that certificates are ordered from; none: nothing is ordered.
    pub acme: Option<AcmeSettings>,
    /// IngressClasses that are served beside `atoll` and those of our controller.
    pub ingress_classes: Vec<String>,
    /// Namespace and name of the Secret with the certificate of Ingresses' hosts that have none.
    pub default_certificate: Option<(String, String)>,
    /// Namespace and name of the ConfigMaps that say which ports of TCP, and of UDP, are passed on to Services.
    pub ingress_services: [Option<(String, String)>; 2],
    /// How names of backends are resolved.
    pub names: NameSettings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance: "gateway".to_owned(),
            standing: Standing::default(),
            clients: Vec::new(),
            addresses: Vec::new(),
            pool: Vec::new(),
            service: false,
            own: Vec::new(),
            node: None,
            classes: Vec::new(),
            http3: true,
            limits: Limits::default(),
            trusted: Trusted::default(),
            proxies: Vec::new(),
            access_log: None,
            count_routes: false,
            traces: None,
            providers: Vec::new(),
            acme: None,
            ingress_classes: Vec::new(),
            default_certificate: None,
            ingress_services: [None, None],
            names: NameSettings::default(),
        }
    }
}

/// Bounds on what clients may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, over all listeners; more wait to be accepted.
    pub connections_max: usize,
    /// Connections at once of one client, an IPv4 address or a /64; one more is closed. 0: as many as like.
    pub client_connections_max: usize,
    /// A request head must be there within this time, and so long an HTTP/1.1 connection may be idle.
    pub header_timeout: Duration,
    /// So long a request's body may stand still while nothing is answered yet.
    pub body_timeout: Duration,
    /// So long a client may take nothing of what is written to it.
    pub write_timeout: Duration,
    /// So long an HTTP/2 or HTTP/3 connection may be without a stream; twice as long at the most.
    pub idle_timeout: Duration,
    /// A TLS handshake must be done within this time.
    pub handshake_timeout: Duration,
    /// A request head is at most this long.
    pub header_bytes_max: usize,
    /// And has at most so many headers.
    pub headers_max: usize,
    /// The target of a request is at most this long.
    pub uri_bytes_max: usize,
    /// Streams at once on one HTTP/2 or HTTP/3 connection.
    pub streams_max: u32,
    /// How long open requests may take at the end.
    pub drain: Duration,
    /// What one namespace may have.
    pub namespace: NamespaceLimits,
}

/// Bounds on what one namespace may have of what all share; 0: as much as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceLimits {
    /// Routes of every kind, Ingresses among them.
    pub routes: usize,
    /// Bytes of all regular expressions of its routes, compiled: each counts as the power of two in which it fits, at least 4 KiB.
    pub regex_bytes: usize,
    /// Secrets that listeners show.
    pub certificates: usize,
}

impl Default for NamespaceLimits {
    fn default() -> Self {
        Self { routes: 10_000, regex_bytes: 64 * 1024 * 1024, certificates: 10_000 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            client_connections_max: 0,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(300),
            handshake_timeout: Duration::from_secs(10),
            header_bytes_max: 64 * 1024,
            headers_max: 100,
            uri_bytes_max: 16 * 1024,
            streams_max: 128,
            drain: Duration::from_secs(30),
            namespace: NamespaceLimits::default(),
        }
    }
}

/// Where last good objects and policies are kept, with the Secrets that they name.
#[derive(Debug)]
pub struct LastGood {
    /// A directory of the gateway's own.
    pub dir: PathBuf,
    /// What closes and opens the files.
    pub seal: Seal,
    /// The id of the hub that is ours, where known at the start: files of another are not used.
    pub hub: Option<String>,
}

/// What a gateway is given.
pub struct Resources {
    /// The topology, as followed from the hub.
    pub topology: watch::Receiver<Snapshot>,
    /// The way into members.
    pub dialer: Dialer,
    /// What this site tells the hub: the root fills `site`, the gateway `probes`.
    pub report: watch::Sender<Report>,
    /// The way to the hub's own network: endpoints of Services in the hub's API.
    pub connect: Arc<dyn Connect>,
    /// Opens listeners of Gateways on further ports.
    pub listen: Arc<dyn Listen>,
    /// Where HTTP is served.
    pub http: Box<dyn Accept>,
    /// Where HTTPS is served.
    pub https: Box<dyn Accept>,
    /// The hub's API: Gateway API objects, Secrets, Services.
    pub client: kube::Client,
    /// Whom the machine trusts: for backends with `wellKnownCACertificates: System`.
    pub roots: Arc<rustls::RootCertStore>,
    /// Where metrics are registered.
    pub metrics: prometheus::Registry,
    /// Where the last good objects are kept; `None`: nowhere.
    pub last_good: Option<LastGood>,
    /// Where the access log is written; `None`: there is none.
    pub access: Option<Box<dyn std::io::Write + Send>>,
    /// Gets the handle once the gateway runs.
    pub started: Option<oneshot::Sender<Server>>,
}
