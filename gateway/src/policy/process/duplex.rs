//! A body whose pieces are shown as they come, while the processor's own come back whenever it likes: FULL_DUPLEX_STREAMED.
//!
//! In: a body. Out: what the processor sends in its place, and nothing else. It may answer to headers only once it has seen pieces, or all, of
//! the body. Both sides are bounded by what the streams take. Time counts once all of the body was said: then each word of the processor's
//! has to come within its time. Source: envoy.extensions.filters.http.ext_proc.v3 (processing_mode.proto), StreamedBodyResponse.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep};

use super::body::Way;
use super::call::{Exchange, Shown, Told};
use super::message::{Answer, Mutation, ProcessingResponse, Said};
use crate::http::BodyError;
use crate::policy::carried::Carried;

type Sending = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Such a body.
pub(crate) struct Duplex {
    body: Carried,
    exchange: Arc<Exchange>,
    way: Way,
    grpc: bool,
    sending: Option<Sending>,
    /// All of the body was said.
    said: bool,
    /// Its trailers, until something was made of them.
    trailers: Option<HeaderMap>,
    /// Nothing comes any more but them.
    ended: bool,
    over: bool,
    patience: Option<Pin<Box<Sleep>>>,
}

/// Why it does not go on.
enum Stop {
    /// The client, or the endpoint, broke it off.
    Broken(BodyError),
    /// The processor fails.
    Fails(String),
}

impl Duplex {
    pub(crate) fn new(body: Carried, exchange: Arc<Exchange>, way: Way, grpc: bool) -> Self {
        Self {
            body,
            exchange,
            way,
            grpc,
            sending: None,
            said: false,
            trailers: None,
            ended: false,
            over: false,
            patience: None,
        }
    }

    /// Shows headers, and pieces of the body as they come, until the processor says what becomes of the headers.
    ///
    /// # Errors
    /// What the client gets, because nobody says that it may pass, or because its body is broken.
    pub(crate) async fn head(&mut self, headers: Said, part: Shown) -> Result<Told, Response<Bytes>> {
        let exchange = Arc::clone(&self.exchange);
        self.sending = Some(Box::pin(async move { exchange.say(headers).await }));
        let heard = std::future::poll_fn(|cx| {
            if let Err(stop) = self.poll_say(cx) {
                return Poll::Ready(Err(stop));
            }
            self.poll_word(cx)
        });
        let stop = match heard.await {
            Ok(word) => match word.told(part) {
                Some(told) => return Ok(told),
                None => Stop::Fails("it answers something else".to_owned()),
            },
            Err(stop) => stop,
        };
        self.over = true;
        Err(match stop {
            Stop::Fails(why) => self.exchange.fails(why),
            Stop::Broken(_) => self.exchange.fails("the body that it was shown broke off".to_owned()),
        })
    }

    /// Says what there is of the body.
    fn poll_say(&mut self, cx: &mut Context<'_>) -> Result<(), Stop> {
        loop {
            if let Some(sending) = &mut self.sending {
                match sending.as_mut().poll(cx) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Err(why)) => return Err(Stop::Fails(why)),
                    Poll::Ready(Ok(())) => self.sending = None,
                }
            }
            if self.said {
                return Ok(());
            }
            let piece = match self.body.as_mut().poll_frame(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Err(error))) => return Err(Stop::Broken(error)),
                Poll::Ready(None) => {
                    self.said = true;
                    self.way.body(Bytes::new(), true)
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data().map_err(Frame::into_trailers) {
                    Ok(piece) => {
                        self.said = self.body.is_end_stream();
                        self.way.body(piece, self.said)
                    }
                    Err(Ok(trailers)) => {
                        self.said = true;
                        let shown = self.way.trailers(&trailers);
                        self.trailers = Some(trailers);
                        shown
                    }
                    Err(Err(_)) => continue,
                },
            };
            let exchange = Arc::clone(&self.exchange);
            self.sending = Some(Box::pin(async move { exchange.say(piece).await }));
        }
    }

    /// The next word of the processor's.
    fn poll_word(&mut self, cx: &mut Context<'_>) -> Poll<Result<ProcessingResponse, Stop>> {
        match self.exchange.poll_heard(self.way, cx) {
            Poll::Ready(Ok(Some(word))) => {
                self.patience = None;
                return Poll::Ready(Ok(word));
            }
            Poll::Ready(Ok(None)) => {
                return Poll::Ready(Err(Stop::Fails("it ended its stream before the body".to_owned())));
            }
            Poll::Ready(Err(why)) => return Poll::Ready(Err(Stop::Fails(why))),
            Poll::Pending => {}
        }
        if !self.said || self.sending.is_some() {
            return Poll::Pending;
        }
        let end = Instant::now() + self.exchange.within;
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        let late = patience.as_mut().poll(cx);
        late.map(|()| Err(Stop::Fails("no answer in time".to_owned())))
    }

    /// What a word makes of the body; nothing where it is not heard by the other side.
    fn frame(&mut self, word: ProcessingResponse) -> Result<Option<Frame<Bytes>>, Stop> {
        let other = || Stop::Fails("it answers something else".to_owned());
        let common = match word.answer.ok_or_else(other)? {
            Answer::Immediate(immediate) => {
                let _ = self.exchange.instead.set(immediate.answer(self.grpc));
                return Err(Stop::Broken(BodyError::Refused));
            }
            Answer::RequestBody(said) if self.way == Way::Request => said.response.unwrap_or_default(),
            Answer::ResponseBody(said) if self.way == Way::Response => said.response.unwrap_or_default(),
            Answer::RequestTrailers(said) | Answer::ResponseTrailers(said) => {
                let mut trailers = self.trailers.take().ok_or_else(other)?;
                super::message::CommonResponse::of(said).change(&mut trailers, "");
                self.over = true;
                return Ok(Some(Frame::trailers(trailers)));
            }
            _ => return Err(other()),
        };
        match common.body_mutation.and_then(|mutation| mutation.mutation) {
            Some(Mutation::Streamed(piece)) => {
                self.ended |= piece.end_of_stream;
                Ok(Some(Frame::data(piece.body)).filter(|frame| frame.data_ref().is_some_and(|body| !body.is_empty())))
            }
            // It says nothing in the place of a piece.
            None => Ok(None),
            Some(_) => Err(other()),
        }
    }

    fn stop(&mut self, stop: Stop) -> BodyError {
        self.over = true;
        match stop {
            Stop::Broken(error) => error,
            Stop::Fails(why) => {
                let _ = self.exchange.instead.set(self.exchange.fails(why));
                BodyError::Refused
            }
        }
    }
}

impl Body for Duplex {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if self.over {
                return Poll::Ready(None);
            }
            if self.ended {
                self.over = true;
                return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            let word = match self.poll_say(cx) {
                Err(stop) => Err(stop),
                Ok(()) => std::task::ready!(self.poll_word(cx)),
            };
            match word.and_then(|word| self.frame(word)) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) => {}
                Err(stop) => return Poll::Ready(Some(Err(self.stop(stop)))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.ended && self.trailers.is_none()
    }
}

impl Drop for Duplex {
    fn drop(&mut self) {
        self.exchange.leave(self.way);
    }
}
