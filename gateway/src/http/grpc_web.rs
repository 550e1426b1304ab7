//! gRPC-Web: browsers call gRPC servers. Messages stay as they are; trailers, which browsers don't see, become the last frame of the body.
//!
//! In: a request of `application/grpc-web` or `application/grpc-web-text` to an upstream that speaks HTTP/2. Out: the same as gRPC, and the answer
//! back. The text form is base64 both ways. Source: gRPC's PROTOCOL-WEB.md.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Body, Frame};

use super::body::{BodyError, FramePoll, Reply};
use crate::http1::Broken;
use crate::policy::carried::Carried;
use crate::policy::grpc::prefixed;

/// Marks a frame that holds trailers.
const TRAILERS: u8 = 0x80;

/// A call by gRPC-Web.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Web {
    text: bool,
}

impl Web {
    /// Makes a request one of gRPC, where it is one of gRPC-Web.
    pub(super) fn begin(headers: &mut HeaderMap) -> Option<Self> {
        let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?.to_ascii_lowercase();
        let rest = kind.strip_prefix("application/grpc-web")?;
        let (text, rest) = rest.strip_prefix("-text").map_or((false, rest), |rest| (true, rest));
        if !(rest.is_empty() || rest.starts_with('+') || rest.starts_with(';')) {
            return None;
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(&format!("application/grpc{rest}")).ok()?);
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        // Of the text form the length is another one.
        headers.remove(header::CONTENT_LENGTH);
        Some(Self { text })
    }

    /// The request's body as gRPC has it.
    pub(super) fn request(self, body: Carried) -> Carried {
        if self.text { Box::pin(Decoded { body, left: BytesMut::new() }) } else { body }
    }

    /// The answer as gRPC-Web has it.
    pub(super) fn answer(self, response: Response<Reply>) -> Response<Reply> {
        let (mut head, body) = response.into_parts();
        let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if let Some(rest) = kind.strip_prefix("application/grpc") {
            let word = if self.text { "application/grpc-web-text" } else { "application/grpc-web" };
            if let Ok(kind) = HeaderValue::from_str(&format!("{word}{rest}")) {
                head.headers.insert(header::CONTENT_TYPE, kind);
            }
        }
        head.headers.remove(header::CONTENT_LENGTH);
        head.headers.remove(header::TRAILER);
        Response::from_parts(head, Reply::carried(Box::pin(Encoded { body: Box::pin(body), text: self.text })))
    }
}

/// A body out of its text.
struct Decoded {
    body: Carried,
    /// Less than one group.
    left: BytesMut,
}

impl Body for Decoded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll {
        loop {
            let frame = match ready!(self.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if self.left.is_empty() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err(BodyError::Broken(Broken::Short)))),
            };
            let Ok(data) = frame.into_data() else { continue };
            self.left.extend_from_slice(&data);
            let whole = self.left.len() / 4 * 4;
            if whole == 0 {
                continue;
            }
            let text = self.left.split_to(whole);
            return Poll::Ready(Some(decode(&text).map(Frame::data).ok_or(BodyError::Broken(Broken::Short))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.body.is_end_stream()
    }
}

/// Whole groups of four; each piece that a client encoded may end with padding.
fn decode(text: &[u8]) -> Option<Bytes> {
    let mut out = BytesMut::with_capacity(text.len() / 4 * 3);
    let mut from = 0;
    for (at, group) in text.chunks(4).enumerate() {
        if group.ends_with(b"=") || (at + 1) * 4 >= text.len() {
            out.extend_from_slice(&STANDARD.decode(&text[from..(at + 1) * 4]).ok()?);
            from = (at + 1) * 4;
        }
    }
    Some(out.freeze())
}

/// An answer's body with its trailers in it.
struct Encoded {
    body: Pin<Box<Reply>>,
    text: bool,
}

impl Body for Encoded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll {
        let frame = match ready!(self.body.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        let octets = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => trailers(frame.trailers_ref().unwrap_or(&HeaderMap::new())),
        };
        let octets = if self.text { STANDARD.encode(&octets).into() } else { octets };
        Poll::Ready(Some(Ok(Frame::data(octets))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// Trailers as a frame.
fn trailers(trailers: &HeaderMap) -> Bytes {
    let mut lines = Vec::new();
    for (name, value) in trailers {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    prefixed(TRAILERS, &lines)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::policy::carried::whole;

    #[test]
    fn what_is_grpc_web_becomes_grpc_and_nothing_else_does() {
        for (kind, text, becomes) in [
            ("application/grpc-web", Some(false), "application/grpc"),
            ("application/grpc-web+proto", Some(false), "application/grpc+proto"),
            ("application/grpc-web-text+proto", Some(true), "application/grpc+proto"),
            ("application/grpc-webby", None, "application/grpc-webby"),
            ("application/grpc", None, "application/grpc"),
        ] {
            let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
            assert_eq!(Web::begin(&mut headers).map(|web| web.text), text, "{kind}");
            assert_eq!(headers[header::CONTENT_TYPE], becomes, "{kind}");
        }
    }

    #[tokio::test]
    async fn text_is_decoded_piece_by_piece_and_what_is_none_breaks_the_body() {
        let piece = |octets: &[u8]| STANDARD.encode(octets);
        for (text, octets) in [
            (piece(b"hello"), Some(&b"hello"[..])),
            (piece(b"a") + &piece(b"bcd") + &piece(b"ef"), Some(b"abcdef")),
            (String::new(), Some(b"")),
            ("AAA".to_owned(), None),
            ("?AAA".to_owned(), None),
        ] {
            let body = Web { text: true }.request(whole(Bytes::from(text.clone())));
            let read = body.collect().await.ok().map(|read| read.to_bytes());
            assert_eq!(read.as_deref(), octets, "{text}");
        }
    }

    #[test]
    fn trailers_are_a_frame_of_lines() {
        let all = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), "0".parse().unwrap())]);
        assert_eq!(&trailers(&all)[..], b"\x80\0\0\0\x10grpc-status: 0\r\n");
    }
}
