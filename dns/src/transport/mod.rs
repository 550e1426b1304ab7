//! How queries come in. A transport is one file and one row of [`TRANSPORTS`].
//!
//! In: bound sockets. Out: one future for each socket, which its owner awaits and which ends on the token. Each bounds what is in
//! flight, and sheds the newest when it is full. What those over streams have in common is in [`crate::stream`].

mod doh;
mod doh3;
mod doq;
mod dot;
mod tcp;
mod udp;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;

use atoll_reach::Accept;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::config::Encrypted;
use crate::error::Error;
use crate::respond::{Responder, Via};

/// The sockets that queries come in by; a row takes what is its own.
pub(crate) struct Sockets {
    pub(crate) udp: Vec<std::net::UdpSocket>,
    pub(crate) tcp: Option<Box<dyn Accept>>,
    pub(crate) encrypted: Encrypted,
}

/// Serves one socket until the token ends.
pub(crate) type Serving = BoxFuture<'static, ()>;

/// A row of the table.
pub struct Transport {
    /// What metrics and logs call it.
    pub name: &'static str,
    /// One sentence for people.
    pub help: &'static str,
    pub(crate) serve: fn(&mut Sockets, &Responder, &CancellationToken) -> Result<Vec<Serving>, Error>,
}

/// Every transport.
pub const TRANSPORTS: &[Transport] = &[
    Transport { name: "udp", help: "datagrams of at most 1232 octets", serve: udp::serve },
    Transport { name: "tcp", help: "streams, answers out of order (RFC 7766)", serve: tcp::serve },
    Transport { name: "dot", help: "TCP behind TLS (RFC 7858)", serve: dot::serve },
    Transport { name: "doh", help: "HTTPS, HTTP/2 and HTTP/1.1 (RFC 8484)", serve: doh::serve },
    Transport { name: "doq", help: "QUIC, a stream for each query (RFC 9250)", serve: doq::serve },
    Transport { name: "doh3", help: "HTTPS over QUIC (RFC 9114)", serve: doh3::serve },
];

/// The reply to a query on a stream that was given before. Where that breaks an invariant, [`reply`] is asked, and says so.
pub(crate) fn at_once(responder: &Responder, packet: &[u8], from: SocketAddr, via: Via) -> Option<Vec<u8>> {
    std::panic::catch_unwind(AssertUnwindSafe(|| responder.at_once(packet, from, via))).unwrap_or(None)
}

/// The reply to one packet. Should a broken invariant of ours panic, that packet gets no reply and the socket goes on.
pub(crate) async fn reply(responder: Responder, packet: Vec<u8>, from: SocketAddr, via: Via) -> Option<Vec<u8>> {
    let answered = AssertUnwindSafe(responder.respond(&packet, from, via)).catch_unwind().await;
    answered.unwrap_or_else(|_| {
        responder.metrics.dropped(via.transport, "panic");
        tracing::error!(transport = via.transport, %from, "a packet broke an invariant");
        None
    })
}
