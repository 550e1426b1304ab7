//! IPv6 addresses that are ours by a route alone: `ip -6 route add local 2001:db8:80::/120 dev lo`.
//!
//! In: a socket, where to bind it. Out: bind(2)'s own answer. The kernel lets a program bind an IPv4 address of such a route as it is, one of IPv6 only
//! with IPV6_FREEBIND (ip(7), IP_FREEBIND), which would let it bind anything. So the option is set where the kernel says that packets for the
//! address come to this machine, as `ip route get` asks it, and nowhere else. Source: rtnetlink(7), netlink(7).

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};
use socket2::Socket;

/// RTM_NEWROUTE, which answers RTM_GETROUTE.
const ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
/// NLM_F_REQUEST.
const ASK: u16 = 0x1;
/// RTA_DST.
const TO: u16 = 1;
/// RTN_LOCAL: the packet is for this machine; of a subnet's first address a router says RTN_ANYCAST, and takes no connections there.
const LOCAL: u8 = 2;

/// Binds a socket, to an address of a local route, too.
///
/// # Errors
/// As bind(2); `AddrNotAvailable` where packets for the address don't come here.
pub(super) fn bind(socket: &Socket, at: SocketAddr) -> io::Result<()> {
    let error = match socket.bind(&at.into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => error,
        bound => return bound,
    };
    let SocketAddr::V6(v6) = at else { return Err(error) };
    match is_local(*v6.ip()) {
        Ok(true) => {
            socket.set_freebind_v6(true)?;
            socket.bind(&at.into())
        }
        Ok(false) => Err(error),
        Err(unknown) => {
            tracing::warn!(ip = %v6.ip(), error = %unknown, "the kernel does not say where packets for an address go");
            Err(error)
        }
    }
}

/// Whether packets for the address come to this machine.
fn is_local(ip: Ipv6Addr) -> io::Result<bool> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    sendto(socket.as_raw_fd(), &question(ip), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut reply = [0; 1024];
    let len = recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
    Ok(is_of_local(&reply[..len]))
}

/// A request: its header, what it is about, the address as an attribute.
fn question(ip: Ipv6Addr) -> Vec<u8> {
    let mut body = vec![AddressFamily::Inet6 as u8, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    body.extend([20_u16.to_ne_bytes(), TO.to_ne_bytes()].concat());
    body.extend(ip.octets());
    let length = u32::try_from(16 + body.len()).unwrap_or(0);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend([GET_ROUTE.to_ne_bytes(), ASK.to_ne_bytes()].concat());
    // Number and sender: there is one request on this socket.
    message.extend([1_u32.to_ne_bytes(), 0_u32.to_ne_bytes()].concat());
    message.extend(body);
    message
}

/// Whether an answer is a route to this machine. Errors are none: there is no route, or it is forbidden.
fn is_of_local(reply: &[u8]) -> bool {
    reply.get(4..6) == Some(&ROUTE.to_ne_bytes()) && reply.get(16 + 7) == Some(&LOCAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_whose_an_address_is() {
        // Machines without IPv6 have not even that.
        let has = std::net::UdpSocket::bind("[::1]:0").is_ok();
        assert_eq!(is_local(Ipv6Addr::LOCALHOST).unwrap(), has);
        assert!(!is_local("2001:db8:ffff::1".parse().unwrap()).unwrap(), "nobody's");
        let message = question("2001:db8::7".parse().unwrap());
        assert_eq!((message.len(), &message[..4]), (48, &48_u32.to_ne_bytes()[..]));
        let error = [&[36, 0, 0, 0, 2, 0][..], &[0; 30]].concat();
        for reply in [&[][..], &error] {
            assert!(!is_of_local(reply), "{reply:?}");
        }
    }

    #[test]
    fn what_is_not_ours_stays_refused() {
        let at: SocketAddr = "[2001:db8:ffff::1]:0".parse().unwrap();
        let socket = Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None).unwrap();
        assert_eq!(bind(&socket, at).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }
}
