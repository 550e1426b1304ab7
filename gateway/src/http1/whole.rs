//! The long way of a request: its parts, filters and all, and the answer written frame by frame.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::{Request, Response, Uri, Version};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWriteExt as _;

use super::before::Before;
use super::body::ClientBody;
use super::head::{Bad, Framing, Head};
use super::render::{self, After};
use super::serve::{Asked, Connection, Next};
use crate::http::{BodyError, FromClient, Reply, answer};

/// So much is gathered before it is written.
const GATHER: usize = 64 * 1024;

impl Connection {
    /// Answers the request whose head was read.
    pub(super) async fn whole(&mut self, asked: Asked) -> io::Result<Next> {
        let Some(mut reader) = self.reader.take() else { return Ok(Next::Close) };
        let request = parts(&self.head, reader.buffer.bytes());
        reader.buffer.used(self.head.len);
        let mut head = match request {
            Ok(head) => head,
            Err(bad) => {
                self.reader = Some(reader);
                return self.refuse(bad).await;
            }
        };
        let (body, back, wanted) = match asked.framing {
            Framing::None | Framing::Length(0) => {
                self.reader = Some(reader);
                (FromClient::Nothing, None, None)
            }
            framing => {
                let (body, back, wanted) = ClientBody::lend(reader, framing.into());
                (FromClient::H1(body), Some(back), Some(wanted))
            }
        };
        let wanted = wanted.as_deref().filter(|_| asked.expects);
        if asked.minor == 1 {
            head.extensions.insert(Arc::clone(&self.early));
        }
        let before = Before { said: &mut self.said, early: &self.early, wanted };
        let response = {
            let answered = pin!(answer(&self.plane, &self.client, Request::from_parts(head, body)));
            before.tell(&mut self.writer, answered).await
        };
        self.out.append(&mut self.said);
        let next = self.write(response, asked).await;
        self.settle(next, back).await
    }

    /// Writes an answer.
    pub(super) async fn write(&mut self, response: Response<Reply>, asked: Asked) -> io::Result<Next> {
        let (head, mut body) = response.into_parts();
        let then = self.after(asked);
        let switches = head.status == http::StatusCode::SWITCHING_PROTOCOLS;
        if let Some((endpoint, in_flight)) = body.take_switched().filter(|_| switches) {
            render::answer(&mut self.out, &head, None, After::Keep);
            self.write_out().await?;
            self.writer.flush().await?;
            return Ok(Next::Switched(endpoint, in_flight));
        }
        let framing = framing(&head, &body, asked);
        // Where the length is not known and can't be said, the end of the connection is the end of the body.
        let then = if framing == Some(Framing::Close) { After::Close } else { then };
        render::answer(&mut self.out, &head, framing, then);
        let silent = matches!(framing, None | Some(Framing::None));
        let chunked = framing == Some(Framing::Chunked);
        loop {
            let frame = if silent { None } else { self.frame(&mut body).await? };
            let Some(frame) = frame else { break };
            let Ok(frame) = frame else {
                self.write_out().await?;
                self.writer.flush().await?;
                return Ok(Next::Close);
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) if chunked => render::chunk(&mut self.out, &data),
                Ok(data) => self.out.extend_from_slice(&data),
                Err(frame) if chunked => {
                    render::last_chunk(&mut self.out, frame.trailers_ref());
                    return self.done(body, then).await;
                }
                Err(_) => {}
            }
            if body.is_end_stream() && self.out.len() < GATHER {
                break;
            }
            self.write_out().await?;
            self.writer.flush().await?;
        }
        if chunked {
            render::last_chunk(&mut self.out, None);
        }
        self.done(body, then).await
    }

    /// The next frame. What is written already is not held back where that takes time: a head is worth knowing before its body begins.
    async fn frame(&mut self, body: &mut Reply) -> io::Result<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut next = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
        if let Poll::Ready(frame) = futures::poll!(&mut next) {
            return Ok(frame);
        }
        self.write_out().await?;
        self.writer.flush().await?;
        Ok(next.await)
    }

    async fn done(&mut self, body: Reply, then: After) -> io::Result<Next> {
        drop(body);
        self.write_out().await?;
        self.writer.flush().await?;
        Ok(if then == After::Close { Next::Close } else { Next::Request })
    }
}

/// How an answer is framed; nothing: as it says itself, and nothing follows.
fn framing(head: &http::response::Parts, body: &Reply, asked: Asked) -> Option<Framing> {
    let status = head.status.as_u16();
    if asked.is_head || status == 304 {
        return None;
    }
    if (100..200).contains(&status) || status == 204 {
        return Some(Framing::None);
    }
    match (body.size_hint().exact(), asked.minor) {
        (Some(length), _) => Some(Framing::Length(length)),
        (None, 0) => Some(Framing::Close),
        (None, _) => Some(Framing::Chunked),
    }
}

/// Whether a target is of a form that its method may have (RFC 9112 §3.2).
fn has_form(method: &http::Method, target: &[u8]) -> Result<(), Bad> {
    // "The fragment is not part of the target" (RFC 9110 §4.2.5): whoever cuts it off reads another one.
    if target.contains(&b'#') {
        return Err(Bad(400, "the target holds a fragment"));
    }
    // Octets beyond ASCII are written as escapes (RFC 3986 §2.1), and would be matched as something else than these.
    if !target.is_ascii() {
        return Err(Bad(400, "the target is not ASCII"));
    }
    let begins = |with: &[u8]| target.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    let whole = begins(b"http://") || begins(b"https://");
    match target {
        [b'/', ..] => Ok(()),
        b"*" if method == http::Method::OPTIONS => Ok(()),
        _ if whole => Ok(()),
        _ => Err(Bad(400, "the target has no form of a request's")),
    }
}

/// The parts of a request.
pub(crate) fn parts(head: &Head, bytes: &[u8]) -> Result<http::request::Parts, Bad> {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = http::Method::from_bytes(head.method(bytes)).map_err(|_| Bad(400, "the method is none"))?;
    let target = head.target(bytes);
    has_form(&parts.method, target)?;
    parts.uri = Uri::try_from(target).map_err(|_| Bad(400, "the target is none"))?;
    parts.version = if head.minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    parts.headers = head.to_map(bytes)?;
    parts.headers.remove(http::header::CONTENT_LENGTH);
    Ok(parts)
}
