//! A file of redb's in memory: a snapshot on its way to a client.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redb::StorageBackend;

/// The bytes of the file; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Ram(Arc<Mutex<Vec<u8>>>);

impl Ram {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file as it is; what is left is empty.
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.bytes())
    }
}

/// Where `len` bytes at an offset are in memory.
fn range(offset: u64, len: usize) -> io::Result<std::ops::Range<usize>> {
    let from = usize::try_from(offset).map_err(io::Error::other)?;
    let to = from.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(from..to)
}

impl StorageBackend for Ram {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.bytes().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let bytes = self.bytes();
        out.copy_from_slice(bytes.get(range(offset, out.len())?).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.bytes().resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let range = range(offset, data.len())?;
        self.bytes().get_mut(range).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
}
