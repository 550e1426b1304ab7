//! The socket of a port of QUIC that other processes have had before this one, and will have after it.
//!
//! In: a UDP socket, this process's place among them. Out: a socket as the library wants it: what it reads is this process's own. Nothing is read
//! before it is our turn, and after it only what the next process hands back.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use atoll_reach::{Packet, Succession};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, ConnectionIdGenerator as _, UdpPoller};
use quinn_proto::{ConnectionId, HashedConnectionIdGenerator};
use tokio::sync::{mpsc, watch};

/// The octets of a connection id that the library's generator makes.
const ID_LEN: usize = 8;

/// One of ours.
pub(super) struct Socket {
    inner: Arc<dyn AsyncUdpSocket>,
    at: SocketAddr,
    place: Arc<dyn Succession>,
    own: HashedConnectionIdGenerator,
    before: Vec<HashedConnectionIdGenerator>,
    turn: watch::Receiver<bool>,
    /// Wakes whoever reads when the turn changes.
    turns: Mutex<BoxStream<'static, ()>>,
    handed: Mutex<mpsc::Receiver<Packet>>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Socket({})", self.at)
    }
}

impl Socket {
    pub(super) fn succeeding(inner: Arc<dyn AsyncUdpSocket>, at: SocketAddr, place: Arc<dyn Succession>) -> Arc<Self> {
        let turns = stream::unfold(place.turn(), |mut turn| async move {
            turn.changed().await.ok()?;
            Some(((), turn))
        });
        Arc::new(Self {
            inner,
            at,
            own: HashedConnectionIdGenerator::from_key(place.key()),
            before: place.before().into_iter().map(HashedConnectionIdGenerator::from_key).collect(),
            turn: place.turn(),
            turns: Mutex::new(turns.boxed()),
            handed: Mutex::new(place.handed(at)),
            place,
        })
    }

    /// Gives what a process after us handed back.
    fn deliver(packet: &Packet, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> bool {
        let (Some(buf), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else { return false };
        let Some(room) = buf.get_mut(..packet.octets.len()) else { return false };
        room.copy_from_slice(&packet.octets);
        let ecn = packet.ecn.and_then(EcnCodepoint::from_bits);
        *meta = RecvMeta::default();
        (meta.addr, meta.len, meta.stride) = (packet.from, packet.octets.len(), packet.stride);
        (meta.ecn, meta.dst_ip) = (ecn, packet.to);
        true
    }

    /// Keeps what is ours, in front, and hands the rest back. How many are kept.
    fn sort(&self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta], count: usize) -> usize {
        let mut kept = 0;
        for at in 0..count {
            let RecvMeta { addr, len, stride, ecn, dst_ip, .. } = meta[at];
            // What was read at once is of one peer, and so of one connection.
            if self.is_of_another(&bufs[at][..len]) {
                let octets = bufs[at][..len].to_vec();
                let ecn = ecn.map(|ecn| ecn as u8);
                let packet = Packet { at: self.at, from: addr, to: dst_ip, ecn, stride, octets };
                // Where nobody is there any more the library says so to the peer.
                if self.place.hand_back(&packet) {
                    continue;
                }
            }
            if kept != at {
                let (front, back) = bufs.split_at_mut(at);
                front[kept][..len].copy_from_slice(&back[0][..len]);
                meta[kept] = meta[at];
            }
            kept += 1;
        }
        kept
    }

    fn is_of_another(&self, packet: &[u8]) -> bool {
        let Some(id) = id(packet) else { return false };
        self.own.validate(&id).is_err() && self.before.iter().any(|key| key.validate(&id).is_ok())
    }
}

/// The id of the connection that a packet is for, where one of us may have made it. Source: RFC 9000 §17.2, §17.3.
fn id(packet: &[u8]) -> Option<ConnectionId> {
    let first = *packet.first()?;
    let long = first & 0x80 != 0;
    let octets = match long {
        true if usize::from(*packet.get(5)?) == ID_LEN => packet.get(6..6 + ID_LEN)?,
        true => return None,
        false => packet.get(1..=ID_LEN)?,
    };
    Some(ConnectionId::new(octets))
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        while let Poll::Ready(Some(())) = lock(&self.turns).poll_next_unpin(cx) {}
        while let Poll::Ready(Some(packet)) = lock(&self.handed).poll_recv(cx) {
            // One that is no more ours than the next process's goes on to the one before.
            let passed = self.is_of_another(&packet.octets) && self.place.hand_back(&packet);
            if !passed && Self::deliver(&packet, bufs, meta) {
                return Poll::Ready(Ok(1));
            }
        }
        if !*self.turn.borrow() {
            return Poll::Pending;
        }
        loop {
            let count = ready!(self.inner.poll_recv(cx, bufs, meta))?;
            let kept = if self.before.is_empty() { count } else { self.sort(bufs, meta, count) };
            if kept > 0 {
                return Poll::Ready(Ok(kept));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_names_its_connection_in_the_long_form_and_in_the_short() {
        let long = [&[0xc3, 0, 0, 0, 1, 8][..], b"abcdefgh", b"rest"].concat();
        let short = [&[0x43][..], b"abcdefgh", b"rest"].concat();
        for (case, packet, named) in [
            ("long", long.clone(), true),
            ("short", short.clone(), true),
            ("an id of another length", [&[0xc3, 0, 0, 0, 1, 9][..], b"abcdefghi"].concat(), false),
            ("cut", long[..10].to_vec(), false),
            ("too short", short[..8].to_vec(), false),
            ("nothing", Vec::new(), false),
        ] {
            let found = id(&packet);
            assert_eq!(found.as_deref() == Some(b"abcdefgh"), named, "{case}: {found:?}");
        }
    }
}
