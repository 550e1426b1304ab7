//! One thread that answers datagrams: a batch in, a batch out, and nothing waited for in between.
//!
//! In: the sockets of one core. Out: replies. A hit allocates nothing, takes no lock, and is sent before anything else is looked at. What
//! is no hit and has a pass is decided here as long as that takes a small part of a batch; the rest is queued, and what the queue does
//! not take is shed. A packet that breaks an invariant gets no reply; the thread goes on.

use std::net::UdpSocket;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::MsgFlags;
use prometheus::IntCounter;
use tokio::time::Instant;

use super::super::reply;
use super::LOOK_EVERY;
use super::batch::{BATCH, Batch};
use super::slow::{Answering, Peer, Slow};
use crate::counters::Block;
use crate::respond::{Given, Moment, Responder, Via};
use crate::share::Pass;
use crate::wire::Local;

/// What is no hit may take so long after a batch; then it is queued.
const DECIDING_MAX: Duration = Duration::from_micros(100);
/// After an error of a socket.
const PAUSE: Duration = Duration::from_millis(20);

/// The thread's own.
pub(super) struct Worker {
    responder: Responder,
    sockets: Vec<Arc<UdpSocket>>,
    slow: Slow,
    local: Local,
    batch: Batch,
    block: Arc<Block>,
    dropped: Dropped,
    /// Passes of the packets that are no hits.
    passes: Box<[Option<Pass>; BATCH]>,
    dice: u64,
}

/// Packets that got no answer.
struct Dropped {
    rate: IntCounter,
    full: IntCounter,
    panic: IntCounter,
}

/// What became of the packets of a batch.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) hits: u64,
    pub(super) misses: u64,
}

impl Worker {
    pub(super) fn new(responder: Responder, sockets: Vec<Arc<UdpSocket>>, slow: Slow) -> Self {
        let drops = |why| responder.metrics.drops(Via::UDP.transport, why);
        Self {
            dropped: Dropped { rate: drops("rate"), full: drops("full"), panic: drops("panic") },
            block: responder.metrics.block(),
            responder,
            sockets,
            slow,
            local: Local::default(),
            batch: Batch::new(),
            passes: Box::new([const { None }; BATCH]),
            // Xorshift never leaves 0.
            dice: rand::random::<u64>() | 1,
        }
    }

    /// Answers until told to stop.
    pub(super) fn run(mut self, stop: &AtomicBool) {
        let sockets = self.sockets.clone();
        let mut ready: Vec<PollFd<'_>> = sockets
            .iter()
            .map(|socket| PollFd::new(std::os::fd::AsFd::as_fd(socket.as_ref()), PollFlags::POLLIN))
            .collect();
        while !stop.load(Ordering::Acquire) {
            if let [socket] = &sockets[..] {
                self.take(socket, MsgFlags::MSG_WAITFORONE);
                continue;
            }
            let timeout = PollTimeout::try_from(LOOK_EVERY).unwrap_or(PollTimeout::ZERO);
            if poll(&mut ready, timeout).is_err() {
                std::thread::park_timeout(PAUSE);
            }
            for (socket, _) in sockets.iter().zip(&ready).filter(|(_, fd)| fd.any() == Some(true)) {
                self.take(socket, MsgFlags::MSG_DONTWAIT);
            }
        }
    }

    /// One batch of `socket`.
    fn take(&mut self, socket: &Arc<UdpSocket>, flags: MsgFlags) {
        match self.turn(socket, flags) {
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => std::thread::park_timeout(PAUSE),
        }
    }

    /// Receives a batch, answers it, and says what it was.
    pub(super) fn turn(&mut self, socket: &Arc<UdpSocket>, flags: MsgFlags) -> Result<Tally, Errno> {
        let count = self.batch.receive(socket, flags)?;
        let mut moment = self.responder.moment();
        let mut tally = Tally::default();
        for at in 0..count {
            self.dice ^= self.dice << 13;
            self.dice ^= self.dice >> 7;
            self.dice ^= self.dice << 17;
            moment.dice = self.dice;
            match catch_unwind(AssertUnwindSafe(|| self.hit(at, moment))) {
                Ok(true) => tally.hits += 1,
                Ok(false) => tally.misses += 1,
                Err(_) => self.dropped.panic.inc(),
            }
        }
        self.batch.send(socket);
        if tally.hits > 0 {
            self.block.took(tally.hits, moment.now.elapsed());
            self.block.wire(tally.hits, 0);
        }
        if tally.misses > 0 {
            let start = Instant::now();
            for at in 0..count {
                if let Some(pass) = self.passes[at].take() {
                    self.miss(at, socket, pass, start);
                }
            }
            self.batch.send(socket);
        }
        Ok(tally)
    }

    /// Whether nothing is left to be decided of the packet; else its pass is kept, where it got one.
    fn hit(&mut self, at: usize, moment: Moment) -> bool {
        let Some((packet, from, out)) = self.batch.packet(at) else { return true };
        match self.responder.hit(&mut self.local, packet, from, moment, out) {
            Given::Slow(pass) => {
                self.passes[at] = Some(pass);
                return false;
            }
            Given::Shed => {
                self.dropped.full.inc();
                return false;
            }
            Given::Dropped => self.dropped.rate.inc(),
            Given::Reply(hit) => {
                self.block.datagram(hit.told);
                if !self.responder.taps.is_off() {
                    self.responder.show(Via::UDP, from, packet, &out[..hit.len], moment.now.elapsed());
                }
                self.batch.reply(hit.len, from);
            }
        }
        true
    }

    /// Decides at once, or lets others do it.
    fn miss(&mut self, at: usize, socket: &Arc<UdpSocket>, pass: Pass, since: Instant) {
        let Some((packet, from, out)) = self.batch.packet(at) else { return };
        let peer = || Peer { socket: Arc::clone(socket), from };
        if since.elapsed() > DECIDING_MAX {
            if !self.slow.queue(packet, peer(), pass) {
                self.dropped.full.inc();
            }
            return;
        }
        let mut answering: Answering = Box::pin(reply(self.responder.clone(), packet.to_vec(), from, Via::UDP));
        match answering.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(octets)) if octets.len() <= out.len() => {
                out[..octets.len()].copy_from_slice(&octets);
                self.batch.reply(octets.len(), from);
            }
            Poll::Ready(_) => {}
            Poll::Pending => {
                if !self.slow.wait(answering, peer(), pass) {
                    self.dropped.full.inc();
                }
            }
        }
    }
}
