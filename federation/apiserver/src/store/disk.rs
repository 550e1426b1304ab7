//! One redb file: a table of records, a table with format and revision.
//! In: batches of changes; out: durable or an error, nothing in between. It keeps no state of its own that a reader
//! sees. After a failed write the file is opened anew and what may or may not have been written is written over.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

use super::{Change, Key, Memory, Stored, ram::Ram};
use crate::Error;

const OBJECTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("objects");
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
const FORMAT: u64 = 1;
/// Reads are served from memory, so redb's own cache only has to hold what a transaction touches.
const CACHE_BYTES: usize = 4 << 20;

type Open = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

/// The file and how to open it again.
pub(crate) struct Disk {
    path: PathBuf,
    open: Open,
    database: Option<Database>,
    /// Keys of a transaction that failed: on disk they may be old or new, memory has the truth.
    uncertain: Vec<Key>,
}

/// Why a batch was not written.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) message: String,
    pub(crate) full: bool,
}

impl Disk {
    /// Opens a file, or makes it if there is none (or an empty one).
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = path.to_owned();
        Self::with(path, Box::new(move || builder().create(&file)))
    }

    /// Makes a new file; it must not exist.
    pub(crate) fn create_new(path: &Path) -> Result<Self, Error> {
        if path.exists() {
            return Err(Error::Exists { path: path.to_owned() });
        }
        Self::open(path)
    }

    /// A file that is only in memory.
    pub(super) fn in_memory(ram: &Ram) -> Result<Self, Error> {
        let ram = ram.clone();
        Self::with(Path::new("snapshot"), Box::new(move || builder().create_with_backend(ram.clone())))
    }

    pub(super) fn with(path: &Path, open: Open) -> Result<Self, Error> {
        let database = open().map_err(|cause| refuse(path, cause))?;
        let disk = Self { path: path.to_owned(), open, database: Some(database), uncertain: Vec::new() };
        disk.check_format()?;
        Ok(disk)
    }

    fn storage(&self, cause: impl Into<redb::Error>) -> Error {
        Error::Storage { path: self.path.clone(), cause: Box::new(cause.into()) }
    }

    fn database(&self) -> Result<&Database, Error> {
        self.database.as_ref().ok_or_else(|| self.storage(redb::Error::DatabaseClosed))
    }

    /// A file of another program's, or of a later format, is refused before anything is written to it.
    fn check_format(&self) -> Result<(), Error> {
        let db = self.database()?;
        let read = db.begin_read().map_err(|e| self.storage(e))?;
        let tables = read.list_tables().map_err(|e| self.storage(e))?.count();
        if tables > 0 {
            let foreign = || Error::Foreign { path: self.path.clone() };
            let about = read.open_table(ABOUT).map_err(|_| foreign())?;
            let format = about.get("format").map_err(|e| self.storage(e))?.map(|v| v.value());
            return if format == Some(FORMAT) { Ok(()) } else { Err(foreign()) };
        }
        drop(read);
        let write = db.begin_write().map_err(|e| self.storage(e))?;
        {
            let mut about = write.open_table(ABOUT).map_err(|e| self.storage(e))?;
            about.insert("format", FORMAT).map_err(|e| self.storage(e))?;
            about.insert("revision", 1).map_err(|e| self.storage(e))?;
            write.open_table(OBJECTS).map_err(|e| self.storage(e))?;
        }
        write.commit().map_err(|e| self.storage(e))
    }

    /// Reads every record into memory.
    pub(super) fn load(&self, memory: &mut Memory) -> Result<(), Error> {
        let read = self.database()?.begin_read().map_err(|e| self.storage(e))?;
        let objects = read.open_table(OBJECTS).map_err(|e| self.storage(e))?;
        for entry in objects.iter().map_err(|e| self.storage(e))? {
            let (key, record) = entry.map_err(|e| self.storage(e))?;
            let parsed = Key::from_disk(key.value());
            let stored = Stored::decode(key.value(), record.value());
            let (Some(key), Some(stored)) = (parsed, stored) else {
                let key = String::from_utf8_lossy(key.value()).replace('\0', " ");
                return Err(Error::Corrupt { path: self.path.clone(), key });
            };
            memory.load(key, stored);
        }
        let about = read.open_table(ABOUT).map_err(|e| self.storage(e))?;
        let revision = about.get("revision").map_err(|e| self.storage(e))?.map_or(1, |v| v.value());
        memory.begin_at(revision);
        Ok(())
    }

    /// Makes a batch durable, or changes nothing. `memory` is the truth as of before the batch.
    pub(super) fn write(
        &mut self,
        changes: &[Change],
        memory: impl Fn(&Key) -> Option<Arc<Stored>>,
    ) -> Result<(), Failed> {
        self.reopen()?;
        let repairs: Vec<(Key, Option<Arc<Stored>>)> =
            self.uncertain.iter().map(|key| (key.clone(), memory(key))).collect();
        let changed = changes.iter().map(|change| (&change.key, change.after.as_ref()));
        let all = repairs.iter().map(|(key, stored)| (key, stored.as_ref())).chain(changed);
        let revision = changes.last().map(|change| change.revision);
        let written = self.database().map_err(failed_open).and_then(|db| transact(db, all, revision).map_err(failed));
        match written {
            Ok(()) => self.uncertain.clear(),
            Err(_) => {
                self.uncertain.extend(changes.iter().map(|change| change.key.clone()));
                self.database = None;
            }
        }
        written
    }

    fn reopen(&mut self) -> Result<(), Failed> {
        if self.database.is_none() {
            let database = (self.open)().map_err(|cause| failed(redb::Error::from(cause)))?;
            self.database = Some(database);
        }
        Ok(())
    }

    /// Fills a new file.
    pub(super) fn write_all(self, revision: u64, objects: &[(Key, Arc<Stored>)]) -> Result<(), Error> {
        let all = objects.iter().map(|(key, stored)| (key, Some(stored)));
        transact(self.database()?, all, Some(revision)).map_err(|e| self.storage(e))
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn transact<'a>(
    database: &Database,
    changes: impl Iterator<Item = (&'a Key, Option<&'a Arc<Stored>>)>,
    revision: Option<u64>,
) -> Result<(), redb::Error> {
    let mut write = database.begin_write()?;
    // Members influence what is stored, so recovery must not lean on a checksum alone.
    write.set_two_phase_commit(true);
    {
        let mut objects = write.open_table(OBJECTS)?;
        for (key, stored) in changes {
            let key = key.to_disk();
            match stored {
                Some(stored) => objects.insert(&*key, &*stored.encode(&key))?,
                None => objects.remove(&*key)?,
            };
        }
        if let Some(revision) = revision {
            write.open_table(ABOUT)?.insert("revision", revision)?;
        }
    }
    Ok(write.commit()?)
}

fn failed(cause: redb::Error) -> Failed {
    let full = matches!(&cause, redb::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull);
    Failed { message: cause.to_string(), full }
}

fn failed_open(cause: Error) -> Failed {
    Failed { message: cause.to_string(), full: false }
}

fn refuse(path: &Path, cause: DatabaseError) -> Error {
    let path = path.to_owned();
    match cause {
        DatabaseError::DatabaseAlreadyOpen => Error::Locked { path },
        DatabaseError::Storage(StorageError::Io(io)) if io.kind() == std::io::ErrorKind::InvalidData => {
            Error::Foreign { path }
        }
        other => Error::Storage { path, cause: Box::new(other.into()) },
    }
}
