//! One blob, read from its source once and in order, whatever happens on the way.
//!
//! Output: pieces, hashed as they come. A connection lost is opened again where it was; a destination that lost some bytes has the
//! feed rewound to where it stands, without reading from the start. The piece that completes the blob comes out only if the whole
//! has the right digest, so a destination never gets all of a wrong blob. Memory: one piece, and a hash state for each MiB.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;

use crate::{
    backend::{ByteStream, Push},
    closure::Blob,
    error::{Error, Why},
    name::Hasher,
    progress::Tracker,
    retry::Retry,
};

/// A hash state is kept for each such stretch.
const CHECKPOINT_BYTES: u64 = 1 << 20;

/// The reading end of one blob.
pub(crate) struct Feed {
    from: Arc<dyn Push>,
    blob: Blob,
    retry: Retry,
    tracker: Arc<Tracker>,
    stream: Option<ByteStream>,
    /// Bytes read from the source and hashed.
    read: u64,
    /// Bytes given out.
    given: u64,
    hasher: Hasher,
    checkpoints: Vec<(u64, Hasher)>,
    /// Read, hashed and not given out yet.
    ready: Bytes,
    /// Read again only for the hash; not given out.
    skip: u64,
    /// Why the source failed for good.
    pub(crate) failed: Option<Error>,
}

impl Feed {
    pub(crate) fn new(from: Arc<dyn Push>, blob: Blob, retry: Retry, tracker: Arc<Tracker>) -> Self {
        let hasher = blob.digest.hasher();
        let checkpoints = vec![(0, hasher.clone())];
        let (stream, ready, failed) = (None, Bytes::new(), None);
        Self { from, blob, retry, tracker, stream, read: 0, given: 0, hasher, checkpoints, ready, skip: 0, failed }
    }

    fn error(&self, why: Why) -> Error {
        Error::new(self.from.endpoint().at(&self.blob.repository, self.blob.digest.as_str()), why)
    }

    /// Goes back so that the next piece begins at `to`, which must not be past what was given out.
    pub(crate) fn rewind(&mut self, to: u64) {
        if to == self.given {
            return;
        }
        while self.checkpoints.len() > 1 && self.checkpoints.last().is_some_and(|(at, _)| *at > to) {
            self.checkpoints.pop();
        }
        if let Some((at, hasher)) = self.checkpoints.last() {
            (self.read, self.hasher) = (*at, hasher.clone());
        }
        self.tracker.moved_back(self.given.saturating_sub(to));
        (self.given, self.skip) = (to, to - self.read);
        (self.stream, self.ready) = (None, Bytes::new());
    }

    /// The next piece, of at most `max` bytes; `None` at the end.
    pub(crate) async fn next(&mut self, max: u64) -> Result<Option<Bytes>, Error> {
        while self.ready.is_empty() {
            if self.read == self.blob.size {
                return Ok(None);
            }
            let mut piece = self.read().await?;
            let cut = self.skip.min(piece.len() as u64);
            self.skip -= cut;
            self.ready = piece.split_off(usize::try_from(cut).unwrap_or(usize::MAX));
        }
        let len = usize::try_from(max).unwrap_or(usize::MAX).min(self.ready.len());
        let piece = self.ready.split_to(len);
        self.given += len as u64;
        self.tracker.moved(len as u64);
        Ok(Some(piece))
    }

    /// The next piece from the source, hashed; opens the source again where it was lost.
    async fn read(&mut self) -> Result<Bytes, Error> {
        let mut tried = 0;
        loop {
            let error = match self.try_read().await {
                Ok(piece) => return Ok(piece),
                Err(error) => error,
            };
            self.stream = None;
            tried += 1;
            let Some(pause) = self.retry.pause_after(tried, self.blob.digest.as_str(), &error) else {
                return Err(error);
            };
            tracing::debug!(%error, tried, offset = self.read, "reading on from the source");
            self.tracker.retried();
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_read(&mut self) -> Result<Bytes, Error> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.from.blob(&self.blob.repository, &self.blob.digest, self.read).await?,
        };
        let piece = match stream.next().await {
            Some(piece) => piece?,
            None => {
                return Err(
                    self.error(Why::Broken(format!("ended after {} of {} bytes", self.read, self.blob.size).into()))
                );
            }
        };
        self.hasher.update(&piece);
        self.read += piece.len() as u64;
        if self.read > self.blob.size {
            return Err(self.error(Why::Corrupt(format!("more than the {} bytes that it should have", self.blob.size))));
        }
        if self.read == self.blob.size {
            self.check()?;
        }
        if self.checkpoints.last().is_none_or(|(at, _)| self.read >= at + CHECKPOINT_BYTES) {
            self.checkpoints.push((self.read, self.hasher.clone()));
        }
        self.stream = Some(stream);
        Ok(piece)
    }

    /// Whether what was read in all has the right digest; for an empty blob there is no piece that would ask.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let found = self.hasher.clone().finish();
        if found == self.blob.digest { Ok(()) } else { Err(self.error(Why::Corrupt(format!("it is {found}")))) }
    }
}
