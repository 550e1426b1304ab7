//! Every port of `atoll up`, bound at once before anything starts, and again when a part is mended.

use std::net::{SocketAddr, TcpListener};

use crate::bind::{self, DnsPort, EncryptedPorts, Strict};
use crate::config::{Config, Listen, Listens};

/// Where everything listens, with the ports that were really taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) api: SocketAddr,
    pub(super) hub: SocketAddr,
    pub(super) console: SocketAddr,
    pub(super) dns: SocketAddr,
    pub(super) dns_relay: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
    pub(super) gateway_relay: SocketAddr,
    pub(super) admin: SocketAddr,
}

/// The hub's.
pub(super) struct HubPorts {
    pub(super) api: TcpListener,
    pub(super) hub: TcpListener,
    pub(super) console: TcpListener,
}

/// The DNS server's.
pub(super) struct DnsPorts {
    pub(super) dns: DnsPort,
    pub(super) encrypted: EncryptedPorts,
    pub(super) relay: TcpListener,
}

/// The gateway's.
pub(super) struct GatewayPorts {
    pub(super) http: TcpListener,
    pub(super) https: TcpListener,
    pub(super) relay: TcpListener,
}

/// All of them, bound.
pub(super) struct Ports {
    pub(super) at: At,
    pub(super) hub: HubPorts,
    pub(super) dns: DnsPorts,
    pub(super) gateway: GatewayPorts,
    pub(super) admin: TcpListener,
}

impl Ports {
    /// Binds them all. Ports that the file does not name give way to whoever has them.
    pub(super) fn bind(config: &Config) -> anyhow::Result<Self> {
        let strict = Strict::Chosen;
        let hub = HubPorts::bind(&config.listen, strict)?;
        let dns = DnsPorts::bind(config, strict)?;
        let gateway = GatewayPorts::bind(&config.listen, strict)?;
        let admin = bind::tcp(config.listen.admin, strict)?;
        let at = At {
            api: hub.api.local_addr()?,
            hub: hub.hub.local_addr()?,
            console: hub.console.local_addr()?,
            dns: dns.dns.at,
            dns_relay: dns.relay.local_addr()?,
            http: gateway.http.local_addr()?,
            https: gateway.https.local_addr()?,
            gateway_relay: gateway.relay.local_addr()?,
            admin: admin.local_addr()?,
        };
        Ok(Self { at, hub, dns, gateway, admin })
    }
}

impl HubPorts {
    fn bind(listen: &Listens, strict: Strict) -> anyhow::Result<Self> {
        Ok(Self {
            api: bind::tcp(listen.api, strict)?,
            hub: bind::tcp(listen.hub, strict)?,
            console: bind::tcp(listen.console, strict)?,
        })
    }

    /// The same ports again.
    pub(super) fn again(at: &At) -> anyhow::Result<Self> {
        Ok(Self {
            api: again("listen.api", at.api)?,
            hub: again("listen.hub", at.hub)?,
            console: again("listen.console", at.console)?,
        })
    }
}

impl DnsPorts {
    fn bind(config: &Config, strict: Strict) -> anyhow::Result<Self> {
        let listen = &config.listen;
        let (dns, encrypted) = (bind::dns(listen.dns, strict, threads(config))?, EncryptedPorts::bind(listen)?);
        Ok(Self { dns, encrypted, relay: bind::tcp(listen.dns_relay, strict)? })
    }

    /// The same ports again.
    pub(super) fn again(config: &Config, at: &At) -> anyhow::Result<Self> {
        let dns = Listen { key: "listen.dns", at: at.dns, chosen: true };
        let dns = bind::dns(dns, Strict::Always, threads(config))?;
        let encrypted = EncryptedPorts::bind(&config.listen)?;
        Ok(Self { dns, encrypted, relay: again("listen.dnsRelay", at.dns_relay)? })
    }
}

impl GatewayPorts {
    fn bind(listen: &Listens, strict: Strict) -> anyhow::Result<Self> {
        Ok(Self {
            http: bind::tcp(listen.http, strict)?,
            https: bind::tcp(listen.https, strict)?,
            relay: bind::tcp(listen.gateway_relay, strict)?,
        })
    }

    /// The same ports again.
    pub(super) fn again(at: &At) -> anyhow::Result<Self> {
        Ok(Self {
            http: again("listen.http", at.http)?,
            https: again("listen.https", at.https)?,
            relay: again("listen.gatewayRelay", at.gateway_relay)?,
        })
    }
}

fn again(key: &'static str, at: SocketAddr) -> anyhow::Result<TcpListener> {
    bind::tcp(Listen { key, at, chosen: true }, Strict::Always)
}

/// Where everything runs on one machine, one thread that answers DNS is enough, unless the file says otherwise.
fn threads(config: &Config) -> usize {
    config.dns.threads.unwrap_or(1)
}
