//! An answer as octets, ready to be copied out: the message without OPT, and beside it what is needed to send it to another client. Pure.
//!
//! ```text
//!   80 octets of facts │ header, question, answers, authority, additional │ offsets of TTLs │ extended errors
//! ```
//!
//! In: an encoded answer and for whom it is. Out: an [`Entry`], one allocation that is never changed. A mark says instead that the answer
//! of a name has variants, by slot of the dice or by client.

use std::sync::Arc;

use super::query::HEADER;
use super::render::Body;

/// Facts before the message; the second part is the body's.
pub(super) const FACTS: usize = 80;
/// Where the body's facts are.
pub(super) const BODY_FACTS: usize = 64;
/// Stamps of an entry.
pub(crate) const STAMPS_MAX: usize = 8;
/// Longer answers are not kept.
pub(crate) const WIRE_BYTES_MAX: usize = 4096;

/// Which answer: what two questions must have in common to get the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key<'a> {
    /// Where the asker stands.
    pub(crate) place: u32,
    pub(crate) kind: u16,
    /// Of [`super::query::bit`].
    pub(crate) bits: u8,
    /// The slot of the dice or the client's neighbourhood, where the answer depends on it.
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
    pub(crate) stamps: &'a [u16],
}

/// An answer, or a mark.
#[derive(Debug, Clone)]
pub(crate) struct Entry(Arc<[u8]>);

impl Entry {
    /// A mark.
    pub(crate) fn mark(kept: &Kept<'_>, shape: Shape, life_s: u32) -> Self {
        let mut octets = vec![0; FACTS];
        // The name, as where an answer has it.
        octets.extend_from_slice(&[0; HEADER]);
        octets.extend_from_slice(kept.key.name);
        facts(&mut octets, kept, shape, life_s);
        Self(octets.into())
    }

    /// An encoded answer, with its key, its time and its stamps.
    pub(crate) fn keep(mut octets: Vec<u8>, kept: &Kept<'_>, life_s: u32) -> Self {
        facts(&mut octets, kept, Shape::Answer, life_s);
        Self(octets.into())
    }

    /// Whether it is the one for `key`.
    pub(crate) fn is(&self, key: &Key<'_>) -> bool {
        let name = &self.0[FACTS + HEADER..];
        self.u32(16) == key.place
            && self.u16(20) == key.kind
            && self.0[22] == key.bits
            && self.u64(24) == key.variant
            && usize::from(self.0[23]) == key.name.len()
            && name.get(..key.name.len()) == Some(key.name)
    }

    pub(crate) fn hash(&self) -> u64 {
        self.u64(0)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.u64(8)
    }

    pub(crate) fn at_ms(&self) -> u64 {
        self.u64(32)
    }

    pub(crate) fn life_s(&self) -> u32 {
        self.u32(40)
    }

    pub(crate) fn shape(&self) -> Shape {
        match self.0[44] {
            1 => Shape::Slots(self.u16(46)),
            2 => Shape::Client,
            _ => Shape::Answer,
        }
    }

    /// Stamps of what it was made of.
    pub(crate) fn stamps(&self) -> impl Iterator<Item = u16> + '_ {
        let count = usize::from(self.0[45]).min(STAMPS_MAX);
        (0..count).map(|i| self.u16(48 + 2 * i))
    }

    /// What it takes of memory, with what holds it.
    pub(crate) fn bytes(&self) -> usize {
        // Two counts of the Arc, the allocator's own, a slot and its place in the index.
        self.0.len() + 16 + 16 + 40
    }

    /// The message and what goes with it.
    pub(crate) fn body(&self) -> Body<'_> {
        Body::new(&self.0)
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }
}

fn facts(octets: &mut [u8], kept: &Kept<'_>, shape: Shape, life_s: u32) {
    let Kept { key, hash, generation, at_ms, stamps } = *kept;
    octets[0..8].copy_from_slice(&hash.to_le_bytes());
    octets[8..16].copy_from_slice(&generation.to_le_bytes());
    octets[16..20].copy_from_slice(&key.place.to_le_bytes());
    octets[20..22].copy_from_slice(&key.kind.to_le_bytes());
    octets[22] = key.bits;
    octets[23] = u8::try_from(key.name.len()).unwrap_or(0);
    octets[24..32].copy_from_slice(&key.variant.to_le_bytes());
    octets[32..40].copy_from_slice(&at_ms.to_le_bytes());
    octets[40..44].copy_from_slice(&life_s.to_le_bytes());
    let (shape, slots) = match shape {
        Shape::Answer => (0, None),
        Shape::Slots(slots) => (1, Some(slots)),
        Shape::Client => (2, None),
    };
    octets[44] = shape;
    octets[45] = u8::try_from(stamps.len().min(STAMPS_MAX)).unwrap_or(0);
    if let Some(slots) = slots {
        octets[46..48].copy_from_slice(&slots.to_le_bytes());
    }
    for (i, stamp) in stamps.iter().take(STAMPS_MAX).enumerate() {
        octets[48 + 2 * i..50 + 2 * i].copy_from_slice(&stamp.to_le_bytes());
    }
}
