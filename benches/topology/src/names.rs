//! The DNS of one member, as forwarded questions find it: it answers every name, some of them with an address that changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::net::UdpSocket;

use crate::Result;

/// Names whose addresses change.
pub(crate) const NAMES: usize = 50;
/// Seconds that its answers may be kept.
pub(crate) const TTL: u32 = 1;

/// The last octets of the names' addresses: who holds them says what is answered.
#[derive(Clone)]
pub(crate) struct Names(Arc<Vec<AtomicU8>>);

impl Names {
    /// Binds the server and answers until the runtime ends.
    pub(crate) async fn serve() -> Result<(Self, SocketAddr)> {
        let names = Self(Arc::new((0..NAMES).map(|_| AtomicU8::new(1)).collect()));
        let socket = UdpSocket::bind(("127.0.0.1", 0)).await?;
        let (at, answering) = (socket.local_addr()?, names.clone());
        tokio::spawn(async move {
            let mut octets = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut octets).await {
                if let Some(reply) = answering.reply(&octets[..length]) {
                    // A lost reply is asked for again.
                    let _ = socket.send_to(&reply, from).await;
                }
            }
        });
        Ok((names, at))
    }

    /// How the address of name `n` ends.
    pub(crate) fn of(&self, n: usize) -> u8 {
        self.0[n].load(Ordering::Acquire)
    }

    /// How it ends from now on.
    pub(crate) fn set(&self, n: usize, last: u8) {
        self.0[n].store(last, Ordering::Release);
    }

    fn reply(&self, query: &[u8]) -> Option<Vec<u8>> {
        let mut end = 12;
        while let length @ 1.. = usize::from(*query.get(end)?) {
            end += 1 + length;
        }
        let is_a = query.get(end + 1..end + 3)? == [0, 1];
        let first = query.get(13..13 + usize::from(query[12]))?;
        let n = std::str::from_utf8(first).ok().and_then(|l| l.trim_start_matches(['f', 'F']).parse::<usize>().ok());
        let last = n.filter(|n| *n < NAMES).map_or(1, |n| self.of(n));
        let mut reply = query.get(..end + 5)?.to_vec();
        // A response, authoritative; an answer or none (RFC 1035 §4.1.1).
        let recursion = reply[2] & 0x01;
        reply[2..12].copy_from_slice(&[recursion | 0x84, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
        if is_a {
            reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
            reply.extend_from_slice(&TTL.to_be_bytes());
            reply.extend_from_slice(&[0, 4]);
            reply.extend_from_slice(&address(last));
        }
        Some(reply)
    }
}

/// What is answered.
pub(crate) fn address(last: u8) -> [u8; 4] {
    [10, 1, 3, last]
}

/// By which name `n` is asked for from outside member `m0`.
pub(crate) fn forwarded(n: usize) -> String {
    format!("f{n}.ns0.svc.m0.{}", crate::federation::APEX)
}
