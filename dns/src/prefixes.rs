//! Address ranges with what stands behind them; the longest prefix that holds an address counts. Pure.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

/// Ranges by prefix. A look-up takes one hash for each length that is in use.
#[derive(Debug, Clone, PartialEq)]
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

    /// All ranges.
    pub(crate) fn nets(&self) -> impl Iterator<Item = &IpNet> {
        self.entries.keys()
    }

    /// What stands behind the longest prefix that holds `ip`.
    pub(crate) fn find(&self, ip: IpAddr) -> Option<(IpNet, &[T])> {
        let ip = ip.to_canonical();
        self.lengths[usize::from(ip.is_ipv6())].iter().rev().find_map(|length| {
            let net = IpNet::new(ip, *length).ok()?.trunc();
            Some((net, self.entries.get(&net)?.as_slice()))
        })
    }

    /// What stands behind every range that holds `ip`, the longest first.
    pub(crate) fn all(&self, ip: IpAddr) -> impl Iterator<Item = (IpNet, &T)> {
        let ip = ip.to_canonical();
        let nets = self.lengths[usize::from(ip.is_ipv6())].iter().rev().filter_map(move |length| {
            let net = IpNet::new(ip, *length).ok()?.trunc();
            Some((net, self.entries.get(&net)?))
        });
        nets.flat_map(|(net, values)| values.iter().map(move |value| (net, value)))
    }

    /// What stands behind the ranges inside `net`.
    pub(crate) fn inside(&self, net: IpNet) -> impl Iterator<Item = (IpNet, &T)> {
        let within = self.entries.iter().filter(move |(own, _)| net.contains(*own));
        within.flat_map(|(own, values)| values.iter().map(move |value| (*own, value)))
    }
}

/// The neighbourhood of `ip`: its /24 or /56. Neighbours have the same number, others have another.
pub(crate) fn client_net(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits() >> 8) | 1 << 63,
        IpAddr::V6(v6) => (v6.to_bits() >> 72) as u64,
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
        let all: Vec<&str> = table.all("10.1.0.9".parse().unwrap()).map(|(_, v)| *v).collect();
        assert_eq!(all, ["c", "b", "d", "a"]);
        for (net, count) in [("10.1.0.0/16", 3), ("10.0.0.0/7", 4), ("192.0.2.0/24", 0)] {
            assert_eq!(table.inside(net.parse().unwrap()).count(), count, "{net}");
        }
    }
}
