//! One question by UDP, over sockets that are kept for a while.
//!
//! In: a server and a query. Out: the reply, or that it must be had by TCP. A socket is connected, so the system drops what comes from
//! elsewhere and a closed port is known at once; it has one question at a time and a port of the system's choosing, which it gives up after a
//! few dozen questions or seconds, or when a question was left without an answer. What does not answer the query is dropped here
//! (RFC 5452). Never gives up by itself: the caller has the deadline.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use atoll_reach::{Listen, udp_connected};
use hickory_proto::op::Message;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::Failed;
use super::ask::{Ask, Reply, UDP_BYTES_MAX};

/// One more than is taken shows that there was more.
const PACKET_BYTES: usize = UDP_BYTES_MAX as usize + 1;
/// Sockets kept for one server.
const IDLE_MAX: usize = 64;
/// Questions that a port is used for at most, and at least.
pub(super) const USES: std::ops::Range<u16> = 16..64;
/// So long a port is used at most.
pub(super) const AGE_MAX: Duration = Duration::from_secs(5);
/// So many packets that answer another question are no accident: TCP can't be guessed.
pub(super) const FOREIGN_MAX: usize = 8;

/// What a server said by UDP.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// `None`: it has to be asked by TCP.
    pub(super) reply: Option<Message>,
    /// Whether it repeated the letters of the question, where they were mixed.
    pub(super) exact: Option<bool>,
}

/// The sockets to the servers of one member.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<HashMap<SocketAddr, Vec<Connected>>>,
}

#[derive(Debug)]
struct Connected {
    socket: UdpSocket,
    packet: Box<[u8; PACKET_BYTES]>,
    left: u16,
    until: Instant,
}

impl Pool {
    /// What `server` said.
    pub(super) async fn exchange(&self, listen: &dyn Listen, server: SocketAddr, ask: &Ask) -> Result<Heard, Failed> {
        let failed = |what: &str, e: std::io::Error| Failed::Network(format!("{server} by UDP: {what}: {e}"));
        let now = Instant::now();
        let mut sent = None;
        if let Some(kept) = self.take(server, now) {
            // An old error may be reported for the next packet: that is no word on this question.
            sent = kept.socket.send(ask.octets()).await.is_ok().then_some(kept);
        }
        let mut connected = match sent {
            Some(kept) => kept,
            None => {
                let new = connect(listen, server, now).await.map_err(|e| failed("connect", e))?;
                new.socket.send(ask.octets()).await.map_err(|e| failed("send", e))?;
                new
            }
        };
        for _ in 0..FOREIGN_MAX {
            let len = connected.socket.recv(&mut connected.packet[..]).await.map_err(|e| failed("receive", e))?;
            let packet = &mut connected.packet[..len];
            match ask.judge(packet) {
                Reply::Foreign => {}
                Reply::Ours(reply, exact) => {
                    self.keep(server, connected);
                    let whole = !reply.metadata.truncation && len < PACKET_BYTES;
                    return Ok(Heard { reply: whole.then_some(*reply), exact });
                }
                Reply::Broken => {
                    self.keep(server, connected);
                    return Ok(Heard::default());
                }
                // The socket is not used again: somebody may know its port.
                Reply::Respelled => return Ok(Heard { reply: None, exact: Some(false) }),
            }
        }
        Ok(Heard::default())
    }

    /// Closes the sockets to servers that are none any more.
    pub(super) fn retain(&self, servers: &[SocketAddr]) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).retain(|server, _| servers.contains(server));
    }

    fn take(&self, server: SocketAddr, now: Instant) -> Option<Connected> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(&server)?;
        kept.retain(|c| c.until > now);
        // Which one can't be foretold.
        let at = rand::random_range(0..kept.len().max(1));
        (at < kept.len()).then(|| kept.swap_remove(at))
    }

    fn keep(&self, server: SocketAddr, mut connected: Connected) {
        connected.left -= 1;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.entry(server).or_default();
        if connected.left > 0 && kept.len() < IDLE_MAX {
            kept.push(connected);
        }
    }
}

async fn connect(listen: &dyn Listen, server: SocketAddr, now: Instant) -> std::io::Result<Connected> {
    let socket = udp_connected(listen, server).await?;
    Ok(Connected { socket, packet: Box::new([0; PACKET_BYTES]), left: rand::random_range(USES), until: now + AGE_MAX })
}
