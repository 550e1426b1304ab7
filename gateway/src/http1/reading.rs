//! A body as it is read: how much of it is left, by its framing.
//!
//! In: a stream and what was read of it already. Out: frames without their framing, or the octets as they are, for whoever passes them on.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tokio::io::AsyncRead;

use super::buffer::{Buffer, LARGE, SMALL};
use super::chunked::{Chunked, Piece};
use super::head::{Bad, Framing};

/// A body with more left is read in large pieces.
const LONG: u64 = 32 * 1024;

/// Why a body can't be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The connection.
    #[error(transparent)]
    Stream(#[from] io::Error),
    /// It ended in the middle.
    #[error("the connection ended within the body")]
    Short,
    /// The endpoint was disabled.
    #[error("the endpoint was disabled within the body")]
    Disabled,
    /// It is not framed as it must be.
    #[error("{}", .0.1)]
    Framing(Bad),
}

/// What is left of a body.
#[derive(Debug)]
pub(crate) enum Reading {
    Done,
    Length(u64),
    Chunked(Box<Chunked>),
    /// Until the stream ends.
    Close,
}

impl From<Framing> for Reading {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::default()),
            Framing::Close => Self::Close,
        }
    }
}

impl Reading {
    /// Whether it was read to its end.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// How long it is, where that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Done => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::Close => None,
        }
    }

    /// How much is left, of a body of known length that is long.
    pub(crate) fn long(&mut self) -> Option<&mut u64> {
        match self {
            Self::Length(left) if *left > LONG => Some(left),
            _ => None,
        }
    }

    fn size(&self) -> usize {
        let long = self.length().is_none_or(|left| left > LONG);
        if long { LARGE } else { SMALL }
    }

    /// Waits until the buffer holds something of the body, or the body is at its end.
    pub(crate) fn poll_fill<R: AsyncRead + Unpin + ?Sized>(
        &mut self,
        stream: &mut R,
        buffer: &mut Buffer,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        if self.is_done() || !buffer.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if ready!(buffer.poll_read(stream, self.size(), cx))? == 0 {
            if !matches!(self, Self::Close) {
                return Poll::Ready(Err(Broken::Short));
            }
            *self = Self::Done;
        }
        Poll::Ready(Ok(()))
    }

    /// How many octets at the buffer's beginning belong to the body, framing included. They count as read.
    pub(crate) fn span(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        match self {
            Self::Done => Ok(0),
            Self::Close => Ok(bytes.len()),
            Self::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= n as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(n)
            }
            Self::Chunked(chunked) => {
                let (n, end) = chunked.span(bytes).map_err(Broken::Framing)?;
                if end {
                    *self = Self::Done;
                }
                Ok(n)
            }
        }
    }

    /// The next frame without framing; nothing at the end.
    pub(crate) fn poll_frame<R: AsyncRead + Unpin + ?Sized>(
        &mut self,
        stream: &mut R,
        buffer: &mut Buffer,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            if let Err(broken) = ready!(self.poll_fill(stream, buffer, cx)) {
                return Poll::Ready(Some(Err(broken)));
            }
            let data = match self {
                Self::Done => return Poll::Ready(None),
                Self::Close | Self::Length(_) => {
                    let bytes = buffer.bytes();
                    let n = self.span(bytes).unwrap_or_default();
                    Bytes::copy_from_slice(&bytes[..n])
                }
                Self::Chunked(chunked) => match chunked.next(buffer.bytes()) {
                    Err(bad) => return Poll::Ready(Some(Err(Broken::Framing(bad)))),
                    Ok(Some(Piece::Data(n))) => Bytes::copy_from_slice(&buffer.bytes()[..n]),
                    Ok(Some(Piece::Framing(n))) => {
                        buffer.used(n);
                        continue;
                    }
                    Ok(None) => continue,
                    Ok(Some(Piece::End(n))) => {
                        buffer.used(n);
                        let trailers = chunked.trailers();
                        *self = Self::Done;
                        return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                    }
                },
            };
            buffer.used(data.len());
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }
}
