//! What the file says of the agent: whose it is, whether it is the node-local DNS, what it tells the member's own resolver.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use atoll_api::names::ClusterName;
use serde::Deserialize;

use super::Listen;
use super::values::domain;

/// What the agent is told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Agent {
    pub(crate) cluster: Option<ClusterName>,
    pub(crate) token_file: Option<PathBuf>,
    /// Node-local DNS servers run elsewhere in the member.
    pub(crate) node_dns: bool,
    /// This process is a node-local DNS.
    pub(crate) dns: Option<NodeDns>,
    pub(crate) stub: Option<Stub>,
}

/// A node-local DNS.
#[derive(Debug, Clone)]
pub(crate) struct NodeDns {
    pub(crate) listen: Listen,
    /// The member's own DNS; empty: found.
    pub(crate) servers: Vec<SocketAddr>,
    /// Its domain; absent: found.
    pub(crate) domain: Option<String>,
    /// For names outside; empty: the member's own DNS.
    pub(crate) upstreams: Vec<SocketAddr>,
    /// Nothing else runs in this process.
    pub(crate) alone: bool,
}

/// What is told to the member's own resolver.
#[derive(Debug, Clone)]
pub(crate) struct Stub {
    pub(crate) enabled: bool,
    pub(crate) resolver: String,
    /// Empty: the DNS servers that the hub knows.
    pub(crate) servers: Vec<SocketAddr>,
    /// The file that is written.
    pub(crate) path: Option<PathBuf>,
    /// What has the resolver read it.
    pub(crate) reload: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct FileAgent {
    cluster: Option<String>,
    token_file: Option<PathBuf>,
    node_dns: bool,
    dns: Option<FileNodeDns>,
    stub: Option<FileStub>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileNodeDns {
    listen: String,
    #[serde(default)]
    servers: Vec<String>,
    #[serde(default)]
    domain: Option<String>,
    #[serde(default)]
    upstreams: Vec<String>,
    #[serde(default)]
    alone: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileStub {
    #[serde(default = "yes")]
    enabled: bool,
    resolver: String,
    #[serde(default)]
    servers: Vec<String>,
    #[serde(default)]
    path: Option<PathBuf>,
    #[serde(default)]
    reload: Vec<String>,
}

fn yes() -> bool {
    true
}

impl FileAgent {
    pub(super) fn check(self) -> anyhow::Result<Agent> {
        let cluster = self.cluster.map(|name| name.parse()).transpose().context("agent.cluster")?;
        let dns = self.dns.map(FileNodeDns::check).transpose()?;
        let stub = self.stub.map(FileStub::check).transpose()?;
        Ok(Agent { cluster, token_file: self.token_file, node_dns: self.node_dns, dns, stub })
    }
}

impl FileNodeDns {
    fn check(self) -> anyhow::Result<NodeDns> {
        let said = &self.listen;
        let at: SocketAddr = said
            .parse()
            .map_err(|_| anyhow!("agent.dns.listen: `{said}` is not address:port, such as 169.254.20.10:53"))?;
        let domain = self.domain.map(|said| domain("agent.dns.domain", said)).transpose()?;
        Ok(NodeDns {
            listen: Listen { key: "agent.dns.listen", at, chosen: true },
            servers: servers("agent.dns.servers", self.servers)?,
            domain,
            upstreams: servers("agent.dns.upstreams", self.upstreams)?,
            alone: self.alone,
        })
    }
}

impl FileStub {
    fn check(self) -> anyhow::Result<Stub> {
        if let Some(path) = self.path.as_ref().filter(|path| !path.is_absolute()) {
            bail!("agent.stub.path: `{}` does not begin with /", path.display());
        }
        if self.path.is_none() && !self.reload.is_empty() {
            bail!("agent.stub.reload: without agent.stub.path there is nothing to be read anew");
        }
        let servers = servers("agent.stub.servers", self.servers)?;
        Ok(Stub { enabled: self.enabled, resolver: self.resolver, servers, path: self.path, reload: self.reload })
    }
}

/// DNS servers, address or address:port.
fn servers(key: &str, said: Vec<String>) -> anyhow::Result<Vec<SocketAddr>> {
    let server = |said: String| -> anyhow::Result<SocketAddr> {
        let at = said.parse().or_else(|_| said.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)));
        let at = at.map_err(|_| anyhow!("{key}: `{said}` is not address:port, such as 10.96.0.10:53"))?;
        if at.port() == 0 || at.ip().is_unspecified() || at.ip().is_multicast() {
            bail!("{key}: nobody can be asked at `{said}`");
        }
        Ok(at)
    };
    said.into_iter().map(server).collect()
}
