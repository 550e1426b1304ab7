//! A stream whose writes fail once the client has not read for too long.
//!
//! In: a stream, how long to wait. Out: the same stream, `TimedOut` where it would wait longer. Source: RFC 7766 §6.2.3 lets servers
//! close connections as they need; a client that does not read holds buffers.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// The stream.
pub(crate) struct Patient<S> {
    inner: S,
    max: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(crate) fn new(inner: S, max: Duration) -> Self {
        Self { inner, max, waiting: None }
    }

    fn within<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let max = self.max;
        ready!(self.waiting.get_or_insert_with(|| Box::pin(sleep(max))).as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, octets);
        self.within(written, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.within(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.inner).poll_shutdown(context);
        self.within(ended, context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_given_up_and_one_that_reads_slowly_is_not() {
        let (near, mut far) = tokio::io::duplex(8);
        let mut stream = Patient::new(near, Duration::from_secs(5));
        let start = Instant::now();
        let reading = async {
            for _ in 0..10 {
                sleep(Duration::from_secs(4)).await;
                far.read_exact(&mut [0; 8]).await.unwrap();
            }
            far
        };
        let (written, _far) = tokio::join!(stream.write_all(&[0; 80]), reading);
        written.unwrap();
        assert_eq!(start.elapsed().as_secs(), 40);
        let failed = stream.write_all(&[0; 80]).await.unwrap_err();
        assert_eq!((failed.kind(), start.elapsed().as_secs()), (io::ErrorKind::TimedOut, 45));
    }
}
