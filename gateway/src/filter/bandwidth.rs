//! `bandwidth`: how fast a request's body and its answer's go, each for itself.

use std::sync::Arc;

use async_trait::async_trait;
use atoll_api::kinds::route_policy::filters::Bandwidth;
use bytes::Bytes;
use http::{Response, response};
use serde_json::{Map, Value};

use super::{Guard, Guarded, Making, parameters};
use crate::policy::carried::{Carried, Paced};
use crate::policy::{Asked, Back};

#[derive(Debug, Clone, Copy)]
struct Pace {
    per_second: u64,
    burst: u64,
}

#[async_trait]
impl Guard for Pace {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        let Self { per_second, burst } = *self;
        asked.body.wrap(|body| Box::pin(Paced::new(body, per_second, burst)));
        asked.backs.push(Box::new(*self));
        None
    }
}

#[async_trait]
impl Back for Pace {
    async fn answer(self: Box<Self>, _: &mut response::Parts, body: Carried) -> Carried {
        Box::pin(Paced::new(body, self.per_second, self.burst))
    }
}

pub(super) fn make(written: &Map<String, Value>, _: &Making<'_>) -> Guarded {
    let settings: Bandwidth = parameters(written)?;
    if settings.bytes_per_second == 0 {
        return Err("bytesPerSecond: at least 1".to_owned());
    }
    let burst = settings.burst_bytes.unwrap_or(settings.bytes_per_second / 10).max(1);
    Ok(Arc::new(Pace { per_second: settings.bytes_per_second, burst }))
}
