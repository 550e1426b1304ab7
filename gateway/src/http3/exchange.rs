//! One stream of a client: a request, and its answer.
//!
//! ```text
//!   head ─┬► http::answer ─► head, data, trailers ─► until the client has them
//!         └► a WebSocket ─► tunnel
//! ```
//!
//! In: both halves of a stream. What is wrong with a request ends its stream, and nothing of the connection; what the client takes back is
//! given up at once. Bounds: the head, the time that it may take, and the time that a client takes nothing. Source: RFC 9114 §4.1.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header, response};
use http_body::Body as _;
use quinn::{Connection, RecvStream, SendStream};
use tokio::time::timeout;

use super::control::Said;
use super::frames::{Code, DATA, Frames, HEADERS, Piece, frame, put_front};
use super::head::{self, Bad, Head};
use super::qpack::Bounds;
use super::tunnel::Tunnel;
use super::upload::{ClientBody, Incoming, Signals};
use crate::http::{Client, Early, FromClient, Key, Refusal, Reply, Streams, answer, is_websocket};
use crate::metrics::Cut;
use crate::plane::Plane;

/// A request that has no body in all but name is waited for so long to end: its end may come in a packet of its own.
const END_WITHIN: Duration = Duration::from_millis(50);

/// What the streams of a connection have in common.
pub(super) struct Talk {
    pub(super) plane: Arc<Plane>,
    pub(super) client: Client,
    pub(super) streams: Streams,
    pub(super) connection: Connection,
    pub(super) said: Said,
}

/// Answers the request of a stream.
pub(super) async fn exchange(talk: Arc<Talk>, outgoing: SendStream, incoming: RecvStream) {
    let _open = talk.streams.hold();
    // Who drops it gave the request up, or made us do it.
    let unanswered = talk.streams.asked();
    let limits = &talk.plane.limits;
    let bounds = Bounds { bytes_max: limits.header_bytes_max, fields_max: limits.headers_max };
    let mut incoming = Incoming::new(Frames::new(incoming), talk.connection.clone(), bounds);
    let mut outgoing = Outgoing { stream: outgoing, plane: Arc::clone(&talk.plane), queue: Vec::new(), is_done: false };
    let asked = match timeout(limits.header_timeout, asked(&mut incoming, bounds)).await {
        Ok(asked) => asked,
        Err(_) => {
            talk.plane.metrics.cut(Cut::Head);
            Asked::Nothing(Code::RequestIncomplete)
        }
    };
    let head = match asked {
        Asked::Request(head) => *head,
        Asked::TooLong => {
            let why = "the head is longer than it may be";
            let refusal = Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why);
            incoming.stop(Code::ExcessiveLoad);
            unanswered.answered();
            return talk.reply(&mut outgoing, refusal.answer(), false).await;
        }
        Asked::Nothing(code) => {
            incoming.stop(code);
            return outgoing.reset(code);
        }
    };
    let is_head = head.parts.method == Method::HEAD;
    let signals = Arc::<Signals>::default();
    let expects = head.parts.headers.get(header::EXPECT).is_some_and(|e| e.as_bytes() == b"100-continue");
    let asks = head.protocol.as_deref().is_some_and(is_websocket);
    let length = head.length;
    let mut request = Request::from_parts(head.parts, ());
    request.extensions_mut().insert(Arc::clone(&signals.early));
    let key = if asks { Key::ask(&talk.plane, &mut request) } else { None };
    let (body, tunnel) = match &key {
        Some(_) => (FromClient::Nothing, Some(incoming)),
        None => match body(incoming, request.method(), length, &signals).await {
            Ok(body) => (body, None),
            Err(code) => return outgoing.reset(code),
        },
    };
    let answering = answer(&talk.plane, &talk.client, request.map(|()| body));
    let Some(response) = outgoing.until(Box::pin(answering), &signals, expects).await else { return };
    unanswered.answered();
    let (Some(key), Some(incoming)) = (key, tunnel) else { return talk.reply(&mut outgoing, response, is_head).await };
    match key.opened(response, Version::HTTP_3) {
        Err(answer) => talk.reply(&mut outgoing, *answer, false).await,
        Ok((head, endpoint, in_flight)) => {
            outgoing.push(HEADERS, head::answer(head.status, &head.headers).0);
            if outgoing.flush().await.is_none() {
                return;
            }
            in_flight.tunnel(Tunnel::new(incoming, &mut outgoing.stream), endpoint).await;
            outgoing.finish().await;
        }
    }
}

/// What a stream begins with.
enum Asked {
    Request(Box<Head>),
    TooLong,
    /// Nothing that can be answered: why the stream ends.
    Nothing(Code),
}

async fn asked(incoming: &mut Incoming, bounds: Bounds) -> Asked {
    let section = match poll_fn(|cx| incoming.poll_piece(cx)).await {
        Ok(Some(Piece::Whole(_, section))) => section,
        Ok(Some(Piece::TooLong(_))) => return Asked::TooLong,
        // "If a client-initiated stream terminates without enough of the HTTP message to provide a complete response" (§4.1).
        Ok(Some(Piece::Data(_)) | None) => return Asked::Nothing(Code::RequestIncomplete),
        Err(_) => return Asked::Nothing(Code::RequestCancelled),
    };
    match head::request(&section, bounds) {
        Ok(head) => Asked::Request(Box::new(head)),
        Err(Bad::TooLong) => Asked::TooLong,
        Err(Bad::Malformed(why)) => {
            tracing::debug!(why, "a request is malformed");
            Asked::Nothing(Code::Message)
        }
        Err(Bad::Undecodable) => {
            incoming.fail(Code::Decompression, "a head that can't be decoded");
            Asked::Nothing(Code::Decompression)
        }
    }
}

/// The body of a request: none where the stream ends with the head.
///
/// # Errors
/// Why the stream ends.
async fn body(
    mut incoming: Incoming,
    method: &Method,
    length: Option<u64>,
    signals: &Arc<Signals>,
) -> Result<FromClient, Code> {
    let is_empty = length.map_or(!has_content(method), |length| length == 0);
    let mut next = poll_fn(|cx| incoming.poll_piece(cx));
    let first = match futures::poll!(&mut next) {
        Poll::Ready(first) => Some(first),
        Poll::Pending if is_empty => timeout(END_WITHIN, next).await.ok(),
        Poll::Pending => None,
    };
    let first = match first.transpose().map_err(|_| Code::RequestCancelled)? {
        None => None,
        Some(Some(Piece::Data(data))) => Some(data),
        // Nothing is to come, or trailers of nothing.
        Some(Some(Piece::Whole(..) | Piece::TooLong(_)) | None) => {
            return if length.is_some_and(|length| length > 0) { Err(Code::Message) } else { Ok(FromClient::Nothing) };
        }
    };
    Ok(FromClient::H3(Box::new(ClientBody::new(incoming, first, length, Arc::clone(signals)))))
}

/// Whether content has a meaning in a request of that method (RFC 9110 §9.3).
fn has_content(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS | Method::TRACE | Method::CONNECT)
}

impl Talk {
    /// Writes an answer, and waits until the client has it.
    async fn reply(&self, outgoing: &mut Outgoing, response: Response<Reply>, is_head: bool) {
        let (mut head, mut body) = response.into_parts();
        let mut silent = is_head || matches!(head.status.as_u16(), 100..=199 | 204 | 304);
        frame_length(&mut head, &body, is_head, silent);
        let (mut section, size) = head::answer(head.status, &head.headers);
        if size > self.said.section_max.load(Ordering::Relaxed) {
            // "An implementation that has received this parameter SHOULD NOT send an HTTP message header that exceeds the indicated size" (§4.2.2).
            section = head::answer(StatusCode::BAD_GATEWAY, &HeaderMap::new()).0;
            silent = true;
        }
        outgoing.push(HEADERS, section);
        if !silent && outgoing.pass(&mut body).await.is_none() {
            return;
        }
        drop(body);
        outgoing.finish().await;
    }
}

/// The answer, or nothing: something came before it.
fn early<T>(answering: &mut (impl Future<Output = T> + Unpin), early: &Early, cx: &mut Context<'_>) -> Poll<Option<T>> {
    match Pin::new(answering).poll(cx) {
        Poll::Ready(response) => Poll::Ready(Some(response)),
        Poll::Pending if early.are_some() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    }
}

/// The answer's length, which is ours to say, and its date (RFC 9110 §6.6.1).
fn frame_length(head: &mut response::Parts, body: &Reply, is_head: bool, silent: bool) {
    if !(is_head || head.status == StatusCode::NOT_MODIFIED) {
        head.headers.remove(header::CONTENT_LENGTH);
        if let Some(length) = body.size_hint().exact().filter(|_| !silent) {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
    let now = || jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if !head.headers.contains_key(header::DATE)
        && let Ok(date) = HeaderValue::from_str(&now())
    {
        head.headers.insert(header::DATE, date);
    }
}

/// Our half of a stream.
struct Outgoing {
    stream: SendStream,
    plane: Arc<Plane>,
    /// What goes out next.
    queue: Vec<Bytes>,
    /// It ended in order, or was reset.
    is_done: bool,
}

impl Outgoing {
    /// Waits for an answer, and tells the client what comes before it, and to go on where it waits for that. Nothing: the client gave its request up.
    async fn until(
        &mut self,
        mut answering: impl Future<Output = Response<Reply>> + Unpin,
        signals: &Signals,
        mut expects: bool,
    ) -> Option<Response<Reply>> {
        let mut stopped = pin!(self.stream.stopped());
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => return None,
                () = signals.taken_back.notified() => return None,
                response = poll_fn(|cx| early(&mut answering, &signals.early, cx)) => {
                    for (status, headers) in signals.early.take() {
                        self.push(HEADERS, head::answer(status, &headers).0);
                    }
                    match response {
                        Some(response) => return Some(response),
                        None => self.flush().await?,
                    }
                }
                () = signals.wanted.notified(), if expects => {
                    expects = false;
                    self.push(HEADERS, head::answer(StatusCode::CONTINUE, &HeaderMap::new()).0);
                    self.flush().await?;
                }
            }
        }
    }

    /// Writes a body; nothing: that ended before it did.
    async fn pass(&mut self, body: &mut Reply) -> Option<()> {
        let mut stopped = pin!(self.stream.stopped());
        while !body.is_end_stream() {
            let mut next = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
            let next = match futures::poll!(&mut next) {
                Poll::Ready(next) => next,
                Poll::Pending => {
                    // A head is worth knowing before its body begins.
                    self.flush().await?;
                    tokio::select! {
                        next = next => next,
                        _ = &mut stopped => return None,
                    }
                }
            };
            let frame = match next {
                None => break,
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    tracing::debug!(%error, "an answer ends before its end");
                    self.reset(Code::Internal);
                    return None;
                }
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    let mut front = Vec::new();
                    put_front(&mut front, DATA, data.len());
                    self.queue.extend([Bytes::from(front), data]);
                    if !body.is_end_stream() {
                        self.flush().await?;
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.push(HEADERS, head::last(&trailers).0);
                    }
                    break;
                }
            }
        }
        self.flush().await
    }

    fn push(&mut self, kind: u64, octets: Vec<u8>) {
        self.queue.push(frame(kind, &octets).into());
    }

    /// Writes what waits; nothing: the client is gone, or takes nothing.
    async fn flush(&mut self) -> Option<()> {
        let mut queue = std::mem::take(&mut self.queue);
        let mut left = &mut queue[..];
        while !left.is_empty() {
            match timeout(self.plane.limits.write_timeout, self.stream.write_chunks(left)).await {
                Ok(written) => left = &mut left[written.ok()?.chunks..],
                Err(_) => {
                    self.plane.metrics.cut(Cut::Answer);
                    return None;
                }
            }
        }
        Some(())
    }

    /// Ends the stream, and waits until the client has all of it: what is under way is lost where the connection is closed before.
    async fn finish(&mut self) {
        if self.flush().await.is_none() {
            return;
        }
        // A tunnel may have ended it already.
        let _ = self.stream.finish();
        let taken = timeout(self.plane.limits.write_timeout, self.stream.stopped()).await;
        if taken.is_err() {
            self.plane.metrics.cut(Cut::Answer);
            return self.reset(Code::RequestCancelled);
        }
        self.is_done = true;
    }

    fn reset(&mut self, code: Code) {
        self.is_done = true;
        // One that ended already needs no word.
        let _ = self.stream.reset(code.into());
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if !self.is_done {
            self.reset(Code::RequestCancelled);
        }
    }
}
