//! A member's addresses, bound before anything of it runs: one that is taken is found first, and passed over.
//!
//! In: its network. Out: doors and where they are. Each server has its usual port, or the next free one.

use std::{io, net::SocketAddr};

use crate::{
    error::Error,
    gate::{Door, Gate, Hatch},
    network::Network,
    objects::Addresses,
};

const API_PORT: u16 = 6443;
const REGISTRY_PORT: u16 = 5000;
/// Not 53: that takes a right that `atoll up` doesn't ask for.
const DNS_PORT: u16 = 5353;
/// Ports tried, from the usual one on.
const PORTS_MAX: u16 = 64;

/// The doors of a member's servers.
pub(crate) struct Bound {
    pub(crate) api: Door,
    pub(crate) dns_udp: Hatch,
    pub(crate) dns_tcp: Door,
    pub(crate) registry: Door,
}

impl Bound {
    /// Binds them all.
    ///
    /// # Errors
    /// No free port for one of them.
    pub(crate) async fn bind(member: &str, network: Network, gate: &Gate) -> Result<Self, Error> {
        let failed = |what, from| move |source| Error::Port { member: member.to_owned(), what, from, source };
        let door = |at| std::future::ready(Door::bind(at, gate));
        let both = |at| async move { Ok((Hatch::bind(at, gate).await?, Door::bind(at, gate)?)) };
        let api = SocketAddr::from((network.service(1), API_PORT));
        let dns = SocketAddr::from((network.service(10), DNS_PORT));
        let registry = SocketAddr::from((network.service(20), REGISTRY_PORT));
        let (dns_udp, dns_tcp) = first_free(dns, both).await.map_err(failed("DNS", dns))?;
        Ok(Self {
            api: first_free(api, door).await.map_err(failed("API server", api))?,
            dns_udp,
            dns_tcp,
            registry: first_free(registry, door).await.map_err(failed("registry", registry))?,
        })
    }

    pub(crate) fn addresses(&self) -> Addresses {
        Addresses { api: self.api.address(), dns: self.dns_tcp.address(), registry: self.registry.address() }
    }
}

/// Binds the first free port from `from` on.
async fn first_free<T, F>(from: SocketAddr, bind: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut at = from;
    loop {
        match bind(at).await {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && at.port() < from.port() + PORTS_MAX => {
                at.set_port(at.port() + 1);
            }
            done => return done,
        }
    }
}
