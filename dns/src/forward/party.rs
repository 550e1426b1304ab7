//! Whom we ask: the servers of one member, or the upstreams, with what is known of each and what may be in flight there.
//!
//! ```text
//!   enter ── a free slot? ─► it │ a place in the queue? ─► wait for a slot, not for long │ else too much is in flight: the newest goes
//!   order ── loops left out ── those that answer our probes first, then those that did not just fail, then the quick ones
//! ```
//!
//! In: what became of questions and probes, times as arguments. Out: the order in which servers are asked, when the next one gets its turn, a
//! slot. A member that is slow fills its own slots and nobody else's.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_api::health::{Probe, Rules};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::Failed;
use super::case::{Case, Spelling};
use super::circuit::Circuit;
use super::patrol::Looked;
use super::times::Times;
use super::udp::Pool;
use crate::share::Share;

/// Queries of clients that wait for one party: each is half of what a queue holds at most.
const SHARE: usize = 1024;
/// Questions that wait for a slot, for each slot.
const QUEUE_FACTOR: usize = 2;
/// So long a question waits for a slot.
const QUEUE_WAIT_MAX: Duration = Duration::from_millis(250);
/// A server that failed is asked last for so long.
const AVOID: Duration = Duration::from_secs(5);
/// A lost packet is sent again, or goes to another server, after so long at most.
pub(super) const RETRY: Duration = Duration::from_millis(400);
/// A second server is not asked sooner.
const HEDGE_MIN: Duration = Duration::from_millis(5);
/// Second questions for each hundred first ones, beside those after a failure.
const HEDGES_PERCENT: u32 = 5;
/// Second questions that may come at once.
const HEDGES_MAX: u32 = 10 * 100;
/// A server is quick that takes less than twice as long as the quickest, and a little.
const QUICK: Duration = Duration::from_millis(5);

/// The servers of one member, or the upstreams.
#[derive(Debug)]
pub(crate) struct Party {
    /// Queries that come by datagrams and wait for it.
    pub(crate) share: Arc<Share>,
    pub(crate) circuit: Circuit,
    slots: Semaphore,
    slots_max: usize,
    queued: AtomicUsize,
    pub(super) sockets: Pool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    servers: HashMap<SocketAddr, Server>,
    /// Hundredths of second questions that may be asked.
    hedges: u32,
    /// When its paths were probed for loops.
    looked: Option<Looked>,
}

/// What is known of one server.
#[derive(Debug, Default)]
struct Server {
    failed: Option<Instant>,
    probe: Probe,
    /// Whether it knew what one of its kind always knows.
    knows: Option<bool>,
    times: Times,
    case: Case,
}

/// A server that is well, and how it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pick {
    pub(super) server: SocketAddr,
    pub(super) spelling: Spelling,
}

/// A slot that is held across threads.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Party>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.slots.add_permits(1);
    }
}

/// A place in the queue; it is given up whatever happens.
struct Place<'p>(&'p AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Party {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            share: Share::new(SHARE),
            circuit: Circuit::new(Instant::now()),
            slots: Semaphore::new(slots),
            slots_max: slots,
            queued: AtomicUsize::new(0),
            sockets: Pool::default(),
            state: Mutex::default(),
        }
    }

    /// A slot, at once or after a short wait.
    ///
    /// # Errors
    /// `Busy` when the queue is full, or does not move.
    pub(super) async fn enter(&self, now: Instant, deadline: Instant) -> Result<SemaphorePermit<'_>, Failed> {
        if let Ok(slot) = self.slots.try_acquire() {
            return Ok(slot);
        }
        let place = Place(&self.queued);
        if self.queued.fetch_add(1, Ordering::Relaxed) >= self.slots_max * QUEUE_FACTOR {
            return Err(Failed::Busy);
        }
        let slot = timeout_at(deadline.min(now + QUEUE_WAIT_MAX), self.slots.acquire()).await;
        drop(place);
        slot.ok().and_then(Result::ok).ok_or(Failed::Busy)
    }

    /// A slot, where one is free.
    pub(super) fn slot(self: &Arc<Self>) -> Option<Slot> {
        self.slots.try_acquire().ok()?.forget();
        Some(Slot(Arc::clone(self)))
    }

    /// The server that [`Self::order`] puts first, where there is nothing to be said against it; none but `not`.
    pub(super) fn pick(
        &self,
        servers: &[SocketAddr],
        not: Option<SocketAddr>,
        turn: usize,
        now: Instant,
    ) -> Option<Pick> {
        let state = self.state();
        let typical = |server: &SocketAddr| state.servers.get(server).and_then(|s| s.times.percentile(50));
        let several = servers.len() > 1;
        let quickest = servers.iter().filter(|_| several).filter_map(typical).min().unwrap_or_default();
        let is_well = |server: &&SocketAddr| {
            let Some(known) = state.servers.get(*server) else { return true };
            let failed = known.failed.is_some_and(|at| now.saturating_duration_since(at) < AVOID);
            let slow = several && typical(server).is_some_and(|t| t > quickest * 2 + QUICK);
            known.probe.up() && !failed && !slow
        };
        let at = turn % servers.len().max(1);
        let (later, first) = servers.split_at_checked(at)?;
        let server = *first.iter().chain(later).filter(|s| Some(**s) != not).find(is_well)?;
        let spelling = state.servers.get(&server).map_or(Spelling::Mixed, |known| known.case.spelling(now));
        Some(Pick { server, spelling })
    }

    /// `servers` in the order in which they are asked; `turn` spreads questions over those that are as good as each other.
    pub(super) fn order(&self, servers: &[SocketAddr], turn: usize, now: Instant) -> Vec<SocketAddr> {
        if servers.len() < 2 {
            return servers.to_vec();
        }
        let state = self.state();
        let typical = |server: &SocketAddr| state.servers.get(server).and_then(|s| s.times.percentile(50));
        let quickest = servers.iter().filter_map(typical).min().unwrap_or_default();
        let mut ordered = servers.to_vec();
        let turn = turn % ordered.len().max(1);
        ordered.rotate_left(turn);
        ordered.sort_by_key(|server| {
            let Some(known) = state.servers.get(server) else { return (false, false, false) };
            let failed = known.failed.is_some_and(|at| now.saturating_duration_since(at) < AVOID);
            let slow = typical(server).is_some_and(|t| t > quickest * 2 + QUICK);
            (!known.probe.up(), failed, slow)
        });
        ordered
    }

    /// Whether that a name is not there is no last word of `server`: it does not know what it should, and another of them does.
    pub(super) fn is_unsure(&self, server: SocketAddr, servers: &[SocketAddr]) -> bool {
        let state = self.state();
        let knows = |server: &SocketAddr| state.servers.get(server).and_then(|s| s.knows);
        knows(&server) == Some(false) && servers.iter().any(|s| knows(s) == Some(true))
    }

    /// When another server is asked beside `server`, unless it answers before; `None` when that is no sooner than a packet counts as lost.
    pub(super) fn hedge(&self, server: SocketAddr) -> Option<Duration> {
        let mut state = self.state();
        let usual = state.servers.get(&server).and_then(|s| s.times.percentile(95))?;
        state.hedges = (state.hedges + HEDGES_PERCENT).min(HEDGES_MAX);
        Some(usual.max(HEDGE_MIN)).filter(|usual| *usual < RETRY)
    }

    /// When somebody else may be asked too, of a question that went out at `begun`; `None`: now. Before its packet counts as lost that is a
    /// hedge, and those are few.
    pub(super) fn second_at(&self, begun: Instant, now: Instant) -> Option<Instant> {
        let lost_at = begun + RETRY;
        (now < lost_at && !self.spend_hedge()).then_some(lost_at)
    }

    /// Takes a second question out of the budget; false when it is used up.
    fn spend_hedge(&self) -> bool {
        let mut state = self.state();
        let left = state.hedges.checked_sub(100);
        state.hedges = left.unwrap_or(state.hedges);
        left.is_some()
    }

    /// What became of a question to `server`.
    pub(super) fn note(&self, server: SocketAddr, took: Option<Duration>, now: Instant) {
        let mut state = self.state();
        let known = state.servers.entry(server).or_default();
        known.failed = if took.is_some() { None } else { Some(now) };
        if let Some(took) = took {
            known.times.note(took);
        }
    }

    /// How the next question to `server` is spelled.
    pub(super) fn spelling(&self, server: SocketAddr, now: Instant) -> Spelling {
        self.state().servers.get(&server).map_or(Spelling::Mixed, |known| known.case.spelling(now))
    }

    /// `server` repeated the letters of a question, or changed them.
    pub(super) fn spelled(&self, server: SocketAddr, exact: bool, now: Instant) {
        if self.state().servers.entry(server).or_default().case.note(exact, now) {
            tracing::debug!(%server, exact, "whether a DNS server repeats the letters of a question is known");
        }
    }

    /// What became of a probe of `server`: whether it answers as it should, and knows what it should. Returns whether it counts differently.
    pub(super) fn observe(&self, server: SocketAddr, ok: bool, knows: Option<bool>) -> bool {
        let mut state = self.state();
        let known = state.servers.entry(server).or_default();
        known.knows = knows.or(known.knows);
        known.probe.observe(ok, &Rules::default())
    }

    /// Whether `server` failed a moment ago, or its probes do.
    pub(super) fn is_ill(&self, server: SocketAddr) -> bool {
        self.state().servers.get(&server).is_some_and(|s| s.failed.is_some() || !s.probe.up())
    }

    /// Whether `due` says so of the last time that its paths were probed for loops.
    pub(super) fn looked(&self, due: impl FnOnce(Option<Looked>) -> bool) -> bool {
        due(self.state().looked)
    }

    /// Its paths are probed for loops now.
    pub(super) fn look(&self, looked: Looked) {
        self.state().looked = Some(looked);
    }

    /// Forgets servers that are none any more.
    pub(super) fn keep(&self, servers: &[SocketAddr]) {
        self.state().servers.retain(|server, _| servers.contains(server));
        self.sockets.retain(servers);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn those_that_answer_come_first_and_the_quick_among_them() {
        let party = Party::new(1);
        let servers = [at(1), at(2), at(3), at(4)];
        let now = Instant::now();
        assert_eq!(party.order(&servers, 1, now), [at(2), at(3), at(4), at(1)]);
        for _ in 0..20 {
            party.note(at(1), Some(Duration::from_millis(1)), now);
            party.note(at(2), Some(Duration::from_millis(50)), now);
        }
        party.note(at(3), None, now);
        for _ in 0..3 {
            party.observe(at(4), false, None);
        }
        for turn in 0..4 {
            assert_eq!(party.order(&servers, turn, now), [at(1), at(2), at(3), at(4)], "{turn}");
        }
        assert_eq!(party.order(&servers, 0, now + AVOID)[..3], [at(1), at(3), at(2)]);
    }

    #[test]
    fn one_is_picked_that_would_be_asked_first_and_none_that_something_is_said_against() {
        let party = Party::new(1);
        let (servers, now) = ([at(1), at(2), at(3)], Instant::now());
        let picked = |not, turn| party.pick(&servers, not, turn, now).map(|p| p.server);
        assert_eq!([0, 1, 2, 3].map(|turn| picked(None, turn)), [Some(at(1)), Some(at(2)), Some(at(3)), Some(at(1))]);
        assert_eq!(picked(Some(at(2)), 1), Some(at(3)));
        party.note(at(1), None, now);
        for _ in 0..3 {
            party.observe(at(2), false, None);
        }
        for turn in 0..3 {
            assert_eq!(picked(None, turn), Some(party.order(&servers, turn, now)[0]));
        }
        assert_eq!(picked(Some(at(3)), 0), None);
        assert_eq!(party.pick(&[], None, 7, now), None);
    }

    #[test]
    fn a_no_counts_unless_another_knows_more() {
        let party = Party::new(1);
        let servers = [at(1), at(2)];
        party.observe(at(1), true, Some(false));
        assert!(!party.is_unsure(at(1), &servers));
        party.observe(at(2), true, Some(true));
        assert!(party.is_unsure(at(1), &servers) && !party.is_unsure(at(2), &servers));
        party.observe(at(1), true, Some(true));
        assert!(!party.is_unsure(at(1), &servers));
    }

    #[test]
    fn second_questions_come_after_the_usual_time_and_are_few() {
        let party = Party::new(1);
        assert_eq!(party.hedge(at(1)), None);
        for _ in 0..100 {
            party.note(at(1), Some(Duration::from_millis(20)), Instant::now());
        }
        let usual = party.hedge(at(1)).unwrap();
        assert!((20..40).contains(&usual.as_millis()), "{usual:?}");
        for _ in 0..1000 {
            party.hedge(at(1));
        }
        let spent = (0..100).filter(|_| party.spend_hedge()).count();
        assert_eq!(spent, 10);
        let begun = Instant::now();
        assert_eq!(party.second_at(begun, begun), Some(begun + RETRY), "there are none left");
        assert_eq!(party.second_at(begun, begun + RETRY), None, "but that is lost");
        // A server that is slower than that is given up in time, however many were: that is no second question but the next.
        for _ in 0..100 {
            party.note(at(2), Some(RETRY * 2), Instant::now());
        }
        assert_eq!(party.hedge(at(2)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_and_the_newest_goes() {
        let party = Party::new(2);
        let now = Instant::now();
        let deadline = now + Duration::from_secs(1);
        let held = [party.enter(now, deadline).await.unwrap(), party.enter(now, deadline).await.unwrap()];
        let waiting = futures::future::join_all((0..6).map(|_| party.enter(now, deadline)));
        let results: Vec<bool> = waiting.await.into_iter().map(|slot| slot.is_ok()).collect();
        assert_eq!(results, [false; 6]);
        assert_eq!(Instant::now() - now, QUEUE_WAIT_MAX);
        assert_eq!(party.queued.load(Ordering::Relaxed), 0);
        drop(held);
        assert!(party.enter(Instant::now(), deadline).await.is_ok());
    }
}
