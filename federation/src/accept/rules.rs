//! Whether an object makes sense beyond its schema: unknown plugin names, names and addresses that are none. Pure.
//!
//! In: the spec, and what else is there. Out: nothing, or the word that is wrong.

use std::net::{IpAddr, SocketAddr};

use atoll_api::kinds::{CatalogSpec, DNSEndpointSpec, RegistrySpec, ReplicationPolicySpec, ZoneSpec};
use atoll_api::names::is_label;
use atoll_api::records;
use atoll_registry::backend::BACKENDS;

use crate::conditions::{Found, listed};

/// Whether a domain name is one (letters, digits, `-`, `_`; labels of at most 63 octets; at most 253).
pub(super) fn is_domain(name: &str) -> bool {
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
    let notify = |at: &str| at.parse::<SocketAddr>().is_ok() || at.parse::<IpAddr>().is_ok();
    if let Some(bad) = spec.notify.iter().find(|n| !notify(&n.address)) {
        return Err(format!("notify `{}` is neither an address nor address:port", bad.address));
    }
    let named = |n: &String| n.split('.').all(|l| !l.is_empty() && l.len() <= 63);
    if let Some(bad) = spec.tsig_keys.keys().find(|n| !named(n)) {
        return Err(format!("TSIG key `{bad}` is not a domain name"));
    }
    let peers = spec.allow.update.iter().chain(&spec.allow.transfer);
    let bad = peers
        .filter_map(|p| p.cidr.as_ref())
        .find(|c| c.parse::<ipnet::IpNet>().is_err() && c.parse::<IpAddr>().is_err());
    bad.map_or(Ok(()), |c| Err(format!("`{c}` is not an address range")))
}

/// Checks a ReplicationPolicy.
pub(super) fn replication(spec: &ReplicationPolicySpec, there: impl Fn(&str) -> bool) -> Result<(), String> {
    if spec.from == spec.to {
        return Err(format!("from and to are both `{}`", spec.from));
    }
    if let Some(missing) = [&spec.from, &spec.to].into_iter().find(|r| !there(r)) {
        return Err(format!("registry `{missing}`: there is none"));
    }
    if spec.repositories.is_empty() {
        return Err("`repositories` is empty: nothing may flow".into());
    }
    Ok(())
}

/// Checks a Registry.
pub(super) fn registry(spec: &RegistrySpec, there: impl Fn(&str) -> bool) -> Result<(), String> {
    if let Some(missing) = spec.cluster.as_deref().filter(|c| !there(c)) {
        return Err(format!("cluster `{missing}`: there is none"));
    }
    if !BACKENDS.iter().any(|b| b.name == spec.backend) {
        let known: Vec<&str> = BACKENDS.iter().map(|b| b.name).collect();
        return Err(format!("backend `{}`: there is none, only {}", spec.backend, known.join(", ")));
    }
    let url = spec.url.parse::<http::Uri>().map_err(|e| format!("url `{}`: {e}", spec.url))?;
    match url.scheme_str() {
        Some("http") if !spec.insecure => Err(format!("url `{}`: plain HTTP needs `insecure: true`", spec.url)),
        Some("http" | "https") if url.host().is_some_and(|h| !h.is_empty()) => Ok(()),
        _ => Err(format!("url `{}`: neither http://HOST nor https://HOST", spec.url)),
    }
}

/// A Catalog. Nothing imports from one in this version, and whoever relies on it must be told.
pub(super) fn catalog(spec: &CatalogSpec) -> Result<(), String> {
    Err(format!("kind `{}`: this version of the hub imports from no foreign registry", spec.kind))
}

/// Checks a DNSEndpoint. A record that is none is left out alone, and the others are served.
pub(super) fn endpoint(spec: &DNSEndpointSpec, apexes: &[&str]) -> Found {
    let (mut said, strangers) = (records::faults(spec), records::outside(spec, apexes));
    let holds = said.is_empty();
    let reason = match (holds, strangers.is_empty()) {
        (false, _) => "Invalid",
        (true, false) => "OutsideZones",
        (true, true) => "Accepted",
    };
    let lonely = |name| format!("`{name}` lies in no Zone: it is answered, nothing around it is");
    said.extend(strangers.into_iter().map(lonely));
    Found::new("Accepted", holds, reason, listed(said))
}

pub(super) fn word(verdict: Result<(), String>) -> Found {
    match verdict {
        Ok(()) => Found::new("Accepted", true, "Accepted", ""),
        Err(why) => Found::new("Accepted", false, "Invalid", why),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_schema_cannot_check_is_refused_with_the_word_that_is_wrong() {
        let zone_of = |apex: &str, cidr: &str| {
            let spec = json!({"apex": apex, "soa": {"mname": "ns.a", "rname": "h.a"}, "ns": ["ns.a"], "allow": {"transfer": [{"cidr": cidr}]}});
            zone(&serde_json::from_value(spec).unwrap())
        };
        let registry_of = |url: &str, backend: &str, insecure: bool| {
            let spec =
                json!({"environment": "prod", "cluster": "eu", "url": url, "backend": backend, "insecure": insecure});
            registry(&serde_json::from_value(spec).unwrap(), |name| name == "eu")
        };
        let policy_of = |from: &str, to: &str| {
            let spec = json!({"from": from, "to": to, "repositories": ["shop/*"]});
            replication(&serde_json::from_value(spec).unwrap(), |name| ["dev", "eu"].contains(&name))
        };
        for (verdict, says) in [
            (zone_of("example.com", "10.0.0.0/8"), ""),
            (zone_of("exa mple.com", "10.0.0.0/8"), "apex `exa mple.com`"),
            (zone_of("example.com", "10.0.0.0/99"), "`10.0.0.0/99`"),
            (registry_of("https://r:5000", "oci", false), ""),
            (registry_of("http://r:5000", "oci", true), ""),
            (registry_of("http://r:5000", "oci", false), "insecure: true"),
            (registry_of("https://r:5000", "floppy", false), "backend `floppy`"),
            (policy_of("dev", "eu"), ""),
            (policy_of("dev", "dev"), "both `dev`"),
            (policy_of("dev", "moon"), "registry `moon`"),
            (catalog(&serde_json::from_value(json!({"kind": "Eureka"})).unwrap()), "kind `Eureka`"),
        ] {
            match verdict {
                Ok(()) => assert_eq!(says, ""),
                Err(why) => assert!(!says.is_empty() && why.contains(says), "{says}: {why}"),
            }
        }
    }

    #[test]
    fn a_bad_record_and_one_in_no_zone_are_named() {
        let records = |name: &str, target: &str| {
            let spec = json!({"endpoints": [{"dnsName": name, "recordType": "A", "targets": [target]},
                {"dnsName": "ok.example.com", "recordType": "A", "targets": ["192.0.2.1"]}]});
            endpoint(&serde_json::from_value(spec).unwrap(), &["example.com"])
        };
        for (found, status, reason, says) in [
            (records("a.example.com", "192.0.2.2"), "True", "Accepted", ""),
            (records("a.example.com", "1.2.3"), "False", "Invalid", "record `a.example.com. A 1.2.3`: "),
            (records("a.example.net", "192.0.2.2"), "True", "OutsideZones", "`a.example.net.` lies in no Zone"),
            (records("a.example.net", "1.2.3"), "False", "Invalid", "; `a.example.net.` lies in no Zone"),
        ] {
            assert_eq!((found.status, found.reason), (status, reason), "{}", found.message);
            assert!(found.message.contains(says), "{}", found.message);
        }
        let many: Vec<_> = (0..99)
            .map(|i| json!({"dnsName": format!("{i}.example.com"), "recordType": "A", "targets": ["x"]}))
            .collect();
        let found = endpoint(&serde_json::from_value(json!({"endpoints": many})).unwrap(), &["example.com"]);
        assert!(found.message.ends_with("; and 89 more"), "{}", found.message);
    }
}
