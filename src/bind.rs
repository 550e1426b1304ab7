//! Every socket that listens is bound here.
//!
//! In: an address, and whether it must be that one. Out: a bound socket, or an error that names the key, the address and what to do.
//! The first socket of a port is bound alone, so that two programs never share one silently; sockets of ours may join it afterwards.
//! UDP and TCP of a DNS port go together, with a UDP socket for each address of this machine, so that an answer leaves from the address
//! that was asked, and for each thread that answers. Where the port was not asked for, the next free one is taken and said.

mod fresh;
mod routes;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use anyhow::Context as _;
use atoll_dns::Encrypted;
use atoll_reach::{Accept, listener};
use rustls::server::ResolvesServerCert;
use socket2::{Domain, Protocol, Socket, Type};

pub(crate) use fresh::Fresh;

use crate::config::{Listen, Listens};
use crate::error::{self, Exit};

/// Ports tried after a taken one.
const TRIED_MAX: u16 = 100;
const BACKLOG: i32 = 1024;

/// Whether a taken port is an error or the next one will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strict {
    /// It is.
    Always,
    /// Only where the file names the port.
    Chosen,
}

/// A DNS port.
pub(crate) struct DnsPort {
    /// Non-blocking, as many for each local address as there are threads.
    pub(crate) udp: Vec<UdpSocket>,
    /// Non-blocking.
    pub(crate) tcp: TcpListener,
    /// Where both are.
    pub(crate) at: SocketAddr,
}

/// The sockets of encrypted DNS that the file asks for.
#[derive(Default)]
pub(crate) struct EncryptedPorts {
    pub(crate) tls: Option<TcpListener>,
    pub(crate) https: Option<TcpListener>,
    pub(crate) quic: Option<UdpSocket>,
    pub(crate) h3: Option<UdpSocket>,
}

impl EncryptedPorts {
    /// Binds them. Each was asked for, so none gives way.
    pub(crate) fn bind(listen: &Listens) -> anyhow::Result<Self> {
        let tcp = |at: Option<Listen>| at.map(|at| tcp(at, Strict::Always)).transpose();
        let udp = |at: Option<Listen>| at.map(|at| bind(at, Strict::Always, alone)).transpose();
        Ok(Self {
            tls: tcp(listen.dns_tls)?,
            https: tcp(listen.dns_https)?,
            quic: udp(listen.dns_quic)?,
            h3: udp(listen.dns_h3)?,
        })
    }

    /// As the DNS server takes them.
    pub(crate) fn with(self, certificate: Arc<dyn ResolvesServerCert>) -> anyhow::Result<Encrypted> {
        Ok(Encrypted {
            tls: self.tls.map(listener).transpose()?,
            https: self.https.map(listener).transpose()?,
            quic: self.quic,
            h3: self.h3,
            certificate: Some(certificate),
        })
    }
}

impl DnsPort {
    /// The TCP half as the parts take it.
    pub(crate) fn split(self) -> anyhow::Result<(Vec<UdpSocket>, Box<dyn Accept>)> {
        Ok((self.udp, listener(self.tcp)?))
    }
}

/// Binds a TCP port.
pub(crate) fn tcp(listen: Listen, strict: Strict) -> anyhow::Result<TcpListener> {
    bind(listen, strict, tcp_at)
}

/// Binds a TCP port for a part.
pub(crate) fn accept(listen: Listen, strict: Strict) -> anyhow::Result<Box<dyn Accept>> {
    Ok(listener(tcp(listen, strict)?)?)
}

/// Binds UDP and TCP of one port, UDP for so many threads.
pub(crate) fn dns(listen: Listen, strict: Strict, threads: usize) -> anyhow::Result<DnsPort> {
    bind(listen, strict, |at| dns_at(at, threads))
}

fn bind<T>(listen: Listen, strict: Strict, bind: impl Fn(SocketAddr) -> io::Result<T>) -> anyhow::Result<T> {
    let must = strict == Strict::Always || listen.chosen;
    let (mut at, mut drawn) = (listen.at, 0);
    loop {
        match bind(at) {
            Ok(bound) => {
                if at != listen.at {
                    error::say(format_args!("{}: {} is taken, using {at}", listen.key, listen.at));
                }
                return Ok(bound);
            }
            // The port that was drawn for one protocol is somebody's for the other: there are others to draw.
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && at.port() == 0 && drawn < TRIED_MAX => drawn += 1,
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && !must && at.port() - listen.at.port() < TRIED_MAX => {
                at.set_port(at.port().checked_add(1).context("no port is left")?);
            }
            Err(e) => return Err(refused(listen, &e)),
        }
    }
}

fn refused(listen: Listen, error: &io::Error) -> anyhow::Error {
    let Listen { key, at, .. } = listen;
    let what = match error.kind() {
        io::ErrorKind::AddrInUse => format!("another program listens there; stop it, or set {key} to another port"),
        io::ErrorKind::PermissionDenied => {
            format!("ports below 1024 need a right that this process has not; set {key} to a higher one")
        }
        io::ErrorKind::AddrNotAvailable => format!("no interface of this machine has that address; correct {key}"),
        _ => error.to_string(),
    };
    Exit::Failed(format!("{key}: can't listen on {at}: {what}")).into()
}

/// A TCP port, to the letter. Non-blocking.
///
/// # Errors
/// As bind(2)'s.
pub(crate) fn tcp_at(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier life in TIME_WAIT are no reason; one that listens still is.
    socket.set_reuse_address(true)?;
    routes::bind(&socket, at)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The one UDP socket of an address, to the letter. Non-blocking.
///
/// # Errors
/// As bind(2)'s.
pub(crate) fn alone(at: SocketAddr) -> io::Result<UdpSocket> {
    udp_at(at, 1)?.pop().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// So many sockets of one address, among which the kernel shares out the clients.
fn udp_at(at: SocketAddr, sockets: usize) -> io::Result<Vec<UdpSocket>> {
    let first = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
    // Alone: this fails when anybody else has the port, whether they would share it or not.
    routes::bind(&first, at)?;
    let mut all = vec![first];
    for _ in 1..sockets {
        // From now on those of this user may join.
        all[0].set_reuse_port(true)?;
        let more = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
        more.set_reuse_port(true)?;
        let same = all[0].local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        routes::bind(&more, same)?;
        all.push(more);
    }
    all.into_iter().map(|socket| socket.set_nonblocking(true).map(|()| socket.into())).collect()
}

fn dns_at(at: SocketAddr, threads: usize) -> io::Result<DnsPort> {
    let mut at = at;
    let tcp = tcp_at(at)?;
    at.set_port(tcp.local_addr()?.port());
    let udp = local(at)?.into_iter().map(|at| udp_at(at, threads.max(1))).collect::<io::Result<Vec<_>>>()?;
    Ok(DnsPort { udp: udp.into_iter().flatten().collect(), tcp, at })
}

/// The addresses that an address to listen on stands for: itself, or every one of this machine.
fn local(at: SocketAddr) -> io::Result<Vec<SocketAddr>> {
    if !at.ip().is_unspecified() {
        return Ok(vec![at]);
    }
    let mut all: Vec<SocketAddr> = nix::ifaddrs::getifaddrs()?
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
        })
        // Link-local addresses need a zone, which an answer could not name.
        .filter(|ip| match ip {
            IpAddr::V4(_) => true,
            IpAddr::V6(v6) => at.is_ipv6() && !v6.is_unicast_link_local(),
        })
        .map(|ip| SocketAddr::new(ip, at.port()))
        .collect();
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(at: SocketAddr, chosen: bool) -> Listen {
        Listen { key: "listen.dns", at, chosen }
    }

    fn free() -> SocketAddr {
        tcp_at("127.0.0.1:0".parse().unwrap()).unwrap().local_addr().unwrap()
    }

    #[test]
    fn where_any_port_will_do_another_is_drawn() {
        let left = std::cell::Cell::new(3);
        let at = "127.0.0.1:0".parse().unwrap();
        let drawn = bind(listen(at, true), Strict::Always, |at| {
            left.set(left.get() - 1);
            if left.get() > 0 { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(at.port()) }
        });
        assert_eq!((drawn.unwrap(), left.get()), (0, 0));
        let never = bind(listen(at, true), Strict::Always, |_| Err::<(), _>(io::ErrorKind::AddrInUse.into()));
        assert!(never.unwrap_err().to_string().contains("listen.dns"), "it ends");
    }

    #[test]
    fn a_taken_port_is_an_error_where_it_was_asked_for_and_else_the_next_one_is_used() {
        let theirs = tcp_at("127.0.0.1:0".parse().unwrap()).unwrap();
        let at = theirs.local_addr().unwrap();
        for (chosen, strict) in [(true, Strict::Chosen), (false, Strict::Always)] {
            let error = tcp(listen(at, chosen), strict).unwrap_err().to_string();
            assert!(error.contains("listen.dns") && error.contains("another program"), "{error}");
        }
        let other = tcp(listen(at, false), Strict::Chosen).unwrap().local_addr().unwrap();
        assert!(other.port() > at.port() && other.ip() == at.ip());
    }

    #[test]
    fn a_dns_port_is_free_only_if_both_its_halves_are() {
        let at = free();
        let shared = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        shared.set_reuse_port(true).unwrap();
        shared.bind(&at.into()).unwrap();
        let error = dns(listen(at, true), Strict::Chosen, 1).err().unwrap().to_string();
        assert!(error.contains("another program"), "a shared UDP port counts as taken: {error}");
        assert_ne!(dns(listen(at, false), Strict::Chosen, 1).unwrap().at, at);
        drop(shared);
        let ours = dns(listen(at, true), Strict::Chosen, 1).unwrap();
        assert!(!ours.udp.is_empty() && ours.udp.iter().all(|u| u.local_addr().unwrap() == ours.at));
        assert!(dns(listen(at, true), Strict::Chosen, 1).is_err(), "nobody can join our sockets");
    }

    #[test]
    fn sockets_of_ours_share_a_port_and_another_server_finds_it_taken() {
        let ours = dns(listen(free(), true), Strict::Chosen, 4).unwrap();
        assert!(ours.udp.len() == 4 && ours.udp.iter().all(|u| u.local_addr().unwrap() == ours.at));
        for threads in [1, 4] {
            let error = udp_at(ours.at, threads).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "by another one with {threads} threads");
        }
        // Clients are shared out: each has a port of its own, by which the kernel chooses.
        for id in 0..64 {
            UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[id], ours.at).unwrap();
        }
        let mut octets = [0; 1];
        let got: Vec<usize> =
            ours.udp.iter().map(|u| std::iter::from_fn(|| u.recv_from(&mut octets).ok()).count()).collect();
        assert_eq!(got.iter().sum::<usize>(), 64, "{got:?}");
        assert!(got.iter().filter(|count| **count > 0).count() > 1, "{got:?}");
    }

    #[test]
    fn a_wildcard_stands_for_every_address_of_this_machine() {
        let ours = dns(listen("0.0.0.0:0".parse().unwrap(), true), Strict::Chosen, 2).unwrap();
        let at: Vec<SocketAddr> = ours.udp.iter().map(|u| u.local_addr().unwrap()).collect();
        assert!(at.contains(&SocketAddr::from(([127, 0, 0, 1], ours.at.port()))), "{at:?}");
        assert!(at.iter().all(|at| !at.ip().is_unspecified() && at.port() == ours.at.port()), "{at:?}");
    }

    #[test]
    fn an_address_that_is_not_ours_says_which_key_to_correct() {
        let error = tcp(listen("192.0.2.1:5353".parse().unwrap(), true), Strict::Chosen).unwrap_err().to_string();
        assert!(error.contains("192.0.2.1:5353") && error.contains("correct listen.dns"), "{error}");
    }
}
