//! From a kept answer to the reply that one client gets: copied, then what is the client's own put in. Allocates nothing. Pure.
//!
//! In: the [`Body`] of an entry, what the client asked, how old the entry is. Out: octets in the caller's buffer. What does not fit is
//! cut whole, never in the middle: first the additional records, which is no truncation (RFC 2181 §9) unless they are a referral's glue
//! (RFC 9471 §2.1), then everything but the question, with TC (RFC 6891 §6.2.3). OPT is never kept; it is written here.

use super::query::{HEADER, QUESTION_TAIL, Query, bit};
use crate::edns::{Edes, ReplyOpt};

/// RFC 1035 §4.1.1.
const SERVFAIL: u8 = 2;
/// Options that a reply may have beside extended errors: cookie, subnet, keep-alive, identity, padding.
const OPTIONS_ROOM: usize = 1024;

/// What a reply repeats of its query, and its OPT.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) id: [u8; 2],
    /// Of [`bit`].
    pub(crate) bits: u8,
    /// The name as the client spells it; empty: as it is kept.
    pub(crate) spelled: &'a [u8],
    /// The OPT but for what belongs to the answer; `None`: the client knows no EDNS.
    pub(crate) opt: Option<ReplyOpt<'a>>,
}

impl<'a> Asked<'a> {
    /// Out of a plain query.
    pub(crate) fn of(query: &Query<'a>, opt: Option<ReplyOpt<'a>>) -> Self {
        let Query { id, bits, spelled, .. } = *query;
        Self { id, bits, spelled, opt }
    }
}

/// Leaves of a rendered reply the question alone, with TC: what goes to a client that must come back by TCP or with a cookie. Says how long
/// it is then.
pub(crate) fn cut(query: &Query<'_>, opt: Option<ReplyOpt<'_>>, rcode: u16, limit: usize, out: &mut [u8]) -> usize {
    let length = HEADER + query.spelled.len() + QUESTION_TAIL;
    let limit = limit.min(out.len());
    let (reply, mut rest) = out[..limit].split_at_mut(length.min(limit));
    reply[2] |= 0x02;
    reply[6..HEADER].fill(0);
    let Some(opt) = opt else { return reply.len() };
    reply[11] = 1;
    ReplyOpt { rcode_high: (rcode >> 4) as u8, ..opt }.write(reply.len(), limit, &mut rest);
    limit - rest.len()
}

/// The reply to a question that nobody will answer: SERVFAIL, the question, and what `opt` says; `None` when not even that fits.
pub(crate) fn failure(
    query: &Query<'_>,
    opt: Option<ReplyOpt<'_>>,
    recursion: bool,
    limit: usize,
    out: &mut [u8],
) -> Option<usize> {
    let name = HEADER + query.spelled.len();
    let (limit, length) = (limit.min(out.len()), name + QUESTION_TAIL);
    if length + opt.map_or(0, |opt| opt.bytes_min()) > limit {
        return None;
    }
    let (reply, mut rest) = out[..limit].split_at_mut(length);
    reply[..2].copy_from_slice(&query.id);
    reply[2] = 0x80 | (query.bits & bit::RD);
    reply[3] = u8::from(recursion) << 7 | u8::from(query.bits & bit::CD != 0) << 4 | SERVFAIL;
    reply[4..HEADER].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(opt.is_some())]);
    reply[HEADER..name].copy_from_slice(query.spelled);
    reply[name..name + 2].copy_from_slice(&query.kind.to_be_bytes());
    reply[name + 2..].copy_from_slice(&[0, 1]);
    let Some(opt) = opt else { return Some(length) };
    opt.write(length, limit, &mut rest);
    Some(limit - rest.len())
}

/// What is known of a message that is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Octets without the additional records that may be left out.
    pub(crate) thin: u16,
    /// Additional records that may not.
    pub(crate) glue: u8,
    /// Octets up to the end of the question.
    pub(crate) question: u16,
    /// Where the addresses begin that take turns in being the first.
    pub(crate) turn: u16,
    /// How many they are.
    pub(crate) turns: u8,
    /// Whether they are IPv6.
    pub(crate) wide: bool,
    /// Whether its times to live shrink.
    pub(crate) aging: bool,
    /// The upper bits of the code (RFC 6891 §6.1.3).
    pub(crate) code: u8,
    /// The first extended error's number, and one; 0: none.
    pub(crate) ede: u8,
}

/// Octets of an address record whose owner is a pointer.
pub(super) fn turn_size(wide: bool) -> usize {
    if wide { 28 } else { 16 }
}

/// The message of an entry, and what goes with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Body<'e> {
    wire: &'e [u8],
    ttls: &'e [u8],
    edes: &'e [u8],
    facts: Facts,
}

impl<'e> Body<'e> {
    /// A message, where its times to live are, its extended errors.
    pub(crate) fn new(wire: &'e [u8], ttls: &'e [u8], edes: &'e [u8], facts: Facts) -> Self {
        Self { wire, ttls, edes, facts }
    }

    /// The code of the answer.
    pub(crate) fn rcode(&self) -> u16 {
        u16::from(self.facts.code) << 4 | u16::from(self.wire.get(3).map_or(0, |low| low & 0x0f))
    }

    /// The first extended error, as [`Facts`] have it.
    pub(crate) fn ede(&self) -> u8 {
        self.facts.ede
    }

    /// How large a buffer [`Self::render`] needs for a reply of at most `limit` octets.
    pub(crate) fn room(&self, limit: usize) -> usize {
        limit.min(self.wire.len() + self.edes.len() * 2 + OPTIONS_ROOM)
    }

    /// Writes the reply, at most `limit` octets, into `out` and says how long it is; `turn` decides which address comes first.
    /// `None` when not even the question fits.
    pub(crate) fn render(
        &self,
        asked: &Asked<'_>,
        age_s: u32,
        turn: u64,
        limit: usize,
        out: &mut [u8],
    ) -> Option<usize> {
        let limit = limit.min(out.len());
        let opt = asked.opt.map(|opt| ReplyOpt { rcode_high: self.facts.code, edes: Edes::Kept(self.edes), ..opt });
        let room = limit.checked_sub(opt.map_or(0, |opt| opt.bytes_min()))?;
        let (length, fits) = match () {
            () if self.wire.len() <= room => (self.wire.len(), true),
            () if usize::from(self.facts.thin) <= room => (usize::from(self.facts.thin), true),
            () => (usize::from(self.facts.question), false),
        };
        if length > room || length > self.wire.len() || length < HEADER {
            return None;
        }
        let (reply, mut rest) = out[..limit].split_at_mut(length);
        reply.copy_from_slice(&self.wire[..length]);
        if length < self.wire.len() {
            reply[10..HEADER].copy_from_slice(&[0, if fits { self.facts.glue } else { 0 }]);
        }
        if fits {
            self.turn(reply, turn);
            self.age(reply, age_s);
        } else {
            reply[2] |= 0x02;
            reply[6..10].fill(0);
        }
        reply[..2].copy_from_slice(&asked.id);
        reply[2] = reply[2] & !1 | (asked.bits & bit::RD);
        reply[3] = reply[3] & !0x10 | u8::from(asked.bits & bit::CD != 0) << 4;
        if let Some(question) = reply.get_mut(HEADER..HEADER + asked.spelled.len()) {
            question.copy_from_slice(asked.spelled);
        }
        let Some(opt) = opt else { return Some(length) };
        let count = u16::from_be_bytes([reply[10], reply[11]]).saturating_add(1);
        reply[10..HEADER].copy_from_slice(&count.to_be_bytes());
        opt.write(length, limit, &mut rest);
        Some(limit - rest.len())
    }

    /// Puts another address first.
    fn turn(&self, reply: &mut [u8], turn: u64) {
        let (at, count, size) =
            (usize::from(self.facts.turn), usize::from(self.facts.turns), turn_size(self.facts.wide));
        // The low half decides slots: were it the same, each slot would have one first address.
        let Some(by) = ((turn >> 32) as usize).checked_rem(count) else { return };
        let (Some(set), Some(kept)) = (reply.get_mut(at..at + count * size), self.wire.get(at..at + count * size))
        else {
            return;
        };
        let (front, back) = kept.split_at(by * size);
        set[..back.len()].copy_from_slice(back);
        set[back.len()..].copy_from_slice(front);
    }

    /// Takes the age off every time to live.
    fn age(&self, reply: &mut [u8], age_s: u32) {
        if !self.facts.aging || age_s == 0 {
            return;
        }
        for offset in self.ttls.chunks_exact(2) {
            let at = usize::from(u16::from_le_bytes([offset[0], offset[1]]));
            let Some(ttl) = reply.get_mut(at..).and_then(|r| r.first_chunk_mut::<4>()) else { return };
            *ttl = u32::from_be_bytes(*ttl).saturating_sub(age_s).to_be_bytes();
        }
    }
}
