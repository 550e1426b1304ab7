//! For how wide a network an answer is good: the widest around an address in which nothing else is said. Pure.
//!
//! In: every range that says something of a place. Out: a prefix length. RFC 7871 §7.2.1: where ranges lie within one another the scope of
//! the wider one must not hide the narrower ones, so that the wider is taken apart: the scope is as long as it must be to leave them out.

use std::net::IpAddr;

use ipnet::IpNet;

/// The edges of all ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Borders {
    /// Where ranges begin and where they end, v4 and v6, sorted.
    begins: [Vec<u128>; 2],
    ends: [Vec<u128>; 2],
}

impl Borders {
    /// Of these ranges.
    pub(crate) fn new<'a>(nets: impl Iterator<Item = &'a IpNet>) -> Self {
        let mut borders = Self::default();
        for net in nets {
            let family = usize::from(net.addr().is_ipv6());
            borders.begins[family].push(number(net.network()));
            borders.ends[family].push(number(net.broadcast()));
        }
        for edge in borders.begins.iter_mut().chain(&mut borders.ends) {
            edge.sort_unstable();
            edge.dedup();
        }
        borders
    }

    /// The shortest prefix around `ip`, no shorter than `matched`, that touches no range that does not hold `ip`.
    pub(crate) fn scope(&self, ip: IpAddr, matched: u8) -> u8 {
        let (family, bits) = if ip.is_ipv4() { (0, 32) } else { (1, 128) };
        let at = number(ip);
        // The nearest ranges that end before the address and that begin after it: of all others they have most bits in common with it.
        let before = self.ends[family].partition_point(|end| *end < at).checked_sub(1).map(|i| self.ends[family][i]);
        let after = self.begins[family].get(self.begins[family].partition_point(|begin| *begin <= at)).copied();
        let apart = |other: u128| u8::try_from((at ^ other).leading_zeros()).unwrap_or(128) - (128 - bits) + 1;
        let needed = before.into_iter().chain(after).map(apart).max().unwrap_or(0);
        needed.max(matched)
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn borders(nets: &[&str]) -> (Borders, Vec<IpNet>) {
        let nets: Vec<IpNet> = nets.iter().map(|n| n.parse().unwrap()).collect();
        (Borders::new(nets.iter()), nets)
    }

    #[test]
    fn a_wider_range_is_taken_apart_around_narrower_ones() {
        let nested = &["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "2001:db8::/32"][..];
        for (nets, ip, matched, want) in [
            (nested, "10.1.2.3", 24, 24),
            (nested, "10.1.3.3", 16, 24),
            (nested, "10.1.128.3", 16, 17),
            (nested, "10.128.0.1", 8, 9),
            (nested, "10.0.0.1", 8, 16),
            (nested, "192.0.2.1", 0, 1),
            (nested, "11.0.0.1", 0, 8),
            (nested, "2001:db8::1", 32, 32),
            (nested, "2001:db9::1", 0, 32),
            (&[], "192.0.2.1", 0, 0),
            (&["0.0.0.0/0"], "192.0.2.1", 0, 0),
        ] {
            assert_eq!(borders(nets).0.scope(ip.parse().unwrap(), matched), want, "{ip} of {nets:?}");
        }
    }

    proptest! {
        #[test]
        fn everybody_inside_the_scope_is_matched_by_the_same_range_and_half_of_it_is_needed(
            nets in proptest::collection::vec((any::<u32>(), 1u8..=32), 0..20),
            ip in any::<u32>(),
            other in any::<u32>(),
        ) {
            // Narrow the space, so that ranges meet.
            let small = |ip: u32| std::net::Ipv4Addr::from_bits(0x0a00_0000 | (ip & 0xffff));
            let nets: Vec<IpNet> = nets.iter().map(|(ip, len)| IpNet::new(small(*ip).into(), (*len).max(14)).unwrap().trunc()).collect();
            let borders = Borders::new(nets.iter());
            let longest = |ip: IpAddr| nets.iter().filter(|n| n.contains(&ip)).max_by_key(|n| n.prefix_len());
            let ip = IpAddr::from(small(ip));
            let matched = longest(ip).map_or(0, IpNet::prefix_len);
            let scope = borders.scope(ip, matched);
            let inside = IpNet::new(ip, scope).unwrap();
            let other = IpAddr::from(small(other));
            if inside.contains(&other) {
                prop_assert_eq!(longest(ip), longest(other));
            }
            if scope > matched {
                let wider = IpNet::new(ip, scope - 1).unwrap().trunc();
                prop_assert!(nets.iter().any(|n| wider.contains(n) && !n.contains(&ip)), "{} is longer than needed", scope);
            }
        }
    }
}
