//! Which DNS servers are asked: as the operator says, else as the machine has them. Source: resolv.conf(5).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use super::NameSettings;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;
/// As resolv.conf(5) has it (MAXNS).
const SERVERS_MAX: usize = 3;

impl NameSettings {
    /// Those that are asked now. Where the machine names none it has one itself.
    pub(super) async fn ask_of(&self) -> Vec<SocketAddr> {
        if !self.servers.is_empty() {
            return self.servers.clone();
        }
        let text = tokio::fs::read_to_string(Path::new(RESOLV_CONF)).await.unwrap_or_default();
        named(&text)
    }
}

/// The servers that a resolv.conf names. Its other lines do not matter: names of backends are whole.
fn named(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()?.parse::<IpAddr>().ok()
    });
    let mut servers: Vec<SocketAddr> = servers.take(SERVERS_MAX).map(|ip| (ip, DNS_PORT).into()).collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_names_its_servers() {
        let text = "# of the node\nsearch shop.svc.cluster.local\nnameserver 10.96.0.10\nnameserver\t fd00::a # second\nnameserver x\n\
            options ndots:5\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n";
        let said = named(text).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(said, "10.96.0.10:53 [fd00::a]:53 10.0.0.3:53");
        assert_eq!(named("")[0].to_string(), "127.0.0.1:53");
    }
}
