//! Which endpoint takes a request: of the best tier that has one, by the method that its TrafficPolicy names.
//!
//! In: tiers, how, what was tried before. Out: an endpoint. The session's endpoint goes first while it is well. Endpoints of the asker's zone are
//! preferred while any of them is usable, but not by methods by hash, where the key decides alone. When nothing is usable, anything that was not
//! tried yet is. Sources: Mitzenmacher, "The power of two choices"; [`hash`], [`latency`].

mod dice;
pub(crate) mod hash;
mod latency;
mod method;
mod spoken;

use std::sync::atomic::Ordering;
use std::time::Duration;

use atoll_api::kinds::BalanceMethod;
use atoll_api::rendezvous;
use tokio::time::Instant;

pub(crate) use dice::Dice;
pub(crate) use latency::PeakEwma;
pub(crate) use method::Balance;
pub(crate) use spoken::{Looked, key as spoken};

use crate::endpoint::{Live, LiveEndpoint, LivePart};
use crate::health::Care;
use crate::table::Backend;

/// So many endpoints of one cluster are tried for one request; then it is the next cluster's turn, while there is one.
const TRIES_PER_CLUSTER: usize = 2;

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

/// How an endpoint is to be picked for a request.
pub(crate) struct Wish<'a> {
    pub(crate) method: BalanceMethod,
    /// The request's key, for methods by hash.
    pub(crate) key: u64,
    /// The endpoint of the request's session.
    pub(crate) session: Option<Picked>,
    /// The asker's zone.
    pub(crate) zone: Option<&'a str>,
    /// Clusters that have as much as they may.
    pub(crate) full: &'a [usize],
    /// What a policy wants endpoints to be spared.
    pub(crate) care: Option<&'a Care>,
    /// Whether the hub's word on endpoints counts.
    pub(crate) heeded: bool,
}

/// Picks the next endpoint; nothing when everything was tried.
pub(crate) fn pick(
    live: &Live,
    tiers: &[Vec<usize>],
    wish: &Wish<'_>,
    tried: &[Picked],
    dice: &Dice,
    now: Instant,
) -> Option<Picked> {
    let spent = |part: usize| tried.iter().filter(|(p, _)| *p == part).count() >= TRIES_PER_CLUSTER;
    let requests_max = wish.care.map_or(usize::MAX, |care| care.requests_max);
    let turn = Turn { live, wish, dice, now };
    let untried = |at: Picked| {
        !wish.full.contains(&at.0)
            && !tried.contains(&at)
            && !endpoint(live, at).endpoint.is_disabled()
            && (requests_max == usize::MAX || turn.in_flight(at) < requests_max)
    };
    let usable = |at: Picked| untried(at) && endpoint(live, at).is_usable(wish.heeded, now);
    let allowed = |part: usize| tiers.iter().any(|tier| tier.contains(&part));
    if let Some(at) = wish.session.filter(|at| allowed(at.0) && usable(*at)) {
        return Some(at);
    }
    let fit = |at: Picked| !spent(at.0) && usable(at) && !is_out(live, at.0);
    // Clusters that are back not long ago, and don't get this one; and endpoints, of whom another of the same tier gets it.
    let held = turn.held(tiers);
    let eager = |tier: &Vec<usize>, also: &dyn Fn(Picked) -> bool| {
        let now = |at: Picked| fit(at) && !held.contains(&at.0) && also(at);
        let eased = turn.eases().and_then(|window| turn.of_tier(tier, |at| now(at) && turn.is_due(at, window)));
        eased.or_else(|| turn.of_tier(tier, now))
    };
    let calm = || tiers.iter().filter(|tier| !turn.is_in_panic(tier));
    // Who failed a request comes after everybody who did not, of whatever tier, for one that was tried already: it has waited once.
    let sound = |at: Picked| !endpoint(live, at).endpoint.state().is_failing();
    let well = if tried.is_empty() { None } else { calm().find_map(|tier| eager(tier, &sound)) };
    let well = well.or_else(|| calm().find_map(|tier| eager(tier, &|_| true)));
    let well = well.or_else(|| if held.is_empty() { None } else { calm().find_map(|tier| turn.of_tier(tier, fit)) });
    let well = well.or_else(|| calm().find_map(|tier| turn.of_tier(tier, |at| !spent(at.0) && usable(at))));
    // No other cluster is left: more of those that had their turn.
    let well = well.or_else(|| calm().find_map(|tier| turn.of_tier(tier, |at| usable(at) && !is_out(live, at.0))));
    // Nobody is well: what was not tried yet may still answer.
    well.or_else(|| tiers.iter().find_map(|tier| turn.of_tier(tier, |at| !spent(at.0) && untried(at))))
}

/// Whether anybody is well, in a cluster that is not out, who was not tried yet. `heeded`: the hub's word on endpoints counts.
pub(crate) fn is_left(live: &Live, tiers: &[Vec<usize>], tried: &[Picked], heeded: bool, now: Instant) -> bool {
    tiers.iter().flatten().filter(|part| !is_out(live, **part)).any(|part| {
        let all = live.parts[*part].endpoints.iter().enumerate();
        let mut untried = all.filter(|(at, e)| !tried.contains(&(*part, *at)) && !e.endpoint.is_disabled());
        untried.any(|(_, e)| e.is_usable(heeded, now))
    })
}

/// Whether so few of a tier are well that the others would be too much for them.
pub(crate) fn is_in_panic(live: &Live, tier: &[usize], care: &Care, heeded: bool, now: Instant) -> bool {
    let all = || tier.iter().flat_map(|part| &live.parts[*part].endpoints);
    care.panic_percent > 0 && {
        let well = all().filter(|e| e.is_usable(heeded, now)).count();
        well * 100 < all().count() * care.panic_percent
    }
}

/// Whether a cluster went since the request was given its tiers.
fn is_out(live: &Live, part: usize) -> bool {
    live.parts[part].is_out()
}

/// The endpoint at a place.
pub(crate) fn endpoint(live: &Live, (part, index): Picked) -> &LiveEndpoint {
    &live.parts[part].endpoints[index]
}

/// Where the endpoint with that number is.
pub(crate) fn find(live: &Live, id: u64) -> Option<Picked> {
    let place = |part: &LivePart| part.endpoints.iter().position(|e| e.endpoint.id == id);
    live.parts.iter().enumerate().find_map(|(at, part)| Some((at, place(part)?)))
}

/// One turn of picking.
struct Turn<'a> {
    live: &'a Live,
    wish: &'a Wish<'a>,
    dice: &'a Dice,
    now: Instant,
}

impl Turn<'_> {
    /// Clusters that get less than their part, and nothing of this one.
    fn held(&self, tiers: &[Vec<usize>]) -> Vec<usize> {
        let ease = |part: usize| self.live.parts[part].ease(self.now);
        let all = tiers.iter().flatten().copied().map(|part| (part, ease(part)));
        all.filter(|(_, ease)| *ease < 1.0 && !self.dice.hits(*ease)).map(|(part, _)| part).collect()
    }

    /// For how long endpoints that are new get less; nothing where they don't. Keys stay where they are.
    fn eases(&self) -> Option<Duration> {
        let window = self.wish.care.map(|care| care.slow_start).filter(|window| !window.is_zero());
        window.filter(|_| !self.wish.method.goes_by_key())
    }

    fn is_due(&self, at: Picked, window: Duration) -> bool {
        self.dice.hits(endpoint(self.live, at).endpoint.state().ease(window, self.now))
    }

    fn is_in_panic(&self, tier: &[usize]) -> bool {
        self.wish.care.is_some_and(|care| is_in_panic(self.live, tier, care, self.wish.heeded, self.now))
    }

    fn of_tier(&self, tier: &[usize], fit: impl Fn(Picked) -> bool) -> Option<Picked> {
        if self.wish.method.goes_by_key() {
            return self.by_key(tier, fit);
        }
        if let [part] = tier
            && self.live.parts[*part].endpoints.len() == 1
        {
            return Some((*part, 0)).filter(|at| fit(*at));
        }
        let places = tier.iter().flat_map(|part| (0..self.live.parts[*part].endpoints.len()).map(move |i| (*part, i)));
        let all: Vec<Picked> = places.filter(|at| fit(*at)).collect();
        let zone = self.wish.zone;
        let near = |at: &Picked| zone.is_some() && endpoint(self.live, *at).zone.as_deref() == zone;
        let near: Vec<Picked> = all.iter().copied().filter(near).collect();
        let pool = if near.is_empty() { &all } else { &near };
        match pool.as_slice() {
            [] => None,
            [one] => Some(*one),
            many if self.wish.method == BalanceMethod::RoundRobin => {
                Some(many[self.live.turn.fetch_add(1, Ordering::Relaxed) % many.len()])
            }
            many => Some(self.cheaper_of_two(many)),
        }
    }

    /// The power of two choices.
    fn cheaper_of_two(&self, many: &[Picked]) -> Picked {
        let first = self.dice.below(many.len());
        let second = (first + 1 + self.dice.below(many.len() - 1)) % many.len();
        let cheaper = if self.wish.method == BalanceMethod::LeastRequest {
            self.in_flight(many[second]) < self.in_flight(many[first])
        } else {
            self.cost(many[second]) < self.cost(many[first])
        };
        many[if cheaper { second } else { first }]
    }

    fn in_flight(&self, at: Picked) -> usize {
        endpoint(self.live, at).endpoint.in_flight.load(Ordering::Relaxed)
    }

    fn cost(&self, at: Picked) -> f64 {
        endpoint(self.live, at).endpoint.state().latency().cost(self.in_flight(at), self.now)
    }

    /// The key's cluster, then the key's endpoint there. Who has a quarter more requests than the mean is passed over.
    fn by_key(&self, tier: &[usize], fit: impl Fn(Picked) -> bool) -> Option<Picked> {
        let fit = &fit;
        let mut parts: Vec<usize> = tier.to_vec();
        parts.sort_by_cached_key(|part| {
            std::cmp::Reverse(rendezvous::hash(self.wish.key, self.live.parts[*part].name().as_bytes()))
        });
        parts.into_iter().find_map(|part| {
            let all = 0..self.live.parts[part].endpoints.len();
            let fitting = all.map(|i| (part, i)).filter(|at| fit(*at)).collect::<Vec<_>>();
            let sum: usize = fitting.iter().map(|at| self.in_flight(*at)).sum();
            // ⌈1.25 · (sum + 1) / n⌉
            let bound = (5 * (sum + 1)).div_ceil(4 * fitting.len().max(1));
            let walked = self.live.parts[part].walk(self.wish.method, self.wish.key);
            let first = walked.map(|i| (part, i)).find(|at| fit(*at) && self.in_flight(*at) < bound);
            first.or_else(|| fitting.first().copied())
        })
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
    fn live(clusters: &[&[&str]]) -> std::sync::Arc<Live> {
        let part = |(c, zones): (usize, &&[&str])| Part {
            cluster: None,
            endpoints: zones
                .iter()
                .enumerate()
                .map(|(i, zone)| Target {
                    address: format!("10.0.{c}.{i}").parse().unwrap(),
                    port: 80,
                    door: None,
                    alone: false,
                    zone: Some((*zone).to_owned()).filter(|z| !z.is_empty()),
                    pod: None,
                    failing: false,
                })
                .collect(),
        };
        let id = UpstreamId::Local(atoll_api::names::ServiceName::new("a", "b"), 80, None);
        let upstream = Upstream {
            id,
            h2: false,
            udp: false,
            tls: None,
            clusters: clusters.iter().enumerate().map(part).collect(),
            names: Box::default(),
            policy: None,
        };
        Endpoints::default().enliven(&[upstream.into()], (&[], &[]), &Default::default()).remove(0)
    }

    fn wish(zone: Option<&str>) -> Wish<'_> {
        Wish { method: BalanceMethod::PeakEwma, key: 0, session: None, zone, full: &[], care: None, heeded: true }
    }

    fn eject(live: &Live, at: Picked, now: Instant) {
        let mut state = endpoint(live, at).endpoint.state();
        let outlier = Care::default().outlier;
        state.failed(Failure::Connect, &outlier, now);
        state.failed(Failure::Connect, &outlier, now);
    }

    #[tokio::test(start_paused = true)]
    async fn the_best_tier_serves_until_all_of_it_is_ejected() {
        let (live, dice, now) = (live(&[&["", ""], &[""]]), Dice::new(), Instant::now());
        let tiers = [vec![0], vec![1]];
        let next = |tried: &[Picked]| pick(&live, &tiers, &wish(None), tried, &dice, now);
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
    async fn who_was_tried_once_goes_to_those_that_did_not_fail_before_those_that_did() {
        let (live, dice, now) = (live(&[&["", "", ""], &[""]]), Dice::new(), Instant::now());
        let next = |tried: &[Picked]| pick(&live, &[vec![0], vec![1]], &wish(None), tried, &dice, now);
        for at in [(0, 1), (0, 2)] {
            endpoint(&live, at).endpoint.state().failed(Failure::FirstByte, &Care::default().outlier, now);
        }
        assert!(next(&[]).is_some_and(|(part, _)| part == 0), "one failure is no habit");
        assert_eq!(next(&[(0, 0)]), Some((1, 0)), "but nobody waits twice");
        assert!(next(&[(0, 0), (1, 0)]).is_some_and(|(part, at)| part == 0 && at > 0), "unless nobody else is left");
        // Nor is anybody sent to what is disabled.
        endpoint(&live, (0, 1)).endpoint.disable();
        assert_eq!(next(&[(0, 0), (1, 0)]), Some((0, 2)));
        assert_eq!(next(&[(0, 0), (0, 2), (1, 0)]), None);
        assert!(!is_left(&live, &[vec![0], vec![1]], &[(0, 0), (0, 2), (1, 0)], true, now));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_has_another_turn_where_no_other_is_left() {
        let (live, dice, now) = (live(&[&["", "", "", ""], &[""]]), Dice::new(), Instant::now());
        let next = |tried: &[Picked]| pick(&live, &[vec![0], vec![1]], &wish(None), tried, &dice, now);
        assert_eq!(next(&[(0, 0), (0, 1)]), Some((1, 0)), "two of a cluster, then the next one");
        assert!(next(&[(0, 0), (0, 1), (1, 0)]).is_some_and(|(part, at)| part == 0 && at >= 2), "then again the first");
        eject(&live, (0, 2), now);
        assert_eq!(next(&[(0, 0), (0, 1), (1, 0)]), Some((0, 3)), "who is well");
        eject(&live, (0, 3), now);
        assert_eq!(next(&[(0, 0), (0, 1), (1, 0)]), None, "nobody waits for more of those that are ill");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_is_full_is_passed_over_whatever_else_holds() {
        let (live, dice, now) = (live(&[&[""], &["a"]]), Dice::new(), Instant::now());
        let tiers = [vec![0], vec![1]];
        let to =
            |full: &[usize], session| pick(&live, &tiers, &Wish { full, session, ..wish(Some("a")) }, &[], &dice, now);
        assert_eq!(to(&[], None), Some((0, 0)));
        assert_eq!(to(&[0], None), Some((1, 0)));
        assert_eq!(to(&[0], Some((0, 0))), Some((1, 0)), "a session goes on elsewhere");
        assert_eq!(to(&[0, 1], None), None);
        eject(&live, (1, 0), now);
        assert_eq!(to(&[0], None), Some((1, 0)), "nobody is well: but who is full is not tried");
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_with_its_fill_is_asked_nothing_more() {
        let (live, dice, now) = (live(&[&[""], &[""]]), Dice::new(), Instant::now());
        let care = Care { requests_max: 2, ..Care::default() };
        let to = || pick(&live, &[vec![0], vec![1]], &Wish { care: Some(&care), ..wish(None) }, &[], &dice, now);
        endpoint(&live, (0, 0)).endpoint.in_flight.store(2, Relaxed);
        assert_eq!(to(), Some((1, 0)));
        endpoint(&live, (1, 0)).endpoint.in_flight.store(2, Relaxed);
        assert_eq!(to(), None, "also when nobody else is left");
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_is_new_gets_its_part_step_by_step() {
        let (live, dice) = (live(&[&["", ""]]), Dice::new());
        let care = Care { slow_start: Duration::from_secs(20), ..Care::default() };
        let wish = Wish { care: Some(&care), method: BalanceMethod::LeastRequest, ..wish(None) };
        tokio::time::advance(Duration::from_secs(60)).await;
        *endpoint(&live, (0, 1)).endpoint.state() = crate::health::EndpointState::begun(Instant::now());
        let share = || {
            let all = (0..2000).filter_map(|_| pick(&live, &[vec![0]], &wish, &[], &dice, Instant::now()));
            all.filter(|at| *at == (0, 1)).count()
        };
        let mut shares = vec![share()];
        for _ in 0..2 {
            tokio::time::advance(Duration::from_secs(10)).await;
            shares.push(share());
        }
        assert!(shares[0] < 250 && (300..700).contains(&shares[1]) && shares[2] > 800, "{shares:?} of 2000");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tier_of_which_too_few_are_well_is_passed_over_and_when_all_are_health_is_ignored() {
        let (live, dice, now) = (live(&[&["", "", ""], &["", ""]]), Dice::new(), Instant::now());
        let care = Care { panic_percent: 50, ..Care::default() };
        let wish = Wish { care: Some(&care), ..wish(None) };
        let to = || {
            let all = (0..200).filter_map(|_| pick(&live, &[vec![0], vec![1]], &wish, &[], &dice, now));
            all.collect::<std::collections::BTreeSet<_>>()
        };
        eject(&live, (0, 0), now);
        assert_eq!(to(), [(0, 1), (0, 2)].into());
        eject(&live, (0, 1), now);
        assert_eq!(to(), [(1, 0), (1, 1)].into());
        eject(&live, (1, 0), now);
        eject(&live, (1, 1), now);
        assert_eq!(to(), [(0, 0), (0, 1), (0, 2)].into());
    }

    #[tokio::test(start_paused = true)]
    async fn after_two_endpoints_of_a_cluster_it_is_the_next_ones_turn() {
        let (live, dice, now) = (live(&[&["", "", "", ""], &[""]]), Dice::new(), Instant::now());
        let tried = [(0, 0), (0, 3)];
        assert_eq!(pick(&live, &[vec![0], vec![1]], &wish(None), &tried, &dice, now), Some((1, 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_own_zone_is_preferred_and_the_idler_of_two_taken() {
        let (live, dice, now) = (live(&[&["a", "b", "a"], &["a"]]), Dice::new(), Instant::now());
        let tiers = [vec![0, 1]];
        let seen = |zone| {
            (0..200)
                .filter_map(|_| pick(&live, &tiers, &wish(zone), &[], &dice, now))
                .collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(seen(Some("a")), [(0, 0), (0, 2), (1, 0)].into());
        assert_eq!(seen(Some("b")), [(0, 1)].into());
        assert_eq!(seen(Some("c")).len(), 4, "nobody is near: everybody");
        for at in [(0, 0), (0, 1), (0, 2)] {
            endpoint(&live, at).endpoint.in_flight.store(9, Relaxed);
        }
        let idle = (0..400).filter(|_| pick(&live, &tiers, &wish(None), &[], &dice, now) == Some((1, 0))).count();
        assert!((140..260).contains(&idle), "{idle} of 400: whenever it is one of the two, about half");
    }

    #[tokio::test(start_paused = true)]
    async fn the_slow_one_of_two_gets_less_and_round_robin_goes_around() {
        let (live, dice, now) = (live(&[&["", ""]]), Dice::new(), Instant::now());
        let ms = Duration::from_millis;
        for (at, took) in [((0, 0), ms(5)), ((0, 1), ms(200))] {
            endpoint(&live, at).endpoint.state().answered(Some(took), None, &Care::default().outlier, now);
        }
        let of = |method| {
            let next = |_| pick(&live, &[vec![0]], &Wish { method, ..wish(None) }, &[], &dice, now);
            (0..10).filter_map(next).collect::<Vec<_>>()
        };
        assert!(of(BalanceMethod::PeakEwma).iter().all(|at| *at == (0, 0)), "both are always compared");
        let round: Vec<usize> = of(BalanceMethod::RoundRobin).iter().map(|at| at.1).collect();
        assert!(round.windows(2).all(|pair| pair[0] != pair[1]), "{round:?}");
        endpoint(&live, (0, 0)).endpoint.in_flight.store(1, Relaxed);
        assert!(of(BalanceMethod::LeastRequest).iter().all(|at| *at == (0, 1)), "time does not count there");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_stays_with_its_endpoint_until_that_is_ill_or_has_a_quarter_too_much() {
        let (live, dice, now) = (live(&[&[""; 8]]), Dice::new(), Instant::now());
        let tiers = [vec![0]];
        for method in [BalanceMethod::RingHash, BalanceMethod::Maglev] {
            let to = |key| pick(&live, &tiers, &Wish { method, key, ..wish(None) }, &[], &dice, now).unwrap();
            let keys: Vec<u64> = (0..400).map(|n| hash::hash(format!("user {n}").as_bytes())).collect();
            let before: Vec<Picked> = keys.iter().map(|key| to(*key)).collect();
            assert_eq!(before, keys.iter().map(|key| to(*key)).collect::<Vec<_>>());
            let used: std::collections::BTreeSet<Picked> = before.iter().copied().collect();
            assert_eq!(used.len(), 8, "{method:?}: everybody has some: {used:?}");
            let (ill, busy) = ((0, 1), (0, 6));
            eject(&live, ill, now);
            endpoint(&live, busy).endpoint.in_flight.store(5, Relaxed);
            for (key, was) in keys.iter().zip(&before) {
                let is = to(*key);
                assert!(is == *was || [ill, busy].contains(was), "{method:?}: {was:?} became {is:?}");
                assert!(![ill, busy].contains(&is), "{method:?}");
            }
            endpoint(&live, ill).endpoint.state().answered(None, None, &Care::default().outlier, now);
            endpoint(&live, busy).endpoint.in_flight.store(0, Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_stays_also_in_a_worse_tier_but_not_where_nobody_is_sent_and_not_with_the_ill() {
        let (live, dice, now) = (live(&[&[""], &["", ""]]), Dice::new(), Instant::now());
        let to = |tiers: &[Vec<usize>], session, tried: &[Picked]| {
            pick(&live, tiers, &Wish { session: Some(session), ..wish(None) }, tried, &dice, now)
        };
        let tiers = [vec![0], vec![1]];
        assert_eq!(to(&tiers, (1, 1), &[]), Some((1, 1)));
        assert_eq!(to(&tiers, (1, 1), &[(1, 1)]), Some((0, 0)), "it was tried");
        assert_eq!(to(&tiers[..1], (1, 1), &[]), Some((0, 0)), "the policy leaves that cluster out");
        eject(&live, (1, 1), now);
        assert_eq!(to(&tiers, (1, 1), &[]), Some((0, 0)));
    }
}
