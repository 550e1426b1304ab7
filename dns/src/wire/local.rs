//! Entries that one thread has for itself: four ways, no lock, nothing allocated by a look-up.
//!
//! In: a hash and a key; octets of entries that all share. Out: the entry. Octets are copied into a ring that is allocated once; what is
//! written over is gone, and is with all if it is wanted again.

use std::ops::Range;

use super::entry::{Entry, Key};
use super::places::Places;

const WAYS: usize = 4;
const SETS: usize = 8192;
const RING_BYTES: usize = 4 * 1024 * 1024;
/// Entries begin where lines of the processor's cache do: most are two of them.
const LINE: usize = 64;

/// Where an entry lies in the ring, which is written on and on.
#[derive(Debug, Default, Clone, Copy)]
struct Slot {
    at: u64,
    hash: u32,
    /// 0: there is none.
    len: u16,
    late: bool,
}

/// What one thread has for itself.
#[derive(Debug)]
pub(crate) struct Local {
    slots: Box<[Slot]>,
    ring: Box<[u8]>,
    /// Where the ring's first line begins.
    base: usize,
    /// Octets that were ever written, gaps at the ring's end included.
    written: u64,
    /// What lies before is written over.
    floor: u64,
    /// Where the clients stand that asked lately.
    pub(crate) places: Places,
}

impl Default for Local {
    fn default() -> Self {
        let ring = vec![0; RING_BYTES + LINE].into_boxed_slice();
        Self {
            slots: vec![Slot::default(); WAYS * SETS].into(),
            base: ring.as_ptr().align_offset(LINE).min(LINE),
            ring,
            written: 0,
            floor: 0,
            places: Places::default(),
        }
    }
}

impl Local {
    /// Where the entry for `key` is.
    pub(crate) fn find(&self, hash: u64, key: &Key<'_>) -> Option<usize> {
        let first = first(hash);
        let here = |slot: &Slot| {
            slot.hash == hash as u32 && self.is_whole(slot) && self.read(slot).is_some_and(|e| e.is(hash, key))
        };
        self.slots[first..first + WAYS].iter().position(here).map(|way| first + way)
    }

    /// The entry there.
    pub(crate) fn at(&self, at: usize) -> Option<Entry<'_>> {
        self.read(&self.slots[at])
    }

    /// Whether nobody said before that the entry there is late.
    pub(crate) fn first_late(&mut self, at: usize) -> bool {
        !std::mem::replace(&mut self.slots[at].late, true)
    }

    /// Forgets the entry there.
    pub(crate) fn forget(&mut self, at: usize) {
        self.slots[at] = Slot::default();
    }

    /// Copies the octets of an entry to where the next one will be written over them, and says where that is.
    pub(crate) fn copy(&mut self, octets: &[u8]) -> Copied {
        let ring = RING_BYTES as u64;
        let left = ring - self.written % ring;
        if (octets.len() as u64) > left {
            self.written += left;
        }
        let start = self.base + (self.written % ring) as usize;
        let range = start..start + octets.len().min(RING_BYTES);
        self.ring[range.clone()].copy_from_slice(&octets[..range.len()]);
        self.floor = self.floor.max((self.written + range.len() as u64).saturating_sub(ring));
        Copied(range)
    }

    /// The entry that was copied last.
    pub(crate) fn copied(&self, Copied(range): &Copied) -> Option<Entry<'_>> {
        Entry::read(self.ring.get(range.clone())?)
    }

    /// Keeps what was copied last, in place of the oldest of its set.
    pub(crate) fn keep(&mut self, hash: u64, Copied(range): &Copied, late: bool) {
        let Ok(len) = u16::try_from(range.len()) else { return };
        let first = first(hash);
        let whole = |slot: &Slot| if self.is_whole(slot) { slot.at + 1 } else { 0 };
        let oldest = (first..first + WAYS).min_by_key(|at| whole(&self.slots[*at])).unwrap_or(first);
        self.slots[oldest] = Slot { at: self.written, hash: hash as u32, len, late };
        self.written += usize::from(len).next_multiple_of(LINE) as u64;
    }

    fn is_whole(&self, slot: &Slot) -> bool {
        slot.len > 0 && slot.at >= self.floor
    }

    fn read(&self, slot: &Slot) -> Option<Entry<'_>> {
        let start = self.base + (slot.at % RING_BYTES as u64) as usize;
        Entry::read(self.ring.get(start..start + usize::from(slot.len))?)
    }
}

/// Where an entry was copied to.
#[derive(Debug)]
pub(crate) struct Copied(Range<usize>);

fn first(hash: u64) -> usize {
    (hash >> 40) as usize % SETS * WAYS
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Kept, Shape};
    use super::*;

    #[test]
    fn what_is_written_over_is_gone_and_the_rest_is_whole() {
        let mut local = Local::default();
        let names: Vec<[u8; 200]> =
            (0..60_000_u32).map(|i| [i.to_be_bytes(); 50].concat().try_into().unwrap()).collect();
        let hash = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let key = |i: usize| Key { place: 1, kind: 1, bits: 0, variant: 0, name: &names[i] };
        for i in 0..names.len() {
            let kept = Kept { key: key(i), hash: hash(i), generation: 1, at_ms: 0, life_s: 1, stamps: &[], label: 0 };
            let octets = kept.mark(Shape::Client);
            let copied = local.copy(&octets);
            assert!(local.copied(&copied).unwrap().is(hash(i), &key(i)));
            local.keep(hash(i), &copied, false);
            assert!(local.find(hash(i), &key(i)).is_some(), "{i}");
        }
        let whole = (0..names.len()).filter(|i| local.find(hash(*i), &key(*i)).is_some()).count();
        let room = RING_BYTES / 256;
        assert!(whole <= room && whole > room * 8 / 10, "{whole} of {room}");
    }
}
