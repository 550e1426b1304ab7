//! Revocation: the serials that no longer count, at the handshake and for streams that live already.
//!
//! In: the list from the topology. Out: yes or no, and a cut stream. Never fetches the list itself.

use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::role::Serial;
use crate::stream::BoxStream;

/// The list of revoked serials, shared by everybody who checks it and changed by whoever learns of it.
#[derive(Debug, Clone)]
pub struct Revocations {
    list: Arc<watch::Sender<Arc<HashSet<Serial>>>>,
}

impl Revocations {
    /// An empty list.
    #[must_use]
    pub fn none() -> Self {
        Self { list: Arc::new(watch::Sender::new(Arc::default())) }
    }

    /// Replaces the whole list. Streams of serials that are new in it are cut at once.
    pub fn set(&self, serials: impl IntoIterator<Item = Serial>) {
        let next: HashSet<Serial> = serials.into_iter().collect();
        self.list.send_if_modified(|current| {
            let changed = **current != next;
            if changed {
                *current = Arc::new(next);
            }
            changed
        });
    }

    /// Whether a serial is revoked now.
    #[must_use]
    pub fn has(&self, serial: &Serial) -> bool {
        self.list.borrow().contains(serial)
    }

    /// Waits until a serial is revoked; for ever if it never is. Cancel safe.
    pub fn until(&self, serial: Serial) -> impl Future<Output = ()> + Send + 'static {
        let mut watch = self.list.subscribe();
        async move {
            if watch.wait_for(|list| list.contains(&serial)).await.is_err() {
                // The list's owner has gone, and with it everybody who could revoke.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Wraps a stream so that it fails once its peer's serial is revoked.
    #[must_use]
    pub fn guard(&self, stream: BoxStream, serial: Serial) -> Cut {
        Cut { stream, revoked: Some(Box::pin(self.until(serial))) }
    }
}

/// A stream that ends with an error when its peer is revoked. Whoever reads it is woken then.
pub struct Cut {
    stream: BoxStream,
    /// Nothing once it has happened.
    revoked: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Cut {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let over = self.revoked.as_mut().is_none_or(|until| until.as_mut().poll(cx).is_ready());
        if over {
            self.revoked = None;
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the peer's certificate was revoked"));
        }
        Ok(())
    }
}

impl AsyncRead for Cut {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // Not polled here: the one waker of `revoked` belongs to the reader, which always waits on a live stream.
        if self.revoked.is_none() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn a_live_stream_is_cut_when_its_serial_is_revoked_and_others_are_not() {
        let list = Revocations::none();
        let (near, _far) = tokio::io::duplex(64);
        let (other, _other_far) = tokio::io::duplex(64);
        let mut bad = list.guard(Box::new(near), Serial::from_hex("aa"));
        let mut good = list.guard(Box::new(other), Serial::from_hex("bb"));
        let reader = tokio::spawn(async move { bad.read_u8().await });
        tokio::task::yield_now().await;
        list.set([Serial::from_hex("0AA")]);
        assert_eq!(reader.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert!(futures::poll!(std::pin::pin!(good.read_u8())).is_pending());
    }
}
