//! A stream that became a tunnel: octets in data frames, both ways (RFC 9220 §3, RFC 9114 §4.4).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use quinn::SendStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{Code, DATA, Piece, put_front};
use super::upload::Incoming;

/// What is put into one frame at most.
const FRAME_BYTES_MAX: usize = 16 * 1024;

/// Octets both ways.
pub(super) struct Tunnel<'a> {
    incoming: Incoming,
    /// Read, and not taken yet.
    read: Bytes,
    outgoing: &'a mut SendStream,
    /// A frame that is not written whole yet.
    unsent: Bytes,
}

impl<'a> Tunnel<'a> {
    pub(super) fn new(incoming: Incoming, outgoing: &'a mut SendStream) -> Self {
        Self { incoming, read: Bytes::new(), outgoing, unsent: Bytes::new() }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = Pin::new(&mut *self.outgoing).poll_write(cx, &self.unsent);
            let sent = ready!(sent).map_err(io::Error::other)?;
            self.unsent.advance(sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Tunnel<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.read.is_empty() {
            match ready!(self.incoming.poll_piece(cx)).map_err(io::Error::other)? {
                Some(Piece::Data(data)) => self.read = data,
                None => return Poll::Ready(Ok(())),
                // "Once the CONNECT method has completed, only DATA frames are permitted to be sent on the stream" (RFC 9114 §4.4).
                Some(Piece::Whole(..) | Piece::TooLong(_)) => {
                    let gone = self.incoming.fail(Code::FrameUnexpected, "a tunnel carries data only");
                    return Poll::Ready(Err(io::Error::other(gone)));
                }
            }
        }
        let most = self.read.len().min(into.remaining());
        into.put_slice(&self.read.split_to(most));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let octets = &octets[..octets.len().min(FRAME_BYTES_MAX)];
        let mut frame = Vec::with_capacity(octets.len() + 8);
        put_front(&mut frame, DATA, octets.len());
        frame.extend_from_slice(octets);
        self.unsent = frame.into();
        // It is taken; what does not go out now goes out with what follows, or with the flush.
        let _ = self.poll_send(cx)?;
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        // One that was stopped has nobody to hear of its end.
        let _ = self.outgoing.finish();
        Poll::Ready(Ok(()))
    }
}
