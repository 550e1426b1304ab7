//! Entries that all share: sharded, bounded in bytes, and never waited for by who reads.
//!
//! In: a hash and a key. Out: the entry, or none; a shard that is busy counts as none. When a shard is full a hand goes round and takes
//! out what was not asked for since it came by last (CLOCK): names that are asked once don't displace those that are asked often.

use std::sync::{Mutex, PoisonError};

use hashbrown::HashTable;

use super::entry::{Entry, Key};

const SHARDS: usize = 64;
/// How often an entry is spared at most.
const SPARED_MAX: u8 = 3;

/// What a look-up found, and whether it is the first one since the entry grew old.
pub(crate) struct Stored {
    pub(crate) entry: Entry,
    pub(crate) first_late: bool,
}

/// The shared entries.
#[derive(Debug)]
pub(crate) struct Store {
    shards: Box<[Mutex<Shard>]>,
    shard_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Shard {
    index: HashTable<u32>,
    slots: Vec<Slot>,
    bytes: usize,
    hand: usize,
}

#[derive(Debug)]
struct Slot {
    entry: Entry,
    used: u8,
    late: bool,
}

impl Store {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, shard_bytes_max: bytes_max / SHARDS }
    }

    /// The entry for `key`. `late` says of an entry that it is time to look for a newer one: told once.
    pub(crate) fn get(&self, hash: u64, key: &Key<'_>, late: impl FnOnce(&Entry) -> bool) -> Option<Stored> {
        let mut shard = self.shard(hash).try_lock().ok()?;
        let shard = &mut *shard;
        let at = *shard.index.find(hash, |at| shard.slots[*at as usize].entry.is(key))?;
        let slot = &mut shard.slots[at as usize];
        slot.used = (slot.used + 1).min(SPARED_MAX);
        let first_late = !slot.late && late(&slot.entry);
        slot.late |= first_late;
        Some(Stored { entry: slot.entry.clone(), first_late })
    }

    /// Keeps `entry` in place of the one with its key; `void` says of others that they are worth nothing any more.
    pub(crate) fn put(&self, key: &Key<'_>, entry: Entry, void: impl Fn(&Entry) -> bool) {
        let mut shard = self.shard(entry.hash()).lock().unwrap_or_else(PoisonError::into_inner);
        shard.put(key, entry);
        while shard.bytes > self.shard_bytes_max && !shard.slots.is_empty() {
            shard.turn(&void);
        }
    }

    /// Entries and their bytes.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (usize, usize) {
        self.shards.iter().fold((0, 0), |(entries, bytes), shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            (entries + shard.slots.len(), bytes + shard.bytes)
        })
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        // The table within a shard goes by the lowest and the highest bits.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }
}

impl Shard {
    fn put(&mut self, key: &Key<'_>, entry: Entry) {
        let (hash, slots) = (entry.hash(), &self.slots);
        self.bytes += entry.bytes();
        let slot = Slot { entry, used: 0, late: false };
        match self.index.find(hash, |at| slots[*at as usize].entry.is(key)) {
            Some(at) => {
                let used = self.slots[*at as usize].used;
                let old = std::mem::replace(&mut self.slots[*at as usize], Slot { used, ..slot });
                self.bytes -= old.entry.bytes();
            }
            None => {
                let at = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
                self.slots.push(slot);
                let slots = &self.slots;
                self.index.insert_unique(hash, at, |at| slots[*at as usize].entry.hash());
            }
        }
    }

    /// One step of the hand.
    fn turn(&mut self, void: &impl Fn(&Entry) -> bool) {
        let at = self.hand % self.slots.len();
        self.hand = at + 1;
        let slot = &mut self.slots[at];
        if slot.used > 0 && !void(&slot.entry) {
            slot.used -= 1;
            return;
        }
        let gone = self.slots.swap_remove(at);
        self.bytes -= gone.entry.bytes();
        if let Ok(place) = self.index.find_entry(gone.entry.hash(), |i| *i as usize == at) {
            place.remove();
        }
        let last = self.slots.len();
        if let Some(moved) = self.slots.get(at)
            && let Some(index) = self.index.find_mut(moved.entry.hash(), |i| *i as usize == last)
        {
            *index = u32::try_from(at).unwrap_or(u32::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Kept, Shape};
    use super::*;

    fn entry(name: &[u8], hash: u64) -> (Key<'_>, Entry) {
        let key = Key { place: 1, kind: 1, bits: 0, variant: 0, name };
        let kept = Kept { key, hash, generation: 1, at_ms: 0, stamps: &[] };
        (key, Entry::mark(&kept, Shape::Client, 5))
    }

    #[test]
    fn it_is_bounded_in_bytes_and_keeps_what_is_asked_for() {
        let bytes_max = SHARDS * 4096;
        let store = Store::new(bytes_max);
        let names: Vec<[u8; 8]> = (0..20_000_u64).map(u64::to_be_bytes).collect();
        let hash = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let asked = |i: usize| {
            let (key, _) = entry(&names[i], hash(i));
            store.get(hash(i), &key, |_| false).is_some()
        };
        for (i, name) in names.iter().enumerate() {
            let (key, entry) = entry(name, hash(i));
            store.put(&key, entry, |_| false);
            for often in 0..64.min(i) {
                asked(often);
            }
            assert!(store.size().1 <= bytes_max);
        }
        let (often, seldom) = ((0..64).filter(|i| asked(*i)).count(), (64..20_000).filter(|i| asked(*i)).count());
        assert_eq!(often, 64, "those that are asked often stay");
        assert!(seldom > 500 && seldom < 2500, "{seldom}");
        let (key, again) = entry(&names[0], hash(0));
        let before = store.size();
        store.put(&key, again, |_| false);
        assert_eq!(store.size(), before, "the same key is the same place");
    }
}
