//! When a controller looks again: at a change of what it reads, and now and then anyway.
//!
//! Controllers are level-triggered: a pass reads everything, computes, and writes what differs. Changes that come close together
//! make one pass.

use std::time::Duration;

use futures::future::select_all;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Changes that come so close together make one pass.
const GAP: Duration = Duration::from_millis(30);

/// The beat of one controller.
pub(crate) struct Pulse {
    watches: Vec<watch::Receiver<u64>>,
    every: Duration,
}

impl Pulse {
    /// Beats at every change of `watches` and at least each `every`.
    pub(crate) fn new(watches: Vec<watch::Receiver<u64>>, every: Duration) -> Self {
        Self { watches, every }
    }

    /// Waits for the next beat. Cancel safe.
    pub(crate) async fn next(&mut self) {
        let changes = self.watches.iter_mut().map(|w| Box::pin(w.changed()));
        match timeout(self.every, select_all(changes)).await {
            Ok((Ok(()), ..)) => sleep(GAP).await,
            // Its owner has gone, and so will we.
            Ok((Err(_), ..)) => sleep(self.every).await,
            Err(_) => {}
        }
        for watch in &mut self.watches {
            watch.mark_unchanged();
        }
    }
}
