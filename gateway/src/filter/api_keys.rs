//! `apiKeys`: a key that clients send in a header, a parameter of the query or a cookie. Keys are compared by their hashes.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use atoll_api::kinds::route_policy::filters::ApiKeys;
use aws_lc_rs::digest;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value};

use super::{Guard, Guarded, Making, header_name, parameters, said};
use crate::policy::Asked;
use crate::policy::places::Places;

type Hash = [u8; 32];

struct Keys {
    clients: HashMap<Hash, String>,
    places: Places,
    header: Option<HeaderName>,
    forward: bool,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("clients", &self.clients.len()).finish_non_exhaustive()
    }
}

fn hash(key: &[u8]) -> Hash {
    digest::digest(&digest::SHA256, key).as_ref().try_into().unwrap_or_default()
}

#[async_trait]
impl Guard for Keys {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        let key = self.places.find(asked.head);
        let Some(client) = key.and_then(|key| self.clients.get(&hash(key.trim().as_bytes()))) else {
            let mut answer = said(StatusCode::UNAUTHORIZED, "an API key is needed");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("ApiKey"));
            return Some(answer);
        };
        if !self.forward {
            self.places.clear(asked.head);
        }
        if let (Some(name), Ok(value)) = (&self.header, HeaderValue::from_str(client)) {
            asked.head.headers.insert(name, value);
        }
        asked.user = Some(client.clone());
        None
    }
}

pub(super) fn make(written: &Map<String, Value>, making: &Making<'_>) -> Guarded {
    let settings: ApiKeys = parameters(written)?;
    let data = making.secret(settings.secret_ref.as_ref())?;
    let clients: HashMap<Hash, String> = data
        .iter()
        .map(|(client, key)| (hash(String::from_utf8_lossy(key).trim().as_bytes()), client.clone()))
        .collect();
    if clients.len() < data.len() {
        return Err("secretRef: two clients have the same key".to_owned());
    }
    if clients.is_empty() || clients.contains_key(&hash(b"")) {
        return Err("secretRef: it has no key, or an empty one".to_owned());
    }
    let places = Places::new(&settings.from_headers, &settings.from_queries, &settings.from_cookies, "x-api-key")?;
    let header = settings.user_header.as_deref().map(|h| header_name("userHeader", h)).transpose()?;
    Ok(Arc::new(Keys { clients, places, header, forward: settings.forward == Some(true) }))
}
