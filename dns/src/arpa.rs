//! Names of reverse zones as address ranges (RFC 1035 §3.5, RFC 3596 §2.5), classless delegations included (RFC 2317). Pure.
//!
//! ```text
//!   7.0.1.10.in-addr.arpa          10.1.0.7/32
//!   1.10.in-addr.arpa              10.1.0.0/16
//!   7.0/25.0.1.10.in-addr.arpa     10.1.0.0/24, and something left of it
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;
use ipnet::IpNet;

use crate::names::text;

/// The ends of the names of addresses.
const IN_ADDR: &[u8] = b"\x07in-addr\x04arpa\x00";
const IP6: &[u8] = b"\x03ip6\x04arpa\x00";

/// What a name of a reverse zone stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reverse {
    /// The range that its labels spell, as far as they spell one.
    pub(crate) net: IpNet,
    /// Whether they spell it to the end; else it is a name of its owner's making below that range (RFC 2317 §4).
    pub(crate) whole: bool,
}

impl Reverse {
    /// The one address that the name stands for.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        (self.whole && self.net.prefix_len() == self.net.max_prefix_len()).then(|| self.net.addr())
    }

    /// Whether whoever has `range` may speak for the name.
    pub(crate) fn belongs_to(&self, range: &IpNet) -> bool {
        // A classless child is called by a name above its own range: 0/25.0.1.10 holds 10.1.0.0/25 only.
        range.contains(&self.net) || (!self.whole && self.net.contains(range))
    }
}

/// What `name` stands for; `None` for one of no reverse zone, and for the zones' roots.
pub(crate) fn reverse(name: &Name) -> Option<Reverse> {
    let mut labels = name.iter().rev();
    if !labels.next()?.eq_ignore_ascii_case(b"arpa") {
        return None;
    }
    let root = labels.next()?;
    let (v6, most, bits) = match () {
        () if root.eq_ignore_ascii_case(b"in-addr") => (false, 4, 8),
        () if root.eq_ignore_ascii_case(b"ip6") => (true, 32, 4),
        () => return None,
    };
    let (mut value, mut known, mut all) = (0_u128, 0_u8, 0);
    let mut spells = true;
    for label in labels {
        all += 1;
        let part = if v6 { nibble(label) } else { octet(label) };
        match part.filter(|_| spells && known < most) {
            Some(part) => {
                value = value << bits | u128::from(part);
                known += 1;
            }
            None => spells = false,
        }
    }
    if known == 0 {
        return None;
    }
    let width = most * bits;
    let value = value << (width - known * bits);
    let ip =
        if v6 { IpAddr::V6(Ipv6Addr::from(value)) } else { IpAddr::V4(Ipv4Addr::from(u32::try_from(value).ok()?)) };
    let net = IpNet::new(ip, known * bits).ok()?;
    Some(Reverse { net, whole: all == usize::from(known) })
}

/// The address whose name `octets` are, in lower case; `None` for every other name. Allocates nothing.
pub(crate) fn address(octets: &[u8]) -> Option<IpAddr> {
    let (mut labels, v6) = match octets.strip_suffix(IN_ADDR) {
        Some(labels) => (labels, false),
        None => (octets.strip_suffix(IP6)?, true),
    };
    let (most, bits) = if v6 { (32, 4) } else { (4, 8) };
    let (mut value, mut known) = (0_u128, 0_u32);
    while let Some((length, after)) = labels.split_first() {
        let (label, after) = after.split_at_checked(usize::from(*length))?;
        let part = if v6 { nibble(label) } else { octet(label) };
        value |= u128::from(part.filter(|_| known < most)?) << (known * bits);
        (labels, known) = (after, known + 1);
    }
    let whole = known == most;
    let v4 = || u32::try_from(value).ok().map(|value| IpAddr::V4(Ipv4Addr::from(value)));
    whole.then(|| if v6 { Some(IpAddr::V6(Ipv6Addr::from(value))) } else { v4() }).flatten()
}

fn octet(label: &[u8]) -> Option<u8> {
    let digits = text(label).filter(|t| t.bytes().all(|b| b.is_ascii_digit()) && (t.len() == 1 || !t.starts_with('0')));
    digits?.parse().ok()
}

fn nibble(label: &[u8]) -> Option<u8> {
    match label {
        [digit] => char::from(*digit).to_digit(16).and_then(|d| u8::try_from(d).ok()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{absolute, lower_octets};

    #[test]
    fn names_of_reverse_zones_are_read_as_ranges() {
        for (name, net, whole) in [
            ("7.0.1.10.in-addr.arpa", "10.1.0.7/32", true),
            ("1.10.IN-ADDR.arpa", "10.1.0.0/16", true),
            ("7.0-25.0.1.10.in-addr.arpa", "10.1.0.0/24", false),
            ("0-127.0.1.10.in-addr.arpa", "10.1.0.0/24", false),
            ("x.7.0.1.10.in-addr.arpa", "10.1.0.7/32", false),
            ("300.1.10.in-addr.arpa", "10.1.0.0/16", false),
            ("8.b.d.0.1.0.0.2.ip6.arpa", "2001:db8::/32", true),
        ] {
            let want = Reverse { net: net.parse().unwrap(), whole };
            assert_eq!(reverse(&absolute(name).unwrap()), Some(want), "{name}");
        }
        for name in ["in-addr.arpa", "arpa", "7.0.1.10.example", "web.in-addr.arpa", "ip6.arpa"] {
            assert_eq!(reverse(&absolute(name).unwrap()), None, "{name}");
        }
        let ip: IpAddr = "2001:db8::567:89ab".parse().unwrap();
        let name = Name::from(ip);
        assert_eq!(reverse(&name).and_then(|r| r.address()), Some(ip), "{name}");
    }

    #[test]
    fn octets_are_an_address_where_the_name_is() {
        let six = Name::from("2001:db8::567:89ab".parse::<IpAddr>().unwrap()).to_string();
        let short = six.replacen("b.a.", "b.", 1);
        for name in [
            "7.0.1.10.in-addr.arpa",
            "7.0.1.10.IN-Addr.ARPA",
            "07.0.1.10.in-addr.arpa",
            "x.7.0.1.10.in-addr.arpa",
            "0.1.10.in-addr.arpa",
            "256.0.1.10.in-addr.arpa",
            "7.0-25.0.1.10.in-addr.arpa",
            "7.0.1.10.in-addr.arpa.example",
            "7.0.1.10.xin-addr.arpa",
            "in-addr.arpa",
            "arpa",
            "ip6.arpa",
            &six,
            &short,
        ] {
            let name = absolute(name).unwrap();
            assert_eq!(address(&lower_octets(&name)), reverse(&name).and_then(|r| r.address()), "{name}");
        }
        // A label that holds the octets of the ends is none of them.
        let odd = Name::from_labels([&b"7"[..], b"0", b"1", b"10", b"\x07in-addr\x04arpa"]).unwrap();
        assert_eq!(address(&lower_octets(&odd)), None);
    }

    #[test]
    fn a_range_speaks_for_what_lies_in_it() {
        let range: IpNet = "10.1.0.0/25".parse().unwrap();
        for (name, speaks) in [
            ("7.0.1.10.in-addr.arpa", true),
            ("200.0.1.10.in-addr.arpa", false),
            ("7.0-25.0.1.10.in-addr.arpa", true),
            ("0.1.10.in-addr.arpa", false),
            ("x.1.1.10.in-addr.arpa", false),
        ] {
            assert_eq!(reverse(&absolute(name).unwrap()).unwrap().belongs_to(&range), speaks, "{name}");
        }
    }
}
