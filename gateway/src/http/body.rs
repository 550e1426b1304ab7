//! Bodies as they pass through: towards endpoints, and back to clients.
//!
//! Bytes are handed on as they come, never collected. The end of an answer's body gives the endpoint's connection back to its pool.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use atoll_reach::BoxStream;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::streams;
use super::upload::{Answered, Upload};
use crate::choose::Seat;
use crate::endpoint::Endpoint;
use crate::http1::{self, Broken};
use crate::http3::Lost;
use crate::policy::carried::Carried;
use crate::pool::Pool;

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// Whoever sends it broke it off, or sent what is none.
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
    /// The same on HTTP/1.1.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The same on HTTP/3.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The client did not go on with it.
    #[error("the client does not go on with its body")]
    Late,
    /// It is longer than a policy lets it be.
    #[error("the body is longer than it may be")]
    TooLong,
    /// A processor does not let it go on.
    #[error("a processor does not let the body go on")]
    Refused,
    /// It can't be written shorter.
    #[error("the body can't be coded: {0}")]
    Coding(std::io::Error),
}

pub(super) type FramePoll = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

/// A request's body towards an endpoint.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Empty,
    Whole(Full<Bytes>),
    Client(Upload),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(body) => whole(body, cx),
            Self::Client(upload) => Pin::new(upload).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(body) => body.is_end_stream(),
            Self::Client(upload) => upload.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(body) => body.size_hint(),
            Self::Client(upload) => upload.size_hint(),
        }
    }
}

fn whole(body: &mut Full<Bytes>, cx: &mut Context<'_>) -> FramePoll {
    Pin::new(body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(|never| match never {})))
}

/// A request in flight at an endpoint.
pub(crate) struct InFlight {
    endpoint: Arc<Endpoint>,
    /// What it takes of its cluster's capacity.
    _seat: Option<Seat>,
    /// The endpoint is disabled; looked at where its answer is waited for.
    disabled: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl InFlight {
    pub(crate) fn new(endpoint: Arc<Endpoint>, seat: Option<Seat>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { endpoint, _seat: seat, disabled: None }
    }

    /// Bytes both ways until either side ends, or the endpoint is disabled.
    pub(crate) async fn tunnel(self, mut client: impl AsyncRead + AsyncWrite + Unpin, mut endpoint: BoxStream) {
        let joined = tokio::io::copy_bidirectional(&mut client, &mut endpoint);
        let ended = self.endpoint.end.run_until_cancelled(joined).await;
        tracing::debug!(?ended, "tunnel ended");
    }

    /// What an answer's next octets are while none came: none ever, once the endpoint is disabled.
    pub(crate) fn or_ended<T>(&mut self, octets: Poll<T>, broken: impl FnOnce() -> T, cx: &mut Context<'_>) -> Poll<T> {
        if octets.is_ready() {
            return octets;
        }
        let end = &self.endpoint.end;
        let disabled = self.disabled.get_or_insert_with(|| Box::pin(end.clone().cancelled_owned()));
        disabled.as_mut().poll(cx).map(|()| broken())
    }

    /// The answer was read to its end: the connection takes the next request.
    pub(crate) fn finish(self, connection: Option<BoxStream>) {
        if let Some(connection) = connection {
            Pool::give_back(&self.endpoint, connection);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an endpoint's answer.
pub(super) enum FromEndpoint {
    H1(Box<http1::Incoming>),
    H2(Incoming),
}

/// An answer's body back to the client.
pub(crate) struct Reply {
    body: Source,
    /// Read already, and the next piece to go out.
    rest: Bytes,
    in_flight: Option<InFlight>,
    /// Until it is at its end.
    answered: Option<Answered>,
}

enum Source {
    Own(Full<Bytes>),
    H1(Box<http1::Incoming>),
    H2(Incoming),
    /// The endpoint speaks another protocol from now on.
    Switched(Option<BoxStream>),
    /// As guards left it.
    Carried(Carried),
}

impl Reply {
    /// A body of our own.
    pub(crate) fn own(body: impl Into<Bytes>) -> Self {
        Self { body: Source::Own(Full::new(body.into())), rest: Bytes::new(), in_flight: None, answered: None }
    }

    /// One that passed guards.
    pub(crate) fn carried(body: Carried) -> Self {
        Self { body: Source::Carried(body), rest: Bytes::new(), in_flight: None, answered: None }
    }

    /// An endpoint's; `answered` is told to the body of the request.
    pub(super) fn of(body: FromEndpoint, in_flight: InFlight, answered: Option<Answered>) -> Self {
        let body = match body {
            FromEndpoint::H1(body) => Source::H1(body),
            FromEndpoint::H2(body) => Source::H2(body),
        };
        Self { body, rest: Bytes::new(), in_flight: Some(in_flight), answered }
    }

    /// None: the endpoint's stream goes on without HTTP.
    pub(super) fn switched(stream: BoxStream, in_flight: InFlight) -> Self {
        let body = Source::Switched(Some(stream));
        Self { body, rest: Bytes::new(), in_flight: Some(in_flight), answered: None }
    }

    /// The endpoint's stream, where that goes on without HTTP.
    pub(crate) fn take_switched(&mut self) -> Option<(BoxStream, InFlight)> {
        let Source::Switched(stream) = &mut self.body else { return None };
        Some((stream.take()?, self.in_flight.take()?))
    }

    fn finish(&mut self) {
        self.answered = None;
        let Some(in_flight) = self.in_flight.take() else { return };
        let none = Source::Own(Full::default());
        let connection = match std::mem::replace(&mut self.body, none) {
            Source::H1(body) => body.into_idle(),
            Source::Own(_) | Source::H2(_) | Source::Switched(_) | Source::Carried(_) => None,
        };
        in_flight.finish(connection);
    }

    fn is_read(&self) -> bool {
        match &self.body {
            Source::Own(body) => body.is_end_stream(),
            Source::H1(body) => body.is_done(),
            Source::H2(body) => body.is_end_stream(),
            Source::Switched(_) => true,
            Source::Carried(body) => body.is_end_stream(),
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> FramePoll {
        match &mut self.body {
            Source::Own(body) => whole(body, cx),
            Source::Carried(body) => body.as_mut().poll_frame(cx),
            Source::H1(body) => {
                let mut frame = body.poll_frame(cx);
                if let Some(in_flight) = &mut self.in_flight {
                    frame = in_flight.or_ended(frame, || Some(Err(Broken::Disabled)), cx);
                }
                frame.map(|frame| frame.map(|frame| frame.map_err(BodyError::Broken)))
            }
            Source::H2(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Hyper)))
            }
            Source::Switched(_) => Poll::Ready(None),
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll {
        streams::asked();
        let mut data = std::mem::take(&mut self.rest);
        if data.is_empty() {
            let frame = ready!(self.read(cx));
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(read))) => data = read,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    self.finish();
                    return Poll::Ready(None);
                }
            }
        }
        if streams::is_stream() && data.len() > streams::PIECE_BYTES_MAX {
            self.rest = data.split_off(streams::PIECE_BYTES_MAX);
        }
        streams::given();
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.is_read()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = match &self.body {
            Source::Own(body) => body.size_hint(),
            Source::H1(body) => body.length().map_or_else(SizeHint::default, SizeHint::with_exact),
            Source::H2(body) => body.size_hint(),
            Source::Switched(_) => SizeHint::with_exact(0),
            Source::Carried(body) => body.size_hint(),
        };
        let rest = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        let mut all = SizeHint::new();
        all.set_lower(hint.lower().saturating_add(rest));
        if let Some(upper) = hint.upper() {
            all.set_upper(upper.saturating_add(rest));
        }
        all
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // A body that is known to be at its end is not polled again.
        if self.is_read() {
            self.finish();
        }
    }
}
