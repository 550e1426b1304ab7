//! One attempt: a request sent on one connection, and the wait until its answer begins.
//!
//! While it waits, a slow endpoint is looked at, and one that is found to be down is given up.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::SendRequest;
use tokio::time::{Instant, sleep_until};

use super::body::Outgoing;
use crate::endpoint::Endpoint;
use crate::plane::Plane;
use crate::pool::Connection;

/// An answer that takes longer makes us look whether the endpoint is there.
const SUSPECT_AFTER: Duration = Duration::from_secs(1);
/// So long a request that can't be sent again waits for an endpoint that went down.
const DOWN_MAX: Duration = Duration::from_secs(10);
const FAR: Duration = Duration::from_secs(86_400 * 365);

/// What became of an attempt.
pub(super) enum Sent {
    /// The answer begins; the connection can be used again once its body was read.
    Answer(Box<Response<Incoming>>, Option<SendRequest<Outgoing>>),
    /// Nothing was sent. Whether the connection was an older one.
    Unsent(Outgoing, bool),
    /// The connection ended without an answer. Whether it was an older one.
    Lost(bool),
    /// The endpoint went down meanwhile.
    Down,
    /// No answer in time.
    Late,
}

/// Sends `request` and waits for the answer's head.
pub(super) async fn exchange(
    plane: &Plane,
    endpoint: &Arc<Endpoint>,
    connection: Connection,
    request: Request<Outgoing>,
    replayable: bool,
    limit: Option<Instant>,
) -> Sent {
    let mut down = endpoint.down.subscribe();
    let mut waiting = Waiting { plane, endpoint, down: &mut down, replayable, limit };
    match connection {
        Connection::H1 { mut sender, reused } => match waiting.answer(sender.try_send_request(request)).await {
            Ok(response) => Sent::Answer(Box::new(response), Some(sender)),
            Err(failed) => failed.sent(reused),
        },
        Connection::H2(mut sender) => match waiting.answer(sender.try_send_request(request)).await {
            Ok(response) => Sent::Answer(Box::new(response), None),
            Err(failed) => failed.sent(sender.is_closed()),
        },
    }
}

enum Failed {
    Broken(Box<TrySendError<Request<Outgoing>>>),
    Down,
    Late,
}

impl Failed {
    fn sent(self, reused: bool) -> Sent {
        match self {
            Self::Broken(mut error) => match error.take_message() {
                Some(request) => Sent::Unsent(request.into_body(), reused),
                None => Sent::Lost(reused),
            },
            Self::Down => Sent::Down,
            Self::Late => Sent::Late,
        }
    }
}

struct Waiting<'a> {
    plane: &'a Plane,
    endpoint: &'a Arc<Endpoint>,
    down: &'a mut tokio::sync::watch::Receiver<u64>,
    replayable: bool,
    limit: Option<Instant>,
}

impl Waiting<'_> {
    async fn answer(
        &mut self,
        answer: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Outgoing>>>>,
    ) -> Result<Response<Incoming>, Failed> {
        let mut answer = std::pin::pin!(answer);
        let now = Instant::now();
        let mut limit = self.limit.unwrap_or(now + FAR);
        let (mut suspected, mut went_down) = (false, false);
        loop {
            tokio::select! {
                biased;
                answered = answer.as_mut() => return answered.map_err(|e| Failed::Broken(Box::new(e))),
                () = sleep_until(now + SUSPECT_AFTER), if !suspected => {
                    suspected = true;
                    self.plane.health.suspect(self.endpoint);
                }
                changed = self.down.changed(), if !went_down => {
                    if self.replayable {
                        return Err(Failed::Down);
                    }
                    went_down = true;
                    // The sender lives as long as the endpoint.
                    if changed.is_ok() {
                        limit = limit.min(Instant::now() + DOWN_MAX);
                    }
                }
                () = sleep_until(limit) => return Err(Failed::Late),
            }
        }
    }
}
