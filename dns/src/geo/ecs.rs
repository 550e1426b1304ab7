//! The client's network in a query and in its reply (RFC 7871). Pure.
//!
//! In: the octets of the option. Out: a [`Subnet`], or that it breaks a rule: FORMERR (§7.1.2, §9). Whose word counts is decided elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The option's longest form: family, two lengths, an IPv6 address.
const OPTION_BYTES_MAX: usize = 20;

/// What a forwarder says of its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    net: IpNet,
}

/// The option of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Echo {
    octets: [u8; OPTION_BYTES_MAX],
    len: usize,
}

impl Echo {
    pub(crate) fn octets(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

/// The option breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Subnet {
    /// Reads the option of a query.
    ///
    /// # Errors
    /// §6: "SCOPE PREFIX-LENGTH … MUST be set to 0 in queries"; as many octets of address as the prefix needs; the rest of its bits zero;
    /// a family that we know, a length that the family has.
    pub(crate) fn read(option: &[u8]) -> Result<Self, Malformed> {
        let (&[family_high, family_low, source, scope], address) = option.split_first_chunk::<4>().ok_or(Malformed)?;
        let (zero, longest): (IpAddr, u8) = match u16::from_be_bytes([family_high, family_low]) {
            1 => (Ipv4Addr::UNSPECIFIED.into(), 32),
            2 => (Ipv6Addr::UNSPECIFIED.into(), 128),
            _ => return Err(Malformed),
        };
        if scope != 0 || source > longest || address.len() != usize::from(source).div_ceil(8) {
            return Err(Malformed);
        }
        let ip = match zero {
            IpAddr::V4(_) => {
                let mut octets = [0; 4];
                octets[..address.len()].copy_from_slice(address);
                IpAddr::from(octets)
            }
            IpAddr::V6(_) => {
                let mut octets = [0; 16];
                octets[..address.len()].copy_from_slice(address);
                IpAddr::from(octets)
            }
        };
        let net = IpNet::new(ip, source).map_err(|_| Malformed)?;
        // §6: "with all other bits set to 0".
        if net.network() == ip { Ok(Self { net }) } else { Err(Malformed) }
    }

    /// The network; `None` where the client asks that nothing be made of its address (§7.1.2: a source prefix of 0).
    pub(crate) fn network(self) -> Option<IpNet> {
        (self.net.prefix_len() > 0).then_some(self.net)
    }

    /// The option of the reply: the query's, and for how wide a network the answer is good.
    pub(crate) fn reply(self, scope: u8) -> Echo {
        let mut out = [0; OPTION_BYTES_MAX];
        let family: u16 = if self.net.addr().is_ipv4() { 1 } else { 2 };
        // §7.2.1: a source prefix of 0 has a scope of 0.
        let scope = if self.net.prefix_len() == 0 { 0 } else { scope.min(self.net.max_prefix_len()) };
        out[..2].copy_from_slice(&family.to_be_bytes());
        out[2..4].copy_from_slice(&[self.net.prefix_len(), scope]);
        let len = usize::from(self.net.prefix_len()).div_ceil(8);
        match self.net.addr() {
            IpAddr::V4(ip) => out[4..4 + len].copy_from_slice(&ip.octets()[..len]),
            IpAddr::V6(ip) => out[4..4 + len].copy_from_slice(&ip.octets()[..len]),
        }
        Echo { octets: out, len: 4 + len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_read_as_the_rfc_says_or_refused() {
        for (name, option, want) in [
            ("a /24", &[0, 1, 24, 0, 192, 0, 2][..], Ok(Some("192.0.2.0/24"))),
            ("a /20, cut within an octet", &[0, 1, 20, 0, 10, 1, 0x10], Ok(Some("10.1.16.0/20"))),
            ("a /56", &[0, 2, 56, 0, 0x20, 1, 0x0d, 0xb8, 0, 1, 2], Ok(Some("2001:db8:1:200::/56"))),
            ("please do not", &[0, 1, 0, 0], Ok(None)),
            ("bits beyond the prefix", &[0, 1, 20, 0, 10, 1, 0x11], Err(Malformed)),
            ("an octet too many", &[0, 1, 24, 0, 192, 0, 2, 0], Err(Malformed)),
            ("an octet too few", &[0, 1, 24, 0, 192, 0], Err(Malformed)),
            ("a scope in a query", &[0, 1, 24, 24, 192, 0, 2], Err(Malformed)),
            ("longer than an address", &[0, 1, 33, 0, 192, 0, 2, 1, 0], Err(Malformed)),
            ("no family", &[0, 3, 0, 0], Err(Malformed)),
            ("nothing", &[], Err(Malformed)),
        ] {
            let read = Subnet::read(option).map(|s| s.network().map(|n| n.to_string()));
            assert_eq!(read, want.map(|n| n.map(str::to_owned)), "{name}");
        }
    }

    #[test]
    fn the_reply_repeats_the_network_and_says_for_whom_it_is_good() {
        for (option, scope, want) in [
            (&[0, 1, 24, 0, 192, 0, 2][..], 16, &[0, 1, 24, 16, 192, 0, 2][..]),
            (&[0, 1, 24, 0, 192, 0, 2], 40, &[0, 1, 24, 32, 192, 0, 2]),
            (&[0, 1, 0, 0], 24, &[0, 1, 0, 0]),
            (&[0, 2, 8, 0, 0x20], 33, &[0, 2, 8, 33, 0x20]),
        ] {
            assert_eq!(Subnet::read(option).unwrap().reply(scope).octets(), want);
        }
    }
}
