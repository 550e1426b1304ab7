//! Datagrams by the batch: received in one call, sent in one call, in memory that is taken once.
//!
//! In: a socket. Out: the packets that wait there; replies sent. What can't be sent (a client that is gone, a full queue of the
//! interface) is dropped, and the rest goes on: the client asks again. Allocates nothing after the start.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};

use crate::forward::UDP_BYTES_MAX;

/// Packets at once.
pub(super) const BATCH: usize = 64;
/// Longer packets are cut, and so unreadable: no query is as long.
const PACKET_BYTES_MAX: usize = 4096;
/// From one packet's buffer to the next: no power of two, or their first octets would push one another out of the processor's cache.
const PACKET_STRIDE: usize = PACKET_BYTES_MAX + 64;
const REPLY_BYTES_MAX: usize = UDP_BYTES_MAX as usize;

/// Where a reply is written.
pub(super) type Buffer = [u8; REPLY_BYTES_MAX];

/// What was received, and what is to be sent.
pub(super) struct Batch {
    headers: MultiHeaders<SockaddrStorage>,
    received: Vec<[u8; PACKET_STRIDE]>,
    /// Length and sender of each packet.
    packets: [(usize, Option<SocketAddr>); BATCH],
    replies: Vec<Buffer>,
    /// Length and receiver of each reply.
    outgoing: Vec<(usize, SocketAddrAny)>,
    /// Replies that wait to be sent.
    count: usize,
}

impl Batch {
    pub(super) fn new() -> Self {
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            headers: MultiHeaders::preallocate(BATCH, None),
            received: vec![[0; PACKET_STRIDE]; BATCH],
            packets: [(0, None); BATCH],
            replies: vec![[0; REPLY_BYTES_MAX]; BATCH],
            outgoing: vec![(0, nobody.into()); BATCH],
            count: 0,
        }
    }

    /// Receives what waits, at least one packet unless `flags` say not to wait; says how many.
    ///
    /// # Errors
    /// EAGAIN when nothing came in time; others are the socket's.
    pub(super) fn receive(&mut self, socket: &UdpSocket, flags: MsgFlags) -> Result<usize, Errno> {
        let Self { headers, received, packets, .. } = self;
        let mut buffers = received.iter_mut();
        let mut slots: [[IoSliceMut<'_>; 1]; BATCH] =
            std::array::from_fn(|_| [IoSliceMut::new(buffers.next().map_or(&mut [], |b| &mut b[..PACKET_BYTES_MAX]))]);
        let mut count = 0;
        for (packet, seat) in recvmmsg(socket.as_raw_fd(), headers, slots.iter_mut(), flags, None)?.zip(packets) {
            *seat = (packet.bytes, packet.address.and_then(address));
            count += 1;
        }
        Ok(count)
    }

    /// A packet of the last batch, its sender, and where its reply is written.
    pub(super) fn packet(&mut self, at: usize) -> Option<(&[u8], SocketAddr, &mut Buffer)> {
        let (length, from) = self.packets[at];
        Some((&self.received[at][..length.min(PACKET_BYTES_MAX)], from?, self.replies.get_mut(self.count)?))
    }

    /// Where the next reply is written.
    pub(super) fn buffer(&mut self) -> Option<&mut Buffer> {
        self.replies.get_mut(self.count)
    }

    /// Whether no more replies find room before some are sent.
    pub(super) fn is_full(&self) -> bool {
        self.count == BATCH
    }

    /// The reply in the buffer that [`Self::packet`] or [`Self::buffer`] gave is to be sent.
    pub(super) fn reply(&mut self, length: usize, to: SocketAddr) {
        if self.count < BATCH && length > 0 {
            self.outgoing[self.count] = (length.min(REPLY_BYTES_MAX), to.into());
            self.count += 1;
        }
    }

    /// Sends the replies.
    pub(super) fn send(&mut self, socket: &UdpSocket) {
        match std::mem::take(&mut self.count) {
            0 => {}
            count @ 1..=2 => self.send_all::<2>(socket, count),
            count @ 3..=12 => self.send_all::<12>(socket, count),
            count => self.send_all::<BATCH>(socket, count),
        }
    }

    /// Sends `count` replies with as many headers as `ROOM`, so that few replies don't cost what many do.
    fn send_all<const ROOM: usize>(&self, socket: &UdpSocket, count: usize) {
        let slices: [[IoSlice<'_>; 1]; ROOM] =
            std::array::from_fn(|i| [IoSlice::new(&self.replies[i][..self.outgoing[i].0])]);
        let mut control: [SendAncillaryBuffer<'_, '_, '_>; ROOM] =
            std::array::from_fn(|_| SendAncillaryBuffer::default());
        let mut at = 0..ROOM;
        let mut messages: [MMsgHdr<'_>; ROOM] = control.each_mut().map(|control| {
            let i = at.next().unwrap_or(0);
            MMsgHdr::new_with_addr(&self.outgoing[i].1, &slices[i], control)
        });
        let mut sent = 0;
        while sent < count {
            // What could not be sent is the first one: the next call begins behind it.
            sent += sendmmsg(socket, &mut messages[sent..count], SendFlags::DONTWAIT).unwrap_or(0).max(1);
        }
    }
}

fn address(storage: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|a| SocketAddr::from(std::net::SocketAddrV4::from(*a)));
    v4.or_else(|| storage.as_sockaddr_in6().map(|a| SocketAddr::from(std::net::SocketAddrV6::from(*a))))
}
