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

impl Change {
    fn make(written: &HTTPHeaderFilter) -> Result<Self, Problem> {
        let pairs = |headers: &[HTTPHeader]| headers.iter().map(pair).collect::<Result<Vec<_>, _>>();
        let remove = written.remove.iter().map(|n| name(n)).collect::<Result<_, _>>()?;
        Ok(Self { set: pairs(&written.set)?, add: pairs(&written.add)?, remove })
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
    Ok(Some(Box::new(Request(Change::make(settings)?))))
}

pub(super) fn response(written: &HTTPRouteFilter, _: bool, _: &mut dyn Resolve) -> Made {
    let settings = written.response_header_modifier.as_ref().ok_or_else(|| absent("ResponseHeaderModifier"))?;
    Ok(Some(Box::new(Response(Change::make(settings)?))))
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
    let settings: Headers = parameters(written)?;
    let make = |field: &str, change: Option<&HeaderChange>| {
        let pairs = |all: &[HeaderValueOf]| {
            all.iter().map(|h| HTTPHeader { name: h.name.clone(), value: h.value.clone() }).collect()
        };
        let written =
            change.map(|c| HTTPHeaderFilter { set: pairs(&c.set), add: pairs(&c.add), remove: c.remove.clone() });
        written.map(|w| Change::make(&w).map_err(|p| format!("{field}: {}", p.message))).transpose()
    };
    let request = make("request", settings.request.as_ref())?;
    let response = make("response", settings.response.as_ref())?.map(Arc::new);
    if request.is_none() && response.is_none() {
        return Err("request or response: one at least".to_owned());
    }
    Ok(Arc::new(Both { request, response }))
}
