//! WebSocket by extended CONNECT: a client's stream becomes the tunnel, and its endpoint is asked by Upgrade as HTTP/1.1 has it.
//!
//! In: a CONNECT with `:protocol: websocket`. Out: the GET that stands for it, and for a 101 the 200 that opens the stream. Any other CONNECT
//! stays what it is, and is refused. Sources: RFC 8441 §5, RFC 9220 (HTTP/3), RFC 6455 §4.1 (key and accept).

use std::sync::Arc;

use atoll_reach::BoxStream;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header, response};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::body::{InFlight, Reply};
use super::refusal::Refusal;
use super::streams::Streams;
use crate::plane::Plane;

/// RFC 6455 §1.3.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What an endpoint has to say to the key that it is asked with.
pub(crate) struct Key(String);

impl Key {
    /// Makes the GET that stands for a CONNECT to a WebSocket; nothing where its authority can't stand in one.
    pub(crate) fn ask<B>(plane: &Plane, request: &mut Request<B>) -> Option<Self> {
        let random = u128::from(plane.dice.roll()) << 64 | u128::from(plane.dice.roll());
        let key = STANDARD.encode(random.to_be_bytes());
        *request.method_mut() = Method::GET;
        *request.version_mut() = Version::HTTP_11;
        let host = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())?;
        let headers = request.headers_mut();
        headers.entry(header::HOST).or_insert(host);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).ok()?);
        Some(Self(accept(&key)))
    }

    /// The 200 that opens a client's stream, and the endpoint's stream behind it.
    ///
    /// # Errors
    /// The client's stream does not become a tunnel: this is its answer.
    pub(crate) fn opened(
        self,
        response: Response<Reply>,
        version: Version,
    ) -> Result<(response::Parts, BoxStream, InFlight), Box<Response<Reply>>> {
        let bad = |why: &str| Err(Box::new(Refusal::new(StatusCode::BAD_GATEWAY, why).answer()));
        let (mut head, mut body) = response.into_parts();
        let Some((endpoint, in_flight)) = body.take_switched() else {
            let says_well = head.status.is_success() || head.status.is_informational();
            return if says_well {
                bad("the endpoint does not switch protocols")
            } else {
                Err(Box::new(Response::from_parts(head, body)))
            };
        };
        let said = head.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        if said.is_none_or(|said| said.as_bytes() != self.0.as_bytes()) {
            return bad("the endpoint's answer is not to this WebSocket");
        }
        head.status = StatusCode::OK;
        head.version = version;
        for name in [header::CONNECTION, header::UPGRADE] {
            head.headers.remove(name);
        }
        Ok((head, endpoint, in_flight))
    }
}

/// Whether an extended CONNECT is to become a WebSocket.
pub(crate) fn is_websocket(protocol: &str) -> bool {
    protocol.eq_ignore_ascii_case("websocket")
}

/// A stream of HTTP/2 that is to become a tunnel.
pub(super) struct Extended {
    stream: OnUpgrade,
    key: Key,
}

impl Extended {
    /// Makes the GET of it, where the request is one.
    pub(super) fn of(plane: &Plane, request: &mut Request<Incoming>) -> Option<Self> {
        let protocol = request.extensions().get::<Protocol>().filter(|_| request.method() == Method::CONNECT)?;
        if !is_websocket(protocol.as_str()) {
            return None;
        }
        let stream = hyper::upgrade::on(&mut *request);
        Some(Self { stream, key: Key::ask(plane, request)? })
    }

    /// The answer as the client gets it; a tunnel is carried until either side ends.
    pub(super) fn answer(self, plane: &Arc<Plane>, streams: &Streams, response: Response<Reply>) -> Response<Reply> {
        let (head, endpoint, in_flight) = match self.key.opened(response, Version::HTTP_2) {
            Ok(opened) => opened,
            Err(answer) => return *answer,
        };
        let (end, open) = (plane.end.clone(), streams.hold());
        let tunnel = async move {
            let Ok(client) = self.stream.await else { return };
            end.run_until_cancelled(in_flight.tunnel(TokioIo::new(client), endpoint)).await;
            drop(open);
        };
        plane.tracker.spawn(tunnel);
        Response::from_parts(head, Reply::own(""))
    }
}

/// RFC 6455 §4.2.2.
fn accept(key: &str) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{MAGIC}").as_bytes()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_accept_of_a_key_is_that_of_the_rfc() {
        assert_eq!(super::accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
