//! `connections`: requests that are worked on at once, streams included; one more is answered 429.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use atoll_api::kinds::route_policy::filters::Connections;
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderValue, Response, StatusCode, response};
use serde_json::{Map, Value};

use super::{Guard, Guarded, Making, Permit, parameters, said};
use crate::policy::carried::{Carried, Holding};
use crate::policy::key::Key;
use crate::policy::{Asked, Back};

/// How many there are, by key.
#[derive(Debug, Default)]
struct Open(Mutex<HashMap<u64, u32>>);

#[derive(Debug)]
struct Limit {
    max: u32,
    key: Key,
    open: Arc<Open>,
}

/// One of them.
struct Held {
    open: Arc<Open>,
    key: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut open = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}

#[async_trait]
impl Back for Held {
    async fn answer(self: Box<Self>, _: &mut response::Parts, body: Carried) -> Carried {
        Box::pin(Holding::new(body, self))
    }
}

impl Limit {
    fn take(&self, key: u64) -> Option<Held> {
        let mut open = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(key).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Held { open: Arc::clone(&self.open), key })
    }
}

#[async_trait]
impl Guard for Limit {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        if let Some(held) = self.take(self.key.of(asked)) {
            asked.backs.push(Box::new(held));
            return None;
        }
        let mut answer = said(StatusCode::TOO_MANY_REQUESTS, "too many requests at once");
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        Some(answer)
    }

    fn stream(&self, client: IpAddr) -> Result<Option<Permit>, &'static str> {
        let held = self.take(self.key.address(client)).ok_or("too many streams at once")?;
        Ok(Some(Box::new(held)))
    }
}

pub(super) fn make(written: &Map<String, Value>, making: &Making<'_>) -> Guarded {
    let settings: Connections = parameters(written)?;
    let key = Key::new(settings.key, settings.header.as_ref())?;
    let open = making.stores.keep(&making.id, Open::default);
    Ok(Arc::new(Limit { max: settings.max, key, open }))
}
