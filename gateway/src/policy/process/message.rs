//! Messages of `envoy.service.ext_proc.v3` as far as they are used here, by their published field numbers.
//!
//! Sources: envoy.service.ext_proc.v3 (external_processor.proto), envoy.extensions.filters.http.ext_proc.v3 (processing_mode.proto).

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use prost::{Enumeration, Message, Oneof};

use super::attributes::{Metadata, Struct};
use crate::policy::envoy::{HeaderValue, HeaderValueOption, HttpStatus};

pub(crate) const PROCESS: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ProcessingRequest {
    #[prost(oneof = "Said", tags = "2, 3, 4, 5, 6, 7")]
    pub(crate) said: Option<Said>,
    #[prost(message, optional, tag = "8")]
    pub(crate) metadata_context: Option<Metadata>,
    #[prost(btree_map = "string, message", tag = "9")]
    pub(crate) attributes: BTreeMap<String, Struct>,
    #[prost(message, optional, tag = "11")]
    pub(crate) protocol_config: Option<ProtocolConfiguration>,
}

/// How bodies are shown, said once.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ProtocolConfiguration {
    #[prost(enumeration = "BodyMode", tag = "1")]
    pub(crate) request_body_mode: i32,
    #[prost(enumeration = "BodyMode", tag = "2")]
    pub(crate) response_body_mode: i32,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Said {
    #[prost(message, tag = "2")]
    RequestHeaders(HttpHeaders),
    #[prost(message, tag = "3")]
    ResponseHeaders(HttpHeaders),
    #[prost(message, tag = "4")]
    RequestBody(HttpBody),
    #[prost(message, tag = "5")]
    ResponseBody(HttpBody),
    #[prost(message, tag = "6")]
    RequestTrailers(HttpTrailers),
    #[prost(message, tag = "7")]
    ResponseTrailers(HttpTrailers),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HeaderMap {
    #[prost(message, repeated, tag = "1")]
    pub(crate) headers: Vec<HeaderValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HttpHeaders {
    #[prost(message, optional, tag = "1")]
    pub(crate) headers: Option<HeaderMap>,
    #[prost(bool, tag = "3")]
    pub(crate) end_of_stream: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HttpBody {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) body: Bytes,
    #[prost(bool, tag = "2")]
    pub(crate) end_of_stream: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HttpTrailers {
    #[prost(message, optional, tag = "1")]
    pub(crate) trailers: Option<HeaderMap>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ProcessingResponse {
    #[prost(oneof = "Answer", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub(crate) answer: Option<Answer>,
    /// By namespace, a Struct each.
    #[prost(message, optional, tag = "8")]
    pub(crate) dynamic_metadata: Option<Struct>,
    #[prost(message, optional, tag = "9")]
    pub(crate) mode_override: Option<ProcessingMode>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Answer {
    #[prost(message, tag = "1")]
    RequestHeaders(PartResponse),
    #[prost(message, tag = "2")]
    ResponseHeaders(PartResponse),
    #[prost(message, tag = "3")]
    RequestBody(PartResponse),
    #[prost(message, tag = "4")]
    ResponseBody(PartResponse),
    #[prost(message, tag = "5")]
    RequestTrailers(TrailersResponse),
    #[prost(message, tag = "6")]
    ResponseTrailers(TrailersResponse),
    #[prost(message, tag = "7")]
    Immediate(ImmediateResponse),
}

/// `HeadersResponse` and `BodyResponse`, which are alike.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PartResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) response: Option<CommonResponse>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CommonResponse {
    /// 1: the body is replaced, and not shown.
    #[prost(int32, tag = "1")]
    pub(crate) status: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) header_mutation: Option<HeaderMutation>,
    #[prost(message, optional, tag = "3")]
    pub(crate) body_mutation: Option<BodyMutation>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TrailersResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header_mutation: Option<HeaderMutation>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HeaderMutation {
    #[prost(message, repeated, tag = "1")]
    pub(crate) set_headers: Vec<HeaderValueOption>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) remove_headers: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BodyMutation {
    #[prost(oneof = "Mutation", tags = "1, 2, 3")]
    pub(crate) mutation: Option<Mutation>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Mutation {
    #[prost(bytes = "bytes", tag = "1")]
    Body(Bytes),
    #[prost(bool, tag = "2")]
    Clear(bool),
    #[prost(message, tag = "3")]
    Streamed(StreamedBody),
}

/// A piece of a body that takes the place of whatever was shown.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StreamedBody {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) body: Bytes,
    #[prost(bool, tag = "2")]
    pub(crate) end_of_stream: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ImmediateResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<HttpStatus>,
    #[prost(message, optional, tag = "2")]
    pub(crate) headers: Option<HeaderMutation>,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) body: Bytes,
    #[prost(message, optional, tag = "4")]
    pub(crate) grpc_status: Option<GrpcStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GrpcStatus {
    #[prost(uint32, tag = "1")]
    pub(crate) status: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ProcessingMode {
    #[prost(enumeration = "HeaderMode", tag = "2")]
    pub(crate) response_headers: i32,
    #[prost(enumeration = "BodyMode", tag = "3")]
    pub(crate) request_body: i32,
    #[prost(enumeration = "BodyMode", tag = "4")]
    pub(crate) response_body: i32,
    #[prost(enumeration = "HeaderMode", tag = "5")]
    pub(crate) request_trailers: i32,
    #[prost(enumeration = "HeaderMode", tag = "6")]
    pub(crate) response_trailers: i32,
}

/// Whether something is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(crate) enum HeaderMode {
    Default = 0,
    Send = 1,
    Skip = 2,
}

/// How a body is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(crate) enum BodyMode {
    None = 0,
    Streamed = 1,
    Buffered = 2,
    BufferedPartial = 3,
    FullDuplexStreamed = 4,
}

impl HttpHeaders {
    /// Headers as HTTP/2 writes them: first those with a colon, and no Host.
    pub(crate) fn of(headers: &http::HeaderMap, colon: &[(&str, &str)], end_of_stream: bool) -> Self {
        let one = |key: &str, value: &[u8]| HeaderValue {
            key: key.to_owned(),
            value: String::new(),
            raw_value: value.to_vec(),
        };
        let first = colon.iter().map(|(name, value)| one(name, value.as_bytes()));
        let rest = headers.iter().filter(|(name, _)| *name != header::HOST);
        let headers = first.chain(rest.map(|(name, value)| one(name.as_str(), value.as_bytes()))).collect();
        Self { headers: Some(HeaderMap { headers }), end_of_stream }
    }
}

impl HttpTrailers {
    pub(crate) fn of(trailers: &http::HeaderMap) -> Self {
        Self { trailers: HttpHeaders::of(trailers, &[], false).headers }
    }
}

impl CommonResponse {
    pub(crate) fn of(trailers: TrailersResponse) -> Self {
        Self { header_mutation: trailers.header_mutation, ..Self::default() }
    }

    /// Changes headers. Returns what it says of a name with a colon.
    pub(crate) fn change(&self, headers: &mut http::HeaderMap, colon: &str) -> Option<String> {
        self.header_mutation.as_ref().and_then(|mutation| mutation.apply(headers, colon))
    }

    /// The body in the place of the one that it was shown; nothing where that stays.
    pub(crate) fn body(&mut self) -> Option<Bytes> {
        match self.body_mutation.take()?.mutation? {
            Mutation::Body(body) => Some(body),
            Mutation::Clear(clear) => clear.then(Bytes::new),
            // Of bodies that come and go on their own only.
            Mutation::Streamed(_) => None,
        }
    }

    /// "CONTINUE_AND_REPLACE": the body is not shown, what it says stands in its place.
    pub(crate) fn replaces(&self) -> bool {
        self.status == 1
    }
}

impl HeaderMutation {
    /// "Attempts to set … the :method, :authority, :scheme, or host headers will be ignored."
    fn apply(&self, headers: &mut http::HeaderMap, colon: &str) -> Option<String> {
        self.remove_headers.iter().for_each(|name| crate::policy::envoy::remove(headers, name));
        let is_host = |option: &&HeaderValueOption| {
            option.header.as_ref().is_some_and(|said| said.key.eq_ignore_ascii_case("host"))
        };
        self.set_headers.iter().filter(|option| !is_host(option)).for_each(|option| option.apply(headers, false));
        let said = self.set_headers.iter().filter_map(|option| option.header.as_ref()).find(|h| h.key == colon)?;
        let raw = if said.raw_value.is_empty() { said.value.as_bytes() } else { &said.raw_value };
        String::from_utf8(raw.to_vec()).ok()
    }
}

impl ImmediateResponse {
    /// The answer that it is; `grpc`: to a client that understands statuses of gRPC only.
    pub(crate) fn answer(self, grpc: bool) -> Response<Bytes> {
        let status = self.status.and_then(|s| StatusCode::from_u16(u16::try_from(s.code).ok()?).ok());
        let status = status.filter(|s| !s.is_informational()).unwrap_or(StatusCode::OK);
        let said = self.grpc_status.filter(|_| grpc);
        let mut answer = Response::new(if said.is_some() { Bytes::new() } else { self.body.clone() });
        *answer.status_mut() = if said.is_some() { StatusCode::OK } else { status };
        let headers = answer.headers_mut();
        if let Some(GrpcStatus { status }) = said {
            headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", http::HeaderValue::from(status));
            if let Ok(why) = http::HeaderValue::from_bytes(&self.body) {
                headers.insert("grpc-message", why);
            }
        } else if !self.body.is_empty() {
            headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
        }
        if let Some(mutation) = &self.headers {
            mutation.apply(headers, "");
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The octets that protoc writes for the same message.
    #[test]
    fn messages_have_their_published_numbers() {
        let body = HttpBody { body: Bytes::from_static(b"hi"), end_of_stream: true };
        let request = ProcessingRequest { said: Some(Said::RequestBody(body)), ..ProcessingRequest::default() };
        assert_eq!(request.encode_to_vec(), b"\x22\x06\x0a\x02hi\x10\x01");
        let answer = ProcessingResponse::decode(&b"\x3a\x09\x0a\x03\x08\x93\x03\x1a\x02no"[..]).unwrap();
        let Some(Answer::Immediate(immediate)) = answer.answer else { panic!("{answer:?}") };
        assert_eq!((immediate.status.unwrap().code, &immediate.body[..]), (403, &b"no"[..]));
        let piece = ProcessingResponse::decode(&b"\x1a\x0a\x0a\x08\x1a\x06\x1a\x04\x0a\x00\x10\x01"[..]).unwrap();
        let Some(Answer::RequestBody(said)) = piece.answer else { panic!("{piece:?}") };
        let mutation = said.response.unwrap().body_mutation.unwrap().mutation;
        assert_eq!(mutation, Some(Mutation::Streamed(StreamedBody { body: Bytes::new(), end_of_stream: true })));
        let answer = ProcessingResponse::decode(&b"\x0a\x00\x4a\x04\x18\x01\x20\x02"[..]).unwrap();
        let mode = answer.mode_override.unwrap();
        assert_eq!((mode.request_body(), mode.response_body()), (BodyMode::Streamed, BodyMode::Buffered));
    }
}
