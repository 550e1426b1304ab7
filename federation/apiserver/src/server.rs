//! The server itself: opened over a store, asked through clients or a listener, closed when done.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use http::{Request, Response};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Error, bootstrap,
    config::{Config, Storage, User},
    http::{Body, handle},
    kinds::{DEFINITIONS, Kinds, Resource},
    rbac::MASTERS,
    store::{Disk, Key, Limits, Store, Stored, Unwritten},
    sweep::{self, NOTES_MAX, Note},
    verbs::{self, Given},
};

/// What every request reads.
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) store: Store,
    kinds: RwLock<Arc<Kinds>>,
    pub(crate) numbers: Mutex<Given>,
    notes: mpsc::Sender<Note>,
    pub(crate) shutdown: CancellationToken,
}

impl Inner {
    /// What is served now.
    pub(crate) fn kinds(&self) -> Arc<Kinds> {
        self.kinds.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whom a fixed token stands for.
    pub(crate) fn user_of_token(&self, token: &str) -> Option<User> {
        let known = self.config.tokens.iter().find(|(known, _)| !known.is_empty() && known == token);
        known.map(|(_, user)| user.clone())
    }

    /// After a write: new kinds are served, what follows is noted for the sweeper.
    pub(crate) fn changed(&self, resource: &Resource, stored: &Arc<Stored>) {
        if *resource.collection == *DEFINITIONS {
            self.read_definitions();
        }
        let key = {
            let memory = self.store.read();
            memory.by_uid(stored.uid).cloned()
        };
        let note = |note: Note| {
            // A full queue loses the note; the full sweep finds it.
            let _ = self.notes.try_send(note);
        };
        let namespace = crate::object::meta(&stored.value(), "namespace").to_owned();
        match key {
            None => {
                note(Note::Gone(stored.uid));
                for owner in &stored.owners {
                    if let Some(owner) = self.going(*owner) {
                        note(Note::Waiting(owner));
                    }
                }
                if self.is_going(&namespace) {
                    note(Note::Namespace(namespace.into()));
                }
            }
            Some(key) if *key.collection == *"/namespaces" && stored.terminating => note(Note::Namespace(key.name)),
            Some(key) => {
                if stored.terminating {
                    note(Note::Waiting(key.clone()));
                }
                if !stored.owners.is_empty() {
                    note(Note::Owned(key));
                }
                if self.is_going(&namespace) {
                    note(Note::Namespace(namespace.into()));
                }
            }
        }
    }

    fn going(&self, uid: u128) -> Option<Key> {
        let memory = self.store.read();
        let key = memory.by_uid(uid)?;
        memory.get(key)?.terminating.then(|| key.clone())
    }

    fn is_going(&self, namespace: &str) -> bool {
        let key = Key::new(&"/namespaces".into(), "", namespace);
        !namespace.is_empty() && self.store.get(&key).is_some_and(|stored| stored.terminating)
    }

    fn read_definitions(&self) {
        let mut kinds = self.kinds.write().unwrap_or_else(PoisonError::into_inner);
        let memory = self.store.read();
        let definitions: Vec<Arc<Stored>> = memory
            .collection(DEFINITIONS)
            .into_iter()
            .flat_map(|collection| collection.iter(""))
            .map(|(_, stored)| stored.clone())
            .collect();
        drop(memory);
        *kinds = Arc::new(Kinds::new(&kinds, definitions.iter()));
    }

    /// Deletes an object on the server's own behalf.
    pub(crate) async fn delete_in_background(self: &Arc<Self>, key: &Key) -> Result<(), Unwritten> {
        verbs::delete_quietly(self, key).await
    }
}

/// The embedded API server. Clones are handles to the same one.
#[derive(Clone)]
pub struct ApiServer {
    inner: Arc<Inner>,
    sweeper: Arc<Mutex<Option<JoinHandle<()>>>>,
    _guard: Arc<DropGuard>,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("revision", &self.revision()).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Opens the store and makes what a cluster has from the start: namespaces, roles.
    ///
    /// # Errors
    /// The file is locked, foreign, corrupt, or can't be written.
    pub async fn open(config: Config, storage: Storage) -> Result<Self, Error> {
        let limits = Limits {
            history_len_max: config.history_len_max,
            history_bytes_max: config.history_bytes_max,
            batch_len_max: config.batch_len_max,
        };
        let store = match storage {
            // Revisions of an earlier life must look old, so that its watchers list again: begin at the clock.
            Storage::Memory => {
                let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(1);
                Store::in_memory(limits, now)
            }
            Storage::File(path) => {
                let file = path.clone();
                let opened = tokio::task::spawn_blocking(move || Store::on_disk(limits, Disk::open(&file)?)).await;
                opened.map_err(|why| match why.is_panic() {
                    // redb finds what can't be in its pages, and gives up.
                    true => Error::Damaged { path },
                    false => Error::Thread { cause: std::io::Error::other(why) },
                })??
            }
        };
        Self::over(config, store).await
    }

    pub(crate) async fn over(config: Config, store: Store) -> Result<Self, Error> {
        let shutdown = CancellationToken::new();
        let (notes, queue) = mpsc::channel(NOTES_MAX);
        let inner = Arc::new(Inner {
            config,
            store,
            kinds: RwLock::new(Arc::new(Kinds::default())),
            numbers: Mutex::default(),
            notes,
            shutdown: shutdown.clone(),
        });
        inner.read_definitions();
        bootstrap::run(&inner).await?;
        let sweeper = tokio::spawn(sweep::run(Arc::downgrade(&inner), queue, shutdown.clone()));
        Ok(Self { inner, sweeper: Arc::new(Mutex::new(Some(sweeper))), _guard: Arc::new(shutdown.drop_guard()) })
    }

    /// A client without a socket, as `atoll:hub`, who may do everything.
    pub fn client(&self) -> kube::Client {
        self.client_as("atoll:hub", &[MASTERS])
    }

    /// A client without a socket, as somebody else.
    pub fn client_as(&self, user: &str, groups: &[&str]) -> kube::Client {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let user = User { name: user.to_owned(), groups };
        let inner = Arc::downgrade(&self.inner);
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (inner, user) = (inner.upgrade(), user.clone());
            async move {
                let inner = inner.ok_or_else(|| std::io::Error::other("the API server is closed"))?;
                if inner.shutdown.is_cancelled() {
                    return Err(std::io::Error::other("the API server is closed"));
                }
                Ok::<Response<Body>, std::io::Error>(handle(&inner, authenticated(user), request).await)
            }
        });
        kube::Client::new(service, "default")
    }

    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.inner.store.read().revision()
    }

    /// How many transactions, and how many writes in them, went to disk since the start.
    pub fn commits(&self) -> (u64, u64) {
        self.inner.store.commits()
    }

    /// Writes a consistent copy of everything to a new file, which can be opened like any other.
    ///
    /// # Errors
    /// The file exists or can't be written.
    pub async fn snapshot(&self, to: &Path) -> Result<(), Error> {
        let (inner, to) = (self.inner.clone(), to.to_owned());
        let done = tokio::task::spawn_blocking(move || inner.store.snapshot(&to)).await;
        done.map_err(|why| Error::Thread { cause: std::io::Error::other(why) })?
    }

    /// Puts a snapshot in the place of a data file, after checking every record. The old file is kept beside it with
    /// the ending `.before-restore`. The server of that file must be closed.
    ///
    /// # Errors
    /// The snapshot is foreign or corrupt (nothing is changed), or the files can't be moved.
    pub async fn restore(snapshot: &Path, file: &Path) -> Result<(), Error> {
        crate::store::restore(snapshot, file).await
    }

    /// Ends watches and tasks, waits for writes handed over, closes the file.
    pub async fn close(self) {
        self.inner.shutdown.cancel();
        let sweeper = self.sweeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sweeper) = sweeper {
            // It ends by the token; a panic in it has been reported by then.
            let _ = sweeper.await;
        }
        let inner = self.inner.clone();
        // Joining the writer's thread waits for its last commit.
        let _ = tokio::task::spawn_blocking(move || inner.store.close()).await;
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

/// Everybody who is known is in this group too.
pub(crate) fn authenticated(mut user: User) -> User {
    if !user.groups.iter().any(|group| group == "system:authenticated") {
        user.groups.push("system:authenticated".into());
    }
    user
}
