//! Bodies that a processor sees: piece by piece as they pass, or whole before they go on.
//!
//! In: a body. Out: what the processor makes of it. A piece goes on once it was answered, so bodies pass no faster than the processor works.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};

use super::call::{Exchange, Told};
use super::message::{HttpBody, HttpTrailers, Said};
use crate::http::BodyError;
use crate::policy::carried::Carried;

/// Whose body it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Request,
    Response,
}

impl Way {
    /// A piece of its body.
    pub(crate) fn body(self, body: Bytes, end_of_stream: bool) -> Said {
        let body = HttpBody { body, end_of_stream };
        match self {
            Self::Request => Said::RequestBody(body),
            Self::Response => Said::ResponseBody(body),
        }
    }

    /// The other one.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Request => Self::Response,
            Self::Response => Self::Request,
        }
    }

    pub(super) fn trailers(self, trailers: &HeaderMap) -> Said {
        let trailers = HttpTrailers::of(trailers);
        match self {
            Self::Request => Said::RequestTrailers(trailers),
            Self::Response => Said::ResponseTrailers(trailers),
        }
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Frame<Bytes>, BodyError>> + Send>>;

/// A body that is shown as it passes.
pub(crate) struct Passing {
    body: Carried,
    exchange: Arc<Exchange>,
    way: Way,
    /// What of it is shown.
    pieces: bool,
    trailers: bool,
    /// A clone of the gRPC client's question whether trailers only are understood.
    grpc: bool,
    answering: Option<Answering>,
    /// The processor knows that nothing comes any more, or need not.
    ended: bool,
}

impl Passing {
    pub(crate) fn new(
        body: Carried,
        exchange: Arc<Exchange>,
        way: Way,
        (pieces, trailers): (bool, bool),
        grpc: bool,
    ) -> Self {
        Self { body, exchange, way, pieces, trailers, grpc, answering: None, ended: false }
    }

    fn show(&mut self, piece: Bytes, last: bool) {
        let (exchange, shown, grpc) = (Arc::clone(&self.exchange), self.way.body(piece.clone(), last), self.grpc);
        self.answering = Some(Box::pin(async move {
            let mut common = told(&exchange, shown, grpc).await?;
            Ok(Frame::data(common.body().unwrap_or(piece)))
        }));
    }

    fn show_trailers(&mut self, mut trailers: HeaderMap) {
        let (exchange, shown, grpc) = (Arc::clone(&self.exchange), self.way.trailers(&trailers), self.grpc);
        self.answering = Some(Box::pin(async move {
            told(&exchange, shown, grpc).await?.change(&mut trailers, "");
            Ok(Frame::trailers(trailers))
        }));
    }
}

/// What a processor makes of a piece; what the client gets in the place of an answer is left in the exchange.
async fn told(exchange: &Exchange, shown: Said, grpc: bool) -> Result<super::message::CommonResponse, BodyError> {
    let instead = match exchange.show(shown).await {
        Ok(Told::Goes(common, _)) => return Ok(common),
        Ok(Told::Instead(immediate)) => immediate.answer(grpc),
        Err(refused) => refused,
    };
    let _ = exchange.instead.set(instead);
    Err(BodyError::Refused)
}

impl Body for Passing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(answering) = &mut self.answering {
                let frame = ready!(answering.as_mut().poll(cx));
                self.answering = None;
                match frame {
                    Ok(frame) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                    Ok(frame) => return Poll::Ready(Some(Ok(frame))),
                    Err(error) => {
                        self.ended = true;
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match ready!(self.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data().map_err(Frame::into_trailers) {
                    Ok(piece) if self.pieces => {
                        self.ended = self.body.is_end_stream();
                        let last = self.ended;
                        self.show(piece, last);
                    }
                    Ok(piece) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                    Err(Ok(trailers)) => {
                        self.ended = true;
                        if !self.trailers {
                            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                        }
                        self.show_trailers(trailers);
                    }
                    Err(Err(other)) => return Poll::Ready(Some(Ok(other))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    self.ended = true;
                    if self.pieces {
                        self.show(Bytes::new(), true);
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.answering.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.pieces { SizeHint::default() } else { self.body.size_hint() }
    }
}

/// A body that was read, and its trailers.
pub(crate) fn again(all: Bytes, trailers: Option<HeaderMap>) -> Carried {
    let body = Full::new(all).map_err(|never| match never {});
    match trailers {
        None => Box::pin(body),
        Some(trailers) => Box::pin(body.with_trailers(std::future::ready(Some(Ok(trailers))))),
    }
}
