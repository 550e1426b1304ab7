//! `RequestHeaderModifier` and `ResponseHeaderModifier`: set, then add, then remove.

use atoll_api::kinds::gateway::{HTTPHeader, HTTPHeaderFilter, HTTPRouteFilter};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Filter, Made, Matched, Resolve, absent, refused};
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
    fn request(&self, head: &mut http::request::Parts, _: &Matched<'_>) -> Option<http::Response<bytes::Bytes>> {
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
