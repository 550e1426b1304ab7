//! The one configuration file: YAML in, checked values out. Paths, addresses and the environment stop here.
//!
//! In: a file (docs/configuration.md), `ATOLL_HOME` and `HOME`. Out: [`Config`], or an error that names file, key, value and what to do.
//! An unknown key is an error. Never opens a socket and never changes the file.

mod agent;
mod file;
mod home;
mod values;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

pub(crate) use agent::{Agent, NodeDns, Stub};
use anyhow::Context as _;
use atoll_api::topology::Standing;
use atoll_dns::{Limits, Rate, View};
pub(crate) use home::{claim, data_dir, home, host_name};
use ipnet::IpNet;

use crate::error::Exit;
use crate::taps::Looking;

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen {
    /// The key, for messages.
    pub(crate) key: &'static str,
    /// Where.
    pub(crate) at: SocketAddr,
    /// The file says so; else it is the default.
    pub(crate) chosen: bool,
}

/// Every address to listen on.
#[derive(Debug, Clone)]
pub(crate) struct Listens {
    pub(crate) api: Listen,
    pub(crate) hub: Listen,
    pub(crate) dns: Listen,
    /// No default for the encrypted ones.
    pub(crate) dns_tls: Option<Listen>,
    pub(crate) dns_https: Option<Listen>,
    pub(crate) dns_quic: Option<Listen>,
    pub(crate) dns_h3: Option<Listen>,
    pub(crate) http: Listen,
    pub(crate) https: Listen,
    pub(crate) console: Listen,
    /// No default.
    pub(crate) webhook: Option<Listen>,
    pub(crate) dns_relay: Listen,
    pub(crate) gateway_relay: Listen,
    pub(crate) admin: Listen,
}

/// host:port under which others find a port; absent: what is listened on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Advertise {
    pub(crate) api: Option<String>,
    pub(crate) hub: Option<String>,
    pub(crate) dns: Option<String>,
    pub(crate) http: Option<String>,
    pub(crate) https: Option<String>,
    pub(crate) webhook: Option<String>,
    pub(crate) dns_relay: Option<String>,
    pub(crate) gateway_relay: Option<String>,
    /// What DNS gives for hosts that the gateway serves.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Who stands where, by address range.
pub(crate) type Clients = Vec<(IpNet, Standing)>;

/// What the DNS server is told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dns {
    /// Threads that answer by UDP; absent: as it fits.
    pub(crate) threads: Option<usize>,
    /// What answers that are kept as octets may take.
    pub(crate) cache_bytes: Option<usize>,
    pub(crate) upstreams: Vec<SocketAddr>,
    pub(crate) recursion: Vec<IpNet>,
    pub(crate) clients: Clients,
    /// Empty: everybody.
    pub(crate) allow: Vec<IpNet>,
    pub(crate) proxies: Vec<IpNet>,
    /// Whose word on their clients' networks counts.
    pub(crate) ecs: Vec<IpNet>,
    pub(crate) views: Vec<View>,
    pub(crate) cidr_map: Option<PathBuf>,
    pub(crate) mmdb: Option<PathBuf>,
    /// What encrypted transports show; absent: the site's own certificate.
    pub(crate) tls: Option<Pair>,
    pub(crate) cookie_secret_file: Option<PathBuf>,
    pub(crate) rate: Rate,
    pub(crate) limits: Limits,
    pub(crate) caching: atoll_dns::Caching,
    pub(crate) rebinding: atoll_dns::Rebinding,
    /// The query log and dnstap.
    pub(crate) looking: Looking,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// What the gateway is told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gateway {
    pub(crate) clients: Clients,
    /// From which each Gateway gets an address of its own; none: all share the configured ports.
    pub(crate) addresses: Vec<IpNet>,
    /// Whether each Gateway gets a Service of type LoadBalancer.
    pub(crate) service: bool,
    /// Whether HTTP/3 is served beside HTTPS.
    pub(crate) http3: bool,
    /// The GatewayClasses that it serves; none: all of the controller.
    pub(crate) classes: Vec<String>,
    pub(crate) limits: atoll_gateway::Limits,
    /// Whose word on clients counts.
    pub(crate) trusted: atoll_gateway::Trusted,
    /// Whose connections begin with a PROXY protocol header.
    pub(crate) proxies: Vec<IpNet>,
    /// Where the access log is written; none: nowhere.
    pub(crate) access_log: Option<atoll_gateway::AccessLog>,
    /// Whether requests are counted by route, too.
    pub(crate) count_routes: bool,
    /// Where traces go.
    pub(crate) traces: Option<atoll_gateway::TracesTo>,
    /// Balancers that others own.
    pub(crate) providers: Vec<atoll_gateway::ProviderSettings>,
    /// IngressClasses that are served beside `atoll`.
    pub(crate) ingress_classes: Vec<String>,
    /// Namespace and name of the Secret for Ingresses' hosts that have no certificate.
    pub(crate) default_certificate: Option<(String, String)>,
    /// Of TCP, and of UDP.
    pub(crate) ingress_services: [Option<(String, String)>; 2],
    /// The Unix socket where the next process asks for the listening sockets; absent: in the data directory.
    pub(crate) handover: Option<PathBuf>,
    /// The file whose content last good files are sealed with; absent: the site's own secret.
    pub(crate) seal_key: Option<PathBuf>,
    /// The CA that certificates are ordered from.
    pub(crate) acme: Option<atoll_gateway::AcmeSettings>,
    /// How names of backends are resolved.
    pub(crate) names: atoll_gateway::NameSettings,
}

/// The checked configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) apex: String,
    pub(crate) default_set: String,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) kubeconfig: Option<PathBuf>,
    /// As written; absent: as it fits.
    pub(crate) embedded: Option<bool>,
    pub(crate) hub: Option<String>,
    pub(crate) site: Option<String>,
    pub(crate) standing: Standing,
    pub(crate) listen: Listens,
    pub(crate) advertise: Advertise,
    pub(crate) dns: Dns,
    pub(crate) gateway: Gateway,
    pub(crate) agent: Agent,
}

impl Config {
    /// Reads and checks the file; without one, the defaults.
    ///
    /// # Errors
    /// [`Exit::Usage`]: the file can't be read, is no YAML, has an unknown key or a value that can't be meant.
    pub(crate) fn read(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Self::parse("") };
        let usage = || Exit::Usage(format!("configuration {}", path.display()));
        let text = std::fs::read_to_string(path).with_context(usage)?;
        Self::parse(&text).with_context(usage)
    }

    /// Checks the text of a file.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        // An empty document is null, which is no map.
        let empty = text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'));
        let file = if empty { file::File::default() } else { serde_saphyr::from_str(text).map_err(one_line)? };
        file.check()
    }

    /// The advertised form of a port: as written, else what is listened on.
    pub(crate) fn advertised(said: &Option<String>, at: SocketAddr) -> String {
        said.clone().unwrap_or_else(|| at.to_string())
    }
}

/// The parser draws the place under the line; a message has one line.
fn one_line(error: serde_saphyr::Error) -> anyhow::Error {
    let text = error.without_snippet().to_string();
    anyhow::Error::msg(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests;
