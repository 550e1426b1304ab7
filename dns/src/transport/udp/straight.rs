//! Misses that a thread sees through by itself: asked of a member, waited for beside the clients' sockets, answered in a batch.
//!
//! ```text
//!   miss ── a road, leave to depart, a slot ── a port ──► member            no: the slow way (tokio), with all its knowledge
//!   port ── whose? ── ours to read? ── translated, kept ── the client's batch
//!              │            └── no word, cut, in other letters, the chain goes on ──► the slow way, with what was spent
//!   time ── a second server: before a packet counts as lost where few had one ── else the slow way
//! ```
//!
//! In: packets of clients with a pass, what comes to ports, the time. Out: replies, and queries for the slow way. No task, no lock that is
//! waited for, as many as [`FLYING_MAX`]; each ends by its time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::slow::Peer;
use crate::budget::Begun;
use crate::forward::{Heard, Ports, Ready, Received, Slot, Trip, UDP_BYTES_MAX};
use crate::lookup::{Departure, Landed};
use crate::prefixes::client_net;
use crate::respond::{Moment, Responder};
use crate::share::Pass;
use crate::wire::query::{NAME_MAX, Query, bit};

/// Questions of one thread that are on their way; more go the slow way.
const FLYING_MAX: usize = 1024;
/// Longer packets are not plain questions.
const PACKET_BYTES_MAX: usize = 512;
/// So often it is looked whose time is over.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// One more than is taken shows that there was more.
const REPLY_BYTES: usize = UDP_BYTES_MAX as usize + 1;
/// Servers that a question goes to.
const TRIPS: usize = 2;

/// A client's question that is on its way.
struct Flight {
    asked: Asked,
    departure: Departure,
    /// Held until it is over.
    _slot: Slot,
    generation: u64,
    /// With the port that each went from.
    trips: [Option<(Trip, usize)>; TRIPS],
    spent: u32,
    /// When another server is asked, or others see to it.
    due: Instant,
}

/// A client's query.
pub(super) struct Asked {
    pub(super) packet: Box<[u8]>,
    pub(super) peer: Peer,
    pub(super) pass: Pass,
    pub(super) begun: Instant,
}

/// What became of a flight.
pub(super) enum Over {
    /// It came home.
    Home { asked: Asked, landed: Landed, label: u16, generation: u64 },
    /// The slow way has it.
    Slow { asked: Asked, begun: Begun },
}

/// The flights of one thread.
pub(super) struct Straight {
    responder: Responder,
    ports: Ports,
    flights: Vec<Option<Flight>>,
    flying: usize,
    looked: Instant,
    reply: Box<[u8; REPLY_BYTES]>,
}

impl Straight {
    pub(super) fn new(responder: &Responder, ports: Ports) -> Self {
        let (responder, reply) = (responder.clone(), Box::new([0; REPLY_BYTES]));
        Self { responder, ports, flights: Vec::new(), flying: 0, looked: Instant::now(), reply }
    }

    /// Whether nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.flying == 0
    }

    /// Waits until something can be read, or time is over for a flight, `most` where there is none.
    pub(super) fn wait(&mut self, most: Duration, ready: &mut Vec<Ready>) -> std::io::Result<()> {
        self.ports.wait(if self.is_idle() { most } else { LOOK_EVERY }, ready)
    }

    /// Asks a member what the packet asks for; `None` where it is for the slow way.
    pub(super) fn depart(&mut self, packet: &[u8], ip: std::net::IpAddr, moment: Moment) -> Option<Departing> {
        let mut folded = [0; NAME_MAX];
        let query = Query::read(packet, &mut folded)?;
        let odd =
            query.opt.is_some_and(|opt| opt.dnssec || opt.trail || opt.subnet.is_some()) || query.bits & bit::DO != 0;
        if odd || packet.len() > PACKET_BYTES_MAX || self.flying >= FLYING_MAX {
            return None;
        }
        let Responder { resolver, gate, .. } = &self.responder;
        // Before the road: what is asked on an older one than this says is void when it is kept.
        let generation = resolver.world.load().generation;
        let (road, left) = gate.road(&query)?;
        let forwarder = resolver.lookups.forwarder();
        let slot = forwarder.admit(&road)?;
        let departure = resolver.lookups.depart((road, left), &query, client_net(ip), moment.now)?;
        let trip = forwarder.set_out(&departure.road, departure.question(), None, moment.dice, moment.now)?;
        let at = self.flights.iter().position(Option::is_none).unwrap_or(self.flights.len());
        let leg = (trip.server, trip.octets(), trip.id());
        let port = self.ports.send(forwarder.listen(), leg, at, moment.now)?;
        let due = moment.now + forwarder.patience(&departure.road, &trip, true);
        Some(Departing { at, departure, slot, generation, trip: (trip, port), due })
    }

    /// What has departed is on its way for a client.
    pub(super) fn fly(&mut self, departing: Departing, asked: Asked) {
        let Departing { at, departure, slot, generation, trip, due } = departing;
        let flight = Flight { asked, departure, _slot: slot, generation, trips: [Some(trip), None], spent: 1, due };
        match self.flights.get_mut(at) {
            Some(place) => *place = Some(flight),
            None => self.flights.push(Some(flight)),
        }
        self.flying += 1;
    }

    /// Reads what came to a port, and hands on what is over by it.
    pub(super) fn read(&mut self, port: usize, now: Instant, over: &mut Vec<Over>) {
        let (length, whose) = match self.ports.receive(port, &mut self.reply[..]) {
            Received::Packet(length, whose) => (length, whose),
            Received::Nothing => return,
            Received::Broken => return self.abandon(port, over),
        };
        let resolver = Arc::clone(&self.responder.resolver);
        let forwarder = resolver.lookups.forwarder();
        let found = whose.and_then(|at| Some((at, self.flights.get_mut(at)?.as_mut()?)));
        let Some((at, flight)) = found else { return self.stray(port, over) };
        let here = flight.trips.iter().position(|trip| trip.as_ref().is_some_and(|(_, from)| *from == port));
        let Some((here, (trip, _))) = here.and_then(|here| Some((here, flight.trips[here].as_ref()?))) else { return };
        let reply = &mut self.reply[..length];
        let road = Arc::clone(&flight.departure.road);
        match forwarder.hear(&road, trip, reply, now) {
            Heard::Foreign => self.stray(port, over),
            Heard::Nothing { by_stream } => {
                // Where its letters were others the port may be known to somebody.
                self.ports.over(port, at, !by_stream);
                flight.trips[here] = None;
                if by_stream || flight.trips.iter().all(Option::is_none) {
                    over.extend(self.end(at).map(|flight| flight.slow(by_stream)));
                }
            }
            Heard::Word => {
                self.ports.over(port, at, true);
                flight.trips[here] = None;
                let landed = resolver.lookups.land(&flight.departure, reply, now);
                let Some(flight) = self.end(at) else { return };
                forwarder.home(&road, u64::from(flight.spent - 1));
                over.push(match landed {
                    Ok(landed) => {
                        let Flight { asked, generation, .. } = flight;
                        Over::Home { asked, landed, label: road.label, generation }
                    }
                    Err(astray) => flight.slow(astray.broken),
                });
            }
        }
    }

    /// Sees to flights whose time is over.
    pub(super) fn look(&mut self, now: Instant, dice: u64, over: &mut Vec<Over>) {
        if self.is_idle() || now.saturating_duration_since(self.looked) < LOOK_EVERY {
            return;
        }
        self.looked = now;
        for at in 0..self.flights.len() {
            let due = self.flights[at].as_ref().is_some_and(|flight| flight.due <= now);
            if due && !self.second(at, now, dice) {
                over.extend(self.end(at).map(|flight| flight.slow(false)));
            }
        }
    }

    /// Asks a second server for a flight, or waits until the first one's packet counts as lost where few had one; `false`: there is none.
    fn second(&mut self, at: usize, now: Instant, dice: u64) -> bool {
        let resolver = Arc::clone(&self.responder.resolver);
        let forwarder = resolver.lookups.forwarder();
        let Some(Some(flight)) = self.flights.get_mut(at) else { return false };
        let Flight { departure, trips: [Some((first, _)), second @ None], .. } = flight else { return false };
        let Some(trip) = forwarder.set_out(&departure.road, departure.question(), Some(first.server), dice, now) else {
            return false;
        };
        if let Some(later) = forwarder.second_at(&departure.road, first, now) {
            flight.due = later;
            return true;
        }
        let leg = (trip.server, trip.octets(), trip.id());
        let Some(port) = self.ports.send(forwarder.listen(), leg, at, now) else { return false };
        flight.due = now + forwarder.patience(&departure.road, &trip, false);
        *second = Some((trip, port));
        flight.spent += 1;
        true
    }

    /// Something came that answers nothing.
    fn stray(&mut self, port: usize, over: &mut Vec<Over>) {
        if self.ports.foreign(port) {
            self.abandon(port, over);
        }
    }

    /// A port is no good any more.
    fn abandon(&mut self, port: usize, over: &mut Vec<Over>) {
        for at in self.ports.abandon(port) {
            over.extend(self.end(at).map(|flight| flight.slow(false)));
        }
    }

    fn end(&mut self, at: usize) -> Option<Flight> {
        let flight = self.flights.get_mut(at)?.take()?;
        self.flying -= 1;
        for (_, port) in flight.trips.iter().flatten() {
            self.ports.over(*port, at, false);
        }
        Some(flight)
    }
}

impl Flight {
    fn slow(self, by_stream: bool) -> Over {
        let begun = Begun { at: self.asked.begun, spent: self.spent, by_stream };
        Over::Slow { asked: self.asked, begun }
    }
}

/// What has been sent, and is nobody's yet.
pub(super) struct Departing {
    at: usize,
    departure: Departure,
    slot: Slot,
    generation: u64,
    trip: (Trip, usize),
    due: Instant,
}
