//! How many requests a cluster is sent at once, all gateways together, as TrafficPolicies bound it (`capacity`).
//!
//! In: a policy, a cluster, its bound. Out: a seat for one request, until dropped; nothing where all are taken. A bound is divided among the
//! gateways by what each is asked for, as the hub hands it on ([`crate::policy::shares`]): the parts add up to the bound exactly. A part
//! that shrinks shrinks at once, one that grows grows once the others know of it, so that together they never have more. No request waits.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use atoll_api::kinds::Capacity as Written;
use atoll_api::rendezvous;
use tokio::time::Instant;

use crate::policy::shares::{Division, Shared, Shares};

/// So many divisions, half a second apart, a part is the least of: the others know of one before it counts.
const DIVISIONS: usize = 5;
/// What is told to the others is the most of so many measurements: parts that moved with every request would, each time, be the lesser.
const MEASURED: usize = 6;
/// What is asked for.
const WANTED: u64 = 0;
/// What is taken above the part that there is now.
const OVER: u64 = 1;

/// A bound, as a policy says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capacity {
    PerEndpoint(usize),
    Total(usize),
}

impl Capacity {
    /// As it is written.
    ///
    /// # Errors
    /// Neither or both are said.
    pub(crate) fn parse(written: &Written) -> Result<Self, String> {
        let number = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        match (written.per_endpoint, written.total) {
            (Some(each), None) if each > 0 => Ok(Self::PerEndpoint(number(each))),
            (None, Some(total)) if total > 0 => Ok(Self::Total(number(total))),
            _ => Err("capacity: write perEndpoint or total, at least 1".to_owned()),
        }
    }

    /// Of a cluster with so many endpoints, which are counted where that matters.
    pub(crate) fn of(self, endpoints: impl FnOnce() -> usize) -> usize {
        match self {
            Self::PerEndpoint(each) => each.saturating_mul(endpoints()),
            Self::Total(total) => total,
        }
    }
}

/// The rooms of all policies and clusters.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    rooms: ArcSwap<HashMap<u64, Arc<Room>>>,
    making: Mutex<()>,
}

impl Rooms {
    /// The room of a policy at a cluster, or of a subset of its service there.
    pub(crate) fn of(&self, policy: &str, subset: Option<&str>, cluster: &str, shares: &Shares) -> Arc<Room> {
        let id = rendezvous::hash(rendezvous::hash(0, policy.as_bytes()), cluster.as_bytes());
        let id = subset.map_or(id, |subset| rendezvous::hash(id, subset.as_bytes()));
        if let Some(room) = self.rooms.load().get(&id) {
            return Arc::clone(room);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rooms = HashMap::clone(&self.rooms.load());
        // Who made it meanwhile made the same; of those that nobody came to since, none is kept.
        let room = rooms.remove(&id).unwrap_or_default();
        rooms.retain(|_, room| room.is_used());
        let shared: Arc<dyn Shared> = Arc::clone(&room) as _;
        shares.join_as(id, &shared);
        rooms.insert(id, Arc::clone(&room));
        self.rooms.store(Arc::new(rooms));
        room
    }
}

/// What is taken of one bound here.
#[derive(Debug, Default)]
pub(crate) struct Room {
    taken: AtomicUsize,
    /// The most at once, and how many found none, since it was last told of.
    peak: AtomicUsize,
    turned_away: AtomicUsize,
    /// How long requests took that are done, and how many.
    busy_micros: AtomicU64,
    done: AtomicU64,
    /// Of all gateways together, as it was last.
    bound: AtomicUsize,
    told: Mutex<Told>,
    /// The last divisions, the newest last.
    parts: ArcSwap<VecDeque<Part>>,
}

/// What was wanted lately, the newest last, and what of it the others know.
#[derive(Debug, Default)]
struct Told {
    lately: VecDeque<usize>,
    told: usize,
}

impl Told {
    /// What to tell: the same as before, until what is wanted is a quarter more or less than that.
    fn next(&mut self, wanted: usize) -> usize {
        if self.lately.len() >= MEASURED {
            self.lately.pop_front();
        }
        self.lately.push_back(wanted);
        let most = self.lately.iter().copied().max().unwrap_or_default();
        if most.abs_diff(self.told) > self.told / 4 {
            self.told = most;
        }
        self.told
    }
}

/// A part of a bound: from where to where, as fractions, and what the others have taken above theirs.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Part {
    from: f64,
    to: f64,
    over: usize,
}

impl Part {
    fn seats(self, bound: usize) -> usize {
        #[expect(clippy::cast_precision_loss, reason = "bounds are small numbers")]
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of a bound")]
        let at = |fraction: f64| if fraction >= 1.0 { bound } else { (bound as f64 * fraction).round() as usize };
        at(self.to).saturating_sub(at(self.from)).saturating_sub(self.over)
    }
}

impl Room {
    /// Takes a seat; nothing where this gateway's part of `bound` is taken.
    pub(crate) fn take(self: &Arc<Self>, bound: usize, now: Instant) -> Option<Seat> {
        self.bound.store(bound, Ordering::Relaxed);
        let seats = self.seats(bound);
        let one_more = |taken: usize| (taken < seats).then_some(taken + 1);
        match self.taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more) {
            Ok(before) => {
                self.peak.fetch_max(before + 1, Ordering::Relaxed);
                Some(Seat { room: Arc::clone(self), since: now })
            }
            Err(_) => {
                self.turned_away.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// This gateway's part of `bound`.
    pub(crate) fn seats(&self, bound: usize) -> usize {
        self.parts.load().iter().map(|part| part.seats(bound)).min().unwrap_or(bound)
    }

    /// Requests that have a seat here.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn is_used(&self) -> bool {
        self.taken() > 0 || self.peak.load(Ordering::Relaxed) > 0 || self.turned_away.load(Ordering::Relaxed) > 0
    }

    /// How many would have been here at once, had all found a seat (Little's law: how often they came by how long they take).
    fn wanted(&self, elapsed: Duration) -> usize {
        let turned_away = u64::try_from(self.turned_away.swap(0, Ordering::Relaxed)).unwrap_or(u64::MAX);
        let (busy, done) = (self.busy_micros.swap(0, Ordering::Relaxed), self.done.swap(0, Ordering::Relaxed));
        let peak = self.peak.swap(self.taken(), Ordering::Relaxed);
        let elapsed = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
        // Where none is done yet each took all the time that there was.
        let took = busy.checked_div(done).unwrap_or(elapsed);
        peak.saturating_add(usize::try_from(turned_away.saturating_mul(took).div_ceil(elapsed)).unwrap_or(usize::MAX))
    }
}

impl Shared for Room {
    fn asked(&self, elapsed: Duration) -> Vec<(u64, u32)> {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let bound = self.bound.load(Ordering::Relaxed);
        let over = self.taken().saturating_sub(self.seats(bound));
        // Who wants all wants all, be it once or a hundred times.
        let wanted = self.wanted(elapsed).min(bound);
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).next(wanted);
        let all = [(WANTED, number(told)), (OVER, number(over))];
        all.into_iter().filter(|(_, n)| *n > 0).collect()
    }

    fn divide(&self, division: &Division<'_>) {
        let next = part(division, self.bound.load(Ordering::Relaxed));
        let mut parts = VecDeque::clone(&self.parts.load());
        // The first one counts from the beginning.
        while parts.len() >= DIVISIONS {
            parts.pop_front();
        }
        parts.push_back(next);
        self.parts.store(Arc::new(parts));
    }
}

/// A seat, until dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    room: Arc<Room>,
    since: Instant,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let took = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.room.busy_micros.fetch_add(took, Ordering::Relaxed);
        self.room.done.fetch_add(1, Ordering::Relaxed);
        self.room.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The part of one gateway: what it is asked for, and an equal part of what nobody asks for; or in the proportion of what they are asked
/// for, where that is more than there is. Every gateway works the same sums in the same order.
fn part(division: &Division<'_>, bound: usize) -> Part {
    #[expect(clippy::cast_precision_loss, reason = "bounds and replicas are small numbers")]
    let (bound, replicas) = (bound as f64, division.replicas.max(1) as f64);
    let told = |key: u64| division.keys.and_then(|keys| keys.get(&key)).map(Vec::as_slice).unwrap_or_default();
    let wanted = |rank: usize| told(WANTED).get(rank).copied().map_or(0.0, f64::from);
    let all: f64 = (0..division.replicas).map(wanted).sum();
    let free = (bound - all).max(bound / 100.0).max(f64::MIN_POSITIVE) / replicas;
    let sum = |ranks: usize| (0..ranks).map(|rank| wanted(rank) + free).sum::<f64>();
    let whole = sum(division.replicas);
    let up_to = |ranks: usize| if ranks >= division.replicas { 1.0 } else { sum(ranks) / whole };
    let others = told(OVER).iter().enumerate().filter(|(rank, _)| *rank != division.rank);
    let over = others.map(|(_, n)| usize::try_from(*n).unwrap_or(usize::MAX)).fold(0, usize::saturating_add);
    Part { from: up_to(division.rank), to: up_to(division.rank + 1), over }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(wanted: &[u32], bound: usize) -> Vec<usize> {
        let keys = HashMap::from([(WANTED, wanted.to_vec())]);
        let of = |rank| Division { replicas: wanted.len(), rank, keys: Some(&keys) };
        (0..wanted.len()).map(|rank| part(&of(rank), bound).seats(bound)).collect()
    }

    #[test]
    fn parts_follow_what_is_asked_for_and_add_up_to_the_bound_exactly() {
        for (name, wanted, bound, expected) in [
            ("nobody asks", &[0, 0, 0][..], 10, &[3, 4, 3][..]),
            ("all ask for more than there is", &[90, 90, 90], 30, &[10, 10, 10]),
            ("one asks for all", &[30, 0, 0], 30, &[30, 0, 0]),
            ("less is asked for than there is", &[10, 2, 0], 30, &[16, 8, 6]),
            ("one seat, two gateways", &[1, 1], 1, &[1, 0]),
            ("one gateway", &[7], 3, &[3]),
        ] {
            let found = seats(wanted, bound);
            assert_eq!(found, expected, "{name}");
            assert_eq!(found.iter().sum::<usize>(), bound, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_seat_is_free_again_when_dropped_and_the_bound_is_met_exactly() {
        let (room, now) = (Arc::<Room>::default(), Instant::now());
        let mut seats: Vec<Seat> = (0..9).filter_map(|_| room.take(4, now)).collect();
        assert_eq!((seats.len(), room.taken()), (4, 4));
        seats.pop();
        assert!(room.take(4, now).is_some(), "dropped at once");
        assert_eq!(room.taken(), 3);
        tokio::time::advance(Duration::from_millis(500)).await;
        drop(seats);
        // 5 of 9 found none while each took 300 ms in the mean: 3 more at once.
        assert_eq!(room.wanted(Duration::from_millis(500)), 7);
        assert_eq!(room.wanted(Duration::from_millis(500)), 0);
    }

    #[test]
    fn what_is_wanted_for_a_moment_is_told_for_a_while_and_a_little_more_or_less_is_not_told() {
        let mut told = Told::default();
        let wanted = [8, 7, 9, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        let said: Vec<usize> = wanted.iter().map(|n| told.next(*n)).collect();
        assert_eq!(said, [8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 0, 0, 0, 1, 1]);
    }

    /// Three gateways that are asked for more than there is all the time, never for the same twice.
    #[tokio::test(start_paused = true)]
    async fn parts_add_up_to_the_bound_while_demand_is_steady_and_never_exceed_it() {
        let bound = 8;
        let rooms: [Arc<Room>; 3] = std::array::from_fn(|_| Arc::default());
        let all = || rooms.iter().map(|room| room.seats(bound)).sum::<usize>();
        let shares: [Shares; 3] = std::array::from_fn(|_| Shares::default());
        for (rank, (shares, room)) in shares.iter().zip(&rooms).enumerate() {
            shares.equal(3, rank);
            let shared: Arc<dyn Shared> = Arc::clone(room) as _;
            shares.join_as(1, &shared);
        }
        let mut held: [Vec<Seat>; 3] = std::array::from_fn(|_| Vec::new());
        for step in 0..60_usize {
            for (rank, room) in rooms.iter().enumerate() {
                held[rank].clear();
                held[rank].extend((0..4 + (step * 7 + rank * 5) % 6).filter_map(|_| room.take(bound, Instant::now())));
            }
            tokio::time::advance(Duration::from_millis(500)).await;
            let told: Vec<_> = shares.iter().map(|shares| shares.demand(Duration::from_millis(500))).collect();
            for (rank, shares) in shares.iter().enumerate() {
                shares.divide(&told.iter().collect::<Vec<_>>(), rank);
                assert!(all() <= bound, "{} of {bound} at {step}", all());
            }
            assert!(step < 20 || all() == bound, "{} of {bound} at {step}", all());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_shrinks_at_once_grows_later_and_leaves_out_what_others_hold_too_many() {
        let room = Arc::<Room>::default();
        let told = |wanted: [u32; 2], over: u32| {
            room.bound.store(20, Ordering::Relaxed);
            let keys = HashMap::from([(WANTED, wanted.to_vec()), (OVER, vec![0, over])]);
            room.divide(&Division { replicas: 2, rank: 0, keys: Some(&keys) });
            room.seats(20)
        };
        assert_eq!(told([10, 10], 0), 10);
        assert_eq!(told([2, 18], 0), 2);
        let grown: Vec<usize> = (0..DIVISIONS).map(|_| told([18, 2], 0)).collect();
        assert_eq!(grown, [2, 2, 2, 2, 18]);
        assert_eq!(told([18, 2], 5), 13);
        room.divide(&Division { replicas: 2, rank: 0, keys: None });
        assert_eq!(room.seats(20), 10, "the hub is silent: the equal part");
    }
}
