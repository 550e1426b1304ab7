//! DNS messages over HTTP, for DoH and DoH3 alike (RFC 8484). Pure.
//!
//! In: a request's head. Out: the query in it, or that it is in the body, or the status that refuses it; and the response for a reply, which
//! says how long it may be kept. Answers depend on who asks, so only the client itself may keep them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};

use crate::names::after_name;

/// Where queries are answered (RFC 8484 §4.1 leaves it to the server; this is what clients expect).
const PATH: &str = "/dns-query";
const MEDIA_TYPE: &str = "application/dns-message";
/// The longest message (RFC 8484 §6).
pub(crate) const MESSAGE_BYTES_MAX: usize = 65_535;
const HEADER_BYTES: usize = 12;

/// Where a request has its query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Query {
    /// In the address.
    Here(Vec<u8>),
    /// In the body.
    Body,
}

/// Where the query is.
///
/// # Errors
/// The status that refuses the request.
pub(crate) fn query(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Query, StatusCode> {
    if uri.path() != PATH {
        return Err(StatusCode::NOT_FOUND);
    }
    match *method {
        Method::GET => {
            let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
            let said = pairs.filter(|(name, _)| *name == "dns").map(|(_, value)| value).next();
            let packet = said.and_then(|said| URL_SAFE_NO_PAD.decode(said).ok()).ok_or(StatusCode::BAD_REQUEST)?;
            sized(packet.len())?;
            Ok(Query::Here(packet))
        }
        Method::POST => {
            let media = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            let media = media.split(';').next().unwrap_or_default().trim();
            if !media.eq_ignore_ascii_case(MEDIA_TYPE) {
                return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            }
            let length = headers.get(CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse().ok());
            length.map_or(Ok(()), sized)?;
            Ok(Query::Body)
        }
        _ => Err(StatusCode::METHOD_NOT_ALLOWED),
    }
}

/// Whether a message of `length` octets can be a query.
///
/// # Errors
/// The status that refuses it.
pub(crate) fn sized(length: usize) -> Result<(), StatusCode> {
    match length {
        0..HEADER_BYTES => Err(StatusCode::BAD_REQUEST),
        HEADER_BYTES..=MESSAGE_BYTES_MAX => Ok(()),
        _ => Err(StatusCode::PAYLOAD_TOO_LARGE),
    }
}

/// The response for what was answered; `None`: what came is no query.
pub(crate) fn response(answered: Result<Option<Vec<u8>>, StatusCode>) -> Response<Vec<u8>> {
    let refused = |status: StatusCode| {
        let mut response = Response::new(Vec::new());
        *response.status_mut() = status;
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
        }
        response
    };
    let reply = match answered {
        Ok(Some(reply)) => reply,
        Ok(None) => return refused(StatusCode::BAD_REQUEST),
        Err(status) => return refused(status),
    };
    let keep = format!("private, max-age={}", freshness(&reply).unwrap_or(0));
    let mut response = Response::new(reply);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    if let Ok(keep) = HeaderValue::from_str(&keep) {
        response.headers_mut().insert(CACHE_CONTROL, keep);
    }
    response
}

/// For how long a reply holds: the smallest time to live of its answers; without any, as long as its SOA says that there are none
/// (RFC 8484 §5.1, RFC 2308 §5). `None` for failures.
pub(crate) fn freshness(reply: &[u8]) -> Option<u32> {
    let count = |at: usize| reply.get(at..at + 2).map(|c| u16::from_be_bytes([c[0], c[1]]));
    let (questions, answers, authorities) = (count(4)?, count(6)?, count(8)?);
    let (rcode, truncated) = (reply[3] & 0x0f, reply[2] & 0x02 != 0);
    if truncated || !matches!(rcode, 0 | 3) {
        return None;
    }
    let mut at = HEADER_BYTES;
    for _ in 0..questions {
        at = after_name(reply, at)? + 4;
    }
    let mut least = None;
    for record in 0..u32::from(answers) + u32::from(authorities) {
        at = after_name(reply, at)?;
        let fixed: &[u8; 10] = reply.get(at..)?.first_chunk()?;
        let ttl = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
        let data = reply.get(at + 10..at + 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]])))?;
        at += 10 + data.len();
        let soa = fixed[..2] == [0, 6];
        if record < u32::from(answers) {
            least = Some(least.map_or(ttl, |least: u32| least.min(ttl)));
        } else if answers == 0 && soa {
            least = data.last_chunk::<4>().map(|minimum| ttl.min(u32::from_be_bytes(*minimum)));
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, OpCode, ResponseCode};
    use hickory_proto::rr::rdata::{A, SOA};
    use hickory_proto::rr::{Name, RData, Record};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_queries_or_refused_with_the_status_that_says_why() {
        let (get, post) = (Method::GET, Method::POST);
        let long = format!("/dns-query?dns={}", "A".repeat(90_000));
        // RFC 8484 §4.1.1 and §4.2.1.
        for (method, uri, kind, length, want) in [
            (&get, "/dns-query?dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB", "", "", Ok(true)),
            (&get, "/dns-query?ct=&dns=AAABAAABAAAAAAAA", "", "", Ok(true)),
            (&get, "/dns-query", "", "", Err(400)),
            (&get, "/dns-query?dns=", "", "", Err(400)),
            (&get, "/dns-query?dns=AAAB", "", "", Err(400)),
            (&get, "/dns-query?dns=AAABAAABAAAAAAAA%3D", "", "", Err(400)),
            (&get, "/dns-query?dns=AAABAAABAAAAAAA+", "", "", Err(400)),
            (&get, &long, "", "", Err(413)),
            (&get, "/", "", "", Err(404)),
            (&post, "/dns-query", "application/dns-message", "12", Ok(false)),
            (&post, "/dns-query", "Application/DNS-Message; x=y", "", Ok(false)),
            (&post, "/dns-query", "application/json", "12", Err(415)),
            (&post, "/dns-query", "", "12", Err(415)),
            (&post, "/dns-query", "application/dns-message", "65536", Err(413)),
            (&post, "/dns-query", "application/dns-message", "3", Err(400)),
            (&Method::PUT, "/dns-query", "application/dns-message", "12", Err(405)),
            (&Method::HEAD, "/dns-query?dns=AAABAAABAAAAAAAA", "", "", Err(405)),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [(CONTENT_TYPE, kind), (CONTENT_LENGTH, length)] {
                if !value.is_empty() {
                    headers.insert(name, HeaderValue::from_str(value).unwrap());
                }
            }
            // An address as long as that never gets through the HTTP library.
            let Ok(uri) = uri.parse() else { continue };
            let got = query(method, &uri, &headers).map(|q| q != Query::Body).map_err(|status| status.as_u16());
            assert_eq!(got, want, "{method} {uri} {kind} {length}");
        }
        assert_eq!(response(Err(StatusCode::METHOD_NOT_ALLOWED)).headers()[ALLOW], "GET, POST");
        assert_eq!(response(Ok(None)).status(), 400);
    }

    fn reply(rcode: ResponseCode, ttls: &[u32], soa: Option<(u32, u32)>) -> Vec<u8> {
        let name = Name::from_ascii("web.example.").unwrap();
        let mut message = Message::response(0, OpCode::Query);
        message.metadata.response_code = rcode;
        message.answers =
            ttls.iter().map(|ttl| Record::from_rdata(name.clone(), *ttl, RData::A(A::new(192, 0, 2, 1)))).collect();
        message.authorities = soa
            .map(|(ttl, minimum)| {
                let soa = SOA::new(name.clone(), name.clone(), 1, 2, 3, 4, minimum);
                Record::from_rdata(name.clone(), ttl, RData::SOA(soa))
            })
            .into_iter()
            .collect();
        message.to_vec().unwrap()
    }

    #[test]
    fn a_response_is_kept_as_long_as_its_answers_hold() {
        for (octets, want) in [
            (reply(ResponseCode::NoError, &[30, 5, 60], None), Some(5)),
            (reply(ResponseCode::NoError, &[30], Some((2, 2))), Some(30)),
            (reply(ResponseCode::NXDomain, &[], Some((60, 10))), Some(10)),
            (reply(ResponseCode::NoError, &[], Some((5, 10))), Some(5)),
            (reply(ResponseCode::ServFail, &[], None), None),
            (reply(ResponseCode::Refused, &[30], None), None),
        ] {
            assert_eq!(freshness(&octets), want);
        }
        let kept = response(Ok(Some(reply(ResponseCode::NoError, &[30], None))));
        assert_eq!(
            (kept.headers()[CACHE_CONTROL].as_bytes(), kept.status().as_u16()),
            (&b"private, max-age=30"[..], 200)
        );
        assert_eq!(response(Ok(Some(vec![0; 12]))).headers()[CACHE_CONTROL], "private, max-age=0");
    }

    proptest! {
        #[test]
        fn any_octets_have_a_freshness(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = freshness(&octets);
            let _ = response(Ok(Some(octets)));
        }
    }
}
