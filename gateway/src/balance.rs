//! Which endpoint takes a request: of the best tier that has one, two at random, the one with fewer requests in flight.
//!
//! In: tiers, what was tried before. Out: an endpoint. Endpoints of the asker's zone are preferred while any of them is usable. When nothing is
//! usable, anything that was not tried yet is. Source: Mitzenmacher, the power of two choices.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::endpoint::{Live, LiveEndpoint};

/// So many endpoints of one cluster are tried for one request; then it is the next cluster's turn.
const TRIES_PER_CLUSTER: usize = 2;

/// Numbers that nobody foresees: SplitMix64 from a random seed.
#[derive(Debug)]
pub(crate) struct Dice(AtomicU64);

impl Dice {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(RandomState::new().hash_one("dice")))
    }

    /// The next number.
    pub(crate) fn roll(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&self, n: usize) -> usize {
        // The bias is n / 2⁶⁴.
        usize::try_from(self.roll() % u64::try_from(n.max(1)).unwrap_or(1)).unwrap_or_default()
    }
}

/// An endpoint, by cluster and place in it.
pub(crate) type Picked = (usize, usize);

/// Picks the next endpoint; nothing when everything was tried.
pub(crate) fn pick(
    live: &Live,
    tiers: &[Vec<usize>],
    zone: Option<&str>,
    tried: &[Picked],
    dice: &Dice,
    now: Instant,
) -> Option<Picked> {
    let spent = |part: usize| tried.iter().filter(|(p, _)| *p == part).count() >= TRIES_PER_CLUSTER;
    let usable = |at: Picked| {
        let endpoint = &endpoint(live, at).endpoint;
        !tried.contains(&at) && endpoint.state().is_usable(now)
    };
    let untried = |at: Picked| !tried.contains(&at);
    for tier in tiers {
        if let Some(picked) = of_tier(live, tier, zone, dice, |at| !spent(at.0) && usable(at)) {
            return Some(picked);
        }
    }
    // Nobody is well: what was not tried yet may still answer.
    tiers.iter().find_map(|tier| of_tier(live, tier, zone, dice, |at| !spent(at.0) && untried(at)))
}

/// The endpoint at a place.
pub(crate) fn endpoint(live: &Live, (part, index): Picked) -> &LiveEndpoint {
    &live.parts[part].endpoints[index]
}

fn of_tier(
    live: &Live,
    tier: &[usize],
    zone: Option<&str>,
    dice: &Dice,
    fit: impl Fn(Picked) -> bool,
) -> Option<Picked> {
    let places = tier.iter().flat_map(|part| (0..live.parts[*part].endpoints.len()).map(move |i| (*part, i)));
    let all: Vec<Picked> = places.filter(|at| fit(*at)).collect();
    let near = |at: &Picked| zone.is_some() && endpoint(live, *at).zone.as_deref() == zone;
    let near: Vec<Picked> = all.iter().copied().filter(near).collect();
    let pool = if near.is_empty() { &all } else { &near };
    match pool.as_slice() {
        [] => None,
        [one] => Some(*one),
        many => {
            let first = dice.below(many.len());
            let second = (first + 1 + dice.below(many.len() - 1)) % many.len();
            let load = |i: usize| endpoint(live, many[i]).endpoint.in_flight.load(Ordering::Relaxed);
            Some(many[if load(second) < load(first) { second } else { first }])
        }
    }
}
