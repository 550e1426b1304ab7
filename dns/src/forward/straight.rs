//! Questions that go straight: to a server of a member that is well, by one datagram, without a task that waits.
//!
//! ```text
//!   set out ── a slot, a server nothing is said against, letters mixed ──► a port (ports) ──► … ──► hear: ours to read?
//! ```
//!
//! In: a road, the question, the time. Out: a [`Trip`] with the octets to be sent; of what comes back, whether it answers it. Who
//! is not well, loops, or is not reached directly is asked on the slow path, and so is whatever a trip does not bring home.

use std::net::SocketAddr;
use std::time::Duration;

use atoll_reach::{Listen, Route};
use hickory_proto::op::ResponseCode;
use tokio::time::Instant;

use super::Forwarder;
use super::ask::{Ask, Options, Screened, UDP_BYTES_MAX};
use super::party::{Pick, RETRY, Slot};
use crate::cache::Bits;
use crate::road::Road;

/// Class IN.
const IN: u16 = 1;

/// A question on its way to one server.
#[derive(Debug)]
pub(crate) struct Trip {
    pub(crate) server: SocketAddr,
    ask: Ask,
    begun: Instant,
}

/// What came back from a trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A yes or a no that can be read on.
    Word,
    /// Neither: another server is asked, or the same by a stream.
    Nothing {
        /// By a stream.
        by_stream: bool,
    },
    /// Not to this question.
    Foreign,
}

impl Trip {
    /// The query.
    pub(crate) fn octets(&self) -> &[u8] {
        self.ask.octets()
    }

    /// Its number.
    pub(crate) fn id(&self) -> u16 {
        self.ask.id()
    }
}

impl Forwarder {
    /// Opens sockets.
    pub(crate) fn listen(&self) -> &dyn Listen {
        &*self.listen
    }

    /// A slot for a question on `road`, where it can go straight.
    pub(crate) fn admit(&self, road: &Road) -> Option<Slot> {
        let direct = self.dialer.route(road.member.name.as_str()) == Route::Direct;
        (direct && road.party.circuit.is_closed()).then(|| road.party.slot()).flatten()
    }

    /// A trip for a question to a server that is well, other than `not`.
    pub(crate) fn set_out(
        &self,
        road: &Road,
        (name, kind): ([&[u8]; 2], u16),
        not: Option<SocketAddr>,
        dice: u64,
        now: Instant,
    ) -> Option<Trip> {
        let (member, whose) = (&road.member, road.member.name.as_str());
        let Pick { server, spelling } = road.party.pick(&member.servers, not, (dice >> 48) as usize, now)?;
        if self.loops.is_looping(whose, server) {
            return None;
        }
        let trail = self.loops.onward(None, whose, server);
        let options = Options { bits: Bits::default(), trail };
        let (number, letters): (u64, u64) = (rand::random(), rand::random());
        let ask = Ask::of(name, (kind, IN), number as u16, Some(options)).spelled(spelling, letters);
        Some(Trip { server, ask, begun: now })
    }

    /// How long a trip is waited for; `second` says whether another server could be asked meanwhile.
    pub(crate) fn patience(&self, road: &Road, trip: &Trip, second: bool) -> Duration {
        let several = second && road.member.servers.len() > 1;
        several.then(|| road.party.hedge(trip.server)).flatten().unwrap_or(RETRY)
    }

    /// When another server may be asked beside a trip; `None`: now.
    pub(crate) fn second_at(&self, road: &Road, trip: &Trip, now: Instant) -> Option<Instant> {
        road.party.second_at(trip.begun, now)
    }

    /// What `reply`, which came from the trip's server, is to it. Of a word the question is in lower case.
    pub(crate) fn hear(&self, road: &Road, trip: &Trip, reply: &mut [u8], now: Instant) -> Heard {
        let party = &road.party;
        let exact = match trip.ask.screen(reply) {
            Screened::Ours(exact) => exact,
            Screened::Respelled => {
                party.spelled(trip.server, false, now);
                return Heard::Nothing { by_stream: true };
            }
            Screened::Foreign => return Heard::Foreign,
        };
        if let Some(exact) = exact {
            party.spelled(trip.server, exact, now);
        }
        let cut = reply.len() > usize::from(UDP_BYTES_MAX) || reply.get(2).is_none_or(|bits| bits & 0x02 != 0);
        let code = ResponseCode::from_low(reply.get(3).map_or(0, |bits| bits & 0x0f));
        let no = code == ResponseCode::NXDomain || reply.get(6..8) == Some(&[0, 0]);
        match code {
            _ if cut => Heard::Nothing { by_stream: true },
            ResponseCode::NoError | ResponseCode::NXDomain => {
                party.note(trip.server, Some(now.saturating_duration_since(trip.begun)), now);
                let unsure = no && party.is_unsure(trip.server, &road.member.servers);
                if unsure { Heard::Nothing { by_stream: false } } else { Heard::Word }
            }
            // Who knows no EDNS is asked again without.
            ResponseCode::FormErr | ResponseCode::NotImp => Heard::Nothing { by_stream: false },
            _ => {
                party.note(trip.server, None, now);
                Heard::Nothing { by_stream: false }
            }
        }
    }

    /// A trip came home with an answer.
    pub(crate) fn home(&self, road: &Road, hedges: u64) {
        road.answered.inc();
        road.party.circuit.answered();
        self.metrics.hedged(road.member.name.as_str(), hedges);
    }
}
