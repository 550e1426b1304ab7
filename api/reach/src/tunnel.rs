//! One HTTP/2 stream as a byte stream: flow-controlled both ways, half-close kept, a reset is an error; and what both sides of the relay
//! have agreed on.
//!
//! In: the two halves of an accepted CONNECT (RFC 9113 §8.5). Out: [`Tunnel`]. Bytes are given back to the peer's window
//! only once they are read here, so that a slow reader slows the far sender and nothing piles up in between.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

/// The response header that says why a stream was not opened.
pub const REASON_HEADER: &str = "atoll-reason";
/// Streams at once on one connection; the agent allows a few more, so that ours is the limit that is met.
pub(crate) const STREAMS_MAX: usize = 1000;
/// What one stream may have in flight.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// What a connection may have in flight: 256 streams may stall entirely before others feel it.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 64 * 1024 * 1024;
/// The most that one write hands to the connection.
const WRITE_MAX: usize = 64 * 1024;

/// A CONNECT stream. Dropped before both directions ended, it is reset.
pub(crate) struct Tunnel {
    send: SendStream<Bytes>,
    recv: RecvStream,
    /// Received, not yet read.
    chunk: Bytes,
    ended: bool,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Tunnel {
    pub(crate) fn new(send: SendStream<Bytes>, recv: RecvStream, slot: Option<OwnedSemaphorePermit>) -> Self {
        Self { send, recv, chunk: Bytes::new(), ended: false, _slot: slot }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.chunk.is_empty() {
            match ready!(self.recv.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => self.chunk = data,
                Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
            }
        }
        let n = self.chunk.len().min(buf.remaining());
        buf.put_slice(&self.chunk[..n]);
        self.chunk.advance(n);
        // Fails only when the stream is over, which the next read says better.
        let _ = self.recv.flow_control().release_capacity(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(buf.len().min(WRITE_MAX));
        loop {
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(0)) => {}
                Some(Ok(n)) => {
                    let n = n.min(buf.len());
                    let data = Bytes::copy_from_slice(&buf[..n]);
                    return Poll::Ready(self.send.send_data(data, false).map(|()| n).map_err(to_io));
                }
                Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
                None => return Poll::Ready(Err(self.why_closed(cx))),
            }
        }
    }

    /// The connection's own task sends; nothing waits here.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        self.ended = true;
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(to_io))
    }
}

impl Tunnel {
    fn why_closed(&mut self, cx: &mut Context<'_>) -> io::Error {
        match self.send.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => reset(reason),
            Poll::Ready(Err(error)) => to_io(error),
            Poll::Pending => io::ErrorKind::BrokenPipe.into(),
        }
    }
}

fn reset(reason: Reason) -> io::Error {
    let kind = if reason == Reason::NO_ERROR { io::ErrorKind::BrokenPipe } else { io::ErrorKind::ConnectionReset };
    io::Error::new(kind, format!("the relayed stream was reset: {reason}"))
}

/// An HTTP/2 error as an I/O error.
pub(crate) fn to_io(error: h2::Error) -> io::Error {
    match error.reason() {
        Some(reason) if error.is_reset() => reset(reason),
        _ if error.is_io() => error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()),
        _ => io::Error::new(io::ErrorKind::ConnectionReset, error),
    }
}
