//! The store: every object in memory as JSON bytes, every change in a short history, and (unless in-memory) on disk
//! before it is acknowledged. In: writes with a precondition; out: the stored object, or why not.
//! Readers never wait for the disk; there is one writer, which batches what waits for it into one transaction.
//!
//! ```text
//! commit ──▶ bounded queue ──▶ writer thread: check, stamp revision ──▶ disk ──▶ memory + history ──▶ watchers
//! ```

mod disk;
mod memory;
mod ram;
mod record;
mod restore;
mod writer;

use std::{
    path::Path,
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use serde_json::Value;
use tokio::sync::mpsc;

use crate::Error;

pub(crate) use self::{
    disk::Disk,
    memory::{Change, Memory},
    record::{Key, Stored},
    restore::restore,
};
use self::{
    memory::prepare,
    ram::Ram,
    writer::{Job, Writer},
};

/// What must hold for a write to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// No object has this key.
    Absent,
    /// The object's last change is this revision.
    Revision(u64),
}

/// One write: a new value, or none to delete.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) key: Key,
    pub(crate) expect: Expect,
    pub(crate) value: Option<Value>,
}

/// Why a write was not carried out. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unwritten {
    Exists,
    Missing,
    Modified,
    Closed,
    Disk { message: String, full: bool },
}

/// Limits of the history kept for watchers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) history_len_max: usize,
    pub(crate) history_bytes_max: usize,
    pub(crate) batch_len_max: usize,
}

/// The state and the way to change it.
pub(crate) struct Store {
    memory: Arc<RwLock<Memory>>,
    writer: Option<Writer>,
}

impl Store {
    /// An empty store that forgets everything when dropped. Revisions go on from `first_revision`.
    pub(crate) fn in_memory(limits: Limits, first_revision: u64) -> Self {
        Self { memory: Arc::new(RwLock::new(Memory::new(limits, first_revision))), writer: None }
    }

    /// Reads everything from disk and starts the writer.
    pub(crate) fn on_disk(limits: Limits, disk: Disk) -> Result<Self, Error> {
        let mut memory = Memory::new(limits, 1);
        disk.load(&mut memory)?;
        let memory = Arc::new(RwLock::new(memory));
        let writer = Writer::start(disk, memory.clone(), limits.batch_len_max)?;
        Ok(Self { memory, writer: Some(writer) })
    }

    /// Reads the state. The guard must not be held across an await.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Memory> {
        read(&self.memory)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        self.read().get(key).cloned()
    }

    /// Makes sure that a collection can be watched while it is empty.
    pub(crate) fn ensure(&self, collection: &Arc<str>) {
        if self.read().collection(collection).is_none() {
            write_guard(&self.memory).ensure(collection);
        }
    }

    /// Carries out one write and returns the object as stored (for a deletion: its last state with the revision of
    /// the deletion). Durable once it returns. Cancel-safe in that a write handed over is carried out anyway.
    pub(crate) async fn commit(&self, write: Write) -> Result<Arc<Stored>, Unwritten> {
        let Some(writer) = &self.writer else {
            let mut memory = write_guard(&self.memory);
            let revision = memory.revision() + 1;
            let change = prepare(&write.key, memory.get(&write.key), &write, revision)?;
            let stored = change.stored().clone();
            memory.apply(change);
            return Ok(stored);
        };
        let (reply, answer) = tokio::sync::oneshot::channel();
        writer.send(Job { write, reply }).await?;
        answer.await.map_err(|_| Unwritten::Closed)?
    }

    /// Writes a consistent copy of everything to a new file.
    pub(crate) fn snapshot(&self, to: &Path) -> Result<(), Error> {
        let (revision, objects) = self.everything();
        Disk::create_new(to)?.write_all(revision, &objects)
    }

    /// The same copy as the bytes of a file, for who has no disk here.
    pub(crate) fn snapshot_bytes(&self) -> Result<Vec<u8>, Error> {
        let ram = Ram::default();
        let (revision, objects) = self.everything();
        Disk::in_memory(&ram)?.write_all(revision, &objects)?;
        Ok(ram.take())
    }

    fn everything(&self) -> (u64, Vec<(Key, Arc<Stored>)>) {
        let memory = self.read();
        (memory.revision(), memory.all())
    }

    /// Waits until all writes handed over are done and the file is closed.
    pub(crate) fn close(&self) {
        if let Some(writer) = &self.writer {
            writer.stop();
        }
    }

    /// How many transactions and how many writes went to disk: the ratio is the batch size of group commit.
    pub(crate) fn commits(&self) -> (u64, u64) {
        self.writer.as_ref().map_or((0, 0), Writer::commits)
    }
}

fn read(memory: &RwLock<Memory>) -> RwLockReadGuard<'_, Memory> {
    memory.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write_guard(memory: &RwLock<Memory>) -> RwLockWriteGuard<'_, Memory> {
    memory.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl<T> From<mpsc::error::SendError<T>> for Unwritten {
    fn from(_: mpsc::error::SendError<T>) -> Self {
        Self::Closed
    }
}

#[cfg(test)]
mod tests;
