//! Address ranges: those that are written somewhere, and blocks around addresses that lie outside of them.
//!
//! In: ranges as text, addresses seen. Out: distinct ranges, sorted. Pure. A pod outside of every node's range (some
//! networks hand out their own) still gets its /24 or /64.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// More would fill the topology; the rest is reached as far as it is covered.
const RANGES_MAX: usize = 256;

/// The written ranges, and one block for each address that none of them covers.
pub(super) fn cover(written: &[String], seen: &[IpAddr]) -> Vec<String> {
    let mut ranges: Vec<IpNet> = written.iter().filter_map(|c| c.parse::<IpNet>().ok()).map(|n| n.trunc()).collect();
    ranges.sort_unstable();
    ranges.dedup();
    let blocks: BTreeSet<IpNet> = seen
        .iter()
        .filter(|ip| !ranges.iter().any(|range| range.contains(*ip)))
        .map(|ip| match ip {
            IpAddr::V4(v4) => IpNet::V4(Ipv4Net::new_assert(*v4, 24)),
            IpAddr::V6(v6) => IpNet::V6(Ipv6Net::new_assert(*v6, 64)),
        })
        .map(|block| block.trunc())
        .collect();
    ranges.extend(blocks);
    // Ranges of the same family that touch become one, where they make up a whole one.
    IpNet::aggregate(&ranges).into_iter().take(RANGES_MAX).map(|range| range.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_outside_of_what_is_written_get_their_block() {
        for (written, seen, want) in [
            (vec!["10.1.0.0/24"], vec!["10.1.0.7"], vec!["10.1.0.0/24"]),
            (vec!["10.1.0.0/24"], vec!["10.2.0.7", "10.2.0.9"], vec!["10.1.0.0/24", "10.2.0.0/24"]),
            (vec![], vec!["fd00:1::5"], vec!["fd00:1::/64"]),
            (vec!["nonsense", "10.1.0.9/24"], vec![], vec!["10.1.0.0/24"]),
            (vec!["10.1.0.0/24", "10.1.1.0/24"], vec![], vec!["10.1.0.0/23"]),
            (vec![], vec![], vec![]),
        ] {
            let written: Vec<String> = written.into_iter().map(str::to_owned).collect();
            let seen: Vec<IpAddr> = seen.into_iter().map(|ip| ip.parse().unwrap()).collect();
            assert_eq!(cover(&written, &seen), want, "{written:?} {seen:?}");
        }
    }
}
