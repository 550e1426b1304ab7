//! How far a copy is, told through a watch channel: the reader sees the latest, never a backlog.

use tokio::sync::watch;

/// What a copy is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Reading manifests at the source.
    #[default]
    Listing,
    /// Looking what the destination has.
    Planning,
    /// Moving blobs, then manifests.
    Copying,
    /// Reading back from the destination.
    Verifying,
    /// Writing tags.
    Tagging,
    /// Done.
    Done,
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Bytes given to the destination, less what was lost again on the way.
    pub bytes: u64,
    /// Bytes that have to go there.
    pub bytes_total: u64,
    /// Blobs and manifests done.
    pub objects: u64,
    /// Blobs and manifests to do.
    pub objects_total: u64,
    /// Blobs and manifests that were there.
    pub skipped: u64,
    /// Blobs taken over from another repository of the destination.
    pub mounted: u64,
    /// Tries after a failure.
    pub retries: u64,
}

/// Keeps a [`Progress`] and tells it.
pub(crate) struct Tracker(watch::Sender<Progress>);

impl Tracker {
    pub(crate) fn new(sender: watch::Sender<Progress>) -> Self {
        Self(sender)
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Progress)) {
        self.0.send_modify(change);
    }

    pub(crate) fn phase(&self, phase: Phase) {
        self.update(|p| p.phase = phase);
    }

    pub(crate) fn moved(&self, bytes: u64) {
        self.update(|p| p.bytes += bytes);
    }

    pub(crate) fn moved_back(&self, bytes: u64) {
        self.update(|p| p.bytes = p.bytes.saturating_sub(bytes));
    }

    pub(crate) fn retried(&self) {
        self.update(|p| p.retries += 1);
    }

    pub(crate) fn now(&self) -> Progress {
        *self.0.borrow()
    }
}
