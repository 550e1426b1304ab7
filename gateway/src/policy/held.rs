//! Something that others publish: fetched when it is first needed, again when it is old or lacks what is needed, and kept when whoever
//! publishes it is gone. Requests wait for the first fetch alone.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// What was published, and when it was fetched.
struct Fetched<T> {
    value: Arc<T>,
    at: Instant,
}

/// The newest of it that could be had.
pub(crate) struct Held<T> {
    newest: ArcSwapOption<Fetched<T>>,
    /// When it was tried last.
    tried: Mutex<Option<Instant>>,
    /// It is fetched again after this.
    old: Duration,
    /// So often at most it is tried.
    again: Duration,
}

impl<T> Held<T> {
    pub(crate) fn new(old: Duration, again: Duration) -> Self {
        Self { newest: ArcSwapOption::empty(), tried: Mutex::default(), old, again }
    }

    /// It, as fresh as it can be had; nothing where there never was any. `lacking`: something is needed that is not in what is held. `fetch` is
    /// begun where that is due, and says itself why it failed.
    pub(crate) async fn get(&self, lacking: bool, fetch: impl Future<Output = Option<T>>) -> Option<Arc<T>> {
        let value = |held: &Option<Arc<Fetched<T>>>| held.as_ref().map(|held| Arc::clone(&held.value));
        let held = self.newest.load_full();
        if held.as_ref().is_some_and(|held| !lacking && held.at.elapsed() < self.old) {
            return value(&held);
        }
        // One fetches; whoever has something that may do goes on with it.
        let mut tried = match (&held, lacking) {
            (Some(_), false) => match self.tried.try_lock() {
                Ok(tried) => tried,
                Err(_) => return value(&held),
            },
            _ => self.tried.lock().await,
        };
        let newest = self.newest.load_full();
        let is_other = newest.as_ref().map(|n| n.at) != held.as_ref().map(|h| h.at);
        if is_other || tried.is_some_and(|at| at.elapsed() < self.again) {
            return value(&newest);
        }
        *tried = Some(Instant::now());
        if let Some(fetched) = fetch.await {
            self.newest.store(Some(Arc::new(Fetched { value: Arc::new(fetched), at: Instant::now() })));
        }
        value(&self.newest.load_full())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_fetched_when_it_is_due_and_kept_when_nobody_gives_it() {
        let held = Held::new(Duration::from_secs(300), Duration::from_secs(10));
        let fetches = &AtomicU32::new(0);
        let get = |lacking: bool, there: bool| {
            held.get(lacking, async move { there.then(|| fetches.fetch_add(1, Ordering::Relaxed) + 1) })
        };
        let mut wait = 0;
        for (after, lacking, there, expected) in [
            (0, false, false, None),
            (5, false, true, None),
            (10, false, true, Some(1)),
            (20, false, true, Some(1)),
            (21, true, true, Some(2)),
            (22, true, true, Some(2)),
            (321, false, false, Some(2)),
            (332, false, true, Some(3)),
        ] {
            tokio::time::advance(Duration::from_secs(after - wait)).await;
            wait = after;
            assert_eq!(get(lacking, there).await.as_deref().copied(), expected, "after {after} s");
        }
    }
}
