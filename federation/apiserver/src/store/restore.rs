//! Puts a snapshot in the place of a data file that is damaged, or too new.
//!
//! In: two files. Out: the restored one in place, the old one beside it; or an error, and nothing is changed. Revisions go on far beyond those
//! of the snapshot: whoever watched what came after it is told to list again.

use std::fs;
use std::path::Path;

use super::{Disk, Limits, Memory};
use crate::Error;

/// More changes than any store sees between a snapshot and its restore.
const PASSED: u64 = 1 << 40;

/// See [`crate::ApiServer::restore`].
pub(crate) async fn restore(snapshot: &Path, file: &Path) -> Result<(), Error> {
    let fresh = file.with_extension("restoring");
    let done = swap(snapshot, &fresh, file).await;
    if done.is_err() {
        // It may not be there at all.
        let _ = fs::remove_file(&fresh);
    }
    done
}

async fn swap(snapshot: &Path, fresh: &Path, file: &Path) -> Result<(), Error> {
    let copied = fs::copy(snapshot, fresh).map_err(|cause| Error::File { path: snapshot.to_owned(), cause })?;
    if copied == 0 {
        return Err(Error::Foreign { path: snapshot.to_owned() });
    }
    let copy = fresh.to_owned();
    let prepared = blocking(snapshot, move || prepare(&copy)).await.flatten();
    // It was read under another name.
    prepared.map_err(|why| match why {
        Error::Foreign { .. } => Error::Foreign { path: snapshot.to_owned() },
        Error::Corrupt { key, .. } => Error::Corrupt { path: snapshot.to_owned(), key },
        other => other,
    })?;
    if file.exists() {
        // A damaged file is what a restore is for; one in use is not.
        let held = file.to_owned();
        if let Ok(Err(locked @ Error::Locked { .. })) = blocking(file, move || Disk::open(&held).map(drop)).await {
            return Err(locked);
        }
        rename(file, &file.with_extension("before-restore"))?;
    }
    rename(fresh, file)
}

/// Checks every record and moves the revision on.
fn prepare(fresh: &Path) -> Result<(), Error> {
    let mut memory = Memory::new(Limits { history_len_max: 0, history_bytes_max: 0, batch_len_max: 1 }, 1);
    let disk = Disk::open(fresh)?;
    disk.load(&mut memory)?;
    disk.write_all(memory.revision().saturating_add(PASSED), &[])
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|cause| Error::File { path: from.to_owned(), cause })
}

/// redb finds what can't be in its pages, and gives up: then the file at `path` is damaged.
async fn blocking<T: Send + 'static>(path: &Path, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|why| match why.is_panic() {
        true => Error::Damaged { path: path.to_owned() },
        false => Error::Thread { cause: std::io::Error::other(why) },
    })
}
