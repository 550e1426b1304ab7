//! Queries by UDP that need more than a look: answered on the runtime, sent by the socket that was asked.
//!
//! In: a queue that threads fill, each query with the pass of its party. Out: replies. Those that wait for somebody else wait in tasks of
//! their own, as many as [`WAITING_MAX`]; more are dropped, the newest first, since the others are nearer to their answer.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::task::Poll;

use futures::future::BoxFuture;
use futures::poll;
use rustix::net::{SendFlags, sendto};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::reply;
use crate::budget::Begun;
use crate::respond::{Responder, Via};
use crate::share::Pass;

/// Queries of one thread that wait for somebody else's answer.
const WAITING_MAX: usize = 4096;

/// A query, and where its reply goes.
pub(super) struct Asked {
    pub(super) packet: Vec<u8>,
    pub(super) peer: Peer,
    pub(super) pass: Pass,
    /// What it has cost already.
    pub(super) begun: Option<Begun>,
}

/// Where a reply goes.
pub(super) struct Peer {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) from: SocketAddr,
}

/// An answer that is being found.
pub(super) type Answering = BoxFuture<'static, Option<Vec<u8>>>;

/// Answers what is queued, until nobody queues any more.
pub(super) async fn answer(
    mut queued: mpsc::Receiver<Asked>,
    responder: &Responder,
    waiting: &TaskTracker,
    shutdown: &CancellationToken,
) {
    let full = responder.metrics.drops("udp", "full");
    while let Some(Asked { packet, peer, pass, begun }) = queued.recv().await {
        let via = Via { begun, ..Via::UDP };
        let mut answering: Answering = Box::pin(reply(responder.clone(), packet, peer.from, via));
        if let Poll::Ready(octets) = poll!(&mut answering) {
            send(&peer, octets);
        } else if !wait(answering, (peer, pass), waiting, shutdown, &Handle::current()) {
            full.inc();
        }
    }
}

/// The way from a thread to the runtime.
pub(super) struct Slow {
    pub(super) queue: mpsc::Sender<Asked>,
    pub(super) waiting: TaskTracker,
    pub(super) shutdown: CancellationToken,
    pub(super) handle: Handle,
}

impl Slow {
    /// Queues a query; not when the queue is full.
    pub(super) fn queue(&self, packet: Vec<u8>, peer: Peer, pass: Pass, begun: Option<Begun>) -> bool {
        self.queue.try_send(Asked { packet, peer, pass, begun }).is_ok()
    }

    /// Lets an answer be waited for; not when too many are already.
    pub(super) fn wait(&self, answering: Answering, peer: Peer, pass: Pass) -> bool {
        wait(answering, (peer, pass), &self.waiting, &self.shutdown, &self.handle)
    }
}

fn wait(
    answering: Answering,
    (peer, pass): (Peer, Pass),
    waiting: &TaskTracker,
    shutdown: &CancellationToken,
    handle: &Handle,
) -> bool {
    if waiting.len() >= WAITING_MAX {
        return false;
    }
    let shutdown = shutdown.clone();
    waiting.spawn_on(
        async move {
            let octets = shutdown.run_until_cancelled(answering).await;
            send(&peer, octets.flatten());
            drop(pass);
        },
        handle,
    );
    true
}

fn send(peer: &Peer, octets: Option<Vec<u8>>) {
    if let Some(octets) = octets.filter(|o| !o.is_empty()) {
        // A client that can't be reached asks again.
        let _ = sendto(&peer.socket, &octets, SendFlags::DONTWAIT, &peer.from);
    }
}
