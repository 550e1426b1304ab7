//! One flight for each question, for everybody who wants its answer.
//!
//! In: a key and what would ask. Out: the flight that is under way, else a new one, which its own task flies to the end: who waits may go.
//! As many as the forwarder has slots do something; the others end at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::Shared;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::cache::{Kept, Key};
use crate::forward::Failed;

type Landing = Result<Arc<Kept>, Failed>;

/// What lands.
pub(super) type Flight = Shared<oneshot::Receiver<Landing>>;

/// The flights under way.
pub(super) struct Flights {
    under_way: Arc<Mutex<HashMap<Key, Flight>>>,
    tasks: TaskTracker,
}

impl Flights {
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self { under_way: Arc::default(), tasks }
    }

    /// The flight for `key`, and whether it is new: `ask` is what it does, to the end of what it does with the answer.
    pub(super) fn board(&self, key: &Key, ask: impl Future<Output = Landing> + Send + 'static) -> (Flight, bool) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = under_way.get(key) {
            return (flight.clone(), false);
        }
        let (landed, flight) = oneshot::channel();
        let flight = flight.shared();
        under_way.insert(key.clone(), flight.clone());
        drop(under_way);
        let over = Over(Arc::clone(&self.under_way), key.clone());
        self.tasks.spawn(async move {
            let landing = ask.await;
            drop(over);
            // Everybody who waited may have gone.
            let _ = landed.send(landing);
        });
        (flight, true)
    }
}

/// Takes a flight out when it is over, however it ends.
struct Over(Arc<Mutex<HashMap<Key, Flight>>>, Key);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}
