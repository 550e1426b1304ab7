//! Queries by QUIC (RFC 9250): one on each stream.
//!
//! In: a UDP socket, a certificate. Out: replies. What breaks a rule of the protocol ends the connection with DOQ_PROTOCOL_ERROR
//! (§4.3.3); a client that is slow loses that stream alone.

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use quinn::{ReadToEndError, RecvStream, SendStream, VarInt};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Serving, Sockets, reply};
use crate::edns::Opt;
use crate::error::Error;
use crate::respond::{Responder, Via};
use crate::stream::quic::{self, Peer, Protocol};

const VIA: Via = Via::stream("doq", true, None);
/// A length of two octets and the longest message (§4.2).
const STREAM_BYTES_MAX: usize = 2 + 65_535;

// RFC 9250 §4.3.
const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 1;
const PROTOCOL_ERROR: u32 = 2;
const EXCESSIVE_LOAD: u32 = 4;

pub(super) fn serve(
    sockets: &mut Sockets,
    responder: &Responder,
    shutdown: &CancellationToken,
) -> Result<Vec<Serving>, Error> {
    let protocol = Protocol { transport: VIA.transport, alpn: b"doq", uni_streams: 0, no_error: NO_ERROR };
    let serving = |socket| quic::serving(protocol, socket, responder, shutdown, converse);
    sockets.encrypted.quic.take().map(serving).into_iter().collect()
}

/// The client broke a rule: the connection ends (§4.3.3).
struct Fatal;

/// Talks with a client until it ends the connection, is idle, or breaks a rule.
async fn converse(peer: Peer) {
    let Peer { connection, from, seat, responder } = peer;
    let queries = responder.edge.limits.queries;
    let mut exchanges = FuturesUnordered::new();
    let mut until = Instant::now() + seat.idle();
    loop {
        tokio::select! {
            opened = connection.accept_bi(), if exchanges.len() < queries => {
                let Ok((send, receive)) = opened else { return };
                exchanges.push(exchange(send, receive, from, responder.clone()));
            }
            Some(ended) = exchanges.next(), if !exchanges.is_empty() => {
                until = Instant::now() + seat.idle();
                if let Err(Fatal) = ended {
                    responder.metrics.dropped(VIA.transport, "malformed");
                    return connection.close(VarInt::from_u32(PROTOCOL_ERROR), b"");
                }
            }
            () = sleep_until(until), if exchanges.is_empty() => return,
        }
    }
}

/// One query and its reply.
async fn exchange(
    mut send: SendStream,
    mut receive: RecvStream,
    from: std::net::SocketAddr,
    responder: Responder,
) -> Result<(), Fatal> {
    let limits = responder.edge.limits;
    let reset = |send: &mut SendStream, code| {
        // A stream that the client gave up is gone already.
        let _ = send.reset(VarInt::from_u32(code));
    };
    // §4.2: "The client … MUST indicate through the STREAM FIN mechanism that no further data will be sent on that stream."
    let octets = match timeout(limits.handshake, receive.read_to_end(STREAM_BYTES_MAX)).await {
        Ok(Ok(octets)) => octets,
        Ok(Err(ReadToEndError::TooLong)) => return Err(Fatal),
        Ok(Err(ReadToEndError::Read(_))) => return Ok(()),
        Err(_) => {
            let _ = receive.stop(VarInt::from_u32(EXCESSIVE_LOAD));
            reset(&mut send, EXCESSIVE_LOAD);
            return Ok(());
        }
    };
    let Some(packet) = query(&octets) else { return Err(Fatal) };
    let Some(reply) = reply(responder, packet.to_vec(), from, VIA).await else {
        reset(&mut send, INTERNAL_ERROR);
        return Ok(());
    };
    let length = u16::try_from(reply.len()).unwrap_or(u16::MAX).to_be_bytes();
    let written = async {
        send.write_all(&length).await.ok()?;
        send.write_all(&reply).await.ok()?;
        send.finish().ok()?;
        send.stopped().await.ok()
    };
    if timeout(limits.write, written).await.is_err() {
        reset(&mut send, EXCESSIVE_LOAD);
    }
    Ok(())
}

/// The query of a whole stream; `None` for what a client must not send: another length, an identifier that is not 0 (§4.2.1), a reply,
/// the keep-alive option (§5.5.2).
fn query(octets: &[u8]) -> Option<&[u8]> {
    let (length, packet) = octets.split_first_chunk::<2>()?;
    let head: &[u8; 12] = packet.first_chunk()?;
    let fits = usize::from(u16::from_be_bytes(*length)) == packet.len() && head[..2] == [0, 0] && head[2] & 0x80 == 0;
    let keepalive = Opt::find(packet).is_ok_and(|opt| opt.is_some_and(|opt| opt.keepalive));
    (fits && !keepalive).then_some(packet)
}
