//! What follows from deletions: dependents of owners that are gone, contents of namespaces that are going.
//! In: notes of what changed, from a bounded queue; out: further deletions. It looks at the state, not at the note, so
//! that a lost note (the queue was full) is made good by the next full sweep.

mod namespaces;
mod owners;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{sync::mpsc, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{server::Inner, store::Key};

/// Notes that wait; more are dropped and found by the full sweep.
pub(crate) const NOTES_MAX: usize = 4096;
const FULL_SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Something that may have consequences.
#[derive(Debug, Clone)]
pub(crate) enum Note {
    /// An object with this uid is gone.
    Gone(u128),
    /// An object names owners.
    Owned(Key),
    /// An object is going and waits for its dependents.
    Waiting(Key),
    /// A namespace is going, or something in one that is.
    Namespace(Box<str>),
}

/// Sweeps until the server is shut down or dropped.
pub(crate) async fn run(server: Weak<Inner>, mut notes: mpsc::Receiver<Note>, shutdown: CancellationToken) {
    let mut full = tokio::time::interval(FULL_SWEEP_EVERY);
    full.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let note = tokio::select! {
            note = notes.recv() => match note { Some(note) => Some(note), None => return },
            _ = full.tick() => None,
            () = shutdown.cancelled() => return,
        };
        let Some(server) = server.upgrade() else { return };
        match note {
            Some(note) => handle(&server, note).await,
            None => sweep_all(&server).await,
        }
    }
}

async fn handle(server: &Arc<Inner>, note: Note) {
    match note {
        Note::Gone(uid) => {
            let dependents: Vec<Key> = server.store.read().owned_by(uid).cloned().collect();
            for key in dependents {
                owners::check_dependent(server, &key).await;
            }
        }
        Note::Owned(key) => owners::check_dependent(server, &key).await,
        Note::Waiting(key) => owners::release(server, &key).await,
        Note::Namespace(name) => namespaces::empty(server, &name).await,
    }
}

async fn sweep_all(server: &Arc<Inner>) {
    let mut notes = Vec::new();
    {
        let memory = server.store.read();
        for (name, collection) in memory.collections() {
            for ((namespace, object), stored) in collection.iter("") {
                let key = || Key::new(name, namespace, object);
                if stored.terminating {
                    notes.push(if **name == *"/namespaces" {
                        Note::Namespace(object.clone())
                    } else {
                        Note::Waiting(key())
                    });
                }
                if stored.owners.iter().any(|uid| memory.by_uid(*uid).is_none()) {
                    notes.push(Note::Owned(key()));
                }
            }
        }
    }
    for note in notes {
        handle(server, note).await;
    }
}
