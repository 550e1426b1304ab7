//! One flight for each question, for everybody who wants its answer.
//!
//! In: a key and what would ask. Out: the flight that is under way, else a new one. Whoever waits flies it: no task stands between an
//! answer and who wants it. It goes on while one of them waits; when all are gone it ends, and the next who asks begins anew. As many
//! as the forwarder has slots do something; the others end at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::{Kept, Key};
use crate::forward::Failed;

type Landing = Result<Arc<Kept>, Failed>;
type Flying = BoxFuture<'static, Landing>;

/// What lands.
pub(super) type Flight = Shared<Flying>;

type UnderWay = Arc<Mutex<HashMap<Key, Way>>>;

/// How a flight is under way.
enum Way {
    Flying(WeakShared<Flying>),
    /// A thread asks, and waits for nobody; these wait for it.
    Straight(Vec<oneshot::Sender<()>>),
}

/// A flight that a thread flies. When it is dropped all who wait for it are told.
#[derive(Debug)]
pub(super) struct Straight(#[expect(dead_code, reason = "dropped is what it does")] Over);

/// The flights under way.
pub(super) struct Flights {
    under_way: UnderWay,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Flights {
    pub(super) fn new(tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { under_way: Arc::default(), tasks, shutdown }
    }

    /// The flight for `key`, and whether it is new: `ask` is what it does, to the end of what it does with the answer.
    pub(super) fn board(&self, key: &Key, ask: impl Future<Output = Landing> + Send + 'static) -> (Flight, bool) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Way::Flying(flight)) = under_way.get(key)
            && let Some(flight) = flight.upgrade()
        {
            return (flight, false);
        }
        let over = Over(Arc::clone(&self.under_way), key.clone());
        let fly = async move {
            let landing = ask.await;
            drop(over);
            landing
        };
        let flight = fly.boxed().shared();
        under_way.extend(flight.downgrade().map(|weak| (key.clone(), Way::Flying(weak))));
        (flight, true)
    }

    /// Leave for a thread to fly; none where a flight is under way.
    pub(super) fn straight(&self, key: &Key) -> Option<Straight> {
        // Dropped behind the lock: whoever drops a flight last takes it.
        let alive;
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        match under_way.get(key) {
            Some(Way::Straight(_)) => return None,
            Some(Way::Flying(flight)) => {
                alive = flight.upgrade();
                if alive.is_some() {
                    return None;
                }
            }
            None => {}
        }
        under_way.insert(key.clone(), Way::Straight(Vec::new()));
        Some(Straight(Over(Arc::clone(&self.under_way), key.clone())))
    }

    /// The end of the flight that a thread flies for `key`: what came of it is kept by then, or nothing did.
    pub(super) fn landing(&self, key: &Key) -> Option<oneshot::Receiver<()>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Way::Straight(waiting)) = under_way.get_mut(key) else { return None };
        let (tell, told) = oneshot::channel();
        waiting.retain(|waits| !waits.is_closed());
        waiting.push(tell);
        Some(told)
    }

    /// Flies by itself: nobody waits for it.
    pub(super) fn launch(&self, flight: Flight) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move { shutdown.run_until_cancelled(flight).await });
    }
}

/// Takes a flight out when it is over, however it ends.
struct Over(UnderWay, Key);

impl std::fmt::Debug for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Over").field(&self.1).finish()
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use hickory_proto::rr::RecordType;
    use tokio::sync::oneshot;

    use super::*;
    use crate::cache::Bits;
    use crate::names::absolute;

    /// Flights of one key that land when they are told to, and how often one was begun.
    struct Airport {
        flights: Flights,
        key: Key,
        begun: Arc<AtomicUsize>,
    }

    impl Airport {
        fn new() -> Self {
            let key = Key::new(1, &absolute("a.example").unwrap(), RecordType::A, Bits::default());
            Self { flights: Flights::new(TaskTracker::new(), CancellationToken::new()), key, begun: Arc::default() }
        }

        fn board(&self) -> (Flight, bool, oneshot::Sender<()>) {
            let ((land, landed), begun) = (oneshot::channel(), Arc::clone(&self.begun));
            let (flight, new) = self.flights.board(&self.key, async move {
                begun.fetch_add(1, Ordering::Relaxed);
                let _ = landed.await;
                Ok(Arc::new(Kept::default()))
            });
            (flight, new, land)
        }

        fn under_way(&self) -> usize {
            self.flights.under_way.lock().unwrap().len()
        }
    }

    #[tokio::test]
    async fn who_waits_flies_on_when_the_first_has_gone_and_nobody_is_left_behind() {
        let airport = Airport::new();
        let (first, new, land) = airport.board();
        let (mut second, also, _) = airport.board();
        assert_eq!((new, also), (true, false));
        assert!(futures::poll!(first.clone()).is_pending() && futures::poll!(&mut second).is_pending());
        drop(first);
        land.send(()).unwrap();
        assert!(second.await.is_ok());
        assert_eq!((airport.begun.load(Ordering::Relaxed), airport.under_way()), (1, 0));
        // All gone: it is over, and the next begins anew.
        let (alone, ..) = airport.board();
        assert_eq!(airport.under_way(), 1);
        drop(alone);
        assert_eq!(airport.under_way(), 0);
        let (by_itself, new, land) = airport.board();
        assert!(new);
        airport.flights.launch(by_itself);
        land.send(()).unwrap();
        airport.flights.tasks.close();
        airport.flights.tasks.wait().await;
        assert_eq!((airport.begun.load(Ordering::Relaxed), airport.under_way()), (2, 0));
    }
    #[tokio::test]
    async fn there_is_one_flight_whoever_flies_it() {
        let airport = Airport::new();
        let (flying, ..) = airport.board();
        assert!(airport.flights.straight(&airport.key).is_none());
        drop(flying);
        let straight = airport.flights.straight(&airport.key).unwrap();
        assert!(airport.flights.straight(&airport.key).is_none());
        let told = airport.flights.landing(&airport.key).unwrap();
        drop(straight);
        assert!(told.await.is_err(), "told by its end");
        assert_eq!((airport.begun.load(Ordering::Relaxed), airport.under_way()), (0, 0));
        assert!(airport.flights.landing(&airport.key).is_none() && airport.board().1);
    }
}
