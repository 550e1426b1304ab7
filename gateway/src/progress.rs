//! Clients that don't go on: how long nothing may move before one is given up.
//!
//! In: what moved, and what did not. Out: that the time is over. It is the time between two movements, never that of the whole: what is slow
//! but goes on may take as long as it likes. Says nothing of a client that is not waited for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use atoll_reach::{BoxStream, tcp};
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// Measures one wait after the other.
#[derive(Debug)]
pub(crate) struct Patience {
    within: Duration,
    /// When the wait began that is under way.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(crate) fn new(within: Duration) -> Self {
        Self { within, since: None, timer: None }
    }

    /// How long that is.
    pub(crate) fn within(&self) -> Duration {
        self.within
    }

    /// Something moved.
    pub(crate) fn moved(&mut self) {
        self.since = None;
    }

    /// Whether nothing moved for the whole time; if not, the task is woken when that is to be asked again.
    pub(crate) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let due = *self.since.get_or_insert_with(Instant::now) + self.within;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        // Set anew only when it rings: most waits are short, and many.
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                return true;
            }
            timer.as_mut().reset(due);
        }
        false
    }
}

/// One timer for one wait after the other: set anew only when it rings or is to ring sooner, for most waits are short, and many.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    timer: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Whether it is that late; if not, the task is woken when it is.
    pub(crate) fn rings(&mut self, until: Instant, cx: &mut Context<'_>) -> bool {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= until {
                return true;
            }
            timer.as_mut().reset(until);
        }
        false
    }

    /// What `work` gives, unless it is late before that.
    pub(crate) async fn unless<T>(
        &mut self,
        until: Instant,
        work: &mut (impl Future<Output = T> + Unpin),
    ) -> Option<T> {
        std::future::poll_fn(|cx| match Pin::new(&mut *work).poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if self.rings(until, cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

/// A client's stream that breaks when the client takes nothing of what is written to it.
pub(crate) struct Taken {
    stream: BoxStream,
    patience: Patience,
    cut: IntCounter,
}

impl Taken {
    /// Breaks after `within`, and counts that in `cut`.
    pub(crate) fn new(stream: BoxStream, within: Duration, cut: IntCounter) -> Self {
        Self { stream, patience: Patience::new(within), cut }
    }

    /// Whether the stream is a TCP connection and nothing else.
    pub(crate) fn is_bare(&self) -> bool {
        tcp(&*self.stream).is_some()
    }

    /// Lets `write` put octets into the TCP connection, once it takes some.
    ///
    /// # Errors
    /// As `write`'s; `TimedOut`; `Unsupported` where [`Self::is_bare`] is false.
    pub(crate) fn poll_by(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let Some(tcp) = tcp(&*self.stream) else { return Poll::Ready(Err(io::ErrorKind::Unsupported.into())) };
        let written = loop {
            match tcp.poll_write_ready(cx) {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => match tcp.try_io(Interest::WRITABLE, || write(tcp)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    written => break Poll::Ready(written),
                },
            }
        };
        self.judge(cx, written)
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.patience.moved();
            return written;
        }
        if !self.patience.is_over(cx) {
            return Poll::Pending;
        }
        self.cut.inc();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl AsyncRead for Taken {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Taken {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(cx, closed)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::sleep;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(60);

    fn taken(room: usize) -> (Taken, tokio::io::DuplexStream, IntCounter) {
        let (near, far) = tokio::io::duplex(room);
        let cut = IntCounter::new("cut", "cut").unwrap();
        (Taken::new(Box::new(near), WITHIN, cut.clone()), far, cut)
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_cut_after_the_time() {
        let (mut near, _far, cut) = taken(64);
        let began = Instant::now();
        let broke = near.write_all(&[7; 100]).await.unwrap_err();
        assert_eq!((broke.kind(), cut.get()), (io::ErrorKind::TimedOut, 1));
        assert_eq!(began.elapsed().as_secs(), WITHIN.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_little_now_and_then_is_served_to_the_end() {
        let (mut near, mut far, cut) = taken(64);
        let sent = tokio::spawn(async move { near.write_all(&[7; 64 + 20]).await });
        for _ in 0..20 {
            sleep(WITHIN - Duration::from_secs(1)).await;
            far.read_u8().await.unwrap();
        }
        sent.await.unwrap().unwrap();
        assert_eq!(cut.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_given_nothing_may_be_silent() {
        let (mut near, mut far, cut) = taken(64);
        let asked = tokio::spawn(async move { near.read_u8().await });
        sleep(WITHIN * 100).await;
        far.write_u8(7).await.unwrap();
        assert_eq!((asked.await.unwrap().unwrap(), cut.get()), (7, 0));
    }
}
