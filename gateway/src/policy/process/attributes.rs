//! What Envoy's protocols carry beside messages: attributes of requests and answers, and metadata that filters leave for each other.
//!
//! In: a request, an answer, what a processor or an authorisation server said. Out: `google.protobuf.Struct`s. Sources: google.protobuf
//! (struct.proto), envoy.config.core.v3 (base.proto, Metadata), Envoy's page "Attributes".

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::{header, response};
use prost::{Message, Oneof};

use crate::policy::Asked;

/// Under which name the attributes of a processor stand in what it is sent.
pub(crate) const OWN: &str = "envoy.filters.http.ext_proc";
/// What one filter leaves is at most so long, and at most so many leave something.
const METADATA_BYTES_MAX: usize = 64 << 10;
const NAMESPACES_MAX: usize = 32;

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Struct {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(crate) fields: BTreeMap<String, Value>,
}

/// `google.protobuf.Value`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Value {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub(crate) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Kind {
    #[prost(int32, tag = "1")]
    Null(i32),
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(bool, tag = "4")]
    Truth(bool),
    #[prost(message, tag = "5")]
    Fields(Struct),
    #[prost(message, tag = "6")]
    List(List),
}

/// `google.protobuf.ListValue`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct List {
    #[prost(message, repeated, tag = "1")]
    pub(crate) values: Vec<Value>,
}

/// `envoy.config.core.v3.Metadata`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Metadata {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(crate) filter_metadata: BTreeMap<String, Struct>,
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self { kind: Some(Kind::Text(text.to_owned())) }
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self { kind: Some(Kind::Truth(truth)) }
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self { kind: Some(Kind::Number(number.into())) }
    }
}

/// What filters of one request left for those after them, by namespace. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Left(Arc<Mutex<BTreeMap<String, Struct>>>);

impl Left {
    /// What stands in these namespaces; nothing where none has something.
    pub(crate) fn of(&self, namespaces: &[String]) -> Option<Metadata> {
        let left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = namespaces.iter().filter_map(|name| Some((name.clone(), left.get(name)?.clone())));
        let filter_metadata: BTreeMap<String, Struct> = found.collect();
        (!filter_metadata.is_empty()).then_some(Metadata { filter_metadata })
    }

    /// Leaves something; what stood there before is replaced field by field. What is too long is not taken.
    pub(crate) fn leave(&self, namespace: &str, said: Struct) {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let there = left.get(namespace).map_or(0, Message::encoded_len);
        let is_new = !left.contains_key(namespace);
        if there + said.encoded_len() > METADATA_BYTES_MAX || is_new && left.len() >= NAMESPACES_MAX {
            tracing::warn!(namespace, "metadata is too long, and left out");
            return;
        }
        left.entry(namespace.to_owned()).or_default().fields.extend(said.fields);
    }

    /// Leaves what a processor said, of the namespaces that it may write.
    pub(crate) fn receive(&self, said: Struct, may: &[String]) {
        for (namespace, value) in said.fields {
            match value.kind {
                Some(Kind::Fields(fields)) if may.contains(&namespace) => self.leave(&namespace, fields),
                _ => tracing::debug!(namespace, "a processor may not write this metadata"),
            }
        }
    }
}

/// Where the value of an attribute comes from.
type Read = fn(&Asked<'_>) -> Option<Value>;

/// Attributes of requests, by Envoy's names.
const REQUEST: &[(&str, Read)] = &[
    ("connection.mtls", |asked| Some(asked.certificate.is_some().into())),
    ("request.host", |asked| Some(asked.host.into())),
    ("request.id", |asked| text(asked, "x-request-id")),
    ("request.method", |asked| Some(asked.head.method.as_str().into())),
    ("request.path", |asked| Some(asked.head.uri.path_and_query().map_or("/", |target| target.as_str()).into())),
    ("request.query", |asked| Some(asked.head.uri.query().unwrap_or_default().into())),
    ("request.referer", |asked| text(asked, header::REFERER.as_str())),
    ("request.scheme", |asked| Some(if asked.tls { "https" } else { "http" }.into())),
    ("request.url_path", |asked| Some(asked.head.uri.path().into())),
    ("request.useragent", |asked| text(asked, header::USER_AGENT.as_str())),
    ("source.address", |asked| Some(asked.client().to_string().as_str().into())),
];
/// The one of answers.
const CODE: &str = "response.code";

fn text(asked: &Asked<'_>, name: &str) -> Option<Value> {
    Some(asked.head.headers.get(name)?.to_str().ok()?.into())
}

/// Looks whether all of these are attributes; `answers`: that are known once there is an answer.
///
/// # Errors
/// Which is none, and which there are.
pub(crate) fn check(names: &[String], answers: bool) -> Result<(), String> {
    let is = |name: &&String| REQUEST.iter().any(|(known, _)| known == name) || answers && *name == CODE;
    let Some(unknown) = names.iter().find(|name| !is(name)) else { return Ok(()) };
    let mut known: Vec<&str> = REQUEST.iter().map(|(name, _)| *name).collect();
    known.extend(answers.then_some(CODE));
    Err(format!("attribute `{unknown}` is unknown here; there are {}", known.join(", ")))
}

/// What is known of them with the request; those that it has no value for are left out.
pub(crate) fn of_request(names: &[String], asked: &Asked<'_>) -> Struct {
    let one = |name: &String| {
        let (_, read) = REQUEST.iter().find(|(known, _)| known == name)?;
        Some((name.clone(), read(asked)?))
    };
    Struct { fields: names.iter().filter_map(one).collect() }
}

/// The same with the answer.
pub(crate) fn of_answer(names: &[String], mut known: Struct, head: &response::Parts) -> Struct {
    if names.iter().any(|name| name == CODE) {
        known.fields.insert(CODE.to_owned(), head.status.as_u16().into());
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, Value)]) -> Struct {
        Struct { fields: pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect() }
    }

    /// The octets that protoc writes for the same message.
    #[test]
    fn values_have_their_published_numbers() {
        assert_eq!(fields(&[("a", "b".into())]).encode_to_vec(), b"\x0a\x08\x0a\x01a\x12\x03\x1a\x01b");
        assert_eq!(fields(&[("a", true.into())]).encode_to_vec(), b"\x0a\x07\x0a\x01a\x12\x02\x20\x01");
        let read = Struct::decode(&b"\x0a\x0c\x0a\x01n\x12\x07\x2a\x05\x0a\x03\x0a\x01x"[..]).unwrap();
        assert!(matches!(read.fields["n"].kind, Some(Kind::Fields(_))), "{read:?}");
    }

    #[test]
    fn metadata_is_left_where_it_may_be_and_bounded() {
        let left = Left::default();
        let said = |value: &str| {
            let inner = Value { kind: Some(Kind::Fields(fields(&[("k", value.into())]))) };
            fields(&[("mine", inner.clone()), ("others", inner)])
        };
        let mine = ["mine".to_owned()];
        left.receive(said("v"), &mine);
        let all = ["mine".to_owned(), "others".to_owned()];
        let found = left.of(&all).unwrap();
        assert_eq!(found.filter_metadata.keys().collect::<Vec<_>>(), ["mine"]);
        left.receive(said(&"x".repeat(METADATA_BYTES_MAX)), &mine);
        assert_eq!(left.of(&all).unwrap().filter_metadata["mine"], fields(&[("k", "v".into())]), "too long");
        assert_eq!(left.of(&["nobody".to_owned()]), None);
    }

    #[test]
    fn attributes_that_are_none_are_named() {
        let names = |name: &str| [name.to_owned()];
        assert!(check(&names("request.path"), false).is_ok());
        assert!(check(&names(CODE), true).is_ok());
        assert!(check(&names(CODE), false).unwrap_err().contains("request.path"));
    }
}
