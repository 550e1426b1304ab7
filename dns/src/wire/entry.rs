//! An answer as octets, ready to be copied out: the message without OPT, and beside it what is needed to send it to another client. Pure.
//!
//! ```text
//!   42 octets of facts │ stamps │ variant? │ header, question, answers, authority, additional │ offsets of TTLs │ extended errors
//! ```
//!
//! In: an encoded answer and for whom it is. Out: octets, and an [`Entry`] that reads them where they lie. A mark says instead that the
//! answer of a name has variants, by slot of the dice or by client. A million of these are kept, so every octet of the facts counts.

use super::encode::Encoded;
use super::render::{Body, Facts};

/// Stamps of an entry.
pub(crate) const STAMPS_MAX: usize = 8;
/// Longer answers are not kept.
pub(crate) const WIRE_BYTES_MAX: usize = 4096;
/// What comes first.
const HEAD: usize = 42;
/// What an entry takes at most: a message, the offsets of 255 times to live, extended errors.
pub(super) const ENTRY_BYTES_MAX: usize = HEAD + 2 * STAMPS_MAX + 8 + WIRE_BYTES_MAX + 2 * 255 + EDES_BYTES_MAX;
/// Answers with more to say are not kept.
const EDES_BYTES_MAX: usize = 1024;

/// Where things are among the facts.
mod at {
    pub(super) const HASH: usize = 0;
    pub(super) const PLACE: usize = 4;
    pub(super) const KIND: usize = 8;
    /// Bits of the query; the shape, in the upper half.
    pub(super) const BITS: usize = 10;
    /// The store's own: how often it was asked for, whether it is late.
    pub(super) const STATE: usize = 11;
    pub(super) const GENERATION: usize = 12;
    pub(super) const SINCE: usize = 18;
    pub(super) const LIFE: usize = 23;
    /// How many stamps; flags, in the upper half.
    pub(super) const STAMPS: usize = 26;
    pub(super) const NAME: usize = 27;
    pub(super) const LABEL: usize = 28;
    pub(super) const EDE: usize = 30;
    pub(super) const CODE: usize = 31;
    pub(super) const WIRE: usize = 32;
    pub(super) const THIN: usize = 34;
    pub(super) const TTLS: usize = 36;
    pub(super) const EDES: usize = 37;
    pub(super) const TURN: usize = 39;
    pub(super) const TURNS: usize = 41;
}

const AGING: u8 = 0x10;
const VARIED: u8 = 0x20;
/// The addresses that take turns are IPv6.
const WIDE: u8 = 0x40;

/// Which answer: what two questions must have in common to get the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key<'a> {
    /// Where the asker stands.
    pub(crate) place: u32,
    pub(crate) kind: u16,
    /// Of [`super::query::bit`].
    pub(crate) bits: u8,
    /// The slot of the dice or the client's neighbourhood, where the answer depends on it; 0: it does not.
    pub(crate) variant: u64,
    /// Lower case, octets of the wire.
    pub(crate) name: &'a [u8],
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// An answer.
    Answer,
    /// A mark: so many variants, by the dice.
    Slots(u16),
    /// A mark: a variant for each neighbourhood of clients.
    Client,
}

/// For whom and until when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept<'a> {
    pub(crate) key: Key<'a>,
    pub(crate) hash: u64,
    pub(crate) generation: u64,
    pub(crate) at_ms: u64,
    pub(crate) life_s: u32,
    pub(crate) stamps: &'a [u16],
    /// Of [`crate::labels`].
    pub(crate) label: u16,
}

impl Kept<'_> {
    /// A mark.
    pub(crate) fn mark(&self, shape: Shape) -> Vec<u8> {
        let mut octets = self.head(shape, &Facts::default());
        octets.extend_from_slice(self.key.name);
        octets
    }

    /// An answer; `None` when it is too large to be kept.
    pub(crate) fn answer(&self, encoded: &Encoded) -> Option<Vec<u8>> {
        let Encoded { wire, ttls, edes, facts, .. } = encoded;
        let fits =
            wire.len() <= WIRE_BYTES_MAX && ttls.len() <= 2 * usize::from(u8::MAX) && edes.len() <= EDES_BYTES_MAX;
        if !fits {
            return None;
        }
        let mut octets = self.head(Shape::Answer, facts);
        put(&mut octets, at::WIRE, 2, wire.len() as u64);
        put(&mut octets, at::TTLS, 1, ttls.len() as u64 / 2);
        put(&mut octets, at::EDES, 2, edes.len() as u64);
        octets.extend_from_slice(wire);
        octets.extend_from_slice(ttls);
        octets.extend_from_slice(edes);
        Some(octets)
    }

    fn head(&self, shape: Shape, facts: &Facts) -> Vec<u8> {
        let Self { key, hash, generation, at_ms, life_s, stamps, label } = *self;
        let stamps = &stamps[..stamps.len().min(STAMPS_MAX)];
        let mut octets = vec![0; HEAD];
        octets.reserve_exact(2 * stamps.len() + 8);
        let (shape, slots) = match shape {
            Shape::Answer => (0, None),
            Shape::Slots(slots) => (1, Some(slots)),
            Shape::Client => (2, None),
        };
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let flags = flag(facts.aging, AGING) | flag(key.variant != 0, VARIED) | flag(facts.wide, WIDE);
        for (at, size, value) in [
            (at::HASH, 4, hash),
            (at::PLACE, 4, u64::from(key.place)),
            (at::KIND, 2, u64::from(key.kind)),
            (at::BITS, 1, u64::from(key.bits & 0x0f | shape << 4)),
            (at::GENERATION, 6, generation),
            (at::SINCE, 5, at_ms),
            (at::LIFE, 3, u64::from(life_s).min(0xff_ffff)),
            (at::STAMPS, 1, stamps.len() as u64 | u64::from(flags)),
            (at::NAME, 1, key.name.len() as u64),
            (at::LABEL, 2, u64::from(label)),
            (at::EDE, 1, u64::from(facts.ede)),
            (at::CODE, 1, u64::from(facts.code)),
            (at::THIN, 2, u64::from(facts.thin)),
            (at::TURN, 2, u64::from(slots.unwrap_or(facts.turn))),
            // A referral has no addresses that take turns.
            (at::TURNS, 1, u64::from(if facts.turn == 0 { facts.glue } else { facts.turns })),
        ] {
            put(&mut octets, at, size, value);
        }
        octets.extend(stamps.iter().flat_map(|stamp| stamp.to_le_bytes()));
        if key.variant != 0 {
            octets.extend_from_slice(&key.variant.to_le_bytes());
        }
        octets
    }
}

/// The lowest octets of `value`.
fn put(octets: &mut [u8], at: usize, size: usize, value: u64) {
    octets[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
}

/// An answer, or a mark, where it lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'e> {
    head: &'e [u8; HEAD],
    /// Stamps and what follows.
    rest: &'e [u8],
}

impl<'e> Entry<'e> {
    /// The one that `octets` begin with; `None` where there is none.
    pub(crate) fn read(octets: &'e [u8]) -> Option<Self> {
        let (head, rest) = octets.split_first_chunk()?;
        let whole = Self { head, rest };
        let rest = rest.get(..whole.len() - HEAD)?;
        Some(Self { head, rest })
    }

    /// Whether it is the one for `key`, which has this hash.
    pub(crate) fn is(&self, hash: u64, key: &Key<'_>) -> bool {
        self.hash() == hash as u32
            && self.u32(at::PLACE) == key.place
            && self.u16(at::KIND) == key.kind
            && self.head[at::BITS] & 0x0f == key.bits
            && self.variant() == key.variant
            && self.name() == Some(key.name)
    }

    /// Half of the key's.
    pub(crate) fn hash(&self) -> u32 {
        self.u32(at::HASH)
    }

    /// Octets of all of it.
    pub(crate) fn len(&self) -> usize {
        let message = match self.head[at::BITS] >> 4 {
            0 => self.wire_len(),
            _ => usize::from(self.head[at::NAME]),
        };
        HEAD + self.before() + message + 2 * usize::from(self.head[at::TTLS]) + usize::from(self.u16(at::EDES))
    }

    pub(crate) fn generation(&self) -> u64 {
        self.number::<6>(at::GENERATION)
    }

    pub(crate) fn at_ms(&self) -> u64 {
        self.number::<5>(at::SINCE)
    }

    pub(crate) fn life_s(&self) -> u32 {
        self.number::<3>(at::LIFE) as u32
    }

    pub(crate) fn shape(&self) -> Shape {
        match self.head[at::BITS] >> 4 {
            1 => Shape::Slots(self.u16(at::TURN)),
            2 => Shape::Client,
            _ => Shape::Answer,
        }
    }

    /// Stamps of what it was made of.
    pub(crate) fn stamps(&self) -> impl Iterator<Item = u16> + use<'e> {
        let octets = self.rest.get(..2 * self.stamps_len()).unwrap_or_default();
        octets.chunks_exact(2).map(|stamp| u16::from_le_bytes([stamp[0], stamp[1]]))
    }

    /// The message and what goes with it.
    pub(crate) fn body(&self) -> Body<'e> {
        let flags = self.head[at::STAMPS];
        let (turn, count) = (self.u16(at::TURN), self.head[at::TURNS]);
        let facts = Facts {
            thin: self.u16(at::THIN),
            question: u16::from(self.head[at::NAME]) + 16,
            turn,
            turns: if turn == 0 { 0 } else { count },
            glue: if turn == 0 { count } else { 0 },
            wide: flags & WIDE != 0,
            aging: flags & AGING != 0,
            code: self.head[at::CODE],
            ede: self.head[at::EDE],
        };
        let message = self.rest.get(self.before()..).unwrap_or_default();
        let (wire, rest) = message.split_at_checked(self.wire_len()).unwrap_or_default();
        let (ttls, edes) = rest.split_at_checked(2 * usize::from(self.head[at::TTLS])).unwrap_or_default();
        Body::new(wire, ttls, edes, facts)
    }

    /// Whose it is, for those who count.
    pub(crate) fn label(&self) -> u16 {
        self.u16(at::LABEL)
    }

    fn name(&self) -> Option<&'e [u8]> {
        let start = self.before() + if self.head[at::BITS] >> 4 == 0 { super::query::HEADER } else { 0 };
        self.rest.get(start..start + usize::from(self.head[at::NAME]))
    }

    fn variant(&self) -> u64 {
        if self.head[at::STAMPS] & VARIED == 0 {
            return 0;
        }
        let octets = self.rest.get(2 * self.stamps_len()..).and_then(<[u8]>::first_chunk);
        octets.map_or(0, |octets| u64::from_le_bytes(*octets))
    }

    fn stamps_len(&self) -> usize {
        usize::from(self.head[at::STAMPS] & 0x0f)
    }

    /// Octets of stamps and variant.
    fn before(&self) -> usize {
        2 * self.stamps_len() + if self.head[at::STAMPS] & VARIED == 0 { 0 } else { 8 }
    }

    fn wire_len(&self) -> usize {
        usize::from(self.u16(at::WIRE))
    }

    fn u16(&self, at: usize) -> u16 {
        self.number::<2>(at) as u16
    }

    fn u32(&self, at: usize) -> u32 {
        self.number::<4>(at) as u32
    }

    fn number<const SIZE: usize>(&self, at: usize) -> u64 {
        let mut octets = [0; 8];
        octets[..SIZE].copy_from_slice(&self.head[at..at + SIZE]);
        u64::from_le_bytes(octets)
    }
}

/// The octet of an entry that is its store's own: how often it was asked for, and whether somebody looks for a newer one.
pub(super) struct State<'s>(&'s mut u8);

impl<'s> State<'s> {
    const LATE: u8 = 0x80;

    /// Of the entry that `octets` begin with.
    pub(super) fn of(octets: &'s mut [u8]) -> Self {
        Self(&mut octets[at::STATE])
    }

    /// How often it was asked for, up to a few times.
    pub(super) fn used(&self) -> u8 {
        *self.0 & !Self::LATE
    }

    pub(super) fn set_used(&mut self, used: u8) {
        *self.0 = *self.0 & Self::LATE | used;
    }

    /// Whether nobody said before that it is late.
    pub(super) fn first_late(&mut self) -> bool {
        let first = *self.0 & Self::LATE == 0;
        *self.0 |= Self::LATE;
        first
    }
}
