//! Which endpoint takes a request: of the best tier that has one, two at random, the one with fewer requests in flight.
//!
//! In: tiers, what was tried before. Out: an endpoint. Endpoints of the asker's zone are preferred while any of them is usable. When nothing is
//! usable, anything that was not tried yet is. Source: Mitzenmacher, the power of two choices.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::endpoint::{Live, LiveEndpoint};
use crate::table::Backend;

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

/// Draws a backend by weight; nothing where there is none.
pub(crate) fn draw<'a>(backends: &'a [Backend], dice: &Dice) -> Option<&'a Backend> {
    if let [one] = backends {
        return Some(one);
    }
    let sum: usize = backends.iter().map(|b| b.weight as usize).sum();
    let mut drawn = dice.below(sum);
    backends.iter().find(|b| {
        let hit = drawn < b.weight as usize;
        drawn = drawn.saturating_sub(b.weight as usize);
        hit
    })
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::endpoint::Endpoints;
    use crate::health::Failure;
    use crate::table::{Part, Target, Upstream, UpstreamId};

    /// Clusters by their endpoints' zones.
    fn live(clusters: &[&[&str]]) -> Live {
        let part = |(c, zones): (usize, &&[&str])| Part {
            cluster: None,
            endpoints: zones
                .iter()
                .enumerate()
                .map(|(i, zone)| Target {
                    address: format!("10.0.{c}.{i}").parse().unwrap(),
                    port: 80,
                    zone: Some((*zone).to_owned()).filter(|z| !z.is_empty()),
                    pod: None,
                })
                .collect(),
        };
        let id = UpstreamId::Local(atoll_api::names::ServiceName::new("a", "b"), 80);
        let upstream = Upstream {
            id,
            h2: false,
            udp: false,
            tls: None,
            clusters: clusters.iter().enumerate().map(part).collect(),
            policy: None,
        };
        Endpoints::default().enliven(&[upstream]).remove(0)
    }

    fn eject(live: &Live, at: Picked, now: Instant) {
        let mut state = endpoint(live, at).endpoint.state();
        state.failed(Failure::Connect, now);
        state.failed(Failure::Connect, now);
    }

    #[tokio::test(start_paused = true)]
    async fn the_best_tier_serves_until_all_of_it_is_ejected() {
        let (live, dice, now) = (live(&[&["", ""], &[""]]), Dice::new(), Instant::now());
        let tiers = [vec![0], vec![1]];
        let next = |tried: &[Picked]| pick(&live, &tiers, None, tried, &dice, now);
        assert!(next(&[]).is_some_and(|(part, _)| part == 0));
        eject(&live, (0, 0), now);
        assert_eq!(next(&[]), Some((0, 1)));
        eject(&live, (0, 1), now);
        assert_eq!(next(&[]), Some((1, 0)));
        eject(&live, (1, 0), now);
        assert!(next(&[]).is_some_and(|(part, _)| part == 0), "nobody is well: the best tier is tried all the same");
        assert_eq!(next(&[(0, 0), (0, 1), (1, 0)]), None, "everything was tried");
    }

    #[tokio::test(start_paused = true)]
    async fn after_two_endpoints_of_a_cluster_it_is_the_next_ones_turn() {
        let (live, dice, now) = (live(&[&["", "", "", ""], &[""]]), Dice::new(), Instant::now());
        let tried = [(0, 0), (0, 3)];
        assert_eq!(pick(&live, &[vec![0], vec![1]], None, &tried, &dice, now), Some((1, 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_own_zone_is_preferred_and_the_idler_of_two_taken() {
        let (live, dice, now) = (live(&[&["a", "b", "a"], &["a"]]), Dice::new(), Instant::now());
        let tiers = [vec![0, 1]];
        let seen = |zone| {
            (0..200)
                .filter_map(|_| pick(&live, &tiers, zone, &[], &dice, now))
                .collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(seen(Some("a")), [(0, 0), (0, 2), (1, 0)].into());
        assert_eq!(seen(Some("b")), [(0, 1)].into());
        assert_eq!(seen(Some("c")).len(), 4, "nobody is near: everybody");
        for at in [(0, 0), (0, 1), (0, 2)] {
            endpoint(&live, at).endpoint.in_flight.store(9, Relaxed);
        }
        let idle = (0..400).filter(|_| pick(&live, &tiers, None, &[], &dice, now) == Some((1, 0))).count();
        assert!((140..260).contains(&idle), "{idle} of 400: whenever it is one of the two, about half");
    }
}
