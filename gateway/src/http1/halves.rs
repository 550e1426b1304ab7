//! A client's stream in two halves: the reading one is lent to bodies, the writing one stays with the connection.
//!
//! Both are polled by the connection's task most of the time, so that nobody waits for the lock.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use atoll_reach::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::progress::Taken;

type Shared = Arc<Mutex<BoxStream>>;

/// What reads.
pub(super) struct Reads(Shared);

/// What writes.
pub(super) struct Writes(Shared);

/// Both halves of a stream.
pub(super) fn halves(stream: BoxStream) -> (Reads, Writes) {
    let shared = Arc::new(Mutex::new(stream));
    (Reads(Arc::clone(&shared)), Writes(shared))
}

/// The stream whose halves these are.
pub(super) fn join(reads: Reads, writes: Writes) -> Option<BoxStream> {
    drop(reads);
    let stream = Arc::into_inner(writes.0)?;
    Some(stream.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn lock(shared: &Shared) -> MutexGuard<'_, BoxStream> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writes {
    /// Whether [`Self::poll_by`] can be called: the client's connection is TCP and nothing else.
    pub(super) fn is_bare(&self) -> bool {
        let any: &dyn Any = &**lock(&self.0);
        any.downcast_ref().is_some_and(Taken::is_bare)
    }

    /// Lets `write` put octets into the connection, once it takes some; it breaks, as with any write, if it takes none for too long.
    ///
    /// # Errors
    /// As `write`'s; `TimedOut`; `Unsupported` where [`Self::is_bare`] is false.
    pub(super) fn poll_by(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let any: &mut dyn Any = &mut **lock(&self.0);
        match any.downcast_mut::<Taken>() {
            Some(taken) => taken.poll_by(cx, write),
            None => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }
}

impl AsyncRead for Reads {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_read(cx, buf)
    }
}

impl AsyncWrite for Writes {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *lock(&self.0)).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *lock(&self.0)).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        lock(&self.0).is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_shutdown(cx)
    }
}
