//! The link-local address of a node-local DNS: put on the loopback interface for as long as it runs.
//!
//! In: an address. Out: a guard, which takes the address away again if it was put there. An address that some interface has already is left
//! as it is; one that is not link-local is somebody else's to give. Needs CAP_NET_ADMIN. Source: rtnetlink(7), netlink(7).

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context as _;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};
use std::os::fd::AsRawFd as _;

use crate::error::Exit;

const LOOPBACK: &str = "lo";
const NEW: u16 = 20;
const DELETE: u16 = 21;
/// NLM_F_REQUEST and NLM_F_ACK; with NLM_F_CREATE and NLM_F_EXCL.
const ASK: u16 = 0x1 | 0x4;
const MAKE: u16 = ASK | 0x400 | 0x200;
const ERROR: u16 = 2;
/// RT_SCOPE_HOST: it is nobody's but this machine's.
const SCOPE_HOST: u8 = 254;
const LOCAL: u16 = 2;
const ADDRESS: u16 = 1;
const EXISTS: i32 = 17;

/// An address that was put there.
#[derive(Debug)]
pub(super) struct Held(Option<Ipv4Addr>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(ip) = self.0
            && let Err(error) = change(DELETE, ASK, ip)
        {
            tracing::warn!(%ip, %error, "the address of the node-local DNS stays on {LOOPBACK}");
        }
    }
}

/// Sees to it that this machine has `ip`, if that is for us to say.
///
/// # Errors
/// [`Exit::Failed`]: it may not.
pub(super) fn hold(ip: IpAddr) -> anyhow::Result<Held> {
    let IpAddr::V4(ip) = ip else { return Ok(Held(None)) };
    if !ip.is_link_local() || is_ours(ip).context("the addresses of this machine")? {
        return Ok(Held(None));
    }
    match change(NEW, MAKE, ip) {
        Ok(()) => Ok(Held(Some(ip))),
        Err(e) if e.raw_os_error() == Some(EXISTS) => Ok(Held(None)),
        Err(error) => {
            let why = format!(
                "agent.dns.listen: {ip} can't be put on {LOOPBACK}: {error}; it needs CAP_NET_ADMIN, or the address on an interface"
            );
            Err(Exit::Failed(why).into())
        }
    }
}

fn is_ours(ip: Ipv4Addr) -> io::Result<bool> {
    let all = nix::ifaddrs::getifaddrs()?;
    Ok(all.filter_map(|interface| interface.address?.as_sockaddr_in().map(|a| a.ip())).any(|own| own == ip))
}

/// Adds or takes away `ip` on the loopback interface.
fn change(kind: u16, flags: u16, ip: Ipv4Addr) -> io::Result<()> {
    let index = nix::net::if_::if_nametoindex(LOOPBACK)?;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    sendto(socket.as_raw_fd(), &message(kind, flags, index, ip), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut reply = [0; 1024];
    let len = recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
    answer(&reply[..len])
}

/// A request: its header, what it is about, the address twice as attributes.
fn message(kind: u16, flags: u16, index: u32, ip: Ipv4Addr) -> Vec<u8> {
    let mut body = vec![AddressFamily::Inet as u8, 32, 0, SCOPE_HOST];
    body.extend(index.to_ne_bytes());
    for attribute in [LOCAL, ADDRESS] {
        body.extend(8_u16.to_ne_bytes());
        body.extend(attribute.to_ne_bytes());
        body.extend(ip.octets());
    }
    let length = u32::try_from(16 + body.len()).unwrap_or(0);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Number and sender: there is one request on this socket.
    message.extend([1_u32.to_ne_bytes(), 0_u32.to_ne_bytes()].concat());
    message.extend(body);
    message
}

/// The kernel's word: an error of 0 is none.
fn answer(reply: &[u8]) -> io::Result<()> {
    let kind = reply.get(4..6).map(|octets| u16::from_ne_bytes([octets[0], octets[1]]));
    let code = reply.get(16..20).map(|o| i32::from_ne_bytes([o[0], o[1], o[2], o[3]]));
    match (kind, code) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(code)) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(io::Error::other("the kernel answered something else")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_form_that_the_kernel_reads() {
        let message = message(NEW, MAKE, 1, Ipv4Addr::new(169, 254, 20, 10));
        assert_eq!((message.len(), message[0]), (40, 40));
        assert_eq!(&message[16..20], [2, 32, 0, 254]);
        assert_eq!(&message[28..32], [169, 254, 20, 10]);
        for (code, fails) in [(0_i32, false), (-17, true)] {
            let mut reply = vec![0; 36];
            reply[4..6].copy_from_slice(&ERROR.to_ne_bytes());
            reply[16..20].copy_from_slice(&code.to_ne_bytes());
            assert_eq!(answer(&reply).is_err(), fails, "{code}");
        }
        assert!(answer(&[]).is_err());
    }

    #[test]
    fn addresses_that_are_there_or_not_link_local_are_left_to_others() {
        for ip in ["127.0.0.1", "192.0.2.1", "::1"] {
            assert!(hold(ip.parse().unwrap()).unwrap().0.is_none(), "{ip}");
        }
    }
}
