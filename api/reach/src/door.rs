//! How many may stand at a door: in all, and of one kind.
//!
//! In: a key for each who comes (an address, a name). Out: a guest, who is counted until dropped, or nothing when the door is full. For
//! connections whose peer has not shown yet who it is: whoever opens thousands and says nothing fills only their own part.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts guests by key. Clones share one count.
#[derive(Debug)]
pub struct Door<K> {
    inner: Arc<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    all_max: usize,
    each_max: usize,
    counts: Mutex<Counts<K>>,
}

#[derive(Debug)]
struct Counts<K> {
    all: usize,
    each: HashMap<K, usize>,
}

impl<K> Clone for Door<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K: Eq + Hash + Clone> Door<K> {
    /// A door for so many in all, and so many of one key.
    #[must_use]
    pub fn new(all_max: usize, each_max: usize) -> Self {
        let counts = Mutex::new(Counts { all: 0, each: HashMap::new() });
        Self { inner: Arc::new(Inner { all_max, each_max, counts }) }
    }

    /// Lets one in, or nobody when there are too many.
    #[must_use]
    pub fn enter(&self, key: K) -> Option<Guest<K>> {
        let mut counts = self.inner.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_key = counts.each.get(&key).copied().unwrap_or_default();
        if counts.all >= self.inner.all_max || of_key >= self.inner.each_max {
            return None;
        }
        counts.all += 1;
        counts.each.insert(key.clone(), of_key + 1);
        Some(Guest { door: self.clone(), key })
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
pub struct Guest<K: Eq + Hash + Clone> {
    door: Door<K>,
    key: K,
}

impl<K: Eq + Hash + Clone + fmt::Debug> fmt::Debug for Guest<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guest").field(&self.key).finish()
    }
}

impl<K: Eq + Hash + Clone> Drop for Guest<K> {
    fn drop(&mut self) {
        let mut counts = self.door.inner.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(count) = counts.each.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.each.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_takes_all_they_can_leaves_room_for_others() {
        let door = Door::new(3, 2);
        let mut greedy: Vec<_> = (0..9).filter_map(|_| door.enter("greedy")).collect();
        assert_eq!(greedy.len(), 2);
        let other = door.enter("other").unwrap();
        assert!(door.enter("third").is_none(), "full");
        drop(other);
        assert!(door.enter("third").is_some());
        greedy.pop();
        assert!(door.enter("greedy").is_some(), "who left may come again");
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
