//! Look-ups that a thread makes by itself: what has to be true before a member is asked, and what is done with its word.
//!
//! ```text
//!   depart ── nothing good kept, nothing failed, not below a name that is not there, room, nobody asks already ──► Departure
//!   land   ── carried over as octets, else parsed and translated ── kept for all ──► Landed;   what is neither the slow path has
//! ```
//!
//! In: a road, a question as octets, a reply. Out: what [`super::Lookups::below`] would have answered. While a departure lives it is the
//! one flight for its question.

use std::sync::Arc;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use tokio::time::Instant;

use super::{Key, Lookups, translated};
use crate::answer::Answer;
use crate::cache::{Bits, Kept, Standing};
use crate::forward::Loops;
use crate::lookup::flights::Straight;
use crate::names::of_octets;
use crate::resolve::told;
use crate::road::Road;
use crate::translate::{Asked, Carried, Swap, carry};
use crate::wire::encode::{self, Encoded};
use crate::wire::query::Query;

/// A question of one road that a thread asks.
#[derive(Debug)]
pub(crate) struct Departure {
    pub(crate) road: Arc<Road>,
    /// In lower case, octets of the wire.
    name: Box<[u8]>,
    /// How much of it stands left of the subtree's; `None`: the name of an address.
    left: Option<usize>,
    kind: u16,
    /// The asker's neighbourhood.
    client: u64,
    _flight: Straight,
}

impl Departure {
    /// The name that the member is asked for, in two parts, and the type.
    pub(crate) fn question(&self) -> ([&[u8]; 2], u16) {
        let name = self.left.map_or([&self.name[..], &[]], |left| [&self.name[..left], &self.road.native]);
        (name, self.kind)
    }

    /// What the member calls `name`.
    fn native(&self, name: &Name) -> Option<Name> {
        if self.left.is_none() { Some(name.clone()) } else { self.road.member.rename.to_native(name).ok()? }
    }
}

/// An answer to be given.
#[derive(Debug)]
pub(crate) enum Landed {
    /// From octets to octets.
    Carried(Arc<Road>, Encoded),
    /// Out of parsed records.
    Said(Question, Box<Answer>),
}

/// What was asked, of what was parsed.
#[derive(Debug)]
pub(crate) struct Question {
    name: Name,
    kind: RecordType,
}

impl Landed {
    /// Encoded for an asker of whom `recursion` says whether we look up what is not ours; and what it is made of.
    pub(crate) fn encode(self, recursion: bool) -> (Encoded, Landing) {
        match self {
            Self::Carried(road, mut encoded) => {
                encoded.set_recursion(recursion);
                (encoded, Landing::Road(road))
            }
            Self::Said(Question { name, kind }, answer) => {
                let question = encode::Question { name: &name, kind, class: DNSClass::IN };
                (encode::encode(&question, &answer, recursion), Landing::Answer(answer))
            }
        }
    }
}

/// What an answer is made of.
#[derive(Debug)]
pub(crate) enum Landing {
    Road(Arc<Road>),
    Answer(Box<Answer>),
}

impl Landing {
    /// For whom it is kept, and until what changes.
    pub(crate) fn made_of(&self) -> &Answer {
        match self {
            Self::Road(road) => &road.made_of,
            Self::Answer(answer) => answer,
        }
    }
}

/// Why nothing landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Astray {
    /// The reply can't be read: its question is asked by a stream.
    pub(crate) broken: bool,
}

impl Lookups {
    /// Leave to ask for `query`, whose name has `left` octets left of the road's subtree, or is an address's; `None` where the slow path
    /// knows more.
    pub(crate) fn depart(
        &self,
        (road, left): (Arc<Road>, Option<usize>),
        query: &Query<'_>,
        client: u64,
        now: Instant,
    ) -> Option<Departure> {
        let whose = road.member.fingerprint;
        if Loops::is_probe(query.name) || left.is_some_and(|left| self.is_absent(&road, query.name, left, now)) {
            return None;
        }
        let Standing { own, absent } = self.cache.standing(whose, query.name, query.kind, now);
        let key = Key::of_octets(whose, query.name, query.kind);
        let fresh = own == Some(true) || absent == Some(true);
        if fresh || self.failures.last(&key).is_some() || !self.limiter.allows(whose, client, now) {
            return None;
        }
        let flight = self.flights.straight(&key)?;
        Some(Departure { road, name: query.name.into(), left, kind: query.kind, client, _flight: flight })
    }

    /// What the member's `reply` comes to.
    ///
    /// # Errors
    /// When the slow path has to see to it.
    pub(crate) fn land(&self, departure: &Departure, reply: &[u8], now: Instant) -> Result<Landed, Astray> {
        let Departure { road, name, left, kind, .. } = departure;
        let swap = Swap { name, left: *left, native: &road.native, hub: &road.hub, kind: *kind };
        let landed = match carry(&swap, reply) {
            Some(carried) => self.carried(departure, carried, now),
            None => self.parsed(departure, reply, now)?,
        };
        self.misses.inc();
        Ok(landed)
    }

    fn carried(&self, departure: &Departure, carried: Carried, now: Instant) -> Landed {
        let Departure { road, name, kind, .. } = departure;
        let key = Key::of_octets(road.member.fingerprint, name, *kind);
        self.cache.put_octets(key, (&carried.wire, carried.ttl_s, carried.nxdomain), now);
        if carried.nxdomain
            && let Some(native) = of_octets(name).and_then(|name| departure.native(&name))
        {
            self.is_not_there(departure, &native, now);
        }
        Landed::Carried(Arc::clone(road), Encoded::carried(carried))
    }

    fn parsed(&self, departure: &Departure, reply: &[u8], now: Instant) -> Result<Landed, Astray> {
        let message = Message::from_vec(reply).map_err(|_| Astray { broken: true })?;
        let decided = matches!(message.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain);
        let Departure { road, name, left, kind, .. } = departure;
        let (member, kind, whose) = (&road.member, RecordType::from(*kind), road.member.fingerprint);
        let elsewhere = || Astray { broken: false };
        let name = of_octets(name).filter(|_| decided).ok_or_else(elsewhere)?;
        let native = departure.native(&name).ok_or_else(elsewhere)?;
        let asked = Asked { native, qtype: kind, trail: None };
        let soa = || if left.is_some() { member.soa() } else { member.reverse_soa(&name) };
        let kept = translated(member, &asked, &message, soa, &self.metrics).map_err(|_| elsewhere())?;
        let kept = kept.settled();
        self.cache.put(whose, &name, kind, Bits::default(), &kept, now);
        if kept.nxdomain {
            self.is_not_there(departure, &asked.native, now);
        }
        if kept.next.is_some() && kind != RecordType::CNAME {
            return Err(elsewhere());
        }
        Ok(Landed::Said(Question { name, kind }, Box::new(said(road, kept))))
    }

    /// The member said that there is no such name.
    fn is_not_there(&self, departure: &Departure, native: &Name, now: Instant) {
        let (member, client) = (&departure.road.member, departure.client);
        self.limiter.absent(member.fingerprint, client, now);
        if let Some(above) = member.above(native).first() {
            self.learn_above(member, Some(above), member.soa());
        }
    }
}

/// What is answered of a member's word: the one who speaks for the name.
fn said(road: &Road, kept: Kept) -> Answer {
    Answer { authoritative: true, sources: road.made_of.sources.clone(), ..told(kept) }
}

#[cfg(test)]
mod tests;
