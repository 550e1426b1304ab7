//! Calls of gRPC: one question, one answer. Source: gRPC over HTTP/2 (Length-Prefixed-Message, Trailers).

use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, header};
use prost::Message;

use super::peer::Peer;
use crate::plane::Plane;

/// A message with its prefix.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    prefixed(0, &message.encode_to_vec())
}

/// Octets with a prefix: flags and length.
pub(crate) fn prefixed(flags: u8, octets: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(octets.len() + 5);
    frame.put_u8(flags);
    frame.put_u32(u32::try_from(octets.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(octets);
    frame.freeze()
}

/// The first message of `buffer`, which it is taken out of; nothing where it is not there whole.
///
/// # Errors
/// It is compressed, longer than `max`, or none.
pub(crate) fn unframe<M: Message + Default>(buffer: &mut BytesMut, max: usize) -> Result<Option<M>, &'static str> {
    let Some(prefix) = buffer.get(..5) else { return Ok(None) };
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    if prefix[0] != 0 {
        return Err("its message is compressed, which was not offered");
    }
    if length > max {
        return Err("its message is too long");
    }
    if buffer.len() < length + 5 {
        return Ok(None);
    }
    buffer.advance(5);
    let message = buffer.split_to(length);
    M::decode(message).map(Some).map_err(|_| "its message is none")
}

/// The head of a call.
pub(crate) fn head<B>(method: &'static str, body: B) -> Request<B> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(method);
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    request
}

/// Calls `method`.
///
/// # Errors
/// There was no answer in time, or it says that the call failed.
pub(crate) async fn call<M: Message + Default>(
    peer: &Peer,
    plane: &Plane,
    method: &'static str,
    message: &impl Message,
    within: Duration,
) -> Result<M, String> {
    let said = peer.ask(plane, head(method, frame(message)), within).await?;
    let status = status(&said.trailers).or_else(|| status(&said.head.headers)).unwrap_or("none");
    if status != "0" {
        return Err(format!("{}: grpc-status {status}", peer.name));
    }
    let mut buffer = BytesMut::from(&said.body[..]);
    let found = unframe(&mut buffer, usize::MAX).map_err(|why| format!("{}: {why}", peer.name))?;
    found.ok_or_else(|| format!("{}: it said nothing", peer.name))
}

/// How a call ended, where these say so.
pub(crate) fn status(headers: &HeaderMap) -> Option<&str> {
    headers.get("grpc-status")?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::envoy::Status;

    #[test]
    fn messages_are_read_as_they_were_written_and_no_further() {
        let message = Status { code: 5, message: "x".to_owned() };
        let whole = frame(&message);
        for cut in 0..whole.len() {
            assert_eq!(unframe::<Status>(&mut BytesMut::from(&whole[..cut]), 100), Ok(None), "{cut}");
        }
        let mut two = BytesMut::from(&[&whole[..], &whole[..]].concat()[..]);
        assert_eq!(unframe(&mut two, 100), Ok(Some(message.clone())));
        assert_eq!((unframe(&mut two, 100), two.len()), (Ok(Some(message)), 0));
        let bad: [(&[u8], &str); 3] = [
            (&[1, 0, 0, 0, 0], "its message is compressed, which was not offered"),
            (&[0, 255, 0, 0, 0], "its message is too long"),
            (&[0, 0, 0, 0, 1, 255], "its message is none"),
        ];
        for (octets, why) in bad {
            assert_eq!(unframe::<Status>(&mut BytesMut::from(octets), 100), Err(why));
        }
    }
}
