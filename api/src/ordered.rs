//! A sorted map whose clones share what does not differ. A clone costs two pointers; the first change after it copies the list of leaves
//! and one leaf, whatever the size of the map. Two clones are compared by their leaves first, so that finding what differs between
//! neighbouring snapshots costs what differs.
//!
//! A tree of two levels: for the hundreds of thousands of facts that a federation has, the list of leaves is a few thousand pointers.

use std::borrow::Borrow;
use std::ops::Index;
use std::sync::Arc;

const LEAF_LEN_MAX: usize = 64;

type Leaf<K, V> = Vec<(K, V)>;

/// The map.
pub struct Ordered<K, V> {
    /// None is empty; their keys ascend from leaf to leaf.
    leaves: Arc<Vec<Arc<Leaf<K, V>>>>,
    len: usize,
}

impl<K, V> Clone for Ordered<K, V> {
    fn clone(&self) -> Self {
        Self { leaves: Arc::clone(&self.leaves), len: self.len }
    }
}

impl<K, V> Default for Ordered<K, V> {
    fn default() -> Self {
        Self { leaves: Arc::default(), len: 0 }
    }
}

impl<K, V> Ordered<K, V> {
    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Everything, by key.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.leaves.iter().flat_map(|leaf| leaf.iter()).map(|(k, v)| (k, v))
    }

    /// The keys.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().map(|(k, _)| k)
    }

    /// The values, by key.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.iter().map(|(_, v)| v)
    }
}

impl<K: Ord, V> Ordered<K, V> {
    /// The leaf where `key` is, or would be.
    fn leaf_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.leaves.partition_point(|leaf| leaf[0].0.borrow() <= key).saturating_sub(1)
    }

    /// The key as it is held, with its value.
    pub fn get_key_value<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        let leaf = self.leaves.get(self.leaf_of(key))?;
        let at = leaf.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        Some((&leaf[at].0, &leaf[at].1))
    }

    /// The value under `key`.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// Whether there is one.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// From `key` on.
    pub fn from_key<'a, Q: Ord + ?Sized>(&'a self, key: &Q) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V, Q>
    where
        K: Borrow<Q>,
    {
        let at = self.leaf_of(key);
        let first = self.leaves.get(at).map(|leaf| {
            let from = leaf.partition_point(|(k, _)| k.borrow() < key);
            &leaf[from..]
        });
        let rest = self.leaves.get(at + 1..).unwrap_or_default().iter().map(|leaf| &leaf[..]);
        first.into_iter().chain(rest).flatten().map(|(k, v)| (k, v))
    }

    /// Tells `found` every key whose values differ, in order: what is here, and what is in `newer`.
    pub fn differing(&self, newer: &Self, mut found: impl FnMut(&K, Option<&V>, Option<&V>))
    where
        V: PartialEq,
    {
        let (mut old, mut new) = (Walk::over(&self.leaves), Walk::over(&newer.leaves));
        loop {
            while let (Some(a), Some(b)) = (old.leaf_ahead(), new.leaf_ahead())
                && Arc::ptr_eq(a, b)
            {
                old.skip_leaf();
                new.skip_leaf();
            }
            let order = match (old.peek(), new.peek()) {
                (None, None) => return,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let was = if order.is_le() { old.next() } else { None };
            let is = if order.is_ge() { new.next() } else { None };
            match (was, is) {
                (Some((key, was)), Some((_, is))) if was != is => found(key, Some(was), Some(is)),
                (Some((key, was)), None) => found(key, Some(was), None),
                (None, Some((key, is))) => found(key, None, Some(is)),
                _ => {}
            }
        }
    }
}

impl<K: Ord + Clone, V: Clone> Ordered<K, V> {
    /// Puts a value; returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.leaf_of(&key);
        let leaves = Arc::make_mut(&mut self.leaves);
        let is_last = at + 1 >= leaves.len();
        let Some(leaf) = leaves.get_mut(at) else {
            leaves.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        let leaf = Arc::make_mut(leaf);
        let place = match leaf.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(place) => return Some(std::mem::replace(&mut leaf[place].1, value)),
            Err(place) => place,
        };
        leaf.insert(place, (key, value));
        self.len += 1;
        if leaf.len() > LEAF_LEN_MAX {
            // What comes in order fills its leaves.
            let cut = if is_last && place == LEAF_LEN_MAX { LEAF_LEN_MAX } else { LEAF_LEN_MAX / 2 };
            let rest = leaf.split_off(cut);
            leaf.shrink_to(LEAF_LEN_MAX);
            leaves.insert(at + 1, Arc::new(rest));
        }
        None
    }

    /// Takes a key out, with its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q>,
    {
        let at = self.leaf_of(key);
        let place = self.leaves.get(at)?.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        let leaves = Arc::make_mut(&mut self.leaves);
        let leaf = Arc::make_mut(&mut leaves[at]);
        let removed = leaf.remove(place);
        self.len -= 1;
        if leaf.is_empty() {
            leaves.remove(at);
        } else if leaf.len() < LEAF_LEN_MAX / 4 && leaves.get(at + 1).is_some_and(|next| next.len() <= LEAF_LEN_MAX / 2)
        {
            let next = leaves.remove(at + 1);
            Arc::make_mut(&mut leaves[at]).extend(next.iter().cloned());
        }
        Some(removed)
    }

    /// The value under `key`, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let at = self.leaf_of(key);
        let place = self.leaves.get(at)?.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        Some(&mut Arc::make_mut(&mut Arc::make_mut(&mut self.leaves)[at])[place].1)
    }

    /// Every value, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let leaves = Arc::make_mut(&mut self.leaves);
        leaves.iter_mut().flat_map(|leaf| Arc::make_mut(leaf).iter_mut()).map(|(_, v)| v)
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for Ordered<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(items: I) -> Self {
        let mut map = Self::default();
        map.extend(items);
        map
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for Ordered<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, items: I) {
        for (key, value) in items {
            self.insert(key, value);
        }
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Ordered<K, V> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.leaves, &other.leaves) || (self.len == other.len && self.iter().eq(other.iter()))
    }
}

impl<K: Eq, V: Eq> Eq for Ordered<K, V> {}

impl<K: std::fmt::Debug, V: std::fmt::Debug> std::fmt::Debug for Ordered<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Borrow<Q>, V, Q: Ord + ?Sized> Index<&Q> for Ordered<K, V> {
    type Output = V;

    /// # Panics
    /// When there is no such key.
    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("the key is there")
    }
}

/// A place between two items.
struct Walk<'a, K, V> {
    leaves: &'a [Arc<Leaf<K, V>>],
    leaf: usize,
    at: usize,
}

impl<'a, K, V> Walk<'a, K, V> {
    fn over(leaves: &'a [Arc<Leaf<K, V>>]) -> Self {
        Self { leaves, leaf: 0, at: 0 }
    }

    /// The next leaf, if this is its start.
    fn leaf_ahead(&self) -> Option<&'a Arc<Leaf<K, V>>> {
        self.leaves.get(self.leaf).filter(|_| self.at == 0)
    }

    fn skip_leaf(&mut self) {
        self.leaf += 1;
        self.at = 0;
    }

    fn peek(&self) -> Option<(&'a K, &'a V)> {
        self.leaves.get(self.leaf).map(|leaf| (&leaf[self.at].0, &leaf[self.at].1))
    }

    fn next(&mut self) -> Option<(&'a K, &'a V)> {
        let item = self.peek()?;
        self.at += 1;
        if self.at == self.leaves[self.leaf].len() {
            self.skip_leaf();
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Every map is what the standard one is after the same steps, and a clone is not touched by what comes later.
    #[test]
    fn it_is_a_sorted_map_and_clones_keep_what_they_were() {
        let steps = prop::collection::vec((0u16..600, any::<bool>(), any::<u8>()), 0..3000);
        let config = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(steps in steps, cut in 0usize..3000, from in 0u16..600)| {
            let (mut ours, mut theirs) = (Ordered::default(), BTreeMap::new());
            let mut kept = (Ordered::default(), BTreeMap::new());
            for (n, (key, puts, value)) in steps.into_iter().enumerate() {
                if puts {
                    prop_assert_eq!(ours.insert(key, value), theirs.insert(key, value));
                } else {
                    prop_assert_eq!(ours.remove(&key), theirs.remove_entry(&key));
                }
                if n == cut {
                    kept = (ours.clone(), theirs.clone());
                }
            }
            prop_assert!(ours.iter().eq(theirs.iter()) && ours.len() == theirs.len());
            prop_assert!(kept.0.iter().eq(kept.1.iter()));
            prop_assert!(ours.from_key(&from).eq(theirs.range(from..)));
            let mut found = BTreeMap::new();
            kept.0.differing(&ours, |k, was, is| {
                found.insert(*k, (was.copied(), is.copied()));
            });
            let all: std::collections::BTreeSet<u16> = kept.1.keys().chain(theirs.keys()).copied().collect();
            let wanted = all.into_iter().map(|k| (k, (kept.1.get(&k).copied(), theirs.get(&k).copied())));
            prop_assert_eq!(found, wanted.filter(|(_, (was, is))| was != is).collect::<BTreeMap<_, _>>());
        });
    }

    #[test]
    fn what_comes_in_order_fills_its_leaves_and_a_change_copies_one() {
        let map: Ordered<u32, u32> = (0..10_000).map(|n| (n, n)).collect();
        assert_eq!(map.leaves.len(), 10_000_usize.div_ceil(LEAF_LEN_MAX));
        let mut other = map.clone();
        *other.get_mut(&7_000).unwrap() = 1;
        let copied = map.leaves.iter().zip(other.leaves.iter()).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert_eq!((copied, map[&7_000], other[&7_000]), (1, 7_000, 1));
    }
}
