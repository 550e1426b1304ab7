//! Listening sockets by name: those that were handed to us until somebody wants them, and those in use, to be handed on.
//!
//! In: names and addresses. Out: listeners, taken over where there is one of that name at that address, else bound anew. What nobody wants any
//! more is closed. UDP sockets of Gateways' ports go along; what their flows lead to does not. Of QUIC's connections see [`super::packets`].

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use atoll_reach::{Accept, BoxStream, Listen, Succession, listener};
use tokio::net::UdpSocket;

use super::Packets;
use crate::bind::{self, Strict};
use crate::config;

/// The sockets of this process.
#[derive(Default)]
pub(crate) struct Sockets {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// Handed to us, not wanted yet.
    taken: BTreeMap<String, OwnedFd>,
    /// In use, with who put them there.
    open: BTreeMap<String, (u64, OwnedFd)>,
    serial: u64,
}

impl Sockets {
    /// With what another process gave.
    pub(crate) fn new(taken: BTreeMap<String, OwnedFd>) -> Arc<Self> {
        Arc::new(Self { held: Mutex::new(Held { taken, ..Held::default() }) })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A port of the configuration.
    pub(crate) fn accept(&self, listen: config::Listen) -> anyhow::Result<Box<dyn Accept>> {
        let bound = match self.tcp_of(listen.key, listen.at) {
            Some(bound) => bound,
            None => bind::tcp(listen, Strict::Always)?,
        };
        self.keep(listen.key, bound.as_fd().try_clone_to_owned()?);
        Ok(listener(bound)?)
    }

    /// One that was handed to us, if it is where it is wanted. A port of 0 is any.
    fn tcp_of(&self, name: &str, at: SocketAddr) -> Option<TcpListener> {
        let taken = TcpListener::from(self.held().taken.remove(name)?);
        let is_it = |local: SocketAddr| local == at || (at.port() == 0 && local.ip() == at.ip());
        taken.local_addr().is_ok_and(is_it).then_some(taken)
    }

    fn keep(&self, name: &str, socket: OwnedFd) -> u64 {
        let mut held = self.held();
        held.serial += 1;
        let serial = held.serial;
        held.open.insert(name.to_owned(), (serial, socket));
        serial
    }

    /// The sockets in use.
    pub(super) fn open(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        let held = self.held();
        held.open.iter().map(|(name, (_, socket))| Ok((name.clone(), socket.try_clone()?))).collect()
    }

    /// Closes what was handed to us and nobody wants. How many.
    pub(crate) fn close_unwanted(&self) -> usize {
        std::mem::take(&mut self.held().taken).len()
    }
}

/// Ports that Gateways open and close.
pub(crate) struct Opened {
    pub(super) sockets: Arc<Sockets>,
    pub(super) packets: Arc<Packets>,
}

#[async_trait]
impl Listen for Opened {
    async fn tcp(&self, addr: SocketAddr) -> io::Result<Box<dyn Accept>> {
        let name = format!("tcp {addr}");
        let bound = match self.sockets.tcp_of(&name, addr) {
            Some(bound) => bound,
            None => bind::tcp_at(addr)?,
        };
        let serial = self.sockets.keep(&name, bound.as_fd().try_clone_to_owned()?);
        Ok(Box::new(Kept { inner: listener(bound)?, sockets: Arc::clone(&self.sockets), name, serial }))
    }

    async fn udp(&self, addr: SocketAddr) -> io::Result<UdpSocket> {
        let name = format!("udp {addr}");
        let taken = self.sockets.held().taken.remove(&name).map(std::net::UdpSocket::from);
        let bound = match taken {
            Some(taken) => taken,
            None => bind::alone(addr)?,
        };
        bound.set_nonblocking(true)?;
        let bound = UdpSocket::from_std(bound)?;
        // Others ask for a port of their own for questions of theirs, which is nobody else's.
        if addr.port() != 0 {
            self.sockets.keep(&name, bound.as_fd().try_clone_to_owned()?);
        }
        Ok(bound)
    }

    fn closed_udp(&self, addr: SocketAddr) {
        self.sockets.held().open.remove(&format!("udp {addr}"));
    }

    fn succession(&self) -> Option<Arc<dyn Succession>> {
        Some(Arc::clone(&self.packets) as _)
    }
}

/// A listener that is handed on for as long as it is there.
struct Kept {
    inner: Box<dyn Accept>,
    sockets: Arc<Sockets>,
    name: String,
    serial: u64,
}

#[async_trait]
impl Accept for Kept {
    async fn accept(&mut self) -> io::Result<(BoxStream, SocketAddr)> {
        self.inner.accept().await
    }

    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut held = self.sockets.held();
        if held.open.get(&self.name).is_some_and(|(serial, _)| *serial == self.serial) {
            held.open.remove(&self.name);
        }
    }
}
