//! `RequestHeaderModifier` and `ResponseHeaderModifier` of routes, `headers` of policies: set, then add, then remove.

use std::sync::Arc;

use async_trait::async_trait;
use atoll_api::kinds::gateway::{HTTPHeader, HTTPHeaderFilter, HTTPRouteFilter};
use atoll_api::kinds::route_policy::filters::{HeaderChange, HeaderValueOf, Headers};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::{Filter, Guard, Guarded, Made, Making, Matched, Resolve, absent, parameters, refused};
use crate::policy::carried::Carried;
use crate::policy::{Asked, Back};
use crate::table::Problem;

#[derive(Debug)]
struct Change {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

/// Whose headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Request,
    Response,
}

/// What is done to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Set,
    Add,
    Remove,
}

impl Verb {
    /// The field by which it is written.
    fn field(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Add => "add",
            Self::Remove => "remove",
        }
    }
}

/// Headers that say how a message is carried on one connection: the gateway's own on either side (RFC 9110 §7.6.1, RFC 9112 §6).
const CARRY: &[&str] = &[
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Why a header is not changed like that; nothing where it may be.
fn forbidden(name: &str, of: Of, verb: Verb) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        _ if name.starts_with(':') => {
            Some("pseudo-headers belong to HTTP/2 and HTTP/3: a rewrite changes host and path")
        }
        "host" if of == Of::Request && verb == Verb::Remove => {
            Some("every request has one: `set` or a rewrite of the host changes it")
        }
        "host" if of == Of::Request && verb == Verb::Add => {
            Some("a request has only one: `set` or a rewrite of the host changes it")
        }
        name if CARRY.contains(&name) => {
            Some("it says how a message is carried, which the gateway decides on each side")
        }
        _ => None,
    }
}

impl Change {
    fn make(written: &HTTPHeaderFilter, of: Of) -> Result<Self, Problem> {
        let check = |name: &str, verb: Verb| match forbidden(name, of, verb) {
            Some(why) => Err(refused(format!("{}: `{name}`: {why}", verb.field()))),
            None => Ok(()),
        };
        let pairs = |headers: &[HTTPHeader], verb: Verb| {
            let all = headers.iter().map(|header| check(&header.name, verb).and_then(|()| pair(header)));
            all.collect::<Result<Vec<_>, _>>()
        };
        let remove = written.remove.iter().map(|n| check(n, Verb::Remove).and_then(|()| name(n)));
        let remove = remove.collect::<Result<_, _>>()?;
        Ok(Self { set: pairs(&written.set, Verb::Set)?, add: pairs(&written.add, Verb::Add)?, remove })
    }

    fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

fn name(written: &str) -> Result<HeaderName, Problem> {
    written.parse().map_err(|_| refused(format!("header name `{written}` is none")))
}

fn pair(header: &HTTPHeader) -> Result<(HeaderName, HeaderValue), Problem> {
    let value =
        HeaderValue::from_str(&header.value).map_err(|_| refused(format!("value of `{}` is none", header.name)))?;
    Ok((name(&header.name)?, value))
}

#[derive(Debug)]
struct Request(Change);

impl Filter for Request {
    fn request(&self, head: &mut http::request::Parts, _: &Matched<'_>) -> Option<http::Response<Bytes>> {
        self.0.apply(&mut head.headers);
        None
    }
}

#[derive(Debug)]
struct Response(Change);

impl Filter for Response {
    fn response(&self, head: &mut http::response::Parts, _: Option<&HeaderValue>) {
        self.0.apply(&mut head.headers);
    }
}

pub(super) fn request(written: &HTTPRouteFilter, _: bool, _: &mut dyn Resolve) -> Made {
    let settings = written.request_header_modifier.as_ref().ok_or_else(|| absent("RequestHeaderModifier"))?;
    Ok(Some(Box::new(Request(Change::make(settings, Of::Request)?))))
}

pub(super) fn response(written: &HTTPRouteFilter, _: bool, _: &mut dyn Resolve) -> Made {
    let settings = written.response_header_modifier.as_ref().ok_or_else(|| absent("ResponseHeaderModifier"))?;
    Ok(Some(Box::new(Response(Change::make(settings, Of::Response)?))))
}

/// The filter `headers` of policies.
#[derive(Debug)]
struct Both {
    request: Option<Change>,
    response: Option<Arc<Change>>,
}

#[async_trait]
impl Guard for Both {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<http::Response<Bytes>> {
        if let Some(change) = &self.request {
            change.apply(&mut asked.head.headers);
        }
        if let Some(change) = &self.response {
            asked.backs.push(Box::new(OnAnswer(Arc::clone(change))));
        }
        None
    }
}

struct OnAnswer(Arc<Change>);

#[async_trait]
impl Back for OnAnswer {
    async fn answer(self: Box<Self>, head: &mut http::response::Parts, body: Carried) -> Carried {
        self.0.apply(&mut head.headers);
        body
    }
}

pub(super) fn policy(written: &Map<String, Value>, _: &Making<'_>) -> Guarded {
    Ok(Arc::new(Both::make(written)?))
}

impl Both {
    fn make(written: &Map<String, Value>) -> Result<Self, String> {
        let settings: Headers = parameters(written)?;
        let make = |field: &str, of: Of, change: Option<&HeaderChange>| {
            let pairs = |all: &[HeaderValueOf]| {
                all.iter().map(|h| HTTPHeader { name: h.name.clone(), value: h.value.clone() }).collect()
            };
            let written =
                change.map(|c| HTTPHeaderFilter { set: pairs(&c.set), add: pairs(&c.add), remove: c.remove.clone() });
            written.map(|w| Change::make(&w, of).map_err(|p| format!("{field}.{}", p.message))).transpose()
        };
        let request = make("request", Of::Request, settings.request.as_ref())?;
        let response = make("response", Of::Response, settings.response.as_ref())?.map(Arc::new);
        if request.is_none() && response.is_none() {
            return Err("request or response: one at least".to_owned());
        }
        Ok(Self { request, response })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_carries_a_message_is_not_changed() {
        let header = |name: &str| HTTPHeader { name: name.to_owned(), value: "x".to_owned() };
        for (name, of, verb, is_fine) in [
            ("Host", Of::Request, Verb::Remove, false),
            ("host", Of::Request, Verb::Add, false),
            ("Host", Of::Request, Verb::Set, true),
            ("Host", Of::Response, Verb::Remove, true),
            (":authority", Of::Request, Verb::Remove, false),
            (":path", Of::Request, Verb::Set, false),
            (":status", Of::Response, Verb::Set, false),
            ("Connection", Of::Request, Verb::Set, false),
            ("Transfer-Encoding", Of::Request, Verb::Add, false),
            ("Content-Length", Of::Request, Verb::Remove, false),
            ("content-length", Of::Response, Verb::Set, false),
            ("TE", Of::Request, Verb::Remove, false),
            ("Upgrade", Of::Response, Verb::Add, false),
            ("Content-Type", Of::Request, Verb::Remove, true),
            ("Server", Of::Response, Verb::Remove, true),
        ] {
            let mut written = HTTPHeaderFilter::default();
            match verb {
                Verb::Set => written.set.push(header(name)),
                Verb::Add => written.add.push(header(name)),
                Verb::Remove => written.remove.push(name.to_owned()),
            }
            let made = Change::make(&written, of);
            assert_eq!(made.is_ok(), is_fine, "{of:?} {verb:?} {name}");
            if let Err(problem) = made {
                let begins = format!("{}: `{name}`: ", verb.field());
                assert!(problem.message.starts_with(&begins), "{}", problem.message);
            }
        }
    }

    #[test]
    fn a_policy_names_the_field_that_is_wrong() {
        let written = serde_json::json!({"request": {"remove": ["Host"]}});
        let made = Both::make(written.as_object().unwrap());
        let why = made.err().unwrap();
        assert!(why.starts_with("request.remove: `Host`: every request has one"), "{why}");
    }
}
