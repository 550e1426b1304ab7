//! `sizes`: bodies and heads of at most so many bytes (413, 431; 502 for an answer). Of a body whose length nobody said what is too much
//! breaks it off.

use std::sync::Arc;

use async_trait::async_trait;
use atoll_api::kinds::route_policy::filters::Sizes;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, response};
use http_body::Body as _;
use serde_json::{Map, Value};

use super::{Guard, Guarded, Making, parameters, said};
use crate::policy::carried::{Bounded, Carried, whole};
use crate::policy::{Asked, Back};

#[derive(Debug)]
struct Limits(Sizes);

/// As HTTP/2 counts them (RFC 9113 §6.5.2).
fn length(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len() + 32) as u64).sum()
}

#[async_trait]
impl Guard for Limits {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        if self.0.header_bytes_max.is_some_and(|max| length(&asked.head.headers) > max) {
            let why = "the headers are too long";
            return Some(said(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why));
        }
        if let Some(max) = self.0.request_bytes_max {
            if asked.body.size_hint().lower() > max {
                return Some(said(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long"));
            }
            asked.body.wrap(|body| Box::pin(Bounded::new(body, max)));
        }
        if let Some(max) = self.0.response_bytes_max {
            asked.backs.push(Box::new(Answer(max)));
        }
        None
    }
}

struct Answer(u64);

#[async_trait]
impl Back for Answer {
    async fn answer(self: Box<Self>, head: &mut response::Parts, body: Carried) -> Carried {
        if body.size_hint().lower() <= self.0 {
            return Box::pin(Bounded::new(body, self.0));
        }
        let (refused, why) = said(StatusCode::BAD_GATEWAY, "the answer is too long").into_parts();
        (head.status, head.headers) = (refused.status, refused.headers);
        whole(why)
    }
}

pub(super) fn make(written: &Map<String, Value>, _: &Making<'_>) -> Guarded {
    let settings: Sizes = parameters(written)?;
    if settings.request_bytes_max.or(settings.response_bytes_max).or(settings.header_bytes_max).is_none() {
        return Err("requestBytesMax, responseBytesMax or headerBytesMax: one at least".to_owned());
    }
    Ok(Arc::new(Limits(settings)))
}
