//! Messages of Envoy's protocols for authorisation servers and processors, as far as they are used here, by their published field numbers.
//!
//! Sources: envoy.service.auth.v3 (external_auth.proto, attribute_context.proto), envoy.config.core.v3 (base.proto, address.proto),
//! google.rpc.Status. What is not named here is left out by whoever reads it, as protocol buffers have it.

use std::collections::HashMap;

use prost::{Enumeration, Message, Oneof};

use super::process::attributes::Struct;

pub(crate) const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) attributes: Option<AttributeContext>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AttributeContext {
    #[prost(message, optional, tag = "1")]
    pub(crate) source: Option<PeerAttributes>,
    #[prost(message, optional, tag = "2")]
    pub(crate) destination: Option<PeerAttributes>,
    #[prost(message, optional, tag = "4")]
    pub(crate) request: Option<RequestAttributes>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PeerAttributes {
    #[prost(message, optional, tag = "1")]
    pub(crate) address: Option<Address>,
    #[prost(string, tag = "4")]
    pub(crate) principal: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Address {
    #[prost(message, optional, tag = "1")]
    pub(crate) socket_address: Option<SocketAddress>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SocketAddress {
    #[prost(string, tag = "2")]
    pub(crate) address: String,
    #[prost(uint32, tag = "3")]
    pub(crate) port_value: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RequestAttributes {
    #[prost(message, optional, tag = "2")]
    pub(crate) http: Option<HttpRequest>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HttpRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) method: String,
    #[prost(map = "string, string", tag = "3")]
    pub(crate) headers: HashMap<String, String>,
    #[prost(string, tag = "4")]
    pub(crate) path: String,
    #[prost(string, tag = "5")]
    pub(crate) host: String,
    #[prost(string, tag = "6")]
    pub(crate) scheme: String,
    #[prost(int64, tag = "9")]
    pub(crate) size: i64,
    #[prost(string, tag = "10")]
    pub(crate) protocol: String,
    #[prost(string, tag = "11")]
    pub(crate) body: String,
    #[prost(bytes = "vec", tag = "12")]
    pub(crate) raw_body: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<Status>,
    #[prost(oneof = "HttpResponse", tags = "2, 3")]
    pub(crate) http_response: Option<HttpResponse>,
    /// What it leaves for filters after it.
    #[prost(message, optional, tag = "4")]
    pub(crate) dynamic_metadata: Option<Struct>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum HttpResponse {
    #[prost(message, tag = "2")]
    Denied(DeniedHttpResponse),
    #[prost(message, tag = "3")]
    Ok(OkHttpResponse),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeniedHttpResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<HttpStatus>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) headers: Vec<HeaderValueOption>,
    #[prost(string, tag = "3")]
    pub(crate) body: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HttpStatus {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OkHttpResponse {
    #[prost(message, repeated, tag = "2")]
    pub(crate) headers: Vec<HeaderValueOption>,
    #[prost(string, repeated, tag = "5")]
    pub(crate) headers_to_remove: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) response_headers_to_add: Vec<HeaderValueOption>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) query_parameters_to_set: Vec<QueryParameter>,
    #[prost(string, repeated, tag = "8")]
    pub(crate) query_parameters_to_remove: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct QueryParameter {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HeaderValueOption {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<HeaderValue>,
    /// `google.protobuf.BoolValue`.
    #[prost(message, optional, tag = "2")]
    pub(crate) append: Option<bool>,
    #[prost(enumeration = "AppendAction", tag = "3")]
    pub(crate) append_action: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HeaderValue {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) raw_value: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(crate) enum AppendAction {
    AppendOrAdd = 0,
    AddIfAbsent = 1,
    OverwriteOrAdd = 2,
    OverwriteIfThere = 3,
}

/// Headers that a server may not touch: they frame the message, or name who is asked.
const FRAMING: &[&str] =
    &["content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive"];

impl HeaderValueOption {
    /// Puts the header where it belongs. `append`: where the option does not say how.
    pub(crate) fn apply(&self, headers: &mut http::HeaderMap, append: bool) {
        let Some(header) = &self.header else { return };
        let raw = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
        let (Ok(name), Ok(value)) = (header.key.parse::<http::HeaderName>(), http::HeaderValue::from_bytes(raw)) else {
            return;
        };
        if FRAMING.contains(&name.as_str()) {
            return;
        }
        let default = if append { AppendAction::AppendOrAdd } else { AppendAction::OverwriteOrAdd };
        let action = match (self.append, AppendAction::try_from(self.append_action)) {
            (Some(true), _) => AppendAction::AppendOrAdd,
            (Some(false), _) => AppendAction::OverwriteOrAdd,
            (None, Ok(AppendAction::AppendOrAdd) | Err(_)) => default,
            (None, Ok(action)) => action,
        };
        match action {
            AppendAction::AppendOrAdd => drop(headers.append(name, value)),
            AppendAction::AddIfAbsent => drop(headers.entry(name).or_insert(value)),
            AppendAction::OverwriteOrAdd => drop(headers.insert(name, value)),
            AppendAction::OverwriteIfThere if headers.contains_key(&name) => drop(headers.insert(name, value)),
            AppendAction::OverwriteIfThere => {}
        }
    }
}

/// Takes a header away, unless it frames the message or names who is asked.
pub(crate) fn remove(headers: &mut http::HeaderMap, name: &str) {
    let name = name.to_ascii_lowercase();
    if !FRAMING.contains(&name.as_str()) && name != "host" && !name.starts_with(':') {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_put_as_the_server_says_and_framing_stays() {
        let option = |key: &str, append: Option<bool>, action: AppendAction| HeaderValueOption {
            header: Some(HeaderValue { key: key.to_owned(), value: "new".to_owned(), raw_value: Vec::new() }),
            append,
            append_action: action as i32,
        };
        for (name, option, by_default, expected) in [
            ("by default of requests", option("x-a", None, AppendAction::AppendOrAdd), false, "new"),
            ("by default of answers", option("x-a", None, AppendAction::AppendOrAdd), true, "old,new"),
            ("append", option("x-a", Some(true), AppendAction::AppendOrAdd), false, "old,new"),
            ("if absent", option("x-a", None, AppendAction::AddIfAbsent), false, "old"),
            ("overwrite", option("x-a", None, AppendAction::OverwriteIfThere), true, "new"),
            ("a length", option("content-length", None, AppendAction::OverwriteOrAdd), false, "old"),
            ("no name", option("a b", None, AppendAction::OverwriteOrAdd), false, "old"),
        ] {
            let mut headers = http::HeaderMap::new();
            headers.insert("x-a", "old".parse().unwrap());
            option.apply(&mut headers, by_default);
            let all: Vec<&str> = headers.values().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(all.join(","), expected, "{name}");
        }
    }

    /// The octets that protoc writes for the same message.
    #[test]
    fn messages_have_their_published_numbers() {
        let response = CheckResponse {
            status: Some(Status { code: 7, message: String::new() }),
            dynamic_metadata: None,
            http_response: Some(HttpResponse::Denied(DeniedHttpResponse {
                status: Some(HttpStatus { code: 403 }),
                headers: Vec::new(),
                body: "no".to_owned(),
            })),
        };
        assert_eq!(response.encode_to_vec(), b"\x0a\x02\x08\x07\x12\x09\x0a\x03\x08\x93\x03\x1a\x02no");
    }
}
