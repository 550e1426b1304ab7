//! Bodies that pass through guards: bounded, slowed down, or holding something until their end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::http::BodyError;

/// A body of whatever make.
pub(crate) type Carried = Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>>;

/// A body that is there.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Carried {
    Box::pin(Full::new(bytes.into()).map_err(|never| match never {}))
}

/// What was read of a body, and the rest.
pub(crate) enum Read {
    /// All of it, and its trailers.
    Whole(Bytes, Option<HeaderMap>),
    /// More than was asked for, as a body again.
    More(Carried),
}

/// Reads a body up to `max`.
///
/// # Errors
/// It broke.
pub(crate) async fn read(mut body: Carried, max: usize) -> Result<Read, BodyError> {
    let (mut all, mut trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame?.into_data().map_err(Frame::into_trailers) {
            Ok(data) => all.extend_from_slice(&data),
            Err(Ok(read)) => trailers = Some(read),
            Err(Err(_)) => {}
        }
        if all.len() > max {
            return Ok(Read::More(Box::pin(Before { first: Some(all.into()), rest: body })));
        }
    }
    Ok(Read::Whole(all.into(), trailers))
}

/// The beginning of a body.
pub(crate) struct Beginning {
    pub(crate) first: Bytes,
    /// What follows; nothing where that was all.
    pub(crate) rest: Option<Carried>,
    pub(crate) trailers: Option<HeaderMap>,
}

/// Reads the first `max` octets of a body.
///
/// # Errors
/// It broke.
pub(crate) async fn beginning(body: Carried, max: usize) -> Result<Beginning, BodyError> {
    match read(body, max).await? {
        Read::Whole(first, trailers) => Ok(Beginning { first, rest: None, trailers }),
        Read::More(mut body) => {
            // What was read comes in one piece.
            let read = body.frame().await.transpose()?.and_then(|frame| frame.into_data().ok());
            let mut first = read.unwrap_or_default();
            let more = first.split_off(max.min(first.len()));
            Ok(Beginning { first, rest: Some(Box::pin(Before { first: Some(more), rest: body })), trailers: None })
        }
    }
}

/// Bytes, then a body.
pub(crate) struct Before {
    pub(crate) first: Option<Bytes>,
    pub(crate) rest: Carried,
}

type Polled = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

impl Body for Before {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        match self.first.take().filter(|first| !first.is_empty()) {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => self.rest.as_mut().poll_frame(cx),
        }
    }
}

/// A body of at most so many bytes.
pub(crate) struct Bounded {
    body: Carried,
    left: u64,
}

impl Bounded {
    pub(crate) fn new(body: Carried, max: u64) -> Self {
        Self { body, left: max }
    }
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let frame = ready!(self.body.as_mut().poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            match self.left.checked_sub(length) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(BodyError::TooLong))),
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

/// A body that goes no faster than that.
pub(crate) struct Paced {
    body: Carried,
    per_second: f64,
    burst: f64,
    /// May go now.
    tokens: f64,
    since: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    /// Read already; a piece goes out once there are tokens for it.
    rest: Bytes,
}

/// Slowed bodies go in pieces of at most so much.
const PIECE_MAX: usize = 16 * 1024;

impl Paced {
    pub(crate) fn new(body: Carried, per_second: u64, burst: u64) -> Self {
        let burst = burst.max(1) as f64;
        let (per_second, since) = (per_second.max(1) as f64, Instant::now());
        Self { body, per_second, burst, tokens: burst, since, timer: None, rest: Bytes::new() }
    }

    fn refill(&mut self) {
        let now = Instant::now();
        self.tokens = (self.tokens + now.duration_since(self.since).as_secs_f64() * self.per_second).min(self.burst);
        self.since = now;
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        if self.rest.is_empty() {
            match ready!(self.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        }
        loop {
            self.refill();
            let want = self.rest.len().min(PIECE_MAX).min(self.burst as usize).max(1);
            if self.tokens >= want as f64 || self.rest.is_empty() {
                self.tokens -= want as f64;
                let want = want.min(self.rest.len());
                let piece = self.rest.split_to(want);
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let wait = Duration::from_secs_f64(((want as f64 - self.tokens) / self.per_second).max(0.001));
            let due = Instant::now() + wait;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            timer.as_mut().reset(due);
            ready!(timer.as_mut().poll(cx));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut all = SizeHint::new();
        all.set_lower(hint.lower().saturating_add(rest));
        if let Some(upper) = hint.upper() {
            all.set_upper(upper.saturating_add(rest));
        }
        all
    }
}

/// A body that holds something until it is gone.
pub(crate) struct Holding<T> {
    body: Carried,
    held: Option<T>,
}

impl<T> Holding<T> {
    pub(crate) fn new(body: Carried, held: T) -> Self {
        Self { body, held: Some(held) }
    }
}

impl<T: Unpin> Body for Holding<T> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let frame = ready!(self.body.as_mut().poll_frame(cx));
        if frame.is_none() {
            self.held = None;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slowed_body_takes_its_time() {
        let began = Instant::now();
        let body = Paced::new(whole(vec![0; 10_000]), 1000, 1000);
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), 10_000);
        let took = began.elapsed().as_secs_f64();
        assert!((8.9..9.3).contains(&took), "the first thousand at once, then a thousand a second: {took}");
    }

    #[tokio::test]
    async fn a_bounded_body_breaks_where_it_is_too_long() {
        for (length, whole_) in [(10, true), (11, false)] {
            let read = Bounded::new(whole(vec![0; length]), 10).collect().await;
            assert_eq!(read.is_ok(), whole_, "{length}");
        }
    }

    #[tokio::test]
    async fn what_was_read_in_vain_is_read_again() {
        let Ok(Read::More(again)) = read(whole("hello"), 3).await else { panic!("it is longer") };
        assert_eq!(again.collect().await.unwrap().to_bytes(), "hello");
        assert!(matches!(read(whole("hello"), 5).await, Ok(Read::Whole(all, None)) if all == "hello"));
    }
}
