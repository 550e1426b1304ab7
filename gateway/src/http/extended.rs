//! WebSocket by extended CONNECT: a client's HTTP/2 stream becomes the tunnel, and its endpoint is asked by Upgrade as HTTP/1.1 has it.
//!
//! In: a CONNECT with `:protocol: websocket`. Out: the GET that stands for it, and for a 101 the 200 that opens the stream. Any other CONNECT
//! stays what it is, and is refused. Sources: RFC 8441 §5, RFC 6455 §4.1 (key and accept).

use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::body::Reply;
use super::refusal::Refusal;
use super::streams::Streams;
use crate::plane::Plane;

/// RFC 6455 §1.3.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A stream that is to become a tunnel.
pub(super) struct Extended {
    stream: OnUpgrade,
    /// What the endpoint has to say to the key.
    accept: String,
}

impl Extended {
    /// Makes the GET of it, where the request is one.
    pub(super) fn of(plane: &Plane, request: &mut Request<Incoming>) -> Option<Self> {
        let protocol = request.extensions().get::<Protocol>().filter(|_| request.method() == Method::CONNECT)?;
        if !protocol.as_str().eq_ignore_ascii_case("websocket") {
            return None;
        }
        let stream = hyper::upgrade::on(&mut *request);
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
        Some(Self { stream, accept: accept(&key) })
    }

    /// The answer as the client gets it; a tunnel is carried until either side ends.
    pub(super) fn answer(self, plane: &Arc<Plane>, streams: &Streams, response: Response<Reply>) -> Response<Reply> {
        let bad = |why: &str| Refusal::new(StatusCode::BAD_GATEWAY, why).answer();
        let (mut head, mut body) = response.into_parts();
        let Some((endpoint, in_flight)) = body.take_switched() else {
            let says_well = head.status.is_success() || head.status.is_informational();
            return if says_well {
                bad("the endpoint does not switch protocols")
            } else {
                Response::from_parts(head, body)
            };
        };
        if head
            .headers
            .remove(header::SEC_WEBSOCKET_ACCEPT)
            .is_none_or(|said| said.as_bytes() != self.accept.as_bytes())
        {
            return bad("the endpoint's answer is not to this WebSocket");
        }
        let (end, open) = (plane.end.clone(), streams.hold());
        let tunnel = async move {
            let Ok(client) = self.stream.await else { return };
            end.run_until_cancelled(in_flight.tunnel(TokioIo::new(client), endpoint)).await;
            drop(open);
        };
        plane.tracker.spawn(tunnel);
        head.status = StatusCode::OK;
        head.version = Version::HTTP_2;
        for name in [header::CONNECTION, header::UPGRADE] {
            head.headers.remove(name);
        }
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
