//! The ports that one thread asks members from: a few for each server, any of them for a question, each for a while.
//!
//! In: a server and a query; what the thread also waits for. Out: which ports have something to read, and for which question. A socket is
//! connected, so the system drops what comes from elsewhere; its port is the system's choice, and is given up after a few dozen questions or
//! seconds, when a question was left without an answer, or when too much came to it that answers none (RFC 5452 §9.2: ports that can't be
//! foretold). Belongs to one thread, and waits where that thread waits.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use atoll_reach::{Listen, udp_connected};
use futures::FutureExt as _;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::time::Instant;

use super::udp::{AGE_MAX, FOREIGN_MAX, USES};

/// Ports open to one server at once, by one thread.
const SERVER_MAX: usize = 16;
/// What is told at once.
const EVENTS: usize = 64;
/// Numbers from here on are what the thread also waits for.
const ALSO: u64 = 1 << 32;

/// One port.
#[derive(Debug)]
struct Port {
    socket: UdpSocket,
    server: SocketAddr,
    /// Questions that it may still be used for; none once it is given up.
    left: u16,
    until: Instant,
    /// By number, whose they are.
    flying: Vec<(u16, usize)>,
    foreign: usize,
}

/// Something to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// At a port.
    Port(usize),
    /// At what the thread also waits for, by its place.
    Also(usize),
}

/// What has come to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// So many octets, and whose question has their number.
    Packet(usize, Option<usize>),
    /// Nothing (more).
    Nothing,
    /// Nobody listens there, or there is no way: known at once.
    Broken,
}

/// The ports of one thread.
#[derive(Debug)]
pub(crate) struct Ports {
    epoll: Epoll,
    open: Vec<Option<Port>>,
    by_server: HashMap<SocketAddr, Vec<usize>>,
    told: Vec<EpollEvent>,
}

impl Ports {
    /// None yet; the thread waits for `also` as well.
    pub(crate) fn new(also: &[impl AsFd]) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (place, fd) in also.iter().enumerate() {
            epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, ALSO + place as u64))?;
        }
        Ok(Self { epoll, open: Vec::new(), by_server: HashMap::new(), told: Vec::new() })
    }

    /// Waits until something can be read, no longer than `most`.
    pub(crate) fn wait(&mut self, most: Duration, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        self.told.resize(EVENTS, EpollEvent::empty());
        let most = EpollTimeout::try_from(most).unwrap_or(EpollTimeout::ZERO);
        let count = self.epoll.wait(&mut self.told, most)?;
        ready.extend(self.told.iter().take(count).map(|event| match event.data().checked_sub(ALSO) {
            Some(place) => Ready::Also(place as usize),
            None => Ready::Port(event.data() as usize),
        }));
        Ok(())
    }

    /// Sends `query`, which has this number, from one of the ports to `server`, and says from which; `flight` is whose it is.
    pub(crate) fn send(
        &mut self,
        listen: &dyn Listen,
        (server, query, id): (SocketAddr, &[u8], u16),
        flight: usize,
        now: Instant,
    ) -> Option<usize> {
        let dice = rand::random_range(0..SERVER_MAX);
        let known = self.by_server.get(&server).and_then(|ports| ports.get(dice)).copied();
        let old = known.filter(|at| self.open[*at].as_ref().is_none_or(|port| port.until <= now));
        old.into_iter().for_each(|at| self.give_up(at));
        let at = known.filter(|_| old.is_none()).or_else(|| self.open(listen, server, now))?;
        let port = self.open.get_mut(at)?.as_mut().filter(|port| port.flying.iter().all(|(known, _)| *known != id))?;
        let sent = send(&port.socket, query, SendFlags::DONTWAIT);
        // An old error may be reported for the next packet: that is no word on this question.
        let sent = sent.or_else(|_| send(&port.socket, query, SendFlags::DONTWAIT));
        port.left = port.left.saturating_sub(1);
        if sent.is_ok() {
            port.flying.push((id, flight));
        }
        if sent.is_err() || port.left == 0 {
            self.give_up(at);
        }
        sent.is_ok().then_some(at)
    }

    /// What has come to a port.
    pub(crate) fn receive(&mut self, at: usize, packet: &mut [u8]) -> Received {
        let Some(Some(port)) = self.open.get(at) else { return Received::Nothing };
        let length = match recv(&port.socket, &mut *packet, RecvFlags::DONTWAIT) {
            Ok((length, _)) => length.min(packet.len()),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Received::Nothing,
            Err(_) => return Received::Broken,
        };
        let id = packet.first_chunk::<2>().map(|id| u16::from_be_bytes(*id));
        let known = port.flying.iter().find(|(known, _)| Some(*known) == id);
        Received::Packet(length, known.map(|(_, flight)| *flight))
    }

    /// Closes a port, and says whose questions are left.
    pub(crate) fn abandon(&mut self, at: usize) -> Vec<usize> {
        let Some(Some(port)) = self.open.get_mut(at) else { return Vec::new() };
        let left = std::mem::take(&mut port.flying);
        self.give_up(at);
        left.into_iter().map(|(_, flight)| flight).collect()
    }

    /// Something came to a port that answers none of its questions; whether that is too much.
    pub(crate) fn foreign(&mut self, at: usize) -> bool {
        let Some(Some(port)) = self.open.get_mut(at) else { return false };
        port.foreign += 1;
        port.foreign >= FOREIGN_MAX
    }

    /// The question of `flight` from a port is over; where it was left without an answer the port is not used again.
    pub(crate) fn over(&mut self, at: usize, flight: usize, answered: bool) {
        let Some(Some(port)) = self.open.get_mut(at) else { return };
        port.flying.retain(|(_, known)| *known != flight);
        if !answered || port.left == 0 {
            self.give_up(at);
        }
    }

    /// A port is used for no further question, and is closed when it has none.
    fn give_up(&mut self, at: usize) {
        let Some(Some(port)) = self.open.get_mut(at) else { return };
        port.left = 0;
        let (server, over) = (port.server, port.flying.is_empty());
        if let Some(ports) = self.by_server.get_mut(&server) {
            ports.retain(|known| *known != at);
            if ports.is_empty() {
                self.by_server.remove(&server);
            }
        }
        if over && let Some(closed) = self.open[at].take() {
            let _ = self.epoll.delete(&closed.socket);
        }
    }

    fn open(&mut self, listen: &dyn Listen, server: SocketAddr, now: Instant) -> Option<usize> {
        // To bind and to connect wait for nobody.
        let socket = udp_connected(listen, server).now_or_never()?.ok()?.into_std().ok()?;
        let at = self.open.iter().position(Option::is_none).unwrap_or(self.open.len());
        self.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, at as u64)).ok()?;
        let left = rand::random_range(USES);
        let port = Port { socket, server, left, until: now + AGE_MAX, flying: Vec::new(), foreign: 0 };
        match self.open.get_mut(at) {
            Some(place) => *place = Some(port),
            None => self.open.push(Some(port)),
        }
        self.by_server.entry(server).or_default().push(at);
        Some(at)
    }
}
