//! `CORS`: answers preflights, and says in answers which origins may read them.
//!
//! Sources: Gateway API (HTTPCORSFilter), Fetch standard (CORS protocol). `*` is never sent where credentials are allowed: "the value MUST be
//! the request's own". Whether a request from another origin may pass at all is the browser's affair: it goes on, unmarked.

use std::sync::Arc;

use async_trait::async_trait;
use atoll_api::kinds::gateway::{HTTPCors, HTTPRouteFilter};
use atoll_api::kinds::route_policy::filters;
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use serde_json::{Map, Value};

use super::{Filter, Guard, Guarded, Made, Making, Matched, Resolve, absent, parameters, refused};
use crate::policy::carried::Carried;
use crate::policy::{Asked, Back};
use crate::table::Problem;

/// For how many seconds an answer to a preflight holds unless the route says otherwise.
const MAX_AGE: i32 = 5;

/// An origin that may.
#[derive(Debug, PartialEq, Eq)]
enum Origin {
    Any,
    Exact(String),
    /// What comes before and after `*`.
    Around(String, String),
}

impl Origin {
    fn parse(written: &str) -> Self {
        match written.split_once('*') {
            None => Self::Exact(written.to_ascii_lowercase()),
            Some(("", "")) => Self::Any,
            Some((before, after)) => Self::Around(before.to_ascii_lowercase(), after.to_ascii_lowercase()),
        }
    }

    fn covers(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => *exact == origin,
            Self::Around(before, after) => {
                let inner = origin.strip_prefix(before.as_str()).and_then(|rest| rest.strip_suffix(after.as_str()));
                inner.is_some_and(|inner| !inner.is_empty() && !inner.contains(['/', ':']))
            }
        }
    }
}

#[derive(Debug)]
struct Cors {
    origins: Vec<Origin>,
    credentials: bool,
    /// Whoever asks without credentials is told `*` where everybody may, as nginx says it.
    plain: bool,
    /// Nothing: whatever is asked for.
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    /// Whether headers are listed at all.
    any_header: bool,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
}

impl Cors {
    fn make(written: &HTTPCors) -> Result<Self, Problem> {
        let is_any = |list: &[String]| list.iter().any(|one| one == "*");
        let joined = |list: &[String]| {
            let value = HeaderValue::from_str(&list.join(", "));
            value.map(|v| Some(v).filter(|v| !v.is_empty())).map_err(|_| refused("CORS: a name in a list is none"))
        };
        let listed = |list: &[String]| if is_any(list) { Ok(None) } else { joined(list) };
        Ok(Self {
            origins: written.allow_origins.iter().map(|o| Origin::parse(o)).collect(),
            credentials: written.allow_credentials == Some(true),
            plain: false,
            methods: listed(&written.allow_methods)?,
            headers: listed(&written.allow_headers)?,
            any_header: is_any(&written.allow_headers),
            expose: joined(&written.expose_headers)?,
            max_age: HeaderValue::from(written.max_age.unwrap_or(MAX_AGE)),
        })
    }

    /// Marks an answer for an origin that may; says whether it may.
    fn mark(&self, headers: &mut HeaderMap, origin: &HeaderValue) -> bool {
        for name in [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_EXPOSE_HEADERS] {
            headers.remove(name);
        }
        if self.plain && !self.credentials && self.origins.contains(&Origin::Any) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            return self.expose(headers);
        }
        // An answer of our own to a preflight is marked a second time on its way back.
        if headers.get_all(VARY).iter().all(|v| v != "Origin") {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        let named = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        if !self.origins.iter().any(|o| o.covers(&named)) {
            return false;
        }
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        self.expose(headers)
    }

    /// Says what may be read beside the body.
    fn expose(&self, headers: &mut HeaderMap) -> bool {
        if let Some(expose) = &self.expose {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
        // Trailers-Only of gRPC-Web: without its status a client does not know what became of its call.
        if headers.contains_key("grpc-status") {
            headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("grpc-status, grpc-message"));
        }
        true
    }
}

impl Cors {
    /// The answer to a preflight.
    fn preflight(&self, head: &http::request::Parts) -> Option<Response<Bytes>> {
        let asked = |name: &HeaderName| head.headers.get(name).cloned();
        if head.method != Method::OPTIONS {
            return None;
        }
        let (origin, method) = (asked(&ORIGIN)?, asked(&ACCESS_CONTROL_REQUEST_METHOD)?);
        let mut answer = Response::new(Bytes::new());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let headers = answer.headers_mut();
        if self.mark(headers, &origin) {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone().unwrap_or(method));
            let listed = if self.any_header { asked(&ACCESS_CONTROL_REQUEST_HEADERS) } else { self.headers.clone() };
            if let Some(listed) = listed {
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, listed);
            }
            headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        }
        Some(answer)
    }
}

impl Filter for Cors {
    fn request(&self, head: &mut http::request::Parts, _: &Matched<'_>) -> Option<Response<Bytes>> {
        self.preflight(head)
    }

    fn response(&self, head: &mut http::response::Parts, origin: Option<&HeaderValue>) {
        if let Some(origin) = origin {
            self.mark(&mut head.headers, origin);
        }
    }

    fn refused(&self, head: &mut http::response::Parts, origin: Option<&HeaderValue>) {
        self.response(head, origin);
    }
}

/// The filter `cors` of policies.
#[derive(Debug)]
struct Shared(Arc<Cors>);

#[async_trait]
impl Guard for Shared {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        let answer = self.0.preflight(asked.head);
        if answer.is_none() {
            self.missed(asked);
        }
        answer
    }

    /// Who may read an answer may read why there is none, too.
    fn missed(&self, asked: &mut Asked<'_>) {
        if let Some(origin) = asked.head.headers.get(ORIGIN).cloned() {
            asked.backs.push(Box::new(Mark(Arc::clone(&self.0), origin)));
        }
    }
}

struct Mark(Arc<Cors>, HeaderValue);

#[async_trait]
impl Back for Mark {
    async fn answer(self: Box<Self>, head: &mut http::response::Parts, body: Carried) -> Carried {
        self.0.mark(&mut head.headers, &self.1);
        body
    }
}

pub(super) fn policy(written: &Map<String, Value>, _: &Making<'_>) -> Guarded {
    let s: filters::Cors = parameters(written)?;
    let settings = HTTPCors {
        allow_origins: s.allow_origins,
        allow_credentials: s.allow_credentials,
        allow_methods: s.allow_methods,
        allow_headers: s.allow_headers,
        expose_headers: s.expose_headers,
        max_age: s.max_age,
    };
    let made = Cors::make(&settings).map_err(|problem| problem.message)?;
    Ok(Arc::new(Shared(Arc::new(Cors { plain: true, ..made }))))
}

pub(super) fn make(written: &HTTPRouteFilter, _: bool, _: &mut dyn Resolve) -> Made {
    let settings = written.cors.as_ref().ok_or_else(|| absent("CORS"))?;
    Ok(Some(Box::new(Cors::make(settings)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_exact_or_around_a_star() {
        for (written, origin, covered) in [
            ("*", "https://a.test", true),
            ("https://a.test", "https://a.test", true),
            ("https://a.test", "http://a.test", false),
            ("https://*.a.test", "https://b.a.test", true),
            ("https://*.a.test", "https://c.b.a.test", true),
            ("https://*.a.test", "https://a.test", false),
            ("https://*.a.test", "https://evil.test/x.a.test", false),
            ("https://*.a.test", "https://evila.test", false),
        ] {
            assert_eq!(Origin::parse(written).covers(origin), covered, "{written} {origin}");
        }
    }
}
