//! Token buckets by key, and this replica's share of them.
//!
//! In: a key and the moment. Out: whether one more may come, else when. A rate over all replicas is divided: each has a share of every key, at
//! first as large as anybody's, later as large as what it is asked for beside the others (`shares`). So the sum is never above the rate,
//! no request waits for anybody, and with the hub dead each has its equal part. Bounded: what is full again is forgotten first.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::shares::{Division, Shared, share};

/// Keys are kept in so many parts, each under a lock of its own.
const PARTS: usize = 16;
/// Keys of one part.
const KEYS_MAX: usize = 8192;
/// Of how many keys the others are told.
pub(crate) const TOLD_MAX: usize = 256;

/// One rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    pub(crate) burst: f64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
    /// Requests since it was last told of.
    asked: u32,
    /// What was told.
    told: u32,
}

/// The buckets of one limit.
#[derive(Debug)]
pub(crate) struct Buckets {
    rate: Rate,
    parts: [Mutex<HashMap<u64, Bucket>>; PARTS],
    /// This replica's part of a key that all know of; of others the equal one.
    shares: ArcSwap<(f64, HashMap<u64, f64>)>,
}

impl Buckets {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, parts: Default::default(), shares: ArcSwap::from_pointee((1.0, HashMap::new())) }
    }

    /// Sets this replica's shares: the equal one, and those of single keys.
    fn set(&self, equal: f64, of_keys: HashMap<u64, f64>) {
        self.shares.store(std::sync::Arc::new((equal, of_keys)));
    }

    /// Takes one.
    ///
    /// # Errors
    /// When there will be one.
    pub(crate) fn take(&self, key: u64, now: Instant) -> Result<(), Duration> {
        let shares = self.shares.load();
        let share = shares.1.get(&key).copied().unwrap_or(shares.0);
        // Whoever has a part of one alone has one at a time.
        let burst = (self.rate.burst * share).max(1.0);
        let per_second = self.rate.per_second * share;
        let mut part = self.part(key);
        if part.len() >= KEYS_MAX && !part.contains_key(&key) {
            make_room(&mut part, self.rate, now);
        }
        let bucket = part.entry(key).or_insert(Bucket { tokens: burst, at: now, asked: 0, told: 0 });
        let grown = now.saturating_duration_since(bucket.at).as_secs_f64() * per_second;
        bucket.tokens = (bucket.tokens + grown).min(burst);
        bucket.at = now;
        bucket.asked = bucket.asked.saturating_add(1);
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64(((1.0 - bucket.tokens) / per_second.max(1e-6)).min(86_400.0)))
    }

    fn part(&self, key: u64) -> std::sync::MutexGuard<'_, HashMap<u64, Bucket>> {
        let at = usize::try_from(key % PARTS as u64).unwrap_or_default();
        self.parts[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared for Buckets {
    // What was asked for since the last time, `elapsed` ago, of the keys that were asked for most; a fifth less each time where less is
    // asked for. What is far from its bound is not told, and counts are rounded, so that nothing is told again and again while nothing happens.
    fn asked(&self, elapsed: Duration) -> Vec<(u64, u32)> {
        let shares = self.shares.load();
        let is_hot = |key: u64, asked: u32| {
            let share = shares.1.get(&key).copied().unwrap_or(shares.0);
            f64::from(asked) >= 0.5 * self.rate.per_second * share * elapsed.as_secs_f64()
        };
        let mut all = Vec::new();
        for part in &self.parts {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(part.iter_mut().map(|(key, bucket)| {
                // Who moves from replica to replica is remembered for a while: parts that followed each step would always come late.
                bucket.told = std::mem::take(&mut bucket.asked).max(bucket.told.saturating_mul(4) / 5);
                (*key, bucket.told)
            }));
        }
        all.retain(|(key, asked)| *asked > 0 && is_hot(*key, *asked));
        all.iter_mut().for_each(|(_, asked)| *asked = rounded(*asked));
        all.sort_unstable_by_key(|(key, asked)| (std::cmp::Reverse(*asked), *key));
        all.truncate(TOLD_MAX);
        all
    }

    fn divide(&self, division: &Division<'_>) {
        let replicas = division.replicas.max(1);
        let of_key = |all: &Vec<u32>| {
            let of = |rank: usize| all.get(rank).copied().map_or(0.0, f64::from);
            let others: Vec<f64> = (0..replicas).filter(|rank| *rank != division.rank).map(of).collect();
            share(of(division.rank), &others, replicas)
        };
        let keys = division.keys.into_iter().flatten();
        self.set(1.0 / replicas as f64, keys.map(|(key, all)| (*key, of_key(all))).collect());
    }
}

/// The three highest bits count.
fn rounded(asked: u32) -> u32 {
    let low = asked.max(1).ilog2().saturating_sub(2);
    asked >> low << low
}

/// Forgets what is full again; where nothing is, those that were not asked for the longest.
fn make_room(part: &mut HashMap<u64, Bucket>, rate: Rate, now: Instant) {
    let refill = Duration::from_secs_f64((rate.burst / rate.per_second.max(1e-6)).min(86_400.0));
    part.retain(|_, bucket| now.saturating_duration_since(bucket.at) < refill);
    if part.len() >= KEYS_MAX {
        let mut times: Vec<Instant> = part.values().map(|bucket| bucket.at).collect();
        times.sort_unstable();
        let before = times[times.len() / 4];
        part.retain(|_, bucket| bucket.at > before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_lets_its_burst_and_then_its_rate_come() {
        let start = Instant::now();
        for (name, rate, share, seconds, expected) in [
            ("ten a second", Rate { per_second: 10.0, burst: 10.0 }, 1.0, 10, 110),
            ("a small burst", Rate { per_second: 10.0, burst: 1.0 }, 1.0, 10, 101),
            ("half of it", Rate { per_second: 10.0, burst: 10.0 }, 0.5, 10, 55),
            ("one a minute", Rate { per_second: 1.0 / 60.0, burst: 1.0 }, 1.0, 120, 3),
        ] {
            let buckets = Buckets::new(rate);
            buckets.set(share, HashMap::new());
            let steps = 0..=seconds * 1000;
            let taken = steps.filter(|ms| buckets.take(7, start + Duration::from_millis(*ms)).is_ok()).count();
            assert!(taken.abs_diff(expected) <= 1, "{name}: {taken}");
        }
    }

    #[test]
    fn keys_are_counted_apart_and_shares_are_of_keys() {
        let (start, rate) = (Instant::now(), Rate { per_second: 1.0, burst: 4.0 });
        let buckets = Buckets::new(rate);
        buckets.set(0.5, HashMap::from([(1, 1.0)]));
        let burst = |key| (0..9).filter(|_| buckets.take(key, start).is_ok()).count();
        assert_eq!((burst(1), burst(2)), (4, 2));
        let second = Duration::from_secs(1);
        assert_eq!(buckets.asked(second), [(1, 8), (2, 8)]);
        assert_eq!(buckets.asked(second), [(1, 7), (2, 7)], "a fifth less");
        let told = std::iter::repeat_with(|| buckets.asked(second)).take_while(|told| !told.is_empty()).count();
        assert!((2..9).contains(&told), "{told}");
    }

    #[test]
    fn memory_is_bounded_whoever_asks() {
        let (start, buckets) = (Instant::now(), Buckets::new(Rate { per_second: 1e-3, burst: 1.0 }));
        for key in 0..(KEYS_MAX * PARTS * 2) as u64 {
            let _ = buckets.take(key, start + Duration::from_micros(key));
        }
        let kept: usize = buckets.parts.iter().map(|part| part.lock().unwrap().len()).sum();
        assert!(kept <= KEYS_MAX * PARTS, "{kept}");
    }
}
