//! Whether an object of ours makes sense beyond its schema: unknown plugin names, bad durations, names that are none. Pure.
//!
//! A bad object is rejected alone: it gets a condition that says why, and the others go on.

use atoll_api::kinds::{TrafficPolicySpec, ZoneSpec};
use atoll_api::names::is_label;

/// Whether a domain name is one (letters, digits, `-`, `_`; labels of at most 63 octets; at most 253).
fn is_domain(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |l: &str| is_label(&l.to_ascii_lowercase().replace('_', "a"));
    !name.is_empty() && name.len() <= 253 && name.split('.').all(label)
}

/// Checks a Zone.
pub(crate) fn zone(spec: &ZoneSpec) -> Result<(), String> {
    if !is_domain(&spec.apex) {
        return Err(format!("apex `{}` is not a domain name", spec.apex));
    }
    if let Some(bad) = spec.ns.iter().find(|ns| !is_domain(ns)) {
        return Err(format!("name server `{bad}` is not a domain name"));
    }
    let peers = spec.allow.update.iter().chain(&spec.allow.transfer);
    let bad = peers.filter_map(|p| p.cidr.as_ref()).find(|c| c.parse::<ipnet::IpNet>().is_err());
    bad.map_or(Ok(()), |c| Err(format!("`{c}` is not an address range")))
}

/// Checks a TrafficPolicy.
pub(crate) fn traffic(spec: &TrafficPolicySpec) -> Result<(), String> {
    if let Some(bad) = spec.hosts.iter().find(|h| !is_domain(h.strip_prefix("*.").unwrap_or(h))) {
        return Err(format!("host `{bad}` is not a domain name"));
    }
    atoll_api::routing::Chain::parse(&spec.strategy, spec.all_down).map(drop).map_err(|e| e.to_string())
}
