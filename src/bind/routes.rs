//! IPv6 addresses that are ours by a route alone: `ip -6 route add local 2001:db8:80::/120 dev lo`.
//!
//! The kernel lets a program bind an IPv4 address of such a route as it is, one of IPv6 only with IPV6_FREEBIND (ip(7), IP_FREEBIND), which would let
//! it bind anything. So the option is set where the kernel's table of routes says that packets for the address come to this machine, and nowhere else.
//! Source: `/proc/net/ipv6_route`, as proc(5) names it; its flags are those of `linux/ipv6_route.h`.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};

use socket2::Socket;

/// The flag of a route whose packets are for this machine (RTF_LOCAL).
const LOCAL: u32 = 0x8000_0000;

/// Binds a socket, to an address of a local route, too.
///
/// # Errors
/// As bind(2); `AddrNotAvailable` where packets for the address don't come here.
pub(super) fn bind(socket: &Socket, at: SocketAddr) -> io::Result<()> {
    match (socket.bind(&at.into()), at) {
        (Err(error), SocketAddr::V6(v6)) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            if !is_local(&std::fs::read_to_string("/proc/net/ipv6_route")?, *v6.ip()) {
                return Err(error);
            }
            socket.set_freebind_v6(true)?;
            socket.bind(&at.into())
        }
        (bound, _) => bound,
    }
}

/// Whether the longest route to the address is a local one.
fn is_local(table: &str, ip: Ipv6Addr) -> bool {
    let routes = table.lines().filter_map(route).filter(|route| {
        let mask = u128::MAX.checked_shl(128 - route.len).unwrap_or(0);
        (u128::from(ip) ^ route.to) & mask == 0
    });
    routes.max_by_key(|route| route.len).is_some_and(|route| route.flags & LOCAL != 0)
}

/// A line of the table: where it leads, and what it is.
struct Route {
    to: u128,
    len: u32,
    flags: u32,
}

fn route(line: &str) -> Option<Route> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [to, len, _, _, _, _, _, _, flags, ..] = words[..] else { return None };
    Some(Route {
        to: u128::from_str_radix(to, 16).ok()?,
        len: u32::from_str_radix(len, 16).ok().filter(|len| *len <= 128)?,
        flags: u32::from_str_radix(flags, 16).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
00000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000003 00000000 80200001       lo
20010db8008000000000000000000000 78 00000000000000000000000000000000 00 00000000000000000000000000000000 00000400 00000001 00000000 80000001       lo
20010db80080000000000000000000f0 7c 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
no route at all
";

    #[test]
    fn the_longest_route_says_whose_an_address_is() {
        let cases = [
            ("2001:db8:80::5", true, "within the range"),
            ("2001:db8:80::f1", false, "a longer route leads elsewhere"),
            ("2001:db8:81::5", false, "only the default route"),
            ("::1", true, "an address of an interface"),
        ];
        for (ip, local, case) in cases {
            assert_eq!(is_local(TABLE, ip.parse().unwrap()), local, "{case}");
        }
        assert!(!is_local("", Ipv6Addr::LOCALHOST), "no table");
    }
}
