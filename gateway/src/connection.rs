//! One connection of a client: what its slot speaks, and for TLS which listener it is for, decides who serves it.
//!
//! ```text
//!   Http ─────────────────────────────────► http::speak
//!   Tls ─► hello ─► listener of the name ─┬► end TLS ─► http::speak
//!                                         ├► end TLS ─► l4::stream
//!                                         └► (pass) ──► l4::stream
//!   Tcp ──────────────────────────────────► l4::stream
//! ```

use std::io;
use std::sync::Arc;

use atoll_reach::proxy::{self, Ends};
use atoll_reach::{BoxStream, sniff};
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::http::{Client, speak};
use crate::http1::LAST_CALL;
use crate::l4::stream as carry;
use crate::listen::hello;
use crate::metrics::Cut;
use crate::plane::{Plane, Snapshot};
use crate::progress::Taken;
use crate::table::{ListenerTable, Mode, Protocol, Slot, StreamRule};
use crate::tls::Shown;

/// The type of records that hold alerts, and the level at which a connection ends (RFC 8446 §5.1, §6).
const ALERT: u8 = 21;
const FATAL: u8 = 2;
/// No listener is of the name (RFC 6066 §3).
const UNRECOGNIZED_NAME: u8 = 112;
/// A listener has no certificate to show (RFC 8446 §6.2).
const INTERNAL_ERROR: u8 = 80;

/// Serves one connection until it ends or we do. `stop`: no further requests.
///
/// # Errors
/// What ended it, for the log.
pub(crate) async fn serve(
    plane: Arc<Plane>,
    mut stream: BoxStream,
    mut ends: Ends,
    slot: Slot,
    stop: CancellationToken,
) -> io::Result<()> {
    let proxied = plane.is_proxy(ends.client.ip());
    if proxied {
        // On whose behalf a balancer comes; its own connections are its own.
        let taken = tokio::time::timeout(plane.limits.handshake_timeout, proxy::take_any(&mut stream)).await;
        ends = taken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?.unwrap_or(ends);
    }
    // A proxy that is trusted speaks for many.
    let counted = !plane.trusted.believes(ends.client.ip());
    let held = counted.then(|| plane.per_client.enter(ends.client.ip()));
    if matches!(held, Some(None)) {
        plane.metrics.cut(Cut::Connections);
        return Ok(());
    }
    let protocol = match slot {
        Slot::Http => Protocol::Http,
        Slot::Https => Protocol::Tls,
        _ => {
            let snapshot = plane.snapshots.load();
            let slot = snapshot.as_ref().and_then(|s| s.table.slots.get(&slot));
            slot.map_or(Protocol::Http, |s| s.protocol)
        }
    };
    match protocol {
        // The large ones are put elsewhere: whoever waits in plain HTTP would have room for them.
        Protocol::Tls => Box::pin(secure(plane, stream, (ends, !proxied), slot, stop)).await,
        Protocol::Tcp => {
            let (snapshot, listener) = listener(&plane, slot, "").ok_or_else(nobody)?;
            Box::pin(carry(&plane, stream, ends, snapshot, &listener, &*rule(&listener, "")?)).await
        }
        Protocol::Http | Protocol::Udp => {
            let (h2, stream) = begin(&plane, stream, &stop).await?;
            let stream = taken(&plane, stream);
            let client = Client { slot, ends, tls: false, sni: None, certificate: None, direct: false };
            speak(plane, stream, client, h2, stop).await
        }
    }
}

async fn secure(
    plane: Arc<Plane>,
    stream: BoxStream,
    (ends, direct): (Ends, bool),
    slot: Slot,
    stop: CancellationToken,
) -> io::Result<()> {
    let until = tokio::time::Instant::now() + plane.limits.handshake_timeout;
    let late = |_| {
        plane.metrics.cut(Cut::Tls);
        io::Error::from(io::ErrorKind::TimedOut)
    };
    let (name, stream) = tokio::time::timeout_at(until, hello(stream)).await.map_err(late)??;
    let Some((snapshot, listener)) = listener(&plane, slot, &name) else {
        return Err(alerted(&plane, stream, UNRECOGNIZED_NAME).await);
    };
    if listener.mode == Mode::Pass {
        let Ok(rule) = rule(&listener, &name) else { return Err(alerted(&plane, stream, UNRECOGNIZED_NAME).await) };
        return Box::pin(carry(&plane, stream, ends, snapshot, &listener, &rule)).await;
    }
    // Its certificate is not there or no good: its condition says which.
    let Some(config) = listener.server.clone() else { return Err(alerted(&plane, stream, INTERNAL_ERROR).await) };
    let stream = if listener.mode == Mode::Requests { taken(&plane, stream) } else { stream };
    let accepted = tokio::time::timeout_at(until, TlsAcceptor::from(config).accept(stream));
    let stream = accepted.await.map_err(late)??;
    if listener.mode == Mode::Terminate {
        let rule = rule(&listener, &name)?;
        return Box::pin(carry(&plane, Box::new(stream), ends, snapshot, &listener, &rule)).await;
    }
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|first| {
        let certificate = first.clone().into_owned();
        Box::new(Shown { certificate, verified: listener.verifies })
    });
    let sni = Some(name).filter(|name| !name.is_empty());
    let client = Client { slot, ends, tls: true, sni, certificate: shown, direct };
    // Who agreed on HTTP/2 begins with its preface; the bounds of servers begin with the first octets.
    let (begun, stream) = begin(&plane, Box::new(stream), &stop).await?;
    if h2 && !begun {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "HTTP/2 was agreed on, and something else spoken"));
    }
    speak(plane, stream, client, h2, stop).await
}

fn listener(plane: &Plane, slot: Slot, name: &str) -> Option<(Arc<Snapshot>, Arc<ListenerTable>)> {
    let snapshot = plane.snapshots.load_full()?;
    let listener = Arc::clone(snapshot.table.listener(slot, name)?);
    Some((snapshot, listener))
}

fn rule(listener: &ListenerTable, name: &str) -> io::Result<Arc<StreamRule>> {
    listener.streams.find(name).cloned().ok_or_else(nobody)
}

/// Waits for the first octets; whether HTTP/2 begins. Where we are to end, no longer than for who is idle.
async fn begin(plane: &Plane, stream: BoxStream, stop: &CancellationToken) -> io::Result<(bool, BoxStream)> {
    let last_call = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_CALL).await;
    };
    let begun = tokio::select! {
        begun = sniff(stream, plane.limits.header_timeout) => begun,
        () = last_call => return Err(io::ErrorKind::ConnectionAborted.into()),
    };
    begun.inspect_err(|error| {
        if error.kind() == io::ErrorKind::TimedOut {
            plane.metrics.cut(Cut::Head);
        }
    })
}

/// Breaks when the client takes nothing. Streams that are not looked into stay as they are: their ends may be silent as long as they like.
fn taken(plane: &Plane, stream: BoxStream) -> BoxStream {
    Box::new(Taken::new(stream, plane.limits.write_timeout, plane.metrics.cuts(Cut::Answer)))
}

/// Tells a client that has said hello why nothing follows (RFC 8446 §6.2: one fatal alert, in the clear).
async fn alerted(plane: &Plane, mut stream: BoxStream, alert: u8) -> io::Error {
    plane.metrics.cut(Cut::Tls);
    let record = [ALERT, 3, 3, 0, 2, FATAL, alert];
    let told = async {
        stream.write_all(&record).await?;
        stream.shutdown().await
    };
    match tokio::time::timeout(plane.limits.write_timeout, told).await {
        Ok(Err(error)) => error,
        _ => nobody(),
    }
}

fn nobody() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no listener or route takes it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn who_waits_in_plain_http_has_no_room_for_what_others_speak() {
        let octets = size(|(plane, stream, ends, slot, stop)| serve(plane, stream, ends, slot, stop));
        assert!(octets <= 1024, "{octets}");
    }
}
