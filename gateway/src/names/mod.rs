//! Backends by name: what the names of ExternalName Services and of EndpointSlices with FQDNs lead to.
//!
//! ```text
//!   table (names that routes use) ─► follow: due? ─► ask (A, AAAA) ─► refused? ─► Found ─► build_loop ─► endpoints of those Services
//! ```
//!
//! In: the names that a table uses, DNS servers. Out: addresses by name, at every change. No request ever waits for DNS: names are asked
//! beside everything else, again whenever their TTL is over, and the addresses of the last good answer are used on when nobody answers. A name
//! that no route uses is not asked. Source: RFC 1035, RFC 2308 (what is not there), RFC 8767 (answers past their time), Kubernetes' Service.

mod ask;
mod follow;
mod ranges;
mod servers;
mod state;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_proto::rr::Name;
use ipnet::IpNet;

pub(crate) use ask::{Asker, by_tcp};
pub(crate) use follow::Names;

/// A name is at most so long, without the dot at its end (RFC 1035 §3.1).
const NAME_MAX: usize = 253;

/// How names of backends are resolved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameSettings {
    /// The DNS servers that are asked, in this order; empty: those of `/etc/resolv.conf`, as it is at each question.
    pub servers: Vec<SocketAddr>,
    /// Addresses that may be used although they are loopback, link-local or the like.
    pub allow: Vec<IpNet>,
    /// Addresses that may not be used, beside these.
    pub deny: Vec<IpNet>,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Leads {
    /// In order; empty where it leads nowhere.
    pub(crate) addresses: Vec<IpAddr>,
    /// What it leads to as well and is never used, and why.
    pub(crate) refused: Vec<(IpAddr, &'static str)>,
}

impl Leads {
    /// What is never used, and why, for people.
    pub(crate) fn refusals(&self) -> String {
        let said: Vec<String> = self.refused.iter().map(|(ip, why)| format!("{ip} ({why})")).collect();
        said.join(", ")
    }
}

/// What names lead to that were asked at least once.
pub(crate) type Found = BTreeMap<Arc<str>, Arc<Leads>>;

/// A name as it is asked for: lower case, without a dot at its end.
///
/// # Errors
/// What is no name of a host; an address is none.
pub(crate) fn parse(said: &str) -> Result<Arc<str>, String> {
    let name = said.strip_suffix('.').unwrap_or(said).to_ascii_lowercase();
    if name.parse::<IpAddr>().is_ok() {
        return Err(format!("`{said}` is an address, not a name: write an EndpointSlice with it"));
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let is_name = !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(fits);
    if !is_name || Name::from_ascii(&name).is_err() {
        return Err(format!("`{said}` is no name of a host"));
    }
    Ok(name.into())
}

/// The Service of a cluster that a name says: name and namespace. `svc` is the third label, or later where pods are named, whatever domain
/// follows it. Source: Kubernetes' DNS-Based Service Discovery.
pub(crate) fn service(name: &str) -> Option<(&str, &str)> {
    let labels: Vec<&str> = name.split('.').collect();
    labels.windows(3).find(|three| three[2] == "svc").map(|three| (three[0], three[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_dns_has_them_and_addresses_are_none() {
        for (said, name) in [("Db.Example.COM.", "db.example.com"), ("localhost", "localhost"), ("_a.b-c", "_a.b-c")] {
            assert_eq!(&*parse(said).unwrap(), name);
        }
        for bad in ["", ".", "10.0.0.1", "::1", "a..b", "a b", "é.test", "*.a.test", &"a".repeat(64)] {
            assert!(parse(bad).is_err(), "`{bad}`");
        }
    }

    #[test]
    fn names_of_clusters_say_their_service() {
        for name in ["web.shop.svc", "web.shop.svc.cluster.local", "web.shop.svc.eu.atoll.internal", "a-0.web.shop.svc"]
        {
            assert_eq!(service(name), Some(("web", "shop")), "{name}");
        }
        assert_eq!(service("svc.svc.svc.cluster.local"), Some(("svc", "svc")));
        for name in ["db.example.com", "svc.example.com", "shop.svc.example.com", "localhost"] {
            assert_eq!(service(name), None, "{name}");
        }
    }
}
