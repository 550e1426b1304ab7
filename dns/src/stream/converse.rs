//! One conversation over a stream: many queries, answered as the answers come (RFC 7766 §6.2.1.1, §7), for TCP and DoT alike.
//!
//! In: a connected client. Out: replies, several in one write where they are there at once. The next query is read only while fewer than so
//! many are in flight. A client that is idle, speaks in drops, or does not read is cut.

use std::io;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use atoll_reach::BoxStream;
use bytes::{Buf as _, BytesMut};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _, poll};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};

use super::listen::Client;
use super::proxy;
use super::seats::Seat;
use crate::respond::{Responder, Via};
use crate::transport::{at_once, reply};

/// Octets of length before each message (RFC 1035 §4.2.2).
const LENGTH_BYTES: usize = 2;
/// What is asked for in one read.
const READ_BYTES: usize = 4096;
/// Replies gathered into one write.
const WRITE_BYTES: usize = 32 * 1024;

/// Talks with a client until it ends the connection, is idle, or breaks a rule.
///
/// # Errors
/// What the client did, or the stream's.
pub(crate) async fn converse(client: Client, transport: &'static str, encrypted: bool) -> io::Result<()> {
    let Client { mut stream, from, seat, direct, responder, tasks: _ } = client;
    let write = responder.edge.limits.write;
    let ended = exchange(&mut stream, (from, direct), &seat, responder, (transport, encrypted)).await;
    // TLS says that it ends, so that nobody takes it for cut off. Who is gone already does not hear it.
    let _ = timeout(write, stream.shutdown()).await;
    ended
}

async fn exchange(
    stream: &mut BoxStream,
    (from, direct): (SocketAddr, bool),
    seat: &Seat,
    responder: Responder,
    (transport, encrypted): (&'static str, bool),
) -> io::Result<()> {
    let limits = responder.edge.limits;
    let via = Via::stream(transport, encrypted, Some(tenths(seat.idle())));
    let (mut input, mut output) = (BytesMut::with_capacity(READ_BYTES), Vec::new());
    let mut answering = FuturesUnordered::new();
    let (mut open, mut first) = (true, true);
    let mut until = Instant::now() + seat.idle();
    loop {
        if first && direct && input.starts_with(proxy::SIGNATURE) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a PROXY protocol header from a stranger"));
        }
        while answering.len() < limits.queries && output.len() < WRITE_BYTES {
            let Some(packet) = frame(&mut input) else { break };
            (first, until) = (false, Instant::now() + seat.idle());
            if let Some(octets) = at_once(&responder, &packet, from, via) {
                put(&mut output, &octets);
                continue;
            }
            // A transfer is many messages, made and written one after the other.
            if let Some(messages) = responder.transfer(&packet, from, transport) {
                for message in messages {
                    put(&mut output, &message);
                    if output.len() >= WRITE_BYTES {
                        write(stream, &mut output, limits.write).await?;
                    }
                }
                until = Instant::now() + seat.idle();
                continue;
            }
            let mut answer = Box::pin(reply(responder.clone(), packet.to_vec(), from, via));
            match poll!(&mut answer) {
                Poll::Ready(Some(octets)) => put(&mut output, &octets),
                // What gets no reply ends the conversation: it is no query.
                Poll::Ready(None) => return Err(io::Error::new(io::ErrorKind::InvalidData, "what came is no query")),
                Poll::Pending => answering.push(answer),
            }
        }
        if !output.is_empty() {
            write(stream, &mut output, limits.write).await?;
            continue;
        }
        if !open && answering.is_empty() {
            return Ok(());
        }
        input.reserve(READ_BYTES);
        tokio::select! {
            // The client has said all when nothing comes; what it asked is still answered.
            read = stream.read_buf(&mut input), if open && answering.len() < limits.queries => open = matches!(read, Ok(1..)),
            Some(octets) = answering.next(), if !answering.is_empty() => {
                let mut ready = Some(octets);
                while let Some(octets) = ready {
                    put(&mut output, &octets.ok_or_else(|| io::Error::other("a query got no reply"))?);
                    ready = if output.len() < WRITE_BYTES { answering.next().now_or_never().flatten() } else { None };
                }
                until = Instant::now() + seat.idle();
            }
            () = sleep_until(until), if answering.is_empty() => return Ok(()),
        }
    }
}

/// Writes what is there.
async fn write(stream: &mut (impl AsyncWrite + Unpin), output: &mut Vec<u8>, within: Duration) -> io::Result<()> {
    let written = async {
        stream.write_all(output).await?;
        stream.flush().await
    };
    let in_time = timeout(within, written).await;
    in_time.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the client does not read"))??;
    output.clear();
    Ok(())
}

/// The first whole message.
pub(crate) fn frame(input: &mut BytesMut) -> Option<BytesMut> {
    let length = usize::from(u16::from_be_bytes(*input.first_chunk()?));
    input.get(LENGTH_BYTES..LENGTH_BYTES + length)?;
    input.advance(LENGTH_BYTES);
    Some(input.split_to(length))
}

fn put(output: &mut Vec<u8>, reply: &[u8]) {
    // Replies are cut to what two octets can say.
    let length = u16::try_from(reply.len()).unwrap_or(u16::MAX);
    output.extend_from_slice(&length.to_be_bytes());
    output.extend_from_slice(&reply[..usize::from(length)]);
}

/// As RFC 7828 §3.1 counts.
fn tenths(idle: Duration) -> u16 {
    u16::try_from(idle.as_millis() / 100).unwrap_or(u16::MAX)
}
