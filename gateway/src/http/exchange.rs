//! One attempt: a request sent on one connection, and the wait until its answer begins.
//!
//! While it waits, an endpoint that says nothing is asked whether it is there, and one that is found to be down is given up, unless nobody else
//! is left. Most answers come before any of that matters: those cost no timer.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use atoll_reach::BoxStream;
use http::request::Parts;
use http::{Method, Request, Response, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::SendRequest;
use tokio::time::{Instant, sleep_until};

use super::body::Outgoing;
use super::forward::Ask;
use crate::endpoint::Endpoint;
use crate::health::LOOK_AFTER;
use crate::http1::{self, Exchange, Failed, HeadBounds, render_request};
use crate::plane::Plane;
use crate::pool::Connection;
use crate::progress::Alarm;

/// An answer within this time needs nobody to watch over it.
const QUICK: Duration = Duration::from_millis(50);
/// So long a request that can't be sent again, or to nobody else, waits for an endpoint that went down and stays so.
const DOWN_MAX: Duration = Duration::from_secs(10);
const FAR: Duration = Duration::from_secs(86_400 * 365);

/// An answer that began.
pub(super) enum Answer {
    H1(Box<http1::Answer>),
    H2(Box<Response<Incoming>>),
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::H1(answer) => answer.head.status,
            Self::H2(answer) => answer.status().as_u16(),
        }
    }
}

/// What became of an attempt.
pub(super) enum Sent {
    Answer(Answer),
    /// Nothing was sent. Whether the connection was an older one.
    Unsent(Outgoing, bool),
    /// The connection ended without an answer. Whether it was an older one.
    Lost(bool),
    /// The answer is none, or more than one may be: it was there, and may be worked on elsewhere no better.
    Malformed(&'static str),
    /// The endpoint went down meanwhile.
    Down,
    /// People disabled it.
    Disabled,
    /// No answer in time.
    Late,
}

/// What an attempt needs to know beside the request.
pub(super) struct Attempt<'a> {
    pub(super) plane: &'a Plane,
    pub(super) endpoint: &'a Arc<Endpoint>,
    pub(super) replayable: bool,
    /// Whether somebody else is there to be asked.
    pub(super) elsewhere: &'a (dyn Fn() -> bool + Sync),
    pub(super) limit: Option<Instant>,
    pub(super) alarm: &'a mut Alarm,
}

impl Attempt<'_> {
    /// Sends a request and waits for the answer's head.
    pub(super) async fn send(&mut self, connection: Connection, ask: Ask<'_>, body: Outgoing) -> Sent {
        match connection {
            Connection::H1 { stream, reused } => self.h1(stream, reused, ask, body).await,
            Connection::H2(sender) => Box::pin(self.h2(sender, ask, body)).await,
        }
    }

    async fn h2(&mut self, mut sender: SendRequest<Outgoing>, ask: Ask<'_>, body: Outgoing) -> Sent {
        let Ask::Whole(head) = ask else { return Sent::Unsent(body, false) };
        let request = request(head, body, self.endpoint);
        let mut answer = Box::pin(sender.try_send_request(request));
        match self.wait(&mut answer).await {
            Ok(Ok(answer)) => Sent::Answer(Answer::H2(Box::new(answer))),
            Ok(Err(error)) => {
                drop(answer);
                unsent(error, sender.is_closed())
            }
            Err(given_up) => given_up,
        }
    }

    async fn h1(&mut self, stream: BoxStream, reused: bool, ask: Ask<'_>, body: Outgoing) -> Sent {
        let early = ask.early();
        let limits = &self.plane.limits;
        let bounds = HeadBounds { bytes: limits.header_bytes_max, fields: limits.headers_max };
        let mut exchange = match ask {
            Ask::Plain(plain) => Exchange::new(stream, plain.octets, (body, plain.chunked), plain.is_head, bounds),
            Ask::Whole(head) => {
                let (mut octets, length) = (Vec::new(), body.size_hint().exact());
                render_request(&mut octets, head, length);
                Exchange::new(stream, &octets, (body, length.is_none()), head.method == Method::HEAD, bounds)
            }
        };
        let mut answer = poll_fn(|cx| exchange.poll(early, cx));
        match self.wait(&mut answer).await {
            Ok(Ok(answer)) => Sent::Answer(Answer::H1(Box::new(answer))),
            Ok(Err(Failed::Unsent(body))) => Sent::Unsent(body, reused),
            Ok(Err(Failed::Lost)) => Sent::Lost(reused),
            Ok(Err(Failed::Malformed(why))) => Sent::Malformed(why),
            Err(given_up) => given_up,
        }
    }

    /// Waits for an answer, unless the endpoint is given up before.
    async fn wait<T>(&mut self, answer: &mut (impl Future<Output = T> + Unpin)) -> Result<T, Sent> {
        let (began, falls) = (Instant::now(), self.endpoint.falls());
        let limit = self.limit.unwrap_or(began + FAR);
        if let Some(answered) = self.alarm.unless(limit.min(began + QUICK), answer).await {
            return Ok(answered);
        }
        Box::pin(self.watch(answer, began, falls, limit)).await
    }

    /// The same, and watches over the endpoint. `falls`: how often it had been down when the wait began.
    async fn watch<T>(
        &mut self,
        answer: &mut (impl Future<Output = T> + Unpin),
        began: Instant,
        falls: u64,
        limit: Instant,
    ) -> Result<T, Sent> {
        let mut down = self.endpoint.down.subscribe();
        let (mut looked, mut fell) = (false, self.endpoint.falls() != falls || self.endpoint.is_disabled());
        let (mut is_down, mut until) = (false, limit);
        loop {
            if std::mem::take(&mut fell) {
                if self.endpoint.is_disabled() {
                    return Err(Sent::Disabled);
                }
                if self.replayable && (self.elsewhere)() {
                    return Err(Sent::Down);
                }
                if !is_down {
                    (is_down, until) = (true, limit.min(Instant::now() + DOWN_MAX));
                }
            }
            tokio::select! {
                biased;
                answered = &mut *answer => return Ok(answered),
                () = sleep_until(began + LOOK_AFTER), if !looked => {
                    looked = true;
                    self.plane.health.waited(self.endpoint, began);
                }
                // The sender lives as long as the endpoint.
                changed = down.changed() => fell = changed.is_ok(),
                () = sleep_until(until) => {
                    if until < limit && !self.endpoint.state().is_failing() {
                        // It is well again, and may have the request still.
                        (is_down, until) = (false, limit);
                        continue;
                    }
                    self.plane.health.waited(self.endpoint, began);
                    return Err(Sent::Late);
                }
            }
        }
    }
}

fn unsent(mut error: TrySendError<Request<Outgoing>>, reused: bool) -> Sent {
    match error.take_message() {
        Some(request) => Sent::Unsent(request.into_body(), reused),
        None => Sent::Lost(reused),
    }
}

/// A request as HTTP/2 has it.
fn request(head: &Parts, body: Outgoing, endpoint: &Endpoint) -> Request<Outgoing> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.headers_mut() = head.headers.clone();
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(http::header::HOST);
    let host = host.as_ref().and_then(|h| h.to_str().ok()).unwrap_or("localhost");
    let target = head.uri.path_and_query().map_or("/", |p| p.as_str());
    let scheme = if endpoint.address.tls.is_some() { "https" } else { "http" };
    *request.uri_mut() = format!("{scheme}://{host}{target}").parse::<Uri>().unwrap_or_else(|_| head.uri.clone());
    request
}
