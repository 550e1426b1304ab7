//! Address ranges with what stands behind them; the longest prefix that holds an address counts. Pure.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

/// Ranges by prefix. A look-up takes one hash for each length that is in use.
#[derive(Debug, Clone)]
pub(crate) struct Prefixes<T> {
    entries: HashMap<IpNet, Vec<T>>,
    /// Lengths in use, v4 and v6, longest last.
    lengths: [BTreeSet<u8>; 2],
}

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), lengths: Default::default() }
    }
}

impl<T> Prefixes<T> {
    pub(crate) fn insert(&mut self, net: IpNet, value: T) {
        let net = net.trunc();
        self.lengths[usize::from(net.addr().is_ipv6())].insert(net.prefix_len());
        self.entries.entry(net).or_default().push(value);
    }

    /// What stands behind the longest prefix that holds `ip`.
    pub(crate) fn find(&self, ip: IpAddr) -> Option<(IpNet, &[T])> {
        let ip = ip.to_canonical();
        self.lengths[usize::from(ip.is_ipv6())].iter().rev().find_map(|length| {
            let net = IpNet::new(ip, *length).ok()?.trunc();
            Some((net, self.entries.get(&net)?.as_slice()))
        })
    }

    /// Whether some range overlaps with `net`.
    pub(crate) fn touches(&self, net: &IpNet) -> bool {
        self.entries.keys().any(|own| own.contains(net) || net.contains(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_counts() {
        let mut table = Prefixes::default();
        for (net, word) in
            [("10.0.0.0/8", "a"), ("10.1.0.0/16", "b"), ("10.1.0.9/32", "c"), ("10.1.0.0/16", "d"), ("fd00::/8", "e")]
        {
            table.insert(net.parse().unwrap(), word);
        }
        for (ip, want) in [
            ("10.2.3.4", Some(vec!["a"])),
            ("10.1.3.4", Some(vec!["b", "d"])),
            ("::ffff:10.1.0.9", Some(vec!["c"])),
            ("fd00::1", Some(vec!["e"])),
            ("192.0.2.1", None),
        ] {
            assert_eq!(table.find(ip.parse().unwrap()).map(|(_, v)| v.to_vec()), want, "{ip}");
        }
        assert!(table.touches(&"10.0.0.0/7".parse().unwrap()) && !table.touches(&"192.0.2.0/24".parse().unwrap()));
    }
}
