//! One connection of a client that speaks HTTP/3, until it ends or we do.
//!
//! In: an established connection. Out: each of its streams a task that the connection owns. Bounds: streams at once (QUIC's), requests given up,
//! idle time. At the end it says so (GOAWAY), and finishes what it took. Source: RFC 9114 §5.2.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::control::{Control, Said, listen};
use super::exchange::{Talk, exchange};
use super::frames::{Code, Fault};
use crate::http::{Client, Streams};
use crate::metrics::Cut;
use crate::plane::Plane;

/// After it said that it ends, a connection takes what its client had sent before it knew: for two round trips, within these bounds.
const LATE_REQUESTS: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// Serves one connection. `stop`: no further requests.
pub(super) async fn talk(plane: Arc<Plane>, connection: Connection, client: Client, stop: CancellationToken) {
    let limits = &plane.limits;
    let opened = timeout(limits.handshake_timeout, Control::open(&connection, limits.header_bytes_max)).await;
    // It stays open until the connection is closed: one that ends before is an error of ours (§6.2.1).
    let Ok(Ok(mut control)) = opened else {
        return connection.close(Code::ClosedCriticalStream.into(), b"the control stream can't be opened");
    };
    let streams = Streams::new(Arc::clone(&plane));
    let (said, held) = (Said::default(), streams.clone());
    let talk = Arc::new(Talk { plane: Arc::clone(&plane), client, streams, connection, said });
    let idle = async {
        held.are_gone(limits.idle_timeout).await;
        plane.metrics.cut(Cut::Idle);
    };
    let ending = async {
        tokio::select! {
            () = idle => {}
            () = stop.cancelled() => {}
        }
    };
    let driven = drive(&talk, &mut control, ending);
    let (code, why) = tokio::select! {
        ended = driven => ended,
        () = held.are_costly() => {
            plane.metrics.cut(Cut::Resets);
            (Code::ExcessiveLoad, "the client gives up what it asks for")
        }
        () = plane.end.cancelled() => (Code::NoError, ""),
    };
    talk.connection.close(code.into(), why.as_bytes());
}

/// Takes streams until the connection is over, and why it is.
async fn drive(talk: &Arc<Talk>, control: &mut Control, ending: impl Future<Output = ()>) -> (Code, &'static str) {
    let connection = &talk.connection;
    let (mut requests, mut listening) = (JoinSet::new(), JoinSet::new());
    let mut taken = 0;
    let mut last = Box::pin(async {
        ending.await;
        // Which request is the last one is said once those are here that are under way (§5.2).
        let said = control.go_away(None).await;
        sleep((2 * connection.rtt()).clamp(LATE_REQUESTS[0], LATE_REQUESTS[1])).await;
        said
    });
    let said = loop {
        tokio::select! {
            accepted = connection.accept_bi() => {
                let Ok((outgoing, incoming)) = accepted else { return (Code::NoError, "") };
                taken = incoming.id().index() + 1;
                requests.spawn(exchange(Arc::clone(talk), outgoing, incoming));
            }
            Ok(stream) = connection.accept_uni() => hear(talk, &mut listening, stream),
            Some(_) = requests.join_next() => {}
            Some(heard) = listening.join_next() => {
                if let Ok(Err(Fault::Connection(code, why))) = heard {
                    return (code, why);
                }
            }
            ended = &mut last => break ended,
        }
    };
    drop(last);
    if said.is_err() || control.go_away(Some(4 * taken)).await.is_err() {
        return (Code::ClosedCriticalStream, "the control stream is closed");
    }
    while !requests.is_empty() {
        tokio::select! {
            accepted = connection.accept_bi() => {
                let Ok((outgoing, incoming)) = accepted else { break };
                reject(outgoing, incoming);
            }
            Ok(stream) = connection.accept_uni() => hear(talk, &mut listening, stream),
            _ = requests.join_next() => {}
            Some(heard) = listening.join_next() => {
                if let Ok(Err(Fault::Connection(code, why))) = heard {
                    return (code, why);
                }
            }
        }
    }
    (Code::NoError, "")
}

/// Listens to a stream of one direction; there are as many as QUIC allows.
fn hear(talk: &Arc<Talk>, listening: &mut JoinSet<Result<(), Fault>>, stream: RecvStream) {
    let talk = Arc::clone(talk);
    listening.spawn(async move { listen(stream, &talk.said).await });
}

/// A request that came too late: it was not looked at, and may be sent again elsewhere.
fn reject(mut outgoing: SendStream, mut incoming: RecvStream) {
    // Streams that are over already need no word.
    let _ = outgoing.reset(Code::RequestRejected.into());
    let _ = incoming.stop(Code::RequestRejected.into());
}
