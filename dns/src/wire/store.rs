//! Entries that all share: sharded, bounded in bytes, and never waited for by who reads.
//!
//! ```text
//!   shard: index (hash ── where) ── segments, oldest first │ e e e e │ e e e e │ e e ◄── the next one is written here
//! ```
//!
//! In: a hash and a key. Out: the entry, or none; a shard that is busy counts as none. Entries lie one behind the other in segments, so that
//! they take no more than their octets and a place in the index. When a shard is full its oldest segment goes, and what was asked for
//! since it was written is written again (CLOCK): names that are asked once don't displace those that are asked often. A segment of which
//! half is in nobody's way any more goes early.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use hashbrown::HashTable;

use super::entry::{ENTRY_BYTES_MAX, Entry, Key, State};

const SHARDS: usize = 64;
/// How often an entry is spared at most.
const SPARED_MAX: u8 = 3;
/// Segments of a shard, where it has few bytes.
const SEGMENTS_MIN: usize = 8;
const SEGMENT_BYTES_MAX: usize = 64 * 1024;
const SEGMENT_BYTES_MIN: usize = ENTRY_BYTES_MAX.next_multiple_of(ALIGN);
/// Entries begin at multiples of this, so that a place is a number of 32 bits.
const ALIGN: usize = 4;
/// Bits of a place within a segment.
const WITHIN: u32 = (SEGMENT_BYTES_MAX / ALIGN).ilog2();
/// Segments whose entries are looked at, one by one, for one that is put; then the oldest goes whole.
const TURNS_MAX: usize = 4;

/// The shared entries.
#[derive(Debug)]
pub(crate) struct Store {
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Debug)]
struct Shard {
    /// Where entries begin, by half of their hash.
    index: HashTable<u32>,
    segments: Vec<Segment>,
    /// Segments that are in use, oldest first; the last is written to.
    order: VecDeque<u32>,
    /// Segments that are not.
    spare: Vec<u32>,
    segment_bytes: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Segment {
    octets: Vec<u8>,
    /// Octets of entries that others have replaced.
    dead: usize,
}

/// What a look-up found, and whether it is the first one since the entry grew old.
pub(crate) struct Stored<T> {
    pub(crate) taken: T,
    pub(crate) first_late: bool,
}

impl Store {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::new(bytes_max / SHARDS))).collect();
        Self { shards }
    }

    /// What `take` makes of the octets of the entry for `key`, which are its alone for as long; it hears how often they were asked for
    /// before. `late` says of an entry that it is time to look for a newer one: told once.
    pub(crate) fn get<T>(
        &self,
        hash: u64,
        key: &Key<'_>,
        late: impl FnOnce(&Entry<'_>) -> bool,
        take: impl FnOnce(&[u8], u8) -> T,
    ) -> Option<Stored<T>> {
        self.shard(hash).try_lock().ok()?.get(hash, key, late, take)
    }

    /// Keeps `entry` in place of the one with its key; `void` says of others that they are worth nothing any more.
    pub(crate) fn put(&self, hash: u64, key: &Key<'_>, entry: &[u8], void: impl Fn(&Entry<'_>) -> bool) {
        self.shard(hash).lock().unwrap_or_else(PoisonError::into_inner).put(hash, key, entry, &void);
    }

    /// Entries and their bytes.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (usize, usize) {
        self.shards.iter().fold((0, 0), |(entries, bytes), shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            (entries + shard.index.len(), bytes + shard.bytes())
        })
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        // The index within a shard goes by the lower half.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }
}

/// What the index goes by: half a hash is kept with an entry.
fn spread(half: u32) -> u64 {
    u64::from(half).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Shard {
    fn new(bytes_max: usize) -> Self {
        let segment_bytes = (bytes_max / SEGMENTS_MIN).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX) / ALIGN * ALIGN;
        Self {
            index: HashTable::new(),
            segments: Vec::new(),
            order: VecDeque::new(),
            spare: Vec::new(),
            segment_bytes,
            bytes_max,
        }
    }

    fn get<T>(
        &mut self,
        hash: u64,
        key: &Key<'_>,
        late: impl FnOnce(&Entry<'_>) -> bool,
        take: impl FnOnce(&[u8], u8) -> T,
    ) -> Option<Stored<T>> {
        let place = self.find(hash, key)?;
        let octets = octets_mut(&mut self.segments, place)?;
        let entry = Entry::read(octets)?;
        let (len, late) = (entry.len(), late(&entry));
        let mut state = State::of(octets);
        let used = state.used();
        state.set_used((used + 1).min(SPARED_MAX));
        let first_late = late && state.first_late();
        Some(Stored { taken: take(octets.get(..len)?, used), first_late })
    }

    fn put(&mut self, hash: u64, key: &Key<'_>, octets: &[u8], void: &impl Fn(&Entry<'_>) -> bool) {
        let fits = octets.len() <= self.segment_bytes && 2 * self.segment_bytes <= self.bytes_max;
        if !fits {
            return;
        }
        self.make_room(octets.len(), void);
        let before = self.find(hash, key);
        let place = self.write(octets);
        match before {
            Some(old) => {
                self.moved(hash as u32, old, Some(place));
                self.bury(old);
            }
            None => {
                let segments = &self.segments;
                let hash_of = |place: &u32| spread(entry(segments, *place).map_or(0, |e| e.hash()));
                self.index.insert_unique(spread(hash as u32), place, hash_of);
            }
        }
    }

    /// Makes room for one more entry.
    fn make_room(&mut self, len: usize, void: &impl Fn(&Entry<'_>) -> bool) {
        for turn in 0.. {
            let begins = if self.has_room(len) { 0 } else { self.segment_bytes };
            let grows = if self.index.len() < self.index.capacity() { 0 } else { self.index.allocation_size() };
            if self.bytes() + begins + grows <= self.bytes_max || self.order.len() < 2 {
                return;
            }
            let Some(oldest) = self.order.pop_front() else { return };
            self.empty(oldest, |entry, used| turn < TURNS_MAX && used > 0 && !void(entry));
        }
    }

    /// Whether the last segment has room for an entry.
    fn has_room(&self, len: usize) -> bool {
        let last = self.order.back().map(|n| self.segments[*n as usize].octets.len());
        last.is_some_and(|used| used + len.next_multiple_of(ALIGN) <= self.segment_bytes)
    }

    fn find(&self, hash: u64, key: &Key<'_>) -> Option<u32> {
        let is = |place: &u32| entry(&self.segments, *place).is_some_and(|e| e.is(hash, key));
        self.index.find(spread(hash as u32), is).copied()
    }

    /// Writes an entry behind the last one, and says where that is.
    fn write(&mut self, octets: &[u8]) -> u32 {
        let len = octets.len().next_multiple_of(ALIGN);
        let last = self.order.back().copied().filter(|_| self.has_room(len));
        let number = last.unwrap_or_else(|| self.begin());
        let segment = &mut self.segments[number as usize].octets;
        let at = segment.len();
        segment.extend_from_slice(octets);
        segment.resize(at + len, 0);
        number << WITHIN | (at / ALIGN) as u32
    }

    /// A segment with nothing in it, which is the last one from now on.
    fn begin(&mut self) -> u32 {
        let number = self.spare.pop().unwrap_or_else(|| {
            self.segments.push(Segment::default());
            self.segments.len() as u32 - 1
        });
        self.segments[number as usize].octets.reserve_exact(self.segment_bytes);
        self.order.push_back(number);
        number
    }

    /// An entry was replaced; when half of its segment is, the rest moves.
    fn bury(&mut self, place: u32) {
        let len = entry(&self.segments, place).map_or(0, |e| e.len().next_multiple_of(ALIGN));
        let number = place >> WITHIN;
        let segment = &mut self.segments[number as usize];
        segment.dead += len;
        if segment.dead * 2 > self.segment_bytes && self.order.back() != Some(&number) {
            self.order.retain(|n| *n != number);
            self.empty(number, |_, _| true);
        }
    }

    /// Empties a segment that is out of the order; entries that `spared` wants are written again.
    fn empty(&mut self, number: u32, spared: impl Fn(&Entry<'_>, u8) -> bool) {
        let mut segment = std::mem::take(&mut self.segments[number as usize]);
        let mut at = 0;
        while let Some(found) = segment.octets.get(at..).and_then(Entry::read) {
            let (hash, len, place) = (found.hash(), found.len(), number << WITHIN | (at / ALIGN) as u32);
            if self.index.find(spread(hash), |p| *p == place).is_some() {
                let mut state = State::of(&mut segment.octets[at..]);
                let used = state.used();
                state.set_used(used.saturating_sub(1));
                let octets = &segment.octets[at..at + len];
                let spared = Entry::read(octets).is_some_and(|entry| spared(&entry, used));
                let moved = spared.then(|| self.write(octets));
                self.moved(hash, place, moved);
            }
            at += len.next_multiple_of(ALIGN);
        }
        self.spare.push(number);
    }

    /// The entry at `from` is at `to`, or gone.
    fn moved(&mut self, hash: u32, from: u32, to: Option<u32>) {
        if let Ok(mut found) = self.index.find_entry(spread(hash), |place| *place == from) {
            match to {
                Some(to) => *found.get_mut() = to,
                None => drop(found.remove()),
            }
        }
    }

    fn bytes(&self) -> usize {
        self.order.len() * self.segment_bytes + self.index.allocation_size()
    }
}

fn entry(segments: &[Segment], place: u32) -> Option<Entry<'_>> {
    let segment = segments.get((place >> WITHIN) as usize)?;
    Entry::read(segment.octets.get(ALIGN * (place & ((1 << WITHIN) - 1)) as usize..)?)
}

fn octets_mut(segments: &mut [Segment], place: u32) -> Option<&mut [u8]> {
    let segment = segments.get_mut((place >> WITHIN) as usize)?;
    segment.octets.get_mut(ALIGN * (place & ((1 << WITHIN) - 1)) as usize..)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::entry::{Kept, Shape};
    use super::*;

    fn key(name: &[u8]) -> Key<'_> {
        Key { place: 1, kind: 1, bits: 0, variant: 0, name }
    }

    fn hash(i: u64) -> u64 {
        i.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// A mark for a name, told apart by how long it lives.
    fn put(store: &Store, name: &[u8], hash: u64, life_s: u32) {
        let kept = Kept { key: key(name), hash, generation: 1, at_ms: 0, life_s, stamps: &[], label: 0 };
        store.put(hash, &key(name), &kept.mark(Shape::Client), |_| false);
    }

    fn get(store: &Store, name: &[u8], hash: u64) -> Option<u32> {
        let found = store.get(hash, &key(name), |_| false, |octets, _| Entry::read(octets).unwrap().life_s());
        found.map(|found| found.taken)
    }

    #[test]
    fn it_is_bounded_in_bytes_and_keeps_what_is_asked_for() {
        let bytes_max = SHARDS * 96 * 1024;
        let store = Store::new(bytes_max);
        let names: Vec<[u8; 8]> = (0..400_000_u64).map(u64::to_be_bytes).collect();
        for (i, name) in names.iter().enumerate() {
            put(&store, name, hash(i as u64), 5);
            if i % 16 == 0 {
                for (often, name) in names.iter().enumerate().take(64.min(i)) {
                    get(&store, name, hash(often as u64));
                }
            }
            assert!(store.size().1 <= bytes_max || i % 1000 != 0);
        }
        let kept = |range: std::ops::Range<usize>| {
            range.filter(|i| get(&store, &names[*i], hash(*i as u64)).is_some()).count()
        };
        let (often, seldom) = (kept(0..64), kept(64..400_000));
        assert_eq!(often, 64, "those that are asked often stay");
        assert!(seldom > 40_000 && seldom < 130_000, "{seldom}");
        assert_eq!(store.size().0, often + seldom);
    }

    #[test]
    fn what_is_replaced_takes_no_room() {
        let store = Store::new(SHARDS << 20);
        let names: Vec<[u8; 8]> = (0..10_000_u64).map(u64::to_be_bytes).collect();
        for life_s in 0..100 {
            for (i, name) in names.iter().enumerate() {
                put(&store, name, hash(i as u64), life_s);
            }
        }
        let (entries, bytes) = store.size();
        assert_eq!(entries, names.len());
        assert!(bytes < SHARDS * 3 * SEGMENT_BYTES_MAX, "{bytes}");
        assert!(names.iter().enumerate().all(|(i, name)| get(&store, name, hash(i as u64)) == Some(99)));
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let store = Store::new(0);
        put(&store, b"name", 7, 5);
        assert_eq!((store.size(), get(&store, b"name", 7)), ((0, 0), None));
    }

    proptest! {
        #[test]
        fn what_is_there_is_what_was_put_last(steps in prop::collection::vec((any::<u8>(), 1_u32..1000, 1_usize..255), 1..3000)) {
            let store = Store::new(SHARDS * 4 * SEGMENT_BYTES_MIN);
            let mut last = HashMap::new();
            for (i, (which, life_s, length)) in steps.into_iter().enumerate() {
                // All in one shard, half of them of one hash.
                let (name, hash) = ([which; 255], u64::from(which % 2) * u64::from(which));
                let name = &name[..length];
                put(&store, name, hash, life_s);
                last.insert(name.to_vec(), (hash, life_s));
                prop_assert_eq!(get(&store, name, hash), Some(life_s), "step {}", i);
            }
            for (name, (hash, life_s)) in last {
                prop_assert!(get(&store, &name, hash).is_none_or(|kept| kept == life_s));
            }
        }
    }
}
