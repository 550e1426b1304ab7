//! A request's frames behind its head, and its body as an endpoint gets it.
//!
//! In: the client's half of a stream. Out: data as it comes, then trailers. Nothing is read that nobody asks for: QUIC's windows hold the client
//! back. Source: RFC 9114 §4.1 (order of frames), §4.1.2 (length).

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use quinn::{Connection, ReadError};
use tokio::sync::Notify;

use super::control::unknown;
use super::frames::{
    CANCEL_PUSH, Code, DATA, Fault, Frames, GOAWAY, HEADERS, MAX_PUSH_ID, PUSH_PROMISE, Piece, SETTINGS, Take,
};
use super::head::{self, Bad};
use super::qpack::Bounds;
use crate::http::Early;

/// What a body tells whoever answers its request.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// Somebody wants the body.
    pub(super) wanted: Notify,
    /// The client takes its request back.
    pub(super) taken_back: Notify,
    /// What comes before the answer.
    pub(super) early: Arc<Early>,
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    Body,
    Trailed,
}

/// The client's half of a stream.
pub(super) struct Incoming {
    frames: Frames,
    connection: Connection,
    bounds: Bounds,
    place: Place,
}

impl Incoming {
    pub(super) fn new(frames: Frames, connection: Connection, bounds: Bounds) -> Self {
        Self { frames, connection, bounds, place: Place::Head }
    }

    /// The next piece. A fault of the connection ends it.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, ReadError>> {
        let (place, max) = (self.place, self.bounds.bytes_max);
        let piece = match ready!(self.frames.poll_next(cx, |kind| taken(kind, place, max))) {
            Ok(piece) => piece,
            Err(Fault::Gone(gone)) => return Poll::Ready(Err(gone)),
            Err(Fault::Connection(code, why)) => return Poll::Ready(Err(self.fail(code, why))),
        };
        if matches!(&piece, Some(Piece::Whole(..))) {
            self.place = if place == Place::Head { Place::Body } else { Place::Trailed };
        }
        Poll::Ready(Ok(piece))
    }

    /// Ends the connection.
    pub(super) fn fail(&self, code: Code, why: &'static str) -> ReadError {
        self.connection.close(code.into(), why.as_bytes());
        ReadError::ConnectionLost(quinn::ConnectionError::LocallyClosed)
    }

    pub(super) fn stop(&mut self, code: Code) {
        self.frames.stop(code);
    }

    pub(super) fn is_ended(&self) -> bool {
        self.frames.is_ended()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // "Clients MUST NOT discard complete responses as a result of having their request terminated abruptly" with this code (§4.1).
        if !self.is_ended() {
            self.stop(Code::NoError);
        }
    }
}

/// What is done with a frame of a request.
fn taken(kind: u64, place: Place, max: usize) -> Take {
    match (kind, place) {
        (HEADERS, Place::Head | Place::Body) => Take::Whole(max),
        (DATA, Place::Body) => Take::Data,
        (
            DATA | HEADERS | CANCEL_PUSH | SETTINGS | PUSH_PROMISE | GOAWAY | MAX_PUSH_ID,
            Place::Head | Place::Body | Place::Trailed,
        ) => Take::Refuse(Code::FrameUnexpected),
        _ => unknown(kind),
    }
}

/// Why a body does not come whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error("the client takes its request back, or is gone: {0}")]
    Gone(#[from] ReadError),
    #[error("{0}")]
    Bad(&'static str),
}

/// A request's body.
pub(crate) struct ClientBody {
    incoming: Incoming,
    /// A piece that was read already.
    first: Option<Bytes>,
    /// How much is to come, where that is known.
    left: Option<u64>,
    signals: Arc<Signals>,
    is_asked: bool,
    is_done: bool,
}

impl std::fmt::Debug for ClientBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientBody").field("left", &self.left).field("is_done", &self.is_done).finish_non_exhaustive()
    }
}

impl ClientBody {
    pub(super) fn new(incoming: Incoming, first: Option<Bytes>, length: Option<u64>, signals: Arc<Signals>) -> Self {
        let is_done = incoming.is_ended();
        Self { incoming, first, left: length, signals, is_asked: false, is_done }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        if !std::mem::replace(&mut self.is_asked, true) {
            self.signals.wanted.notify_one();
        }
        loop {
            let piece = match self.first.take() {
                Some(data) => Some(Piece::Data(data)),
                None => match ready!(self.incoming.poll_piece(cx)) {
                    Ok(piece) => piece,
                    Err(gone) => {
                        self.is_done = true;
                        self.signals.taken_back.notify_one();
                        return Poll::Ready(Some(Err(gone.into())));
                    }
                },
            };
            let frame = match piece {
                Some(Piece::Data(data)) if data.is_empty() => continue,
                Some(Piece::Data(data)) => self.counted(&data).map(|()| Some(Frame::data(data))),
                Some(Piece::Whole(_, section)) => {
                    self.trailers(&section).map(|trailers| Some(Frame::trailers(trailers)))
                }
                Some(Piece::TooLong(_)) => Err(Lost::Bad("the trailers are too long")),
                None if self.left.is_some_and(|left| left > 0) => Err(Lost::Bad("the body is shorter than it says")),
                None => Ok(None),
            };
            return Poll::Ready(match frame {
                Ok(Some(frame)) => Some(Ok(frame)),
                Ok(None) => {
                    self.is_done = true;
                    None
                }
                Err(lost) => {
                    self.is_done = true;
                    self.incoming.stop(Code::Message);
                    Some(Err(lost))
                }
            });
        }
    }

    /// "A request … is malformed if … the value of the Content-Length header field does not equal the sum of the DATA frame lengths" (§4.1.2).
    fn counted(&mut self, data: &Bytes) -> Result<(), Lost> {
        let Some(left) = &mut self.left else { return Ok(()) };
        *left = left.checked_sub(data.len() as u64).ok_or(Lost::Bad("the body is longer than it says"))?;
        Ok(())
    }

    fn trailers(&mut self, section: &[u8]) -> Result<http::HeaderMap, Lost> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(Lost::Bad("the body is shorter than it says"));
        }
        head::trailers(section, self.incoming.bounds).map_err(|bad| match bad {
            Bad::Malformed(why) => Lost::Bad(why),
            Bad::TooLong => Lost::Bad("the trailers are too long"),
            Bad::Undecodable => Lost::Gone(self.incoming.fail(Code::Decompression, "trailers that can't be decoded")),
        })
    }
}
