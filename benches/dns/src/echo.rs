//! The floor: a socket with the same options, the same batches, the same system calls, replies of the same size, and no DNS.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
use socket2::SockRef;

use crate::{Result, say};

const BATCH: usize = 64;

/// Sends every packet back, cut or filled up to `bytes`, until it is killed.
pub(crate) fn echo(at: SocketAddr, bytes: usize) -> Result<()> {
    let socket = UdpSocket::bind(at)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    SockRef::from(&socket).set_recv_buffer_size(4 * 1024 * 1024)?;
    say("ready", true)?;
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let mut buffers = vec![[0_u8; 4096]; BATCH];
    let mut to: Vec<SocketAddrAny> = vec![at.into(); BATCH];
    loop {
        let count = {
            let mut rest = buffers.iter_mut();
            let mut slots: [[IoSliceMut<'_>; 1]; BATCH] =
                std::array::from_fn(|_| [IoSliceMut::new(rest.next().map_or(&mut [], |b| &mut b[..]))]);
            let flags = MsgFlags::MSG_WAITFORONE;
            let Ok(packets) = recvmmsg(socket.as_raw_fd(), &mut headers, slots.iter_mut(), flags, None) else {
                continue;
            };
            let mut count = 0;
            for (packet, to) in packets.zip(&mut to) {
                if let Some(from) = packet.address.as_ref().and_then(SockaddrStorage::as_sockaddr_in) {
                    *to = SocketAddr::from(std::net::SocketAddrV4::from(*from)).into();
                    count += 1;
                }
            }
            count
        };
        match count {
            0..=2 => send::<2>(&socket, &mut buffers, &to, count, bytes),
            3..=12 => send::<12>(&socket, &mut buffers, &to, count, bytes),
            _ => send::<BATCH>(&socket, &mut buffers, &to, count, bytes),
        }
    }
}

fn send<const ROOM: usize>(
    socket: &UdpSocket,
    buffers: &mut [[u8; 4096]],
    to: &[SocketAddrAny],
    count: usize,
    bytes: usize,
) {
    for buffer in buffers.iter_mut().take(count) {
        buffer[2] |= 0x80;
    }
    let slices: [[IoSlice<'_>; 1]; ROOM] = std::array::from_fn(|i| [IoSlice::new(&buffers[i][..bytes])]);
    let mut control: [SendAncillaryBuffer<'_, '_, '_>; ROOM] = std::array::from_fn(|_| SendAncillaryBuffer::default());
    let mut at = 0..ROOM;
    let mut messages: [MMsgHdr<'_>; ROOM] = control.each_mut().map(|control| {
        let i = at.next().unwrap_or(0);
        MMsgHdr::new_with_addr(&to[i], &slices[i], control)
    });
    let mut sent = 0;
    while sent < count {
        sent += sendmmsg(socket, &mut messages[sent..count], SendFlags::DONTWAIT).unwrap_or(0).max(1);
    }
}
