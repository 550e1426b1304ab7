//! Entries that one thread has for itself: four ways, no lock, nothing allocated by a look-up.
//!
//! In: a hash and a key. Out: the entry. Bounded in entries and in bytes. Also who stands where, for the clients that asked lately.

use std::net::IpAddr;

use super::entry::{Entry, Key};
use crate::client::Asker;

const WAYS: usize = 4;
const SETS: usize = 4096;
const BYTES_MAX: usize = 8 * 1024 * 1024;
const CLIENTS: usize = 2048;

#[derive(Debug, Default)]
struct Slot {
    hash: u64,
    entry: Option<Entry>,
    used: u8,
    late: bool,
}

#[derive(Debug, Clone, Copy)]
struct Client {
    ip: IpAddr,
    generation: u64,
    stands: Stands,
}

/// Where a client stands, and how it is served.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stands {
    pub(crate) place: u32,
    pub(crate) barred: bool,
    pub(crate) spared: bool,
}

impl Stands {
    pub(crate) fn of(asker: &Asker) -> Self {
        Self { place: asker.id, barred: asker.barred, spared: asker.spared }
    }
}

/// What one thread has for itself.
#[derive(Debug)]
pub(crate) struct Local {
    slots: Box<[Slot]>,
    clients: Box<[Option<Client>]>,
    bytes: usize,
    hand: usize,
}

impl Default for Local {
    fn default() -> Self {
        let slots = (0..WAYS * SETS).map(|_| Slot::default()).collect();
        Self { slots, clients: vec![None; CLIENTS].into(), bytes: 0, hand: 0 }
    }
}

impl Local {
    /// Where the entry for `key` is.
    pub(crate) fn find(&self, hash: u64, key: &Key<'_>) -> Option<usize> {
        let first = first(hash);
        let here = |slot: &Slot| slot.hash == hash && slot.entry.as_ref().is_some_and(|e| e.is(key));
        self.slots[first..first + WAYS].iter().position(here).map(|way| first + way)
    }

    /// The entry there; counts as used.
    pub(crate) fn at(&mut self, at: usize) -> Option<&Entry> {
        let slot = &mut self.slots[at];
        slot.used = (slot.used + 1).min(3);
        slot.entry.as_ref()
    }

    /// Whether nobody said before that the entry there is late.
    pub(crate) fn first_late(&mut self, at: usize) -> bool {
        !std::mem::replace(&mut self.slots[at].late, true)
    }

    /// Forgets the entry there.
    pub(crate) fn forget(&mut self, at: usize) {
        let gone = std::mem::take(&mut self.slots[at]);
        self.bytes -= gone.entry.map_or(0, |e| e.bytes());
    }

    /// Keeps `entry`, in place of the one of its set that is used least.
    pub(crate) fn put(&mut self, hash: u64, entry: Entry, late: bool) -> usize {
        let first = first(hash);
        let set = &mut self.slots[first..first + WAYS];
        let least = (0..WAYS).min_by_key(|way| set[*way].entry.as_ref().map_or(0, |_| 1 + set[*way].used));
        for slot in set.iter_mut() {
            slot.used /= 2;
        }
        let at = first + least.unwrap_or(0);
        self.forget(at);
        while self.bytes + entry.bytes() > BYTES_MAX {
            self.hand = (self.hand + 1) % self.slots.len();
            self.forget(self.hand);
        }
        self.bytes += entry.bytes();
        self.slots[at] = Slot { hash, entry: Some(entry), used: 1, late };
        at
    }

    /// Where `ip` stands, when that was looked up under a generation which still holds.
    pub(crate) fn stands(&self, ip: IpAddr, holds: impl FnOnce(u64) -> bool) -> Option<Stands> {
        let client = self.clients[client(ip)].as_ref()?;
        (client.ip == ip && holds(client.generation)).then_some(client.stands)
    }

    /// Remembers where `ip` stands.
    pub(crate) fn place(&mut self, ip: IpAddr, stands: Stands, generation: u64) {
        self.clients[client(ip)] = Some(Client { ip, generation, stands });
    }
}

fn first(hash: u64) -> usize {
    (hash >> 16) as usize % SETS * WAYS
}

/// Clients that displace one another cost a look-up, nothing else: any hash will do.
fn client(ip: IpAddr) -> usize {
    let bits = match ip {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() ^ (v6.to_bits() >> 64)) as u64,
    };
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % CLIENTS
}
