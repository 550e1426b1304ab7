//! One request on one connection to an endpoint, and its answer: HTTP/1.1 as we write and read it.
//!
//! ```text
//!   send: head and what there is of the body ─► the rest, while the answer is waited for ─► Answer (head) ─► its body, then the connection again
//! ```
//!
//! An idle connection is a stream and nothing else: no task, no memory. Source: RFC 9112.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use atoll_reach::BoxStream;
use bytes::Bytes;
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;

use super::buffer::{Buffer, LARGE, SMALL};
use super::head::{Bad, Framing, Head};
use super::reading::{Broken, Reading};
use super::render;
use crate::http::{Early, Outgoing};

/// So many heads may come before an answer.
const EARLY_MAX: usize = 1000;
/// So much of a body is made ready before it is written.
const READY_BYTES: usize = 32 * 1024;

/// What the head of an answer may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadBounds {
    /// So long at most.
    pub(crate) bytes: usize,
    /// So many fields.
    pub(crate) fields: usize,
}

/// What is on its way to the endpoint.
struct Sending {
    out: Vec<u8>,
    written: usize,
    /// Whether anything of it left.
    begun: bool,
    body: Outgoing,
    chunked: bool,
    whole: bool,
}

impl Sending {
    /// Whether everything was written.
    fn is_over(&self) -> bool {
        self.whole && self.out.is_empty()
    }

    /// Writes until everything is written or the endpoint takes no more. Ready once everything is.
    fn poll(&mut self, stream: &mut BoxStream, cx: &mut Context<'_>) -> Poll<Result<(), Stuck>> {
        loop {
            while !self.whole && self.out.len() - self.written < READY_BYTES {
                match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Pending => break,
                    Poll::Ready(None) => {
                        if self.chunked {
                            render::last_chunk(&mut self.out, None);
                        }
                        self.whole = true;
                    }
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(Stuck::Body)),
                    Poll::Ready(Some(Ok(frame))) => self.put(frame),
                }
            }
            if self.written == self.out.len() {
                (self.written, self.out) = (0, Vec::new());
                let flushed = Pin::new(&mut *stream).poll_flush(cx).map_err(|_| Stuck::Stream)?;
                return if self.whole && flushed.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            let Poll::Ready(wrote) = Pin::new(&mut *stream).poll_write(cx, &self.out[self.written..]) else {
                return Poll::Pending;
            };
            match wrote {
                Ok(0) | Err(_) => return Poll::Ready(Err(Stuck::Stream)),
                Ok(n) => {
                    self.begun = true;
                    self.written += n;
                }
            }
        }
    }

    fn put(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) if self.chunked => render::chunk(&mut self.out, &data),
            Ok(data) => self.out.extend_from_slice(&data),
            Err(frame) => {
                if self.chunked {
                    render::last_chunk(&mut self.out, frame.trailers_ref());
                }
                self.whole = true;
            }
        }
    }
}

/// Why sending does not go on.
enum Stuck {
    /// The endpoint takes no more.
    Stream,
    /// The client's body broke; its fate says how.
    Body,
}

/// What became of a request that got no answer.
pub(crate) enum Failed {
    /// Nothing of it was sent.
    Unsent(Outgoing),
    /// It was sent, in part or whole, and the connection is over.
    Lost,
    /// It was answered with what is no answer, or more than one may be.
    Malformed(&'static str),
}

/// A request under way.
pub(crate) struct Exchange {
    stream: Option<BoxStream>,
    sending: Sending,
    buffer: Buffer,
    head: Head,
    bounds: HeadBounds,
    /// How many heads came before the answer.
    early: usize,
    is_head: bool,
    /// The endpoint takes nothing any more, but may have answered before.
    deaf: bool,
}

/// Whether an idle connection is still there: it has nothing to read, not even its end.
pub(crate) fn is_alive(stream: &mut BoxStream) -> bool {
    let mut octet = [0; 1];
    let mut room = tokio::io::ReadBuf::new(&mut octet);
    let mut cx = Context::from_waker(Waker::noop());
    tokio::io::AsyncRead::poll_read(Pin::new(stream), &mut cx, &mut room).is_pending()
}

impl Exchange {
    /// A request whose head is `octets`, on a connection that is there. `chunked`: how that head frames `body`.
    pub(crate) fn new(
        stream: BoxStream,
        octets: &[u8],
        (body, chunked): (Outgoing, bool),
        is_head: bool,
        bounds: HeadBounds,
    ) -> Self {
        let whole = body.is_end_stream() && !chunked;
        let sending = Sending { out: octets.to_vec(), written: 0, begun: false, body, chunked, whole };
        let (stream, buffer, head) = (Some(stream), Buffer::default(), Head::default());
        Self { stream, sending, buffer, head, bounds, early: 0, is_head, deaf: false }
    }

    /// Sends, and waits until an answer begins; what comes before it goes to `early`. Not to be polled again after that.
    pub(crate) fn poll(&mut self, early: Option<&Early>, cx: &mut Context<'_>) -> Poll<Result<Answer, Failed>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(Failed::Lost)) };
        if !(self.deaf || self.sending.is_over()) {
            match self.sending.poll(stream, cx) {
                Poll::Ready(Err(Stuck::Body)) => return self.fail(),
                // An endpoint may answer without having read everything, and close.
                Poll::Ready(Err(Stuck::Stream)) if self.sending.begun => self.deaf = true,
                Poll::Ready(Err(Stuck::Stream)) => return self.fail(),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        loop {
            let size = if self.buffer.is_empty() { SMALL } else { LARGE };
            match self.buffer.poll_read(stream, size, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) => return self.fail(),
                Poll::Ready(Ok(_)) => {}
            }
            while !self.buffer.is_empty() {
                match self.head.answer(self.buffer.bytes(), self.bounds.fields) {
                    Err(Bad(_, why)) => return self.refuse(why),
                    Ok(None) if self.buffer.len() <= self.bounds.bytes => break,
                    Ok(None) => return self.refuse("the head is too long"),
                    Ok(Some(())) if self.head.len > self.bounds.bytes => return self.refuse("the head is too long"),
                    Ok(Some(())) if self.head.status == 101 || self.head.status >= 200 => return self.answer(),
                    Ok(Some(())) => {
                        self.early += 1;
                        if self.early > EARLY_MAX {
                            return self.refuse("too many heads come before it");
                        }
                        inform(early, &self.head, self.buffer.bytes());
                        self.buffer.used(self.head.len);
                    }
                }
            }
        }
    }

    fn fail(&mut self) -> Poll<Result<Answer, Failed>> {
        self.stream = None;
        let body = std::mem::replace(&mut self.sending.body, Outgoing::Empty);
        Poll::Ready(Err(if self.sending.begun { Failed::Lost } else { Failed::Unsent(body) }))
    }

    /// What came is none, or too much.
    fn refuse(&mut self, why: &'static str) -> Poll<Result<Answer, Failed>> {
        self.stream = None;
        Poll::Ready(Err(Failed::Malformed(why)))
    }

    fn answer(&mut self) -> Poll<Result<Answer, Failed>> {
        let bytes = self.buffer.bytes();
        let framing = match self.head.answer_framing(bytes, self.is_head) {
            Ok(framing) => framing,
            Err(Bad(_, why)) => return self.refuse(why),
        };
        let Some(stream) = self.stream.take() else { return self.fail() };
        let reusable = self.head.persists(bytes) && framing != Framing::Close && !self.deaf;
        let none =
            Sending { out: Vec::new(), written: 0, begun: true, body: Outgoing::Empty, chunked: false, whole: true };
        let sending = std::mem::replace(&mut self.sending, none);
        let unsent = !(self.deaf || sending.is_over());
        Poll::Ready(Ok(Answer {
            head: std::mem::take(&mut self.head),
            framing,
            body: Incoming {
                stream: Some(stream),
                buffer: std::mem::take(&mut self.buffer),
                reading: framing.into(),
                sending: unsent.then(|| Box::new(sending)),
                reusable,
            },
        }))
    }
}

/// "A proxy MUST forward 1xx responses unless the proxy itself requested the generation" (RFC 9110 §15.2): we ask for 100 ourselves.
fn inform(early: Option<&Early>, head: &Head, bytes: &[u8]) {
    let (Some(early), Ok(status)) = (early, http::StatusCode::from_u16(head.status)) else { return };
    if let Ok(headers) = head.to_map(bytes)
        && status != http::StatusCode::CONTINUE
    {
        early.put(status, headers);
    }
}

/// An answer that began. Its body's buffer begins with the head until [`Self::begin`].
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) framing: Framing,
    pub(crate) body: Incoming,
}

impl Answer {
    /// The octets that the head was read from.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.body.buffer.bytes()
    }

    /// The head is used; its body follows.
    pub(crate) fn begin(&mut self) {
        self.body.buffer.used(self.head.len);
    }

    /// Its parts, and its body.
    ///
    /// # Errors
    /// The head holds what can't be passed on.
    pub(crate) fn into_parts(mut self) -> Option<(http::response::Parts, Incoming)> {
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.status = http::StatusCode::from_u16(self.head.status).ok()?;
        parts.headers = self.head.to_map(self.bytes()).ok()?;
        self.begin();
        Some((parts, self.body))
    }
}

/// An answer's body as it comes, while what is left of the request's goes out.
pub(crate) struct Incoming {
    stream: Option<BoxStream>,
    buffer: Buffer,
    reading: Reading,
    sending: Option<Box<Sending>>,
    reusable: bool,
}

impl Incoming {
    /// Whether it was read to its end.
    pub(crate) fn is_done(&self) -> bool {
        self.reading.is_done()
    }

    /// How much of it is left, where that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        self.reading.length()
    }

    /// Lets what is left of the request go on.
    fn push(&mut self, cx: &mut Context<'_>) {
        let (Some(sending), Some(stream)) = (&mut self.sending, &mut self.stream) else { return };
        match sending.poll(stream, cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.sending = None,
            // What the endpoint says is passed on all the same.
            Poll::Ready(Err(_)) => (self.sending, self.reusable) = (None, false),
        }
    }

    /// The next octets, framing and all; empty at the end. They are to be taken by [`Self::span`] and [`Self::used`].
    pub(crate) fn poll_octets(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.push(cx);
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(())) };
        self.reading.poll_fill(stream, &mut self.buffer, cx)
    }

    /// How many octets at the beginning of [`Self::octets`] are of the body. They count as read.
    ///
    /// # Errors
    /// They are not framed as they must be.
    pub(crate) fn span(&mut self) -> Result<usize, Broken> {
        self.reading.span(self.buffer.bytes())
    }

    /// What was read and not used yet.
    pub(crate) fn octets(&self) -> &[u8] {
        self.buffer.bytes()
    }

    /// So many octets were passed on.
    pub(crate) fn used(&mut self, n: usize) {
        self.buffer.used(n);
    }

    /// The next frame; nothing at the end.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.push(cx);
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        self.reading.poll_frame(stream, &mut self.buffer, cx)
    }

    /// The connection and how much of the body is left, where octets may go from one connection to the other: a long body of known length,
    /// nothing read of it that was not used, nothing to be sent any more, no TLS.
    pub(super) fn bare(&mut self) -> Option<(&TcpStream, &mut u64)> {
        let Self { stream, buffer, reading, sending, .. } = self;
        let left = reading.long().filter(|_| buffer.is_empty() && sending.is_none())?;
        Some((atoll_reach::tcp(&**stream.as_ref()?)?, left))
    }

    /// All of it went by [`Self::bare`].
    pub(super) fn all_moved(&mut self) {
        self.reading = Reading::Done;
    }

    /// The connection, if another request may follow on it.
    pub(crate) fn into_idle(mut self) -> Option<BoxStream> {
        let fits = self.reusable && self.reading.is_done() && self.sending.is_none() && self.buffer.is_empty();
        self.stream.take().filter(|_| fits)
    }

    /// The stream after an upgrade, and what was read of it already.
    pub(crate) fn into_stream(mut self) -> Option<BoxStream> {
        let read = self.buffer.bytes().to_vec();
        self.stream.take().map(|stream| atoll_reach::again(read, stream))
    }
}
