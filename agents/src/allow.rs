//! What may be reached through this agent: the member's own addresses, and nothing else.
//!
//! In: the member's facts as they are told to the hub. Out: yes with an address, or why not. The hub can't widen it.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use atoll_api::facts::{Facts, key};
use atoll_api::topology::MemberFacts;
use atoll_reach::Allow;
use ipnet::IpNet;
use tokio::sync::watch;

/// Names that stand for the member's API server.
const API_SERVER: &[&str] = &["kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
/// On nodes: remote shells, etcd and the components' own ports are nobody's business.
const NODE_PORTS_REFUSED: &[std::ops::RangeInclusive<u16>] = &[22..=22, 2379..=2382, 10247..=10259];

/// The allow-list, following the facts.
pub(crate) struct AllowList {
    facts: watch::Receiver<Arc<Facts>>,
    api_server: Option<(String, u16)>,
    parsed: Mutex<(atoll_api::facts::Digest, Arc<Ranges>)>,
}

#[derive(Default)]
struct Ranges {
    nets: Vec<IpNet>,
    nodes: Vec<IpAddr>,
    servers: Vec<SocketAddr>,
}

impl AllowList {
    pub(crate) fn new(facts: watch::Receiver<Arc<Facts>>, api_server: Option<(String, u16)>) -> Self {
        Self { facts, api_server, parsed: Mutex::default() }
    }

    fn ranges(&self) -> Arc<Ranges> {
        let facts = Arc::clone(&self.facts.borrow());
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if parsed.0 != facts.digest() {
            let member: MemberFacts = facts.get(key::MEMBER).unwrap_or_default();
            let nets = member.cidrs.pods.iter().chain(&member.cidrs.services).filter_map(|c| c.parse().ok()).collect();
            let servers = member.dns.iter().flat_map(|dns| &dns.servers).filter_map(|s| s.parse().ok()).collect();
            *parsed = (facts.digest(), Arc::new(Ranges { nets, nodes: member.nodes, servers }));
        }
        Arc::clone(&parsed.1)
    }
}

impl Allow for AllowList {
    fn allow(&self, host: &str, port: u16) -> Result<(String, u16), String> {
        if API_SERVER.contains(&host) {
            return self.api_server.clone().ok_or_else(|| "this agent does not know its API server".to_owned());
        }
        if self.api_server.as_ref().is_some_and(|(own, own_port)| own == host && *own_port == port) {
            return Ok((host.to_owned(), port));
        }
        let ip: IpAddr = host.parse().map_err(|_| format!("{host} is not an address"))?;
        check(&self.ranges(), ip, port).map(|()| (ip.to_string(), port))
    }
}

fn check(ranges: &Ranges, ip: IpAddr, port: u16) -> Result<(), String> {
    // RFC 3927, RFC 4291 §2.5.6: link-local, where clouds keep their metadata. Never, whatever a range says.
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast(),
    };
    if link_local {
        return Err(format!("{ip} is never relayed to"));
    }
    if ranges.servers.contains(&SocketAddr::new(ip, port)) || ranges.nets.iter().any(|net| net.contains(&ip)) {
        return Ok(());
    }
    if ranges.nodes.contains(&ip) {
        return match NODE_PORTS_REFUSED.iter().any(|refused| refused.contains(&port)) {
            true => Err(format!("port {port} of nodes is never relayed to")),
            false => Ok(()),
        };
    }
    Err(format!("{ip} is none of this member's addresses"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_members_own_addresses_are_reached() {
        let mut facts = Facts::default();
        let member: MemberFacts = serde_json::from_value(serde_json::json!({
            "nodes": ["192.0.2.11"],
            "cidrs": {"pods": ["10.1.0.0/16", "169.254.0.0/16"], "services": ["fd00:5::/112", "bad"]},
            "dns": {"servers": ["127.0.0.1:5301", "not an address"]},
        }))
        .unwrap();
        facts.put(key::MEMBER, &member);
        let (_keep, facts) = watch::channel(Arc::new(facts));
        let list = AllowList::new(facts, Some(("192.0.2.1".into(), 6443)));
        for (host, port, ok) in [
            ("10.1.2.3", 80, true),
            ("fd00:5::7", 443, true),
            ("127.0.0.1", 5301, true),
            ("192.0.2.11", 30080, true),
            ("192.0.2.1", 6443, true),
            ("kubernetes.default.svc", 443, true),
            ("127.0.0.1", 5302, false),
            ("127.0.0.1", 22, false),
            ("192.0.2.1", 22, false),
            ("192.0.2.11", 10250, false),
            ("192.0.2.11", 2379, false),
            ("10.2.0.1", 80, false),
            ("169.254.169.254", 80, false),
            ("0.0.0.0", 80, false),
            ("::", 80, false),
            ("example.com", 80, false),
            ("10.1.2.3.evil", 80, false),
        ] {
            assert_eq!(list.allow(host, port).is_ok(), ok, "{host}:{port}");
        }
    }
}
