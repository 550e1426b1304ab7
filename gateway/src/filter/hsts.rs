//! `hsts`: browsers are told to come by HTTPS only (RFC 6797). "An HSTS Host MUST NOT include the STS header field in HTTP responses conveyed
//! over non-secure transport" (§7.2).

use std::sync::Arc;

use async_trait::async_trait;
use atoll_api::kinds::route_policy::filters::Hsts;
use bytes::Bytes;
use http::header::STRICT_TRANSPORT_SECURITY;
use http::{HeaderValue, Response, response};
use serde_json::{Map, Value};

use super::{Guard, Guarded, Making, parameters};
use crate::policy::carried::Carried;
use crate::policy::{Asked, Back};

#[derive(Debug, Clone)]
struct Said(HeaderValue);

#[async_trait]
impl Guard for Said {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        if asked.tls {
            asked.backs.push(Box::new(self.clone()));
        }
        None
    }
}

#[async_trait]
impl Back for Said {
    async fn answer(self: Box<Self>, head: &mut response::Parts, body: Carried) -> Carried {
        head.headers.insert(STRICT_TRANSPORT_SECURITY, self.0);
        body
    }
}

pub(super) fn make(written: &Map<String, Value>, _: &Making<'_>) -> Guarded {
    let settings: Hsts = parameters(written)?;
    let mut value = format!("max-age={}", settings.max_age_seconds);
    if settings.include_subdomains {
        value.push_str("; includeSubDomains");
    }
    if settings.preload {
        value.push_str("; preload");
    }
    Ok(Arc::new(Said(HeaderValue::from_str(&value).map_err(|e| format!("maxAgeSeconds: {e}"))?)))
}
