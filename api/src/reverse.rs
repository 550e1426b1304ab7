//! Address ranges as reverse zones (RFC 1035 §3.5, RFC 3596 §2.5): what a resolver can be told to ask elsewhere. Pure.
//!
//! ```text
//!   10.1.0.0/16    1.10.in-addr.arpa
//!   10.96.0.0/12   96.10.in-addr.arpa … 111.10.in-addr.arpa
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The zones that make up a range, without the last dot. `None` where no zone ends: an IPv4 range longer than /24 that is more than one
/// address lies inside a zone that others have a part of (RFC 2317).
pub fn zones(range: &IpNet) -> Option<Vec<String>> {
    let (address, length) = (range.network(), range.prefix_len());
    let (width, step) = if address.is_ipv4() { (32, 8) } else { (128, 4) };
    if length == 0 || (width == 32 && (25..32).contains(&length)) {
        return None;
    }
    let whole = length.div_ceil(step) * step;
    let first = match address {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    };
    let zone = |i: u32| {
        let at = first | (u128::from(i) << (width - whole));
        if width == 32 { v4(u32::try_from(at).unwrap_or(u32::MAX).into(), whole / 8) } else { v6(at.into(), whole / 4) }
    };
    Some((0..1_u32 << (whole - length)).map(zone).collect())
}

/// Zones in one configuration.
const ZONES_MAX: usize = 1024;

/// The reverse zones of everybody's ranges but one's own, and what to know about them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Others {
    /// Sorted, without the last dot.
    pub zones: Vec<String>,
    /// Ranges that no zone is made of.
    pub left_out: Vec<String>,
    /// How many zones there are beyond those.
    pub beyond: usize,
}

/// The reverse zones of `all` ranges but those of `own`. An overlap with the own addresses stays with who has them.
pub fn others<'r>(own: impl IntoIterator<Item = &'r str>, all: impl IntoIterator<Item = &'r str>) -> Others {
    let parsed = |range: &str| range.parse::<IpNet>().ok().and_then(|range| zones(&range));
    let mut others = Others::default();
    for range in all {
        match parsed(range) {
            Some(more) => others.zones.extend(more),
            None => others.left_out.push(range.to_owned()),
        }
    }
    let own: Vec<String> = own.into_iter().filter_map(parsed).flatten().collect();
    others.zones.retain(|zone| !own.iter().any(|own| own == zone || own.ends_with(&format!(".{zone}"))));
    others.zones.sort();
    others.zones.dedup();
    others.beyond = others.zones.len().saturating_sub(ZONES_MAX);
    others.zones.truncate(ZONES_MAX);
    others
}

fn v4(ip: Ipv4Addr, octets: u8) -> String {
    let labels = ip.octets().into_iter().take(octets.into()).map(|o| o.to_string()).collect::<Vec<_>>();
    format!("{}.in-addr.arpa", labels.into_iter().rev().collect::<Vec<_>>().join("."))
}

fn v6(ip: Ipv6Addr, nibbles: u8) -> String {
    let digits: Vec<String> = format!("{:032x}", u128::from(ip)).chars().map(String::from).collect();
    let labels: Vec<&str> = digits.iter().take(nibbles.into()).rev().map(String::as_str).collect();
    format!("{}.ip6.arpa", labels.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_of_others_leave_out_what_overlaps_with_ones_own() {
        let others = others(["10.1.0.0/16"], ["10.0.0.0/8", "10.2.0.0/16", "10.2.0.0/16", "192.0.2.0/25"]);
        assert_eq!(others.zones, ["2.10.in-addr.arpa"]);
        assert_eq!((others.left_out, others.beyond), (vec!["192.0.2.0/25".to_owned()], 0));
    }

    #[test]
    fn ranges_become_the_zones_that_make_them_up() {
        for (range, first, last, count) in [
            ("10.1.0.0/16", "1.10.in-addr.arpa", "1.10.in-addr.arpa", 1),
            ("10.96.0.0/12", "96.10.in-addr.arpa", "111.10.in-addr.arpa", 16),
            ("10.0.0.0/9", "0.10.in-addr.arpa", "127.10.in-addr.arpa", 128),
            ("192.0.2.0/23", "2.0.192.in-addr.arpa", "3.0.192.in-addr.arpa", 2),
            ("192.0.2.7/32", "7.2.0.192.in-addr.arpa", "7.2.0.192.in-addr.arpa", 1),
            ("2001:db8::/32", "8.b.d.0.1.0.0.2.ip6.arpa", "8.b.d.0.1.0.0.2.ip6.arpa", 1),
            ("fd00::/46", "0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", "3.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", 4),
        ] {
            let zones = zones(&range.parse().unwrap()).unwrap();
            let ends = (zones.first().map(String::as_str), zones.last().map(String::as_str), zones.len());
            assert_eq!(ends, (Some(first), Some(last), count), "{range}");
        }
        for range in ["192.0.2.0/25", "192.0.2.8/31", "0.0.0.0/0"] {
            assert_eq!(zones(&range.parse().unwrap()), None, "{range}");
        }
    }
}
