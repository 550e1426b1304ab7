//! A client's body as its connection gives it, and the way back: whoever ends with the body gives the connection's reading half back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::oneshot;

use super::buffer::Buffer;
use super::halves::Reads;
use super::reading::{Broken, Reading};

/// The reading half of a client's connection, with what was read and not used yet.
pub(crate) struct Reader {
    pub(super) half: Reads,
    pub(super) buffer: Buffer,
}

/// What comes back after a body: the reading half, and what of the body was not read.
pub(super) struct Rest {
    pub(super) reader: Reader,
    pub(super) reading: Reading,
    pub(super) broken: bool,
}

/// A client's body.
pub(crate) struct ClientBody {
    reader: Option<Reader>,
    reading: Reading,
    broken: bool,
    home: Option<oneshot::Sender<Rest>>,
    /// Somebody wants to read it: a client that waits for that is to be told.
    wanted: Arc<AtomicBool>,
}

impl ClientBody {
    /// Lends the reading half to a body. What is left comes back to the receiver.
    pub(super) fn lend(reader: Reader, reading: Reading) -> (Self, oneshot::Receiver<Rest>, Arc<AtomicBool>) {
        let (home, back) = oneshot::channel();
        let wanted = Arc::new(AtomicBool::new(false));
        let body = Self { reader: Some(reader), reading, broken: false, home: Some(home), wanted: Arc::clone(&wanted) };
        (body, back, wanted)
    }

    /// The next frame; nothing at the end.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(reader) = &mut self.reader else { return Poll::Ready(None) };
        self.wanted.store(true, Ordering::Relaxed);
        let frame = self.reading.poll_frame(&mut reader.half, &mut reader.buffer, cx);
        self.broken |= matches!(frame, Poll::Ready(Some(Err(_))));
        frame
    }

    /// Nobody waits for the rest of it any more.
    pub(crate) fn give_up(&mut self) {
        self.broken = true;
    }

    /// Whether it was read to its end.
    pub(crate) fn is_done(&self) -> bool {
        self.reading.is_done()
    }

    /// How much of it is left, where that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        self.reading.length()
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        let (Some(reader), Some(home)) = (self.reader.take(), self.home.take()) else { return };
        let reading = std::mem::replace(&mut self.reading, Reading::Done);
        // A connection that is over wants nothing back.
        let _ = home.send(Rest { reader, reading, broken: self.broken });
    }
}

impl std::fmt::Debug for ClientBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientBody").field("reading", &self.reading).finish()
    }
}
