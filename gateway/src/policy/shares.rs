//! The limits that all replicas keep together, and each replica's share of them.
//!
//! In: what each replica is asked for, by limit and key, as the hub hands it on. Out: shares of this replica, which add up to one over all.
//! While the hub's word is fresh a share is what this replica is asked for beside all others; else it is the equal one. Never waited for.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// A limit's number, the same in every replica.
pub(crate) type Limit = u64;

/// What is asked for in one replica: requests in a while, by limit and key.
pub(crate) type Demand = Vec<(Limit, u64, u32)>;

/// Something that all replicas keep together.
pub(crate) trait Shared: Send + Sync {
    /// What was asked for here since the last time, `elapsed` ago, by key.
    fn asked(&self, elapsed: Duration) -> Vec<(u64, u32)>;

    /// Takes this replica's part.
    fn divide(&self, division: &Division<'_>);
}

/// How something is divided.
pub(crate) struct Division<'a> {
    /// Among so many.
    pub(crate) replicas: usize,
    /// This one's place among them, by name.
    pub(crate) rank: usize,
    /// What each is asked for, in order of rank, by key; nothing while the hub is silent.
    pub(crate) keys: Option<&'a HashMap<u64, Vec<u32>>>,
}

/// A replica that is asked for nothing of a key still has so much of it, that somebody who comes gets in.
const IDLE_SHARE: f64 = 0.02;

/// The limits of this replica that are kept together.
#[derive(Default)]
pub(crate) struct Shares {
    limits: Mutex<HashMap<Limit, Weak<dyn Shared>>>,
    /// How many replicas there were last, and which of them this is.
    last: Mutex<Option<(usize, usize)>>,
}

impl Shares {
    /// A limit is kept together from now on.
    pub(crate) fn join(&self, id: &str, limit: &Arc<dyn Shared>) {
        self.join_as(BuildHasherDefault::<DefaultHasher>::default().hash_one(id), limit);
    }

    /// The same under a number that is the same in every replica. It begins with the equal part.
    pub(crate) fn join_as(&self, number: Limit, limit: &Arc<dyn Shared>) {
        if let Some((replicas, rank)) = *self.last.lock().unwrap_or_else(PoisonError::into_inner) {
            limit.divide(&Division { replicas, rank, keys: None });
        }
        let mut all = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, limit| limit.strong_count() > 0);
        all.insert(number, Arc::downgrade(limit));
    }

    /// What was asked for since the last time, `elapsed` ago.
    pub(crate) fn demand(&self, elapsed: Duration) -> Demand {
        let each = self.living().into_iter();
        each.flat_map(|(limit, shared)| shared.asked(elapsed).into_iter().map(move |(key, n)| (limit, key, n)))
            .collect()
    }

    /// Divides every limit equally among so many, of whom this replica is the `rank`-th by name.
    pub(crate) fn equal(&self, replicas: usize, rank: usize) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((replicas.max(1), rank));
        for (_, shared) in self.living() {
            shared.divide(&Division { replicas: replicas.max(1), rank, keys: None });
        }
    }

    /// Divides by what each is asked for, in order of their names; this replica is the `rank`-th.
    pub(crate) fn divide(&self, all: &[&Demand], rank: usize) {
        let replicas = all.len().max(1);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((replicas, rank));
        let mut limits: HashMap<Limit, HashMap<u64, Vec<u32>>> = HashMap::new();
        for (at, demand) in all.iter().enumerate() {
            for (limit, key, n) in demand.iter() {
                limits.entry(*limit).or_default().entry(*key).or_insert_with(|| vec![0; replicas])[at] = *n;
            }
        }
        let nothing = HashMap::new();
        for (limit, shared) in self.living() {
            let keys = Some(limits.get(&limit).unwrap_or(&nothing));
            shared.divide(&Division { replicas, rank, keys });
        }
    }

    fn living(&self) -> Vec<(Limit, Arc<dyn Shared>)> {
        let all = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(|(limit, shared)| Some((*limit, shared.upgrade()?))).collect()
    }
}

impl std::fmt::Debug for Shares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shares").field("limits", &self.living().len()).finish()
    }
}

/// A replica's share of a key; over all replicas they add up to one.
pub(super) fn share(own: f64, others: &[f64], replicas: usize) -> f64 {
    let all = own + others.iter().sum::<f64>();
    if all <= 0.0 || replicas <= 1 {
        return 1.0 / replicas.max(1) as f64;
    }
    let idle = IDLE_SHARE / replicas as f64;
    idle + (1.0 - IDLE_SHARE) * own / all
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::policy::buckets::{Buckets, Rate};

    /// Three replicas that keep one rate together.
    fn three(rate: Rate) -> Vec<(Shares, Arc<Buckets>)> {
        let of = |rank| {
            let (shares, buckets) = (Shares::default(), Arc::new(Buckets::new(rate)));
            let shared: Arc<dyn Shared> = Arc::clone(&buckets) as _;
            shares.join("shop/limit rate 0", &shared);
            shares.equal(3, rank);
            (shares, buckets)
        };
        (0..3).map(of).collect()
    }

    /// Who comes to another replica each half second gets about a replica's part, though never the same one is asked.
    #[test]
    fn somebody_who_moves_between_replicas_keeps_a_part() {
        let start = Instant::now();
        let rate = Rate { per_second: 30.0, burst: 30.0 };
        let replicas = three(rate);
        let mut told: Vec<Demand> = vec![Vec::new(); 3];
        let mut passed = 0;
        for ms in (0..30_000_u64).step_by(10) {
            let at = usize::try_from(ms / 500 % 3).unwrap();
            let may = replicas[at].1.take(1, start + Duration::from_millis(ms)).is_ok();
            passed += usize::from(may && ms >= 10_000);
            if ms % 500 == 490 {
                for (own, (shares, _)) in replicas.iter().enumerate() {
                    shares.divide(&told.iter().collect::<Vec<_>>(), own);
                }
                told = replicas.iter().map(|(shares, _)| shares.demand(Duration::from_millis(500))).collect();
            }
        }
        assert!((400..=660).contains(&passed), "{passed} in twenty seconds, of 600");
    }

    #[test]
    fn shares_follow_what_is_asked_for_and_add_up_to_one() {
        for (asked, expected) in [
            (&[100.0, 0.0][..], &[0.99, 0.01][..]),
            (&[50.0, 50.0], &[0.5, 0.5]),
            (&[30.0, 10.0], &[0.745, 0.255]),
            (&[0.0, 0.0], &[0.5, 0.5]),
            (&[9.0], &[1.0]),
        ] {
            let shares: Vec<f64> = (0..asked.len())
                .map(|own| {
                    let others: Vec<f64> =
                        asked.iter().enumerate().filter(|(at, _)| *at != own).map(|(_, n)| *n).collect();
                    share(asked[own], &others, asked.len())
                })
                .collect();
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{asked:?}: {shares:?}");
            assert!(shares.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{asked:?}: {shares:?}");
        }
    }

    /// Three replicas, 100 a second together, what comes moves between them: what all let through in any ten seconds.
    #[test]
    fn three_replicas_together_stay_within_a_tenth_above_the_rate() {
        let start = Instant::now();
        let rate = Rate { per_second: 100.0, burst: 100.0 };
        let replicas = three(rate);
        let mut told: Vec<Demand> = vec![Vec::new(); 3];
        let mut passed = Vec::new();
        for ms in 0..40_000_u64 {
            // Each second another replica gets most of what comes, ten times the rate in all.
            let busy = usize::try_from(ms / 1000 % 3).unwrap();
            let at = if ms % 10 < 8 { busy } else { usize::try_from(ms % 3).unwrap() };
            if replicas[at].1.take(1, start + Duration::from_millis(ms)).is_ok() {
                passed.push(ms);
            }
            // What is told arrives half a second later.
            if ms % 500 == 499 {
                for (own, (shares, _)) in replicas.iter().enumerate() {
                    shares.divide(&told.iter().collect::<Vec<_>>(), own);
                }
                told = replicas.iter().map(|(shares, _)| shares.demand(Duration::from_millis(500))).collect();
            }
        }
        let within = |from: u64| passed.iter().filter(|ms| (from..from + 10_000).contains(*ms)).count();
        let most = (0..30_000).step_by(100).map(within).max().unwrap();
        // The burst that the rate itself allows comes once.
        assert!(most <= 1100 + 100, "{most} in ten seconds");
        let late = (15_000..30_000).step_by(100).map(within).max().unwrap();
        assert!((800..=1100).contains(&late), "{late} in ten seconds");
    }
}
