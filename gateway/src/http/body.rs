//! Bodies as they pass through: towards endpoints, and back to clients.
//!
//! Bytes are handed on as they come, never collected. The end of an answer's body gives the endpoint's connection back to its pool.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;

use super::streams;
use super::upload::{Answered, Upload};
use crate::endpoint::Endpoint;
use crate::pool::Pool;

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// Whoever sends it broke it off, or sent what is none.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// The client did not go on with it.
    #[error("the client does not go on with its body")]
    Late,
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

/// A request in flight at an endpoint, and its connection.
pub(crate) struct InFlight {
    endpoint: Arc<Endpoint>,
    connection: Option<SendRequest<Outgoing>>,
}

impl InFlight {
    pub(crate) fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { endpoint, connection: None }
    }

    /// Keeps the connection until the answer's body was read.
    pub(crate) fn holding(mut self, connection: Option<SendRequest<Outgoing>>) -> Self {
        self.connection = connection;
        self
    }

    fn finish(mut self) {
        if let Some(connection) = self.connection.take() {
            Pool::give_back(&self.endpoint, connection);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
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
    Endpoint(Incoming),
}

impl Reply {
    /// A body of our own.
    pub(crate) fn own(body: impl Into<Bytes>) -> Self {
        Self { body: Source::Own(Full::new(body.into())), rest: Bytes::new(), in_flight: None, answered: None }
    }

    /// An endpoint's; `answered` is told to the body of the request.
    pub(crate) fn of(body: Incoming, in_flight: InFlight, answered: Option<Answered>) -> Self {
        Self { body: Source::Endpoint(body), rest: Bytes::new(), in_flight: Some(in_flight), answered }
    }

    fn finish(&mut self) {
        self.answered = None;
        if let Some(in_flight) = self.in_flight.take() {
            in_flight.finish();
        }
    }

    fn is_read(&self) -> bool {
        match &self.body {
            Source::Own(body) => body.is_end_stream(),
            Source::Endpoint(body) => body.is_end_stream(),
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> FramePoll {
        match &mut self.body {
            Source::Own(body) => whole(body, cx),
            Source::Endpoint(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)))
            }
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
            Source::Endpoint(body) => body.size_hint(),
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
