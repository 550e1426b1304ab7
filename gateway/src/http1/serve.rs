//! One connection of a client that speaks HTTP/1.1: request after request, until it ends or we do.
//!
//! In: a stream whose TLS was ended. Bounds: the head, its fields, the time that it may take, what is read of a body that nobody wants. At the
//! end the request that is under way is finished.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use atoll_reach::{BoxStream, again};
use tokio::io::{AsyncWrite as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::body::{Reader, Rest};
use super::buffer::{Buffer, SMALL};
use super::halves::{Writes, halves, join};
use super::head::{Bad, Framing, Head};
use super::plain::Taken;
use super::render::After;
use crate::http::{Client, Early, Refusal};
use crate::metrics::{Cut, Tally};
use crate::plane::Plane;
use crate::progress::{Alarm, Patience};

/// So much of a body that nobody wanted is read, so that the connection can be used again.
const UNWANTED_BYTES_MAX: usize = 256 * 1024;
/// So long a connection without a request is kept after the stop: a request that is on its way already gets its answer, and hears of the end
/// by that.
pub(crate) const LAST_CALL: Duration = Duration::from_secs(5);

/// A client's connection.
pub(super) struct Connection {
    pub(super) plane: Arc<Plane>,
    pub(super) client: Arc<Client>,
    /// Lent to bodies.
    pub(super) reader: Option<Reader>,
    pub(super) writer: Writes,
    pub(super) head: Head,
    pub(super) stop: CancellationToken,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    pub(super) alarm: Alarm,
    pub(super) tally: Tally,
    /// What is to be written, and the host asked for: their memory is used again.
    pub(super) out: Vec<u8>,
    pub(super) host: String,
    /// What came before the answer, and what of it could not be written yet.
    pub(super) early: Arc<Early>,
    pub(super) said: Vec<u8>,
}

/// What a request is as far as its connection is concerned.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) framing: Framing,
    pub(super) minor: u8,
    pub(super) is_head: bool,
    /// Whether the client wants the connection to go on.
    pub(super) persists: bool,
    pub(super) expects: bool,
}

/// How the connection goes on.
pub(super) enum Next {
    Request,
    Close,
    /// The endpoint's stream takes over.
    Switched(BoxStream, crate::http::InFlight),
}

/// Serves one connection. `stop`: no further requests.
///
/// # Errors
/// What ended it, for the log.
pub(crate) async fn serve(
    plane: Arc<Plane>,
    stream: BoxStream,
    client: Client,
    stop: CancellationToken,
) -> io::Result<()> {
    let (half, writer) = halves(stream);
    let connection = Box::new(Connection {
        client: Arc::new(client),
        reader: Some(Reader { half, buffer: Buffer::default() }),
        writer,
        head: Head::default(),
        stopped: Box::pin(stop.clone().cancelled_owned()),
        stop,
        alarm: Alarm::default(),
        tally: Tally::default(),
        out: Vec::new(),
        host: String::new(),
        early: Arc::default(),
        said: Vec::new(),
        plane,
    });
    let end = connection.plane.end.clone();
    end.run_until_cancelled(Box::pin(connection.run())).await.unwrap_or(Ok(()))
}

impl Connection {
    /// Serves it to its end. What it is made of is in a box: a future has room for what it is given, and again for where it goes.
    async fn run(mut self: Box<Self>) -> io::Result<()> {
        while self.next_head().await? {
            match self.one().await? {
                Next::Request => {}
                Next::Close => break,
                Next::Switched(endpoint, in_flight) => return Box::pin(self.tunnel(endpoint, in_flight)).await,
            }
        }
        self.writer.shutdown().await
    }

    /// Reads the next head; false: there is none any more.
    async fn next_head(&mut self) -> io::Result<bool> {
        let limits = &self.plane.limits;
        let (fields_max, bytes_max, within) = (limits.headers_max, limits.header_bytes_max, limits.header_timeout);
        let until = Instant::now() + within;
        let Self { reader, head, alarm, stop, stopped, .. } = self;
        let mut last_call = None;
        let Some(reader) = reader else { return Ok(false) };
        let read = poll_fn(|cx| {
            loop {
                if !reader.buffer.is_empty() {
                    match head.request(reader.buffer.bytes(), fields_max) {
                        Ok(Some(())) if head.len <= bytes_max => return Poll::Ready(Ok(true)),
                        Ok(None) if reader.buffer.len() <= bytes_max => {}
                        Ok(_) => return Poll::Ready(Err(Ended::Bad(Bad(431, "the head is too long")))),
                        Err(bad) => return Poll::Ready(Err(Ended::Bad(bad))),
                    }
                }
                match reader.buffer.poll_read(&mut reader.half, SMALL, cx) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Ok(false)),
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Ended::Stream(error))),
                    Poll::Pending => {}
                }
                if reader.buffer.is_empty() && (stop.is_cancelled() || stopped.as_mut().poll(cx).is_ready()) {
                    let last = *last_call.get_or_insert_with(|| Instant::now() + LAST_CALL);
                    if alarm.rings(last.min(until), cx) {
                        return Poll::Ready(Ok(false));
                    }
                }
                if alarm.rings(until, cx) {
                    return Poll::Ready(Err(Ended::Late));
                }
                return Poll::Pending;
            }
        });
        let ended = match read.await {
            Ok(there) => return Ok(there),
            Err(ended) => ended,
        };
        match ended {
            Ended::Stream(error) => Err(error),
            Ended::Late => {
                self.plane.metrics.cut(Cut::Head);
                Err(io::ErrorKind::TimedOut.into())
            }
            Ended::Bad(bad) => {
                Box::pin(self.refuse(bad)).await?;
                Ok(false)
            }
        }
    }

    /// Says why a request is refused, after which the connection ends.
    pub(super) async fn refuse(&mut self, bad: Bad) -> io::Result<Next> {
        let status = http::StatusCode::from_u16(bad.0).unwrap_or(http::StatusCode::BAD_REQUEST);
        let asked = Asked { framing: Framing::None, minor: 1, is_head: false, persists: false, expects: false };
        self.write(Refusal::new(status, bad.1).answer(), asked).await?;
        self.linger().await;
        Ok(Next::Close)
    }

    /// Answers the request whose head was read.
    async fn one(&mut self) -> io::Result<Next> {
        let Some(reader) = &self.reader else { return Ok(Next::Close) };
        let bytes = reader.buffer.bytes();
        // What comes behind a CONNECT may be meant for whom it names, so that nothing of it is read as a request.
        let connects = self.head.method(bytes) == b"CONNECT";
        let framing = if connects { Err(Bad(405, "CONNECT is not served")) } else { self.head.request_framing(bytes) };
        let framing = match framing {
            Ok(framing) => framing,
            Err(bad) => return Box::pin(self.refuse(bad)).await,
        };
        let expects = self.head.minor == 1
            && self.head.values(bytes, "expect").any(|value| value.eq_ignore_ascii_case(b"100-continue"));
        let asked = Asked {
            framing,
            minor: self.head.minor,
            is_head: self.head.method(bytes) == b"HEAD",
            persists: self.head.persists(bytes) && !self.stop.is_cancelled(),
            expects,
        };
        match self.plain(asked).await? {
            Taken::Yes(next) => Ok(next),
            Taken::No => Box::pin(self.whole(asked)).await,
        }
    }

    /// How the connection goes on after the answer to a request.
    pub(super) fn after(&self, asked: Asked) -> After {
        match (asked.persists && !self.stop.is_cancelled(), asked.minor) {
            (false, _) => After::Close,
            (true, 0) => After::KeepOld,
            (true, _) => After::Keep,
        }
    }

    /// Takes the reading half back from a body, and reads what nobody wanted of it. Whether the connection can be used again.
    pub(super) async fn take_back(&mut self, back: oneshot::Receiver<Rest>) -> bool {
        let within = self.plane.limits.body_timeout;
        let Ok(Ok(Rest { mut reader, mut reading, broken })) = tokio::time::timeout(within, back).await else {
            return false;
        };
        if broken {
            return false;
        }
        let mut patience = Patience::new(within);
        let mut left = UNWANTED_BYTES_MAX;
        let unwanted = poll_fn(|cx| {
            loop {
                match reading.poll_frame(&mut reader.half, &mut reader.buffer, cx) {
                    Poll::Ready(None) => return Poll::Ready(Some(true)),
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(false)),
                    Poll::Ready(Some(Ok(frame))) => {
                        patience.moved();
                        left = left.saturating_sub(frame.data_ref().map_or(0, bytes::Bytes::len));
                        if left == 0 {
                            return Poll::Ready(Some(false));
                        }
                    }
                    Poll::Pending if patience.is_over(cx) => return Poll::Ready(None),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        let read = unwanted.await;
        if read.is_none() {
            self.plane.metrics.cut(Cut::Body);
        }
        self.reader = Some(reader);
        read == Some(true)
    }

    /// Reads a little more before the end: a connection that is closed with something unread is reset, and its client may lose the answer
    /// (RFC 9112 §9.6).
    async fn linger(&mut self) {
        let _ = self.writer.shutdown().await;
        let Some(reader) = &mut self.reader else { return };
        let mut left = UNWANTED_BYTES_MAX;
        let rest = poll_fn(|cx: &mut Context<'_>| {
            loop {
                reader.buffer.used(reader.buffer.len());
                match std::task::ready!(reader.buffer.poll_read(&mut reader.half, SMALL, cx)) {
                    Ok(n) if n > 0 && n < left => left -= n,
                    _ => return Poll::Ready(()),
                }
            }
        });
        let _ = tokio::time::timeout(LINGER_MAX, rest).await;
    }

    /// Bytes both ways until either side ends.
    async fn tunnel(mut self, endpoint: BoxStream, in_flight: crate::http::InFlight) -> io::Result<()> {
        let Some(Reader { half, buffer }) = self.reader.take() else { return Ok(()) };
        let read = buffer.bytes().to_vec();
        let Some(client) = join(half, self.writer) else { return Ok(()) };
        in_flight.tunnel(again(read, client), endpoint).await;
        Ok(())
    }

    /// Writes all of `out` and then `more`.
    pub(super) async fn write_with(&mut self, mut more: &[u8]) -> io::Result<()> {
        if more.len() <= COPIED {
            self.out.extend_from_slice(more);
            return self.write_out().await;
        }
        let mut first = self.out.as_slice();
        while !first.is_empty() {
            let both = [io::IoSlice::new(first), io::IoSlice::new(more)];
            let n = poll_fn(|cx| Pin::new(&mut self.writer).poll_write_vectored(cx, &both)).await?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let of_first = n.min(first.len());
            (first, more) = (&first[of_first..], &more[n - of_first..]);
        }
        self.out.clear();
        self.writer.write_all(more).await
    }

    /// Writes all of `out`, and keeps its memory where that is small.
    pub(super) async fn write_out(&mut self) -> io::Result<()> {
        self.writer.write_all(&self.out).await?;
        self.out.clear();
        if self.out.capacity() > SMALL {
            self.out = Vec::new();
        }
        Ok(())
    }
}

/// What is written behind something else is copied if it is this short.
const COPIED: usize = 4096;
/// How long a client may take to read why it was refused.
const LINGER_MAX: Duration = Duration::from_millis(500);

enum Ended {
    Bad(Bad),
    Stream(io::Error),
    Late,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn every_connection_has_room_for_what_is_common_alone() {
        let octets = size(Connection::run);
        assert!(octets <= 4096, "{octets}");
    }
}
