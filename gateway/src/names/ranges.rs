//! Which addresses a name may lead to. Pure.
//!
//! Whoever may write a Service may choose a name, and whoever owns the name what it leads to: not to the gateway's own machine, not to what is
//! only there for it, such as a cloud's metadata. Source: CVE-2021-25740; RFC 6890; RFC 6052 and 3056 for IPv4 within IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::NameSettings;

/// Where clouds give their machines metadata and more, beside link-local addresses.
const METADATA: &[IpAddr] = &[
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

impl NameSettings {
    /// Why an address is not used; nothing where it may be.
    pub(super) fn refuses(&self, ip: IpAddr) -> Option<&'static str> {
        let ip = ip.to_canonical();
        if self.deny.iter().any(|range| range.contains(&ip)) {
            return Some("denied by gateway.names.deny");
        }
        if self.allow.iter().any(|range| range.contains(&ip)) {
            return None;
        }
        let within = match ip {
            IpAddr::V6(ip) => embedded(ip).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        special(ip).or_else(|| within.and_then(special))
    }
}

fn special(ip: IpAddr) -> Option<&'static str> {
    if METADATA.contains(&ip) {
        return Some("a cloud's metadata");
    }
    match ip {
        IpAddr::V4(ip) => match ip.octets() {
            [127, ..] => Some("loopback"),
            [0, ..] => Some("unspecified"),
            [169, 254, ..] => Some("link-local"),
            [224..=239, ..] => Some("multicast"),
            [240..=255, ..] => Some("reserved"),
            _ => None,
        },
        IpAddr::V6(ip) if ip.is_loopback() => Some("loopback"),
        IpAddr::V6(ip) if ip.is_unspecified() => Some("unspecified"),
        IpAddr::V6(ip) if ip.is_multicast() => Some("multicast"),
        IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfe80 => Some("link-local"),
        IpAddr::V6(_) => None,
    }
}

/// The IPv4 address that one of NAT64, 6to4 or the old compatible ones stands for.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_machine_alone_is_refused() {
        let settings = NameSettings::default();
        for (ip, why) in [
            ("127.0.0.1", "loopback"),
            ("127.9.9.9", "loopback"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("64:ff9b::7f00:1", "loopback"),
            ("2002:7f00:1::1", "loopback"),
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("::", "unspecified"),
            ("169.254.169.254", "link-local"),
            ("64:ff9b::a9fe:a9fe", "link-local"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("100.100.100.200", "a cloud's metadata"),
            ("fd00:ec2::254", "a cloud's metadata"),
        ] {
            assert_eq!(settings.refuses(ip.parse().unwrap()), Some(why), "{ip}");
        }
        for ip in ["10.0.0.1", "192.168.1.1", "100.64.0.1", "203.0.113.9", "fd00::1", "2001:db8::1", "64:ff9b::a00:1"] {
            assert_eq!(settings.refuses(ip.parse().unwrap()), None, "{ip}");
        }
    }

    #[test]
    fn the_operator_allows_ranges_and_denies_others() {
        let ranges = |said: &[&str]| said.iter().map(|range| range.parse().unwrap()).collect();
        let settings = NameSettings {
            allow: ranges(&["127.0.0.0/8", "10.0.0.0/8"]),
            deny: ranges(&["10.96.0.0/12", "127.0.0.9/32"]),
            ..NameSettings::default()
        };
        for (ip, refused) in [
            ("127.0.0.1", false),
            ("::ffff:127.0.0.1", false),
            ("::1", true),
            ("10.1.1.1", false),
            ("10.96.0.1", true),
            ("127.0.0.9", true),
        ] {
            assert_eq!(settings.refuses(ip.parse().unwrap()).is_some(), refused, "{ip}");
        }
    }
}
