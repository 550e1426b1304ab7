//! The one writer: a thread that takes what waits, checks it, makes it durable in one transaction, then shows it.
//! In: jobs from a bounded queue; out: one answer each, sent after the commit. It ends when told to or when the store
//! is dropped, after finishing what it took.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use tokio::sync::{mpsc, oneshot};

use super::{Change, Disk, Key, Memory, Stored, Unwritten, Write, memory::prepare, read, write_guard};
use crate::Error;

const QUEUE_LEN_MAX: usize = 1024;

type Answer = Result<Arc<Stored>, Unwritten>;

/// One write and where its answer goes.
pub(super) struct Job {
    pub(super) write: Write,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// The handle to the thread.
pub(super) struct Writer {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    counts: Arc<[AtomicU64; 2]>,
}

impl Writer {
    pub(super) fn start(disk: Disk, memory: Arc<RwLock<Memory>>, batch_len_max: usize) -> Result<Self, Error> {
        let (jobs, queue) = mpsc::channel(QUEUE_LEN_MAX);
        let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let counted = counts.clone();
        let thread = std::thread::Builder::new()
            .name("apiserver-writer".into())
            .spawn(move || run(disk, &memory, queue, batch_len_max, &counted))
            .map_err(|cause| Error::Thread { cause })?;
        Ok(Self { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)), counts })
    }

    pub(super) async fn send(&self, job: Job) -> Result<(), Unwritten> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        jobs.ok_or(Unwritten::Closed)?.send(job).await.map_err(Unwritten::from)
    }

    /// Stops taking jobs, then waits for those taken.
    pub(super) fn stop(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the writer was already answered to every waiting job as Closed.
            let _ = thread.join();
        }
    }

    pub(super) fn commits(&self) -> (u64, u64) {
        (self.counts[0].load(Ordering::Relaxed), self.counts[1].load(Ordering::Relaxed))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(
    mut disk: Disk,
    memory: &RwLock<Memory>,
    mut queue: mpsc::Receiver<Job>,
    batch_len_max: usize,
    counts: &[AtomicU64; 2],
) {
    let mut batch = Vec::new();
    while queue.blocking_recv_many(&mut batch, batch_len_max) > 0 {
        let (changes, replies) = check(memory, batch.drain(..));
        if changes.is_empty() {
            continue;
        }
        let written = disk.write(&changes, |key| read(memory).get(key).cloned());
        counts[0].fetch_add(1, Ordering::Relaxed);
        counts[1].fetch_add(changes.len() as u64, Ordering::Relaxed);
        let mut guard = written.is_ok().then(|| write_guard(memory));
        let mut answers = Vec::with_capacity(replies.len());
        for (change, reply) in changes.into_iter().zip(replies) {
            let answer = match &written {
                Ok(()) => Ok(change.stored().clone()),
                Err(failed) => Err(Unwritten::Disk { message: failed.message.clone(), full: failed.full }),
            };
            if let Some(memory) = &mut guard {
                memory.apply(change);
            }
            answers.push((answer, reply));
        }
        drop(guard);
        for (answer, reply) in answers {
            // Who asked may be gone; the write holds all the same.
            let _ = reply.send(answer);
        }
    }
}

/// Checks each job against memory and the batch's earlier changes; refusals are answered at once.
fn check(memory: &RwLock<Memory>, jobs: impl Iterator<Item = Job>) -> (Vec<Change>, Vec<oneshot::Sender<Answer>>) {
    let guard = read(memory);
    let mut overlay: HashMap<Key, Option<Arc<Stored>>> = HashMap::new();
    let (mut changes, mut replies) = (Vec::new(), Vec::new());
    let mut revision = guard.revision();
    for Job { write, reply } in jobs {
        let present = overlay.get(&write.key).map_or_else(|| guard.get(&write.key), Option::as_ref);
        match prepare(&write.key, present, &write, revision + 1) {
            Ok(change) => {
                revision += 1;
                overlay.insert(write.key, change.after.clone());
                changes.push(change);
                replies.push(reply);
            }
            Err(refused) => drop(reply.send(Err(refused))),
        }
    }
    (changes, replies)
}
