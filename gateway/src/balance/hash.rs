//! Consistent hashing: the same key finds the same endpoint, also on another replica, and when one of many endpoints goes, few other keys move.
//! Pure.
//!
//! In: numbers of endpoints. Out: for a key, endpoints in an order of its own. Sources: Karger et al., "Consistent hashing and random trees";
//! Eisenbud et al., "Maglev"; Mirrokni et al., "Consistent hashing with bounded loads" (the bound is applied by whoever walks).

use atoll_api::rendezvous;

use super::dice::mix;

/// Points of one endpoint on a ring: the largest share is about a tenth over the mean.
const POINTS: u64 = 160;
/// Slots of a Maglev table, primes: with a hundred times as many slots as endpoints shares differ by a hundredth.
const SLOTS: [usize; 3] = [65_537, 655_373, 6_553_621];
/// How far apart the points of one endpoint are before they are mixed; any odd number does.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The same number for the same bytes on every replica. Not for secrets.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    rendezvous::hash(0, bytes)
}

/// Points of a ring in order, each with the endpoint that it belongs to.
#[derive(Debug)]
pub(crate) struct Ring(Vec<(u64, u32)>);

impl Ring {
    pub(crate) fn new(endpoints: &[u64]) -> Self {
        let of = |(at, id): (u32, &u64)| {
            let id = *id;
            (0..POINTS).map(move |n| (mix(id.wrapping_add(n.wrapping_mul(SPREAD))), at))
        };
        let mut points: Vec<(u64, u32)> = (0..).zip(endpoints).flat_map(of).collect();
        points.sort_unstable();
        Self(points)
    }

    /// Endpoints from the key's place on, with repetitions, once around.
    pub(crate) fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let from = self.0.partition_point(|(point, _)| *point < key);
        self.0[from..].iter().chain(&self.0[..from]).map(|(_, at)| *at as usize)
    }
}

/// A Maglev table: every slot belongs to an endpoint, each has as many as any other, give or take one.
#[derive(Debug)]
pub(crate) struct Maglev(Vec<u32>);

impl Maglev {
    pub(crate) fn new(endpoints: &[u64]) -> Self {
        if endpoints.is_empty() {
            return Self(Vec::new());
        }
        let size = SLOTS.into_iter().find(|n| *n >= endpoints.len() * 100).unwrap_or(SLOTS[2]);
        const FREE: u32 = u32::MAX;
        let mut slots = vec![FREE; size];
        let modulus = u64::try_from(size).unwrap_or(u64::MAX);
        let small = |n: u64| usize::try_from(n).unwrap_or_default();
        // Each endpoint wants slots in an order of its own, and takes the next free one when it is its turn.
        let mut wants: Vec<(usize, usize)> = endpoints
            .iter()
            .map(|id| (small(mix(*id) % modulus), small(mix(id.wrapping_add(SPREAD)) % (modulus - 1)) + 1))
            .collect();
        let mut filled = 0;
        'all: loop {
            for (at, (next, skip)) in (0..).zip(&mut wants) {
                while slots[*next] != FREE {
                    *next = (*next + *skip) % size;
                }
                slots[*next] = at;
                filled += 1;
                if filled == size {
                    break 'all;
                }
            }
        }
        Self(slots)
    }

    /// Endpoints from the key's slot on, with repetitions, once around.
    pub(crate) fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let len = u64::try_from(self.0.len()).unwrap_or_default().max(1);
        let from = usize::try_from(key % len).unwrap_or_default();
        self.0[from.min(self.0.len())..].iter().chain(&self.0[..from.min(self.0.len())]).map(|at| *at as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u64 = 20_000;

    fn ids(n: u64) -> Vec<u64> {
        (0..n).map(|n| hash(format!("eu/10.0.0.{n}:80").as_bytes())).collect()
    }

    /// Who gets each key, by number, and the largest share over the mean.
    fn shares(ids: &[u64], first: impl Fn(u64) -> Option<usize>) -> (Vec<u64>, f64) {
        let owners: Vec<u64> = (0..KEYS).filter_map(|key| first(mix(key)).map(|at| ids[at])).collect();
        let most = ids.iter().map(|id| owners.iter().filter(|o| *o == id).count()).max().unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let over = most as f64 / (KEYS as f64 / ids.len() as f64);
        (owners, over)
    }

    #[test]
    fn when_one_of_a_hundred_goes_at_most_two_in_a_hundred_other_keys_move() {
        let (all, gone) = (ids(100), 37);
        let fewer: Vec<u64> = all.iter().copied().filter(|id| *id != all[gone]).collect();
        for (name, bound) in [("ring", 1.5), ("maglev", 1.3)] {
            let of = |ids: &[u64]| match name {
                "ring" => {
                    let ring = Ring::new(ids);
                    shares(ids, |key| ring.walk(key).next())
                }
                _ => {
                    let maglev = Maglev::new(ids);
                    shares(ids, |key| maglev.walk(key).next())
                }
            };
            let ((before, over), (after, _)) = (of(&all), of(&fewer));
            assert_eq!(before.len(), after.len(), "{name}: every key has somebody");
            assert!(over < bound, "{name}: the largest share is {over} of the mean");
            let others = before.iter().zip(&after).filter(|(b, _)| **b != all[gone]);
            let moved = others.filter(|(b, a)| b != a).count();
            assert!(moved * 50 <= before.len(), "{name}: {moved} of {} moved", before.len());
        }
    }

    #[test]
    fn of_three_clusters_each_wins_about_a_third_of_the_keys() {
        let clusters = ["eu", "us", "dr"];
        let ids = clusters.map(|name| hash(name.as_bytes()));
        let (_, over) = shares(&ids, |key| (0..3).max_by_key(|at| rendezvous::hash(key, clusters[*at].as_bytes())));
        assert!(over < 1.05, "{over}");
    }

    #[test]
    fn walks_visit_everybody_and_nobody_has_none() {
        for n in [1, 2, 7, 700] {
            let ids = ids(n);
            let everybody: std::collections::BTreeSet<usize> = (0..ids.len()).collect();
            assert_eq!(Ring::new(&ids).walk(7).collect::<std::collections::BTreeSet<_>>(), everybody);
            assert_eq!(Maglev::new(&ids).walk(u64::MAX).collect::<std::collections::BTreeSet<_>>(), everybody);
        }
        assert_eq!((Ring::new(&[]).walk(1).next(), Maglev::new(&[]).walk(1).next()), (None, None));
    }
}
