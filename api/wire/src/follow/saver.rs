//! When the last good topology is written: soon after a change, beside whatever else goes on, and never more than a tenth of the time.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::{Follow, last_good};
use crate::delta::Receiver;

/// Changes are written at most so often.
pub(super) const SAVE_EVERY: Duration = Duration::from_secs(1);
/// After a write that failed: the disk may have room again.
pub(super) const SAVE_AGAIN: Duration = Duration::from_secs(3);
/// A pause is so many times what the write before it took: a large topology that changes all the time is not written all the time.
const PAUSE: u32 = 10;

/// Writes what a follower holds.
pub(super) struct Saver {
    config: Follow,
    /// Something is held that was not written.
    pub(super) unsaved: bool,
    writing: Option<(JoinHandle<bool>, Instant)>,
    next: Instant,
}

impl Saver {
    pub(super) fn new(config: Follow) -> Self {
        Self { config, unsaved: false, writing: None, next: Instant::now() }
    }

    /// Begins the next write when it is due, or ends the one that goes on; waits for ever where there is nothing to write. Cancel safe.
    pub(super) async fn step(&mut self, receiver: &Receiver) {
        if self.writing.is_some() {
            return self.end().await;
        }
        if !self.unsaved {
            return std::future::pending().await;
        }
        sleep_until(self.next).await;
        self.begin(receiver);
    }

    /// Writes what is unsaved and waits for that.
    pub(super) async fn finish(&mut self, receiver: &Receiver) {
        self.end().await;
        if self.unsaved {
            self.begin(receiver);
            self.end().await;
        }
    }

    fn begin(&mut self, receiver: &Receiver) {
        let Some(version) = receiver.version() else {
            // Refused; what is taken next is to be written.
            self.next = Instant::now() + SAVE_EVERY;
            return;
        };
        self.unsaved = false;
        self.writing = Some((last_good::save(&self.config, version, receiver.facts()), Instant::now()));
    }

    async fn end(&mut self) {
        let Some((writing, began)) = &mut self.writing else { return };
        let written = writing.await.unwrap_or(false);
        let pause = if written { SAVE_EVERY } else { SAVE_AGAIN };
        self.next = Instant::now() + pause.max(began.elapsed() * PAUSE);
        self.unsaved |= !written;
        self.writing = None;
    }
}
