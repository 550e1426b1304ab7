//! The client's address, and what endpoints are told of the client. Pure.
//!
//! In: the peer of the connection, headers, whom we trust. Out: the one address that limits, lists, hashing, sessions and logs use, and headers
//! that say the same. What an untrusted peer says of itself is thrown away; a trusted one's word is kept and added to. Sources: RFC 7239
//! (Forwarded), X-Forwarded-For as every proxy writes it: each adds whom it saw at the end.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What other proxies call the client's address; endpoints that came from behind these believe it.
const OTHERS: &[&str] = &["x-real-ip", "true-client-ip", "x-client-ip", "x-cluster-client-ip"];
/// Entries of X-Forwarded-For that are looked at.
const HOPS_MAX: usize = 32;
/// A request's id of somebody else's is at most so long.
const ID_BYTES_MAX: usize = 128;

/// Whose word counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trusted {
    /// Proxies by their addresses.
    pub cidrs: Vec<IpNet>,
    /// Or so many proxies stand before us, whoever they are.
    pub hops: usize,
}

impl Trusted {
    fn covers(&self, address: IpAddr) -> bool {
        self.cidrs.iter().any(|range| range.contains(&address))
    }

    /// Whether what a peer says of the client counts.
    pub(crate) fn believes(&self, peer: IpAddr) -> bool {
        self.hops > 0 || self.covers(peer.to_canonical())
    }

    /// The client's address.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.believes(peer) {
            return peer;
        }
        let mut last = peer;
        let hops = hops(headers);
        for (nth, hop) in hops.iter().rev().take(HOPS_MAX).enumerate() {
            // What is no address was written by nobody whom we trust.
            let Some(hop) = hop else { return last };
            last = *hop;
            let is_proxy = if self.hops > 0 { nth + 1 < self.hops } else { self.covers(last) };
            if !is_proxy {
                return last;
            }
        }
        last
    }
}

/// What X-Forwarded-For says, in its order; where there is none, Forwarded.
fn hops(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let said = |name: &HeaderName| headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>();
    let listed = said(&FOR);
    if !listed.is_empty() {
        return listed.iter().flat_map(|v| v.split(',')).map(|one| address(one.trim())).collect();
    }
    let of = |element: &str| {
        let pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
        pairs
            .filter(|(name, _)| name.eq_ignore_ascii_case("for"))
            .find_map(|(_, value)| address(value.trim_matches('"')))
    };
    said(&header::FORWARDED).iter().flat_map(|v| v.split(',')).map(of).collect()
}

/// An address, with or without a port.
fn address(written: &str) -> Option<IpAddr> {
    let bare = written.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let ip = bare.ok().or_else(|| written.parse::<SocketAddr>().ok().map(|at| at.ip()))?;
    Some(ip.to_canonical())
}

/// Whether a field says something of the client, or has a name that is not passed on.
pub(crate) fn tells(name: &[u8]) -> bool {
    let begins = |with: &[u8]| name.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    let other = || OTHERS.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()));
    begins(b"x-forwarded-") || begins(b"forwarded") || begins(b"x-request-id") || name.contains(&b'_') || other()
}

/// Tells the endpoint who asked for what. `id`: of the request, where nobody whom we trust gave it one.
pub(crate) fn tell(
    headers: &mut HeaderMap,
    trusted: &Trusted,
    peer: IpAddr,
    scheme: &'static str,
    id: impl FnOnce() -> u128,
) {
    let peer = peer.to_canonical();
    let believed = trusted.believes(peer);
    if !believed {
        let foreign = |name: &&HeaderName| name.as_str().starts_with("x-forwarded-") || **name == header::FORWARDED;
        let named: Vec<HeaderName> = headers.keys().filter(foreign).cloned().collect();
        named.iter().for_each(|name| drop(headers.remove(name)));
        headers.remove(&REQUEST_ID);
        OTHERS.iter().for_each(|name| drop(headers.remove(*name)));
    }
    let before = headers.get_all(&FOR).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(", ");
    let all = if before.is_empty() { peer.to_string() } else { format!("{before}, {peer}") };
    if let Ok(all) = HeaderValue::from_str(&all) {
        headers.insert(FOR, all);
    }
    if !headers.contains_key(&PROTO) {
        headers.insert(PROTO, HeaderValue::from_static(scheme));
    }
    if !headers.contains_key(&HOST)
        && let Some(host) = headers.get(header::HOST).cloned()
    {
        headers.insert(HOST, host);
    }
    // A port that nobody said is the scheme's own or stands in the host.
    if !believed {
        headers.remove(&PORT);
    }
    if let Some(said) = headers.get(header::FORWARDED).and_then(|v| v.to_str().ok()) {
        let node = if peer.is_ipv6() { format!("\"[{peer}]\"") } else { peer.to_string() };
        if let Ok(all) = HeaderValue::from_str(&format!("{said}, for={node};proto={scheme}")) {
            headers.insert(header::FORWARDED, all);
        }
    }
    let fits = headers.get(&REQUEST_ID).is_some_and(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX);
    if !fits && let Ok(id) = HeaderValue::from_str(&format!("{:032x}", id())) {
        headers.insert(REQUEST_ID, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        all.iter().for_each(|(name, value)| {
            headers.append(*name, value.parse().unwrap());
        });
        headers
    }

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_no_proxy() {
        let none = Trusted::default();
        let by_range = Trusted { cidrs: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()], hops: 0 };
        let by_count = |hops| Trusted { cidrs: Vec::new(), hops };
        for (name, trusted, peer, said, client) in [
            ("nobody is trusted", &none, "192.0.2.1", "1.2.3.4", "192.0.2.1"),
            ("a stranger", &by_range, "192.0.2.1", "1.2.3.4", "192.0.2.1"),
            ("a proxy", &by_range, "10.0.0.1", "1.2.3.4", "1.2.3.4"),
            ("a proxy that says nothing", &by_range, "10.0.0.1", "", "10.0.0.1"),
            ("two proxies", &by_range, "10.0.0.1", "1.2.3.4, 10.9.9.9", "1.2.3.4"),
            ("what the client itself wrote", &by_range, "10.0.0.1", "9.9.9.9, 1.2.3.4", "1.2.3.4"),
            ("proxies only", &by_range, "10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("no address", &by_range, "10.0.0.1", "1.2.3.4, unknown, 10.0.0.2", "10.0.0.2"),
            ("with ports", &by_range, "10.0.0.1", "1.2.3.4:55, 10.0.0.2:80", "1.2.3.4"),
            ("version 6", &by_range, "fd00::1", "[2001:db8::1]:443", "2001:db8::1"),
            ("version 4 in 6", &by_range, "::ffff:10.0.0.1", "1.2.3.4", "1.2.3.4"),
            ("one hop", &by_count(1), "192.0.2.1", "9.9.9.9, 1.2.3.4", "1.2.3.4"),
            ("two hops", &by_count(2), "192.0.2.1", "9.9.9.9, 1.2.3.4, 5.6.7.8", "1.2.3.4"),
            ("more hops than there are", &by_count(5), "192.0.2.1", "1.2.3.4", "1.2.3.4"),
        ] {
            let said = if said.is_empty() { headers(&[]) } else { headers(&[("x-forwarded-for", said)]) };
            assert_eq!(trusted.client(peer.parse().unwrap(), &said).to_string(), client, "{name}");
        }
        let said = headers(&[("forwarded", "for=\"[2001:db8::7]:9\";proto=https, for=10.0.0.2")]);
        assert_eq!(by_range.client("10.0.0.1".parse().unwrap(), &said).to_string(), "2001:db8::7");
    }

    #[test]
    fn only_a_trusted_peers_word_reaches_the_endpoint() {
        let trusted = Trusted { cidrs: vec!["10.0.0.0/8".parse().unwrap()], hops: 0 };
        let said = [
            ("host", "a.test"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-host", "evil.test"),
            ("x-forwarded-prefix", "/x"),
            ("forwarded", "for=1.2.3.4"),
            ("x-request-id", "mine"),
        ];
        let told = |peer: &str| {
            let mut headers = headers(&said);
            tell(&mut headers, &trusted, peer.parse().unwrap(), "https", || 7);
            let get = |name: &str| headers.get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
            [
                "x-forwarded-for",
                "x-forwarded-proto",
                "x-forwarded-host",
                "x-forwarded-prefix",
                "forwarded",
                "x-request-id",
            ]
            .map(get)
        };
        let id = format!("{:032x}", 7);
        assert_eq!(told("192.0.2.1"), ["192.0.2.1", "https", "a.test", "", "", id.as_str()]);
        assert_eq!(
            told("10.0.0.1"),
            ["1.2.3.4, 10.0.0.1", "gopher", "evil.test", "/x", "for=1.2.3.4, for=10.0.0.1;proto=https", "mine"]
        );
    }
}
