//! How many may stand at a door: in all, and of one kind. When it is full the longest there has to go.
//!
//! In: a key for each who comes (an address, a name). Out: a guest, who is counted until dropped, and told when to go. For connections whose
//! peer has not shown yet who it is: whoever opens thousands and says nothing fills only their own part, and however many do so, who comes
//! now has the time that it takes all of them to come again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// Counts guests by key. Clones share one count.
#[derive(Debug)]
pub struct Door<K> {
    inner: Arc<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    all_max: usize,
    each_max: usize,
    guests: Mutex<Guests<K>>,
}

#[derive(Debug)]
struct Guests<K> {
    next: u64,
    /// In the order in which they came.
    all: BTreeMap<u64, (K, CancellationToken)>,
}

impl<K> Clone for Door<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K: Eq> Door<K> {
    /// A door for so many in all, and so many of one key.
    #[must_use]
    pub fn new(all_max: usize, each_max: usize) -> Self {
        let guests = Mutex::new(Guests { next: 0, all: BTreeMap::new() });
        Self { inner: Arc::new(Inner { all_max, each_max, guests }) }
    }

    /// Lets one in. Where there are too many the oldest has to go: of this key, or of all.
    #[must_use]
    pub fn enter(&self, key: K) -> Guest<K> {
        let mut guests = self.inner.guests.lock().unwrap_or_else(PoisonError::into_inner);
        let of_key = guests.all.values().filter(|(of, _)| *of == key).count();
        let oldest = match () {
            () if of_key >= self.inner.each_max => guests.all.iter().find(|(_, (of, _))| *of == key),
            () if guests.all.len() >= self.inner.all_max => guests.all.first_key_value(),
            () => None,
        };
        if let Some(id) = oldest.map(|(id, _)| *id)
            && let Some((_, end)) = guests.all.remove(&id)
        {
            end.cancel();
        }
        let (id, end) = (guests.next, CancellationToken::new());
        guests.next += 1;
        guests.all.insert(id, (key, end.clone()));
        Guest { door: self.clone(), id, end }
    }
}

/// The key of a client's address: IPv6 clients have a /64 each.
#[must_use]
pub fn neighbourhood(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 => v4,
    }
}

/// One who was let in, until dropped.
pub struct Guest<K> {
    door: Door<K>,
    id: u64,
    end: CancellationToken,
}

impl<K> Guest<K> {
    /// Cancelled when the guest has to go.
    #[must_use]
    pub fn end(&self) -> &CancellationToken {
        &self.end
    }
}

impl<K> fmt::Debug for Guest<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guest").field(&self.id).finish()
    }
}

impl<K> Drop for Guest<K> {
    fn drop(&mut self) {
        self.door.inner.guests.lock().unwrap_or_else(PoisonError::into_inner).all.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_now_gets_in_and_who_came_first_goes() {
        let door = Door::new(3, 2);
        let greedy: Vec<_> = (0..9).map(|_| door.enter("greedy")).collect();
        let stay = |guests: &[Guest<&str>]| guests.iter().filter(|g| !g.end().is_cancelled()).count();
        assert_eq!(stay(&greedy), 2, "of one key");
        let others = [door.enter("other"), door.enter("third")];
        assert_eq!((stay(&greedy), stay(&others)), (1, 2), "of all, the oldest goes");
        drop(greedy);
        let more = [door.enter("fourth")];
        assert_eq!((stay(&others), stay(&more)), (2, 1), "who left makes room");
    }

    #[test]
    fn addresses_that_one_client_has_at_hand_count_as_one() {
        for (a, b, same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
        ] {
            assert_eq!(neighbourhood(a.parse().unwrap()) == neighbourhood(b.parse().unwrap()), same, "{a} {b}");
        }
    }
}
