//! Ways to a server: many questions in flight, each answered by its id.
//!
//! In: packets. Out: for each what came back, `None` for nothing. By UDP what is lost is sent once more; by TCP a connection that the server
//! closes is opened again for what is left.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::Result;

/// In flight at once: few enough for every server's socket buffer.
const WINDOW: usize = 96;
/// After so long without a reply what is in flight is lost.
const LOST: Duration = Duration::from_millis(400);
const TRIES: usize = 3;
/// A connection is closed after so many, before a server does it.
const A_CONNECTION: usize = 90;

/// What came back for each packet.
pub(crate) type Replies = Vec<Option<Vec<u8>>>;

fn with_id(packet: &[u8], id: u16) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[..2].copy_from_slice(&id.to_be_bytes());
    packet
}

fn id(reply: &[u8]) -> Option<u16> {
    reply.first_chunk().map(|id| u16::from_be_bytes(*id))
}

/// Asks by UDP.
pub(crate) fn udp(server: SocketAddr, packets: &[&[u8]]) -> Result<Replies> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(LOST))?;
    let mut replies: Replies = vec![None; packets.len()];
    let mut octets = vec![0; 65_536];
    let mut left: Vec<usize> = (0..packets.len()).collect();
    for attempt in 0..TRIES {
        let (mut lost, mut next) = (Vec::new(), left.iter().copied());
        // By id; an id is the place of its packet, which is unique within a batch.
        let mut flying: HashMap<u16, usize> = HashMap::new();
        loop {
            while flying.len() < WINDOW {
                let Some(at) = next.next() else { break };
                let id = (at as u16).wrapping_add((attempt as u16) << 13);
                // What an ICMP error says of the last one is no news of this one.
                if socket.send(&with_id(packets[at], id)).is_err() {
                    socket.send(&with_id(packets[at], id))?;
                }
                flying.insert(id, at);
            }
            if flying.is_empty() {
                break;
            }
            match socket.recv(&mut octets) {
                Ok(length) => {
                    if let Some(at) = id(&octets[..length]).and_then(|id| flying.remove(&id)) {
                        replies[at] = Some(octets[..length].to_vec());
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    lost.extend(flying.drain().map(|(_, at)| at));
                }
                Err(error) => return Err(format!("{server}: {error}").into()),
            }
        }
        lost.sort_unstable();
        left = lost;
    }
    Ok(replies)
}

/// Asks by TCP.
pub(crate) fn tcp(server: SocketAddr, packets: &[&[u8]]) -> Result<Replies> {
    let mut replies: Replies = Vec::with_capacity(packets.len());
    for chunk in packets.chunks(A_CONNECTION) {
        let mut left: Vec<usize> = (0..chunk.len()).collect();
        let mut got: Replies = vec![None; chunk.len()];
        for _ in 0..TRIES {
            connection(server, chunk, &mut left, &mut got)?;
            if left.is_empty() {
                break;
            }
        }
        replies.extend(got);
    }
    Ok(replies)
}

/// One connection, for what is left.
fn connection(server: SocketAddr, packets: &[&[u8]], left: &mut Vec<usize>, got: &mut Replies) -> Result<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.set_nodelay(true)?;
    for few in left.clone().chunks(16) {
        let mut octets = Vec::new();
        for at in few {
            octets.extend((packets[*at].len() as u16).to_be_bytes());
            octets.extend(with_id(packets[*at], *at as u16));
        }
        if stream.write_all(&octets).is_err() {
            return Ok(());
        }
        // A transfer has several messages: the first counts.
        while few.iter().any(|at| got[*at].is_none()) {
            let Some(reply) = message(&mut stream) else { return Ok(()) };
            let Some(at) = id(&reply).map(usize::from).filter(|at| *at < packets.len()) else { continue };
            left.retain(|l| *l != at);
            got[at].get_or_insert(reply);
        }
    }
    Ok(())
}

/// One message; `None` when the server has closed.
pub(crate) fn message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut octets = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut octets).ok()?;
    Some(octets)
}
