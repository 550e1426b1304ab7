//! What an agent is told and what it is given.

use std::sync::Arc;

use atoll_api::copy::Copy;
use atoll_api::guard::OptIn;
use atoll_api::kinds::{Cidrs, MemberDns};
use atoll_reach::Connect;

use crate::stub::Stub;

/// What an agent is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port` of the hub. Empty: the one that the stored credentials name.
    pub hub: String,
    /// A join token; not needed once credentials are stored in the member.
    pub token: Option<String>,
    /// This program's version, for the hub to show.
    pub version: String,
    /// The member's DNS, where it can't be found in its kube-system.
    pub dns: Option<MemberDns>,
    /// The member's address ranges, beside those that are found.
    pub cidrs: Cidrs,
    /// Keep relay connections. Not for members that the hub dials itself (Push).
    pub relay: bool,
    /// What the member's operator allows beyond the defaults.
    pub opt_in: OptIn,
    /// Keep a certificate for node-local DNS servers in the member, in the Secret `atoll-system/atoll-names`.
    pub names: bool,
    /// Tell the member's own resolver whom to ask for Atoll's names. `None`: what an agent told CoreDNS or kube-dns before is taken back.
    pub stub: Option<Stub>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hub: String::new(),
            token: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            dns: None,
            cidrs: Cidrs::default(),
            relay: true,
            opt_in: OptIn::default(),
            names: false,
            stub: None,
        }
    }
}

/// What an agent is given.
#[derive(Clone)]
pub struct Resources {
    /// The member's API, as an account that may apply what Bundles hold.
    pub client: kube::Client,
    /// Host and port of the member's API server, for relayed requests to it.
    pub api_server: Option<(String, u16)>,
    /// How hub, sites and the member's own addresses are dialed.
    pub connect: Arc<dyn Connect>,
    /// The copy engine.
    pub copy: Arc<dyn Copy>,
    /// Where metrics are registered.
    pub metrics: prometheus::Registry,
}
