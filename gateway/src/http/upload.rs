//! A client's body on its way to an endpoint: kept where it may be sent again, given up where the client does not go on with it.
//!
//! In: what hyper reads. Out: frames as they come, and for whoever sent the body on what became of it. While an endpoint's answer is on its
//! way back a silent client is no slow one: both sides of a stream speak as they like.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use prometheus::IntCounter;

use super::body::{BodyError, FramePoll, Outgoing};
use super::refusal::Refusal;
use crate::http1::{self, Broken, ClientBody};
use crate::http3;
use crate::metrics::Cut;
use crate::plane::Plane;
use crate::policy::carried::{Carried, Read};
use crate::progress::Patience;

/// Why a body did not come whole. No endpoint is to blame then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The client broke it off, or wrote what is no body.
    Broken,
    /// The client did not go on.
    Late,
    /// It is longer than a policy lets it be.
    TooLong,
    /// A processor does not let it go on.
    Refused,
}

/// What becomes of a body.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    fault: OnceLock<Fault>,
    /// An answer is on its way back.
    answered: AtomicBool,
}

impl Fate {
    /// What the client is told if its body did not come whole.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        Some(match self.fault.get()? {
            Fault::Broken => Refusal::bad("the body of the request is broken"),
            Fault::TooLong => Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long"),
            Fault::Refused => Refusal::unavailable("a processor does not let the body go on"),
            Fault::Late => Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body of the request does not go on"),
        })
    }
}

/// Tells a body that its answer is on its way back, until dropped.
#[derive(Debug)]
pub(crate) struct Answered(Arc<Fate>);

impl Answered {
    fn new(fate: &Arc<Fate>) -> Self {
        fate.answered.store(true, Ordering::Release);
        Self(Arc::clone(fate))
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.0.answered.store(false, Ordering::Release);
    }
}

/// Where a client's body comes from.
#[derive(Debug)]
pub(crate) enum FromClient {
    H1(ClientBody),
    H2(Incoming),
    H3(Box<http3::ClientBody>),
    Nothing,
}

/// A client's body.
pub(crate) struct Upload {
    body: Source,
    fate: Arc<Fate>,
    /// Nothing: the client may be silent for as long as it likes.
    patience: Option<Patience>,
    cut: IntCounter,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("fate", &self.fate).finish_non_exhaustive()
    }
}

/// What is read.
enum Source {
    Client(FromClient),
    /// As guards left it.
    Carried(Carried),
}

impl Upload {
    /// `calls`: it is the client's side of a gRPC call, which may be silent before the endpoint says anything; whether the client still
    /// is there HTTP/2's pings tell.
    pub(crate) fn new(plane: &Plane, body: FromClient, calls: bool) -> Self {
        let patience = (!calls).then(|| Patience::new(plane.limits.body_timeout));
        Self { body: Source::Client(body), fate: Arc::default(), patience, cut: plane.metrics.cuts(Cut::Body) }
    }

    /// The client may be silent for as long as it likes.
    pub(super) fn wait(&mut self) {
        self.patience = None;
    }

    /// It, and nothing in its place.
    pub(super) fn take(&mut self) -> Self {
        let empty = Source::Carried(crate::policy::carried::whole(Bytes::new()));
        Self {
            body: std::mem::replace(&mut self.body, empty),
            fate: Arc::clone(&self.fate),
            patience: self.patience.take(),
            cut: self.cut.clone(),
        }
    }

    /// Puts a body around it.
    pub(crate) fn wrap(&mut self, around: impl FnOnce(Carried) -> Carried) {
        let empty = Source::Carried(crate::policy::carried::whole(Bytes::new()));
        let inner: Carried = match std::mem::replace(&mut self.body, empty) {
            Source::Client(body) => Box::pin(body),
            Source::Carried(body) => body,
        };
        self.body = Source::Carried(around(inner));
    }

    /// Its body, and nothing in its place.
    pub(crate) fn take_out(&mut self) -> Carried {
        let mut taken = None;
        self.wrap(|body| {
            taken = Some(body);
            crate::policy::carried::whole(Bytes::new())
        });
        taken.unwrap_or_else(|| crate::policy::carried::whole(Bytes::new()))
    }

    /// So long a client that stands still is waited for, by whoever reads its body before it goes on.
    pub(crate) fn within(&self) -> std::time::Duration {
        self.patience.as_ref().map_or(std::time::Duration::from_secs(3600), Patience::within)
    }

    /// Reads it up to `max`; what is longer can be read again.
    ///
    /// # Errors
    /// It broke, or did not go on.
    pub(crate) async fn peek(&mut self, max: usize) -> Result<Option<Bytes>, BodyError> {
        // A client that stands still meanwhile is waited for as long as for the rest of its body.
        let (within, body) = (self.within(), self.take_out());
        let read = crate::policy::carried::read(body, max);
        match tokio::time::timeout(within, read).await.map_err(|_| BodyError::Late)?? {
            Read::Whole(bytes, _) => {
                let again = bytes.clone();
                self.wrap(|_| crate::policy::carried::whole(again));
                Ok(Some(bytes))
            }
            Read::More(body) => {
                self.wrap(|_| body);
                Ok(None)
            }
        }
    }

    /// Shared with it.
    pub(super) fn fate(&self) -> Arc<Fate> {
        Arc::clone(&self.fate)
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(patience) = &mut self.patience else { return false };
        while patience.is_over(cx) {
            if !self.fate.answered.load(Ordering::Acquire) {
                return true;
            }
            patience.moved();
        }
        false
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll {
        let this = self.get_mut();
        let frame = match &mut this.body {
            Source::Client(body) => body.poll_frame(cx),
            Source::Carried(body) => body.as_mut().poll_frame(cx),
        };
        let Poll::Ready(frame) = frame else {
            if !this.is_late(cx) {
                return Poll::Pending;
            }
            this.cut.inc();
            if let Source::Client(FromClient::H1(body)) = &mut this.body {
                body.give_up();
            }
            let _ = this.fate.fault.set(Fault::Late);
            return Poll::Ready(Some(Err(BodyError::Late)));
        };
        // Frames of nothing, which are free, are no progress.
        let is_empty = matches!(&frame, Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty));
        if let Some(patience) = this.patience.as_mut().filter(|_| !is_empty) {
            patience.moved();
        }
        if let Some(Err(error)) = &frame {
            let _ = this.fate.fault.set(match error {
                BodyError::TooLong => Fault::TooLong,
                BodyError::Late => Fault::Late,
                BodyError::Refused => Fault::Refused,
                BodyError::Broken(_) | BodyError::Hyper(_) | BodyError::Lost(_) | BodyError::Coding(_) => Fault::Broken,
            });
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Source::Client(body) => body.is_end_stream(),
            Source::Carried(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Source::Client(body) => body.size_hint(),
            Source::Carried(body) => body.size_hint(),
        }
    }
}

impl Body for FromClient {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll {
        self.get_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::H1(body) => body.is_done(),
            Self::H2(body) => body.is_end_stream(),
            Self::H3(body) => body.is_done(),
            Self::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::H1(body) => body.length().map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::H2(body) => body.size_hint(),
            Self::H3(body) => body.size_hint(),
            Self::Nothing => SizeHint::with_exact(0),
        }
    }
}

impl FromClient {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> FramePoll {
        match self {
            Self::H1(body) => body.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(BodyError::Broken))),
            Self::H2(body) => Pin::new(body).poll_frame(cx).map(|frame| {
                let frame = frame?.map_err(BodyError::Hyper);
                Some(frame.and_then(judged))
            }),
            Self::H3(body) => body.poll_frame(cx).map(|frame| {
                let frame = frame?.map_err(BodyError::Lost);
                Some(frame.and_then(judged))
            }),
            Self::Nothing => Poll::Ready(None),
        }
    }
}

/// A frame of HTTP/2 or HTTP/3 with nothing among its trailers that may not be there; HTTP/1.1's are judged where they are read.
fn judged(frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
    let may = frame.trailers_ref().is_none_or(|trailers| trailers.keys().all(http1::may_trail));
    if may { Ok(frame) } else { Err(BodyError::Broken(Broken::Framing(http1::NO_TRAILER))) }
}

/// A body that may have to be sent more than once.
pub(crate) enum Payload {
    Empty,
    Whole(Bytes),
    /// Gone once it was sent.
    Once(Option<Upload>, Arc<Fate>),
}

impl Payload {
    pub(crate) fn new(upload: Upload) -> Self {
        if upload.is_end_stream() {
            return Self::Empty;
        }
        let fate = upload.fate();
        Self::Once(Some(upload), fate)
    }

    pub(super) fn take(&mut self) -> Option<Outgoing> {
        match self {
            Self::Empty => Some(Outgoing::Empty),
            Self::Whole(bytes) => Some(Outgoing::Whole(Full::new(bytes.clone()))),
            Self::Once(upload, _) => upload.take().map(Outgoing::Client),
        }
    }

    /// Takes a body back that was not sent.
    pub(super) fn put(&mut self, unsent: Outgoing) {
        if let (Self::Once(kept, _), Outgoing::Client(upload)) = (self, unsent) {
            *kept = Some(upload);
        }
    }

    /// Whether it can be sent again whatever happens.
    pub(super) fn is_there(&self) -> bool {
        !matches!(self, Self::Once(..))
    }

    /// What the client is told if its body did not come whole.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Once(_, fate) => fate.refusal(),
            _ => None,
        }
    }

    /// Its answer is on its way back for as long as this is held.
    pub(super) fn answered(&self) -> Option<Answered> {
        match self {
            Self::Once(_, fate) => Some(Answered::new(fate)),
            _ => None,
        }
    }
}
