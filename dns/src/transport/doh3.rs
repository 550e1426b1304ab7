//! Queries by HTTP/3 (RFC 8484 over RFC 9114).
//!
//! In: a UDP socket, a certificate. Out: responses at `/dns-query`, as over HTTP/2.

use std::net::SocketAddr;

use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use h3::server::{RequestResolver, RequestStream};
use h3_quinn::BidiStream;
use http::StatusCode;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Serving, Sockets, reply};
use crate::error::Error;
use crate::respond::{Responder, Via};
use crate::stream::message::{self, MESSAGE_BYTES_MAX, Query};
use crate::stream::quic::{self, Peer, Protocol};

const VIA: Via = Via::stream("doh3", true, None);
const HEAD_BYTES_MAX: u64 = 16 * 1024;
/// H3_NO_ERROR (RFC 9114 §8.1).
const NO_ERROR: u32 = 0x100;

pub(super) fn serve(
    sockets: &mut Sockets,
    responder: &Responder,
    shutdown: &CancellationToken,
) -> Result<Vec<Serving>, Error> {
    // RFC 9114 §6.2: control, QPACK encoder and decoder, and one more, which may mean nothing.
    let protocol = Protocol { transport: VIA.transport, alpn: b"h3", uni_streams: 4, no_error: NO_ERROR };
    let serving = |socket| quic::serving(protocol, socket, responder, shutdown, converse);
    sockets.encrypted.h3.take().map(serving).into_iter().collect()
}

/// Talks with a client until it ends the connection or is idle.
async fn converse(peer: Peer) {
    let Peer { connection, from, seat, responder } = peer;
    let limits = responder.edge.limits;
    let mut builder = h3::server::builder();
    builder.max_field_section_size(HEAD_BYTES_MAX);
    let built = builder.build::<_, Bytes>(h3_quinn::Connection::new(connection));
    let Ok(Ok(mut connection)) = timeout(limits.handshake, built).await else {
        return responder.metrics.dropped(VIA.transport, "broken");
    };
    let mut exchanges = FuturesUnordered::new();
    let mut until = Instant::now() + seat.idle();
    loop {
        tokio::select! {
            accepted = connection.accept(), if exchanges.len() < limits.queries => {
                let Ok(Some(request)) = accepted else { return };
                exchanges.push(Box::pin(exchange(request, from, responder.clone())));
            }
            Some(_) = exchanges.next(), if !exchanges.is_empty() => until = Instant::now() + seat.idle(),
            () = sleep_until(until), if exchanges.is_empty() => {
                // It ends either way.
                let _ = connection.shutdown(0).await;
                return;
            }
        }
    }
}

/// One request and its response; a client that is slow or breaks off gets none.
async fn exchange(
    request: RequestResolver<h3_quinn::Connection, Bytes>,
    from: SocketAddr,
    responder: Responder,
) -> Option<()> {
    let limits = responder.edge.limits;
    let (request, mut stream) = timeout(limits.handshake, request.resolve_request()).await.ok()?.ok()?;
    let asked = message::query(request.method(), request.uri(), request.headers());
    let packet = match asked {
        Ok(Query::Here(packet)) => Ok(packet),
        Ok(Query::Body) => {
            timeout(limits.handshake, body(&mut stream)).await.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT))
        }
        Err(status) => Err(status),
    };
    let answered = match packet {
        Ok(packet) => Ok(reply(responder, packet, from, VIA).await),
        Err(status) => Err(status),
    };
    let (head, octets) = message::response(answered).into_parts();
    let written = async {
        stream.send_response(http::Response::from_parts(head, ())).await.ok()?;
        stream.send_data(Bytes::from(octets)).await.ok()?;
        stream.finish().await.ok()
    };
    timeout(limits.write, written).await.ok()?
}

async fn body(stream: &mut RequestStream<BidiStream<Bytes>, Bytes>) -> Result<Vec<u8>, StatusCode> {
    let mut packet = Vec::new();
    while let Some(mut data) = stream.recv_data().await.map_err(|_| StatusCode::BAD_REQUEST)? {
        if packet.len() + data.remaining() > MESSAGE_BYTES_MAX {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        packet.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    message::sized(packet.len())?;
    Ok(packet)
}
