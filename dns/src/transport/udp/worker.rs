//! One thread that answers datagrams: a batch in, a batch out, and nothing waited for in between.
//!
//! In: the sockets of one core. Out: replies. A hit allocates nothing, takes no lock, and is sent before anything else is looked at. What
//! is no hit and has a pass goes straight to a member, or is decided here as long as that takes a small part of a batch; the rest is queued,
//! and what the queue does not take is shed. While something is on its way the thread waits for members beside its clients. A packet that breaks an invariant gets no reply; the thread goes on.

use std::net::UdpSocket;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use prometheus::IntCounter;
use tokio::time::Instant;

use super::super::reply;
use super::LOOK_EVERY;
use super::batch::{BATCH, Batch};
use super::slow::{Answering, Peer, Slow};
use super::straight::{Asked, Over, Straight};
use crate::budget::Begun;
use crate::counters::Block;
use crate::forward::{Ports, Ready};
use crate::respond::{Given, Moment, Responder, Via};
use crate::share::Pass;
use crate::wire::Local;

/// What is no hit may take so long after a batch; then it is queued.
const DECIDING_MAX: Duration = Duration::from_micros(25);
/// After an error of a socket.
const PAUSE: Duration = Duration::from_millis(20);

/// The thread's own.
pub(super) struct Worker {
    responder: Responder,
    sockets: Vec<Arc<UdpSocket>>,
    slow: Slow,
    straight: Straight,
    ready: Vec<Ready>,
    over: Vec<Over>,
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
    /// `ports` waits for the sockets, too.
    pub(super) fn new(responder: Responder, sockets: Vec<Arc<UdpSocket>>, slow: Slow, ports: Ports) -> Self {
        let drops = |why| responder.metrics.drops(Via::UDP.transport, why);
        Self {
            dropped: Dropped { rate: drops("rate"), full: drops("full"), panic: drops("panic") },
            block: responder.metrics.block(),
            straight: Straight::new(&responder, ports),
            ready: Vec::new(),
            over: Vec::new(),
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
        while !stop.load(Ordering::Acquire) {
            match &sockets[..] {
                [socket] if self.straight.is_idle() => self.take(socket, MsgFlags::MSG_WAITFORONE),
                sockets => self.look(sockets),
            }
        }
    }

    /// Waits for clients and members: what has come from members goes first, others wait for it.
    pub(super) fn look(&mut self, sockets: &[Arc<UdpSocket>]) {
        let mut ready = std::mem::take(&mut self.ready);
        match self.straight.wait(LOOK_EVERY, &mut ready) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => std::thread::park_timeout(PAUSE),
        }
        let moment = self.responder.moment();
        let mut over = std::mem::take(&mut self.over);
        for port in ready.iter().filter_map(|ready| if let Ready::Port(port) = ready { Some(*port) } else { None }) {
            let read = AssertUnwindSafe(|| self.straight.read(port, moment.now, &mut over));
            if catch_unwind(read).is_err() {
                self.dropped.panic.inc();
            }
        }
        let dice = self.roll();
        self.straight.look(moment.now, dice, &mut over);
        self.settle(over.drain(..), moment);
        self.over = over;
        for place in ready.iter().filter_map(|ready| if let Ready::Also(place) = ready { Some(*place) } else { None }) {
            if let Some(socket) = sockets.get(place) {
                self.take(socket, MsgFlags::MSG_DONTWAIT);
            }
        }
        self.ready = ready;
    }

    /// Answers what came home, and hands on what did not.
    fn settle(&mut self, over: impl Iterator<Item = Over>, moment: Moment) {
        let mut from: Option<Arc<UdpSocket>> = None;
        for over in over {
            let (asked, landed, label, generation) = match over {
                Over::Home { asked, landed, label, generation } => (asked, landed, label, generation),
                Over::Slow { asked, begun } => {
                    self.hand_on(asked, Some(begun));
                    continue;
                }
            };
            let socket = &asked.peer.socket;
            if let Some(other) = from.replace(Arc::clone(socket)).filter(|other| !Arc::ptr_eq(other, socket)) {
                self.batch.send(&other);
            }
            if self.batch.is_full() {
                self.batch.send(socket);
            }
            let (local, moment) = (&mut self.local, Moment { dice: self.dice, ..moment });
            let Some(out) = self.batch.buffer() else { continue };
            let (packet, to) = (&*asked.packet, asked.peer.from);
            let answer = AssertUnwindSafe(|| {
                self.responder.landed(local, (packet, to), (landed, label, generation), moment, out)
            });
            match catch_unwind(answer) {
                Ok(Some(Given::Reply(hit))) => {
                    let took = asked.begun.elapsed();
                    self.block.datagram(hit.told);
                    self.block.took(1, took);
                    self.block.wire(0, 1);
                    if !self.responder.taps.is_off() {
                        self.responder.show(Via::UDP, to, packet, &out[..hit.len], took);
                    }
                    self.batch.reply(hit.len, to);
                }
                Ok(Some(Given::Dropped)) => self.dropped.rate.inc(),
                Ok(_) => self.hand_on(asked, None),
                Err(_) => self.dropped.panic.inc(),
            }
        }
        if let Some(socket) = from {
            self.batch.send(&socket);
        }
    }

    fn hand_on(&mut self, asked: Asked, begun: Option<Begun>) {
        let Asked { packet, peer, pass, .. } = asked;
        if !self.slow.queue(packet.into(), peer, pass, begun) {
            self.dropped.full.inc();
        }
    }

    /// Evenly distributed, new each time.
    fn roll(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice
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
            moment.dice = self.roll();
            match catch_unwind(AssertUnwindSafe(|| self.hit(at, moment))) {
                Ok(Some(true)) => tally.hits += 1,
                Ok(Some(false)) => tally.misses += 1,
                Ok(None) => {}
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
                    moment.dice = self.roll();
                    self.miss(at, socket, pass, (moment, start));
                }
            }
            self.batch.send(socket);
        }
        Ok(tally)
    }

    /// Whether nothing is left to be decided of the packet; else its pass is kept, where it got one. `None` of nobody's packet.
    fn hit(&mut self, at: usize, moment: Moment) -> Option<bool> {
        let (packet, from, out) = self.batch.packet(at)?;
        match self.responder.hit(&mut self.local, packet, from, moment, out) {
            Given::Slow(pass) => {
                self.passes[at] = Some(pass);
                return Some(false);
            }
            Given::Shed => {
                self.dropped.full.inc();
                return Some(false);
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
        Some(true)
    }

    /// Asks a member, decides at once, or lets others do it.
    fn miss(&mut self, at: usize, socket: &Arc<UdpSocket>, pass: Pass, (moment, since): (Moment, Instant)) {
        let Some((packet, from, out)) = self.batch.packet(at) else { return };
        let peer = Peer { socket: Arc::clone(socket), from };
        let departing = AssertUnwindSafe(|| self.straight.depart(packet, from.ip(), moment));
        if let Ok(Some(departing)) = catch_unwind(departing) {
            return self.straight.fly(departing, Asked { packet: packet.into(), peer, pass, begun: moment.now });
        }
        if since.elapsed() > DECIDING_MAX {
            if !self.slow.queue(packet.to_vec(), peer, pass, None) {
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
                if !self.slow.wait(answering, peer, pass) {
                    self.dropped.full.inc();
                }
            }
        }
    }
}
