//! A body that is taken in as it passes: kept once it came whole, forgotten where it breaks, is too long, or nobody reads it to its end
//! (RFC 9111 §3.3: an incomplete answer is not kept).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::store::{Flight, Kept, Stamped, Store};
use crate::http::BodyError;
use crate::policy::carried::Carried;

/// A body on its way into the store.
pub(crate) struct Fill {
    body: Carried,
    filling: Option<Filling>,
}

/// What is taken in so far.
pub(crate) struct Filling {
    pub(crate) store: Arc<Store>,
    pub(crate) stamped: Stamped,
    pub(crate) flight: Option<Flight>,
    /// All but the body.
    pub(crate) kept: Kept,
    /// The length that was said.
    pub(crate) length: Option<u64>,
    pub(crate) pieces: Vec<Bytes>,
    pub(crate) bytes: u64,
}

impl Filling {
    /// Takes a piece in; whether that may be.
    fn take(&mut self, piece: &Bytes) -> bool {
        let more = piece.len() as u64;
        self.bytes += more;
        let fits = self.store.grow(more) && self.bytes <= self.store.entry_bytes_max as u64;
        if fits {
            // What is kept holds no more memory than its octets.
            self.pieces.push(Bytes::copy_from_slice(piece));
        }
        fits
    }

    fn end(mut self) {
        let is_whole = self.length.is_none_or(|length| length == self.bytes);
        if is_whole {
            let mut kept = self.empty();
            kept.body = match &mut self.pieces[..] {
                [one] => std::mem::take(one),
                many => many.concat().into(),
            };
            self.store.put(&self.stamped, kept);
        }
        if let Some(flight) = self.flight.take() {
            flight.ends(is_whole);
        }
    }

    fn empty(&mut self) -> Kept {
        let said = self.kept.said.clone();
        let Kept { status, lifetime, initial_age, came, .. } = self.kept;
        let rule = self.kept.rule.clone();
        let (headers, vary) = (std::mem::take(&mut self.kept.headers), std::mem::take(&mut self.kept.vary));
        Kept { status, headers, body: Bytes::new(), said, lifetime, initial_age, came, rule, vary }
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        self.store.shrink(self.bytes);
    }
}

impl Fill {
    pub(crate) fn new(body: Carried, filling: Filling) -> Self {
        let mut fill = Self { body, filling: Some(filling) };
        fill.look();
        fill
    }

    /// Keeps it, where it is at its end.
    fn look(&mut self) {
        if self.body.is_end_stream()
            && let Some(filling) = self.filling.take()
        {
            filling.end();
        }
    }
}

impl Body for Fill {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(self.body.as_mut().poll_frame(cx));
        match &frame {
            None => {
                if let Some(filling) = self.filling.take() {
                    filling.end();
                }
            }
            Some(Err(_)) => self.filling = None,
            Some(Ok(frame)) => {
                let too_long = match (frame.data_ref(), &mut self.filling) {
                    (Some(data), Some(filling)) => !filling.take(data),
                    _ => false,
                };
                if too_long && let Some(mut filling) = self.filling.take() {
                    // It will not be kept the next time either.
                    filling.flight.take().into_iter().for_each(|flight| flight.ends(false));
                }
                self.look();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
