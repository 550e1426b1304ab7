//! From a kept answer to the reply that one client gets: copied, then what is the client's own put in. Allocates nothing. Pure.
//!
//! In: the [`Body`] of an entry, what the client asked, how old the entry is. Out: octets in the caller's buffer. What does not fit is
//! cut whole, never in the middle: first the additional records, which is no truncation (RFC 2181 §9), then everything but the
//! question, with TC (RFC 6891 §6.2.3). OPT is never kept; it is written here.

use super::entry::{BODY_FACTS, FACTS};
use super::query::{HEADER, QUESTION_TAIL, Query, bit};
use crate::edns::{Edes, ReplyOpt};

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

/// The message of an entry, and what is known of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Body<'e> {
    wire: &'e [u8],
    /// Octets without additional records.
    thin: usize,
    /// Octets up to the end of the question.
    question: usize,
    ttls: &'e [u8],
    edes: &'e [u8],
    turn: (usize, usize, usize),
    aging: bool,
    /// The upper bits of the code (RFC 6891 §6.1.3).
    code: u8,
}

impl<'e> Body<'e> {
    /// Of the octets that [`super::encode`] made.
    pub(crate) fn new(octets: &'e [u8]) -> Self {
        let facts = &octets[BODY_FACTS..FACTS];
        let word = |at: usize| usize::from(u16::from_le_bytes([facts[at], facts[at + 1]]));
        let (wire, rest) = octets[FACTS..].split_at(word(0));
        let (ttls, edes) = rest.split_at(2 * word(4));
        Self {
            wire,
            thin: word(2),
            question: word(12),
            ttls,
            edes: &edes[..word(6)],
            turn: (word(8), usize::from(facts[10]), usize::from(facts[11])),
            aging: facts[14] != 0,
            code: facts[15],
        }
    }

    /// The code of the answer, without its upper bits.
    pub(crate) fn rcode(&self) -> u16 {
        u16::from(self.code) << 4 | u16::from(self.wire[3] & 0x0f)
    }

    /// Octets of the message as it is kept, without OPT.
    pub(crate) fn len(&self) -> usize {
        self.wire.len()
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
        let opt = asked.opt.map(|opt| ReplyOpt { rcode_high: self.code, edes: Edes::Kept(self.edes), ..opt });
        let room = limit.checked_sub(opt.map_or(0, |opt| opt.bytes_min()))?;
        let (length, fits) = match () {
            () if self.wire.len() <= room => (self.wire.len(), true),
            () if self.thin <= room => (self.thin, true),
            () => (self.question, false),
        };
        if length > room {
            return None;
        }
        let (reply, mut rest) = out[..limit].split_at_mut(length);
        reply.copy_from_slice(&self.wire[..length]);
        if length < self.wire.len() {
            reply[10..HEADER].fill(0);
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
        let (at, count, size) = self.turn;
        let Some(by) = usize::try_from(turn % u64::MAX).ok().and_then(|t| t.checked_rem(count)) else { return };
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
        if !self.aging || age_s == 0 {
            return;
        }
        for offset in self.ttls.chunks_exact(2) {
            let at = usize::from(u16::from_le_bytes([offset[0], offset[1]]));
            let Some(ttl) = reply.get_mut(at..).and_then(|r| r.first_chunk_mut::<4>()) else { return };
            *ttl = u32::from_be_bytes(*ttl).saturating_sub(age_s).to_be_bytes();
        }
    }
}
