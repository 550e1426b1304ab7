//! Asks an endpoint for a sign of life: anything that it says, on a connection of its own.
//!
//! In: an endpoint that keeps a request waiting. Out: whether it said something, took the connection at least, or neither. Over TLS the handshake is
//! enough; HTTP/2 begins with the server's SETTINGS (RFC 9113 §3.4); HTTP/1.1 is asked `OPTIONS *`, which RFC 9110 §9.3.7 calls 'a "ping" or
//! "no-op" type of method'. Who was never sent a request is not spoken to: it may speak something else. Whatever is said is fine.

use std::net::SocketAddr;
use std::time::Duration;

use atoll_reach::BoxStream;
use atoll_reach::proxy::Ends;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::state::{Failure, Proof};
use crate::endpoint::Endpoint;
use crate::pool::{CONNECT_UNKNOWN_MAX, Pool, Way};

/// The client's half of the preface, with empty SETTINGS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Asks, for so long.
pub(super) async fn ask(pool: &Pool, endpoint: &Endpoint, within: Duration) -> Result<Proof, Failure> {
    // While nobody knows whether it is reached directly, its agent gets its turn, too.
    let within = if pool.way(endpoint) == Way::Unknown { within.max(CONNECT_UNKNOWN_MAX) } else { within };
    let here = SocketAddr::new(endpoint.address.ip, endpoint.address.port);
    let until = tokio::time::Instant::now() + within;
    let opened = tokio::time::timeout_at(until, async {
        if endpoint.is_http() {
            pool.open(endpoint, Ends { client: here, server: here }).await
        } else {
            pool.dial(endpoint).await
        }
    });
    let Ok(Ok(stream)) = opened.await else { return Err(Failure::Connect) };
    if !endpoint.is_http() {
        return Ok(Proof::Connection);
    }
    if endpoint.address.tls.is_some() {
        return Ok(Proof::Octets);
    }
    let left = until.saturating_duration_since(tokio::time::Instant::now());
    timeout(left, spoken(stream, endpoint)).await.unwrap_or(Err(Failure::FirstByte))
}

/// Who ends the connection without a word is there, too, but nothing more is known of it.
async fn spoken(mut stream: BoxStream, endpoint: &Endpoint) -> Result<Proof, Failure> {
    let host = endpoint.address.ip;
    let host = if host.is_ipv6() { format!("[{host}]") } else { host.to_string() };
    let options =
        format!("OPTIONS * HTTP/1.1\r\nHost: {host}\r\nUser-Agent: atoll-health-check\r\nConnection: close\r\n\r\n");
    let asked = if endpoint.address.h2 { PREFACE } else { options.as_bytes() };
    if stream.write_all(asked).await.is_err() {
        return Ok(Proof::Connection);
    }
    let _ = stream.flush().await;
    match stream.read_u8().await {
        Ok(_) => Ok(Proof::Octets),
        Err(_) => Ok(Proof::Connection),
    }
}
