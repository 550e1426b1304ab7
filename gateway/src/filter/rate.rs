//! `rate`: how many requests in a time; one more is answered 429 with Retry-After (RFC 6585 §4). Of streams each connection counts.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use atoll_api::kinds::route_policy::filters::{Rate as Written, RateScope};
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{Guard, Guarded, Making, Permit, parameters, said, time};
use crate::policy::Asked;
use crate::policy::buckets::{Buckets, Rate};
use crate::policy::key::Key;
use crate::policy::shares::Shared;

#[derive(Debug)]
struct Limit {
    key: Key,
    buckets: Arc<Buckets>,
}

#[async_trait]
impl Guard for Limit {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        let wait = self.buckets.take(self.key.of(asked), Instant::now()).err()?;
        let mut answer = said(StatusCode::TOO_MANY_REQUESTS, "too many requests");
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        Some(answer)
    }

    fn stream(&self, client: IpAddr) -> Result<Option<Permit>, &'static str> {
        let taken = self.buckets.take(self.key.address(client), Instant::now());
        taken.map(|()| None).map_err(|_| "too many connections in a time")
    }

    fn is_late(&self) -> bool {
        self.key.is_of_users()
    }
}

pub(super) fn make(written: &Map<String, Value>, making: &Making<'_>) -> Guarded {
    let settings: Written = parameters(written)?;
    if settings.requests == 0 {
        return Err("requests: at least 1".to_owned());
    }
    let per = time("per", settings.per.as_ref(), Duration::from_secs(1))?;
    if per.is_zero() {
        return Err("per: longer than nothing".to_owned());
    }
    let burst = f64::from(settings.burst.unwrap_or(settings.requests).max(1));
    let rate = Rate { per_second: f64::from(settings.requests) / per.as_secs_f64(), burst };
    let key = Key::new(settings.key, settings.header.as_ref())?;
    let buckets = making.stores.keep(&making.id, || Buckets::new(rate));
    if settings.scope.unwrap_or_default() == RateScope::Global {
        let shared: Arc<dyn Shared> = Arc::clone(&buckets) as _;
        making.shares.join(&making.id, &shared);
    }
    Ok(Arc::new(Limit { key, buckets }))
}
