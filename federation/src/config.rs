//! What the root tells the hub: names, times and switches. Plain values, no I/O.

use std::time::Duration;

use atoll_api::topology::Site;

/// How a hub behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// host:port where agents and data planes reach the hub's link port.
    pub advertise: String,
    /// Further names and addresses for the hub's certificate (its webhook Service, for example).
    pub names: Vec<String>,
    /// The operator's domain, without the last dot.
    pub apex: String,
    /// host:port where users reach the DNS servers, for who sets up resolvers.
    pub dns: Option<String>,
    /// The cluster set of askers that stand in no member.
    pub default_set: String,
    /// Data planes that get a certificate in Secret `atoll-system/atoll-site-<name>`.
    pub sites: Vec<String>,
    /// Lease the leadership first, because other hubs may run beside this one.
    pub leader_election: bool,
    /// This process's name in the Lease.
    pub identity: String,
    /// Register the webhook that stamps requester and voter: base URL `https://host:port`, or a Service.
    pub webhook: Option<WebhookTarget>,
    /// Members may have loopback addresses (the demo's have).
    pub loopback_members: bool,
    /// So often agents are asked to beat.
    pub heartbeat: Duration,
    /// After a start, so long at most the hub keeps still until the members it knows have reported.
    pub settle: Duration,
}

/// Where the API server finds the webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookTarget {
    /// Base URL.
    Url(String),
    /// A Service by namespace, name and port.
    Service(String, String, u16),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            advertise: "127.0.0.1:7443".into(),
            names: Vec::new(),
            apex: "atoll.internal".into(),
            dns: None,
            default_set: "prod".into(),
            sites: vec!["dns".into(), "gateway".into()],
            leader_election: false,
            identity: "hub".into(),
            webhook: None,
            loopback_members: false,
            heartbeat: Duration::from_secs(5),
            settle: Duration::from_secs(15),
        }
    }
}

impl Config {
    /// The hub as a site: agents keep a relay connection to it.
    pub(crate) fn site(&self) -> Site {
        Site { instance: "hub".into(), kind: "hub".into(), relay: self.advertise.clone(), ..Site::default() }
    }
}
