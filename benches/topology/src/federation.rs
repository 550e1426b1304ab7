//! A made-up federation: what member `m` reports, and the names by which it is asked for.

use std::net::SocketAddr;

use atoll_api::facts::{Facts, key};
use serde_json::{Value, json};

/// The operator's domain.
pub(crate) const APEX: &str = "atoll.internal";
/// Namespaces that services are spread over.
const NAMESPACES: usize = 20;

/// The name of a member.
pub(crate) fn member(m: usize) -> String {
    format!("m{m}")
}

/// Everything that member `m` reports with `services` of its own, all exported; `dns` is its DNS server, where it has one.
pub(crate) fn facts(m: usize, services: usize, dns: Option<SocketAddr>) -> Facts {
    let mut facts = Facts::default();
    let dns = dns.map(|at| json!({"kind": "Kubernetes", "servers": [at.to_string()]}));
    let about = json!({"dns": dns, "version": "v1.34.0", "nodesReady": 3, "cidrs": {"pods": [format!("10.{}.0.0/16", m + 1)]},
        "capacity": {"cpu": "64", "memory": "256Gi", "pods": "330"}});
    facts.put(key::MEMBER, &about);
    for s in 0..services {
        let at = path(m, s);
        facts.put(format!("{}/{at}", key::EXPORT), &json!({"created": "2026-01-01T00:00:00Z", "valid": true}));
        let service = json!({"clusterIps": [format!("10.{}.250.{}", m + 1, s % 250)],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}]});
        facts.put(format!("{}/{at}", key::SERVICE), &service);
        facts.put(endpoints_key(m, s), &endpoints(m, 1, true));
    }
    facts
}

/// Under which key member `m` reports the endpoints of its service `s`.
pub(crate) fn endpoints_key(m: usize, s: usize) -> String {
    format!("{}/{}", key::ENDPOINTS, path(m, s))
}

fn path(m: usize, s: usize) -> String {
    format!("ns{}/s{s}-m{m}", s % NAMESPACES)
}

/// Two endpoints: one that moves, one that falls ill.
pub(crate) fn endpoints(m: usize, last: u8, ready: bool) -> Value {
    let endpoint = |address: [u8; 4], ready: bool, n: u8| {
        json!({"address": std::net::Ipv4Addr::from(address), "ready": ready,
            "node": format!("node-{n}"), "zone": "a", "pod": format!("web-6d4cf56db6-{n:05}")})
    };
    json!({"endpoints": [endpoint(moving(m, last), true, 1), endpoint(resting(m), ready, 2)],
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}]})
}

/// Where the endpoint that moves is.
pub(crate) fn moving(m: usize, last: u8) -> [u8; 4] {
    [10, octet(m), 1, last]
}

/// Where the one that falls ill is.
pub(crate) fn resting(m: usize) -> [u8; 4] {
    [10, octet(m), 2, 1]
}

fn octet(m: usize) -> u8 {
    u8::try_from(m % 254 + 1).unwrap_or(1)
}

/// The federated name of service `s` of member `m`.
pub(crate) fn name(m: usize, s: usize) -> String {
    format!("s{s}-m{m}.ns{}.svc.{APEX}", s % NAMESPACES)
}

/// A name of our own.
pub(crate) fn own(n: usize) -> String {
    format!("own{n}.{APEX}")
}

/// Its address.
pub(crate) fn own_address(last: u8) -> [u8; 4] {
    [192, 0, 2, last]
}
