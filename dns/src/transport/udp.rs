//! Queries by UDP.
//!
//! In: datagrams. Out: replies from the socket that was asked. An answer that needs nobody else is given at once; the others wait in
//! tasks of their own, as many as [`WAITING_MAX`]. Errors of the socket (an unreachable client, no descriptors or memory left) are
//! waited out, never spun on.

use std::sync::Arc;
use std::time::Duration;

use futures::poll;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Serving, Sockets, reply};
use crate::error::Error;
use crate::forward::UDP_BYTES_MAX;
use crate::respond::{Given, Responder, Via, code};
use crate::wire::Local;

/// Queries of one socket that wait for somebody else's answer.
const WAITING_MAX: usize = 4096;
const PACKET_BYTES_MAX: usize = 4096;
const PAUSE: Duration = Duration::from_millis(20);

pub(super) fn serve(
    sockets: &mut Sockets,
    responder: &Responder,
    shutdown: &CancellationToken,
) -> Result<Vec<Serving>, Error> {
    let mut serving: Vec<Serving> = Vec::new();
    for socket in sockets.udp.drain(..) {
        let failed = |source| Error::Socket { transport: "udp", source };
        socket.set_nonblocking(true).map_err(failed)?;
        let socket = Arc::new(UdpSocket::from_std(socket).map_err(failed)?);
        let (responder, shutdown) = (responder.clone(), shutdown.clone());
        serving.push(Box::pin(async move {
            let waiting = TaskTracker::new();
            shutdown.run_until_cancelled(receive(socket, responder, &waiting, &shutdown)).await;
            waiting.close();
            waiting.wait().await;
        }));
    }
    Ok(serving)
}

async fn receive(socket: Arc<UdpSocket>, responder: Responder, waiting: &TaskTracker, shutdown: &CancellationToken) {
    let via = Via::UDP;
    let mut packet = vec![0; PACKET_BYTES_MAX];
    let (mut local, mut given) = (Local::default(), vec![0; usize::from(UDP_BYTES_MAX)]);
    loop {
        let Ok((len, from)) = socket.recv_from(&mut packet).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let moment = responder.moment();
        match responder.hit(&mut local, &packet[..len], from, moment, &mut given) {
            Some(Given::Reply(hit)) => {
                // A client that can't be reached asks again.
                let _ = socket.send_to(&given[..hit.len], from).await;
                responder.metrics.query(via.transport, code(hit.rcode), moment.now.elapsed());
                continue;
            }
            Some(Given::Dropped) => {
                responder.metrics.dropped(via.transport, "rate");
                continue;
            }
            None => {}
        }
        let mut answer = Box::pin(reply(responder.clone(), packet[..len].to_vec(), from, via));
        if let std::task::Poll::Ready(octets) = poll!(&mut answer) {
            send(&socket, octets, from).await;
        } else if waiting.len() < WAITING_MAX {
            let (socket, shutdown) = (Arc::clone(&socket), shutdown.clone());
            waiting.spawn(async move {
                let octets = shutdown.run_until_cancelled(answer).await;
                send(&socket, octets.flatten(), from).await;
            });
        } else {
            responder.metrics.dropped(via.transport, "full");
        }
    }
}

async fn send(socket: &UdpSocket, octets: Option<Vec<u8>>, to: std::net::SocketAddr) {
    if let Some(octets) = octets.filter(|o| !o.is_empty()) {
        // A client that can't be reached asks again.
        let _ = socket.send_to(&octets, to).await;
    }
}
