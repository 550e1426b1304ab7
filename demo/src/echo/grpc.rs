//! gRPC to a demo pod: each message in gets one out, whatever the method; unary calls and streams both ways are the same then.
//!
//! Messages are `google.protobuf.StringValue`, in and out. Source: gRPC over HTTP/2, "Length-Prefixed-Message"; protobuf encoding.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::stream;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};

use super::{
    Identity, Reply,
    http::{Body, headers},
};

/// Largest message: gRPC's usual bound.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Flag and length before each message.
const PREFIX_BYTES: usize = 5;
/// Field 1, length-delimited: what a StringValue has.
const STRING_FIELD: u8 = 0x0a;

struct Call {
    identity: Identity,
    method: String,
    headers: HeaderMap,
    body: Incoming,
    buffer: BytesMut,
    done: bool,
}

pub(super) fn answer(identity: Identity, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let method = parts.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let call = Call { identity, method, headers: parts.headers, body, buffer: BytesMut::new(), done: false };
    let frames = stream::unfold(call, async |mut call| {
        if call.done {
            return None;
        }
        let frame = match call.next().await {
            Ok(Some(message)) => Frame::data(call.reply(&message)),
            Ok(None) => call.end("0"),
            Err(code) => call.end(code),
        };
        Some((Ok(frame), call))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

impl Call {
    /// The next message, `None` at the end, or the gRPC status of what is wrong.
    async fn next(&mut self) -> Result<Option<Bytes>, &'static str> {
        loop {
            if self.buffer.len() >= PREFIX_BYTES {
                let len = (&self.buffer[1..PREFIX_BYTES]).get_u32() as usize;
                if self.buffer[0] != 0 {
                    return Err("12"); // unimplemented: compressed
                }
                if len > MESSAGE_BYTES_MAX {
                    return Err("8"); // resource exhausted
                }
                if self.buffer.len() >= PREFIX_BYTES + len {
                    self.buffer.advance(PREFIX_BYTES);
                    return Ok(Some(self.buffer.split_to(len).freeze()));
                }
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(_)) => return Err("1"), // cancelled
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err("13"), // internal: half a message
            }
        }
    }

    fn reply(&self, message: &[u8]) -> Bytes {
        let reply = Reply {
            method: self.method.clone(),
            headers: headers(&self.headers),
            ..self.identity.reply("gRPC", String::new(), string_value(message))
        };
        let text = reply.line();
        let mut value = BytesMut::from(&[STRING_FIELD][..]);
        put_varint(&mut value, text.len());
        value.extend_from_slice(text.as_bytes());
        let mut out = BytesMut::with_capacity(PREFIX_BYTES + value.len());
        out.put_u8(0);
        out.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        out.extend_from_slice(&value);
        out.freeze()
    }

    fn end(&mut self, status: &'static str) -> Frame<Bytes> {
        self.done = true;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(status));
        Frame::trailers(trailers)
    }
}

/// The string of a StringValue; of anything else, nothing.
fn string_value(message: &[u8]) -> String {
    let Some((&STRING_FIELD, mut rest)) = message.split_first() else { return String::new() };
    let (mut len, mut shift) = (0usize, 0);
    while let Some((byte, after)) = rest.split_first().filter(|_| shift < 32) {
        rest = after;
        len |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return String::from_utf8_lossy(&rest[..len.min(rest.len())]).into_owned();
        }
    }
    String::new()
}

fn put_varint(out: &mut BytesMut, mut n: usize) {
    while n >= 0x80 {
        out.put_u8((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.put_u8(n as u8);
}
