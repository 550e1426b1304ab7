//! Bodies as they pass through: towards endpoints, and back to clients.
//!
//! Bytes are handed on as they come, never collected. The end of an answer's body gives the endpoint's connection back to its pool.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;

use crate::endpoint::Endpoint;
use crate::pool::Pool;

type FramePoll = Poll<Option<Result<Frame<Bytes>, hyper::Error>>>;

/// A request's body towards an endpoint.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Empty,
    Whole(Full<Bytes>),
    Incoming(Incoming),
    /// A client's; says when the client broke it off or wrote what is no body.
    Client(Incoming, Arc<AtomicBool>),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(body) => whole(body, cx),
            Self::Incoming(body) => Pin::new(body).poll_frame(cx),
            Self::Client(body, broken) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                if matches!(frame, Some(Err(_))) {
                    broken.store(true, Ordering::Release);
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(body) => body.is_end_stream(),
            Self::Incoming(body) | Self::Client(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(body) => body.size_hint(),
            Self::Incoming(body) | Self::Client(body, _) => body.size_hint(),
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
    body: Outgoing,
    in_flight: Option<InFlight>,
}

impl Reply {
    /// A body of our own.
    pub(crate) fn own(body: impl Into<Bytes>) -> Self {
        Self { body: Outgoing::Whole(Full::new(body.into())), in_flight: None }
    }

    /// An endpoint's.
    pub(crate) fn of(body: Incoming, in_flight: InFlight) -> Self {
        Self { body: Outgoing::Incoming(body), in_flight: Some(in_flight) }
    }

    fn finish(&mut self) {
        if let Some(in_flight) = self.in_flight.take() {
            in_flight.finish();
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() {
            self.finish();
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

impl Drop for Reply {
    fn drop(&mut self) {
        // A body that is known to be at its end is not polled again.
        if self.body.is_end_stream() {
            self.finish();
        }
    }
}
