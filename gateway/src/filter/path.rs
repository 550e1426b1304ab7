//! `path`: another path or host towards the backend. What comes out is put into the one form of paths again.

use std::sync::Arc;

use async_trait::async_trait;
use atoll_api::kinds::route_policy::filters::Path;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use regex::Regex;
use serde_json::{Map, Value};

use super::{Guard, Guarded, Making, parameters, said};
use crate::policy::{Asked, normalise};

/// A compiled expression is at most this large.
const REGEX_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug)]
enum New {
    Full(String),
    Prefix(String, String),
    Found(Regex, String),
}

impl New {
    fn apply(&self, path: &str) -> String {
        match self {
            Self::Full(full) => full.clone(),
            Self::Prefix(old, new) => match path.strip_prefix(old.trim_end_matches('/')) {
                Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                    let joined = format!("{}{rest}", new.trim_end_matches('/'));
                    if joined.is_empty() { "/".to_owned() } else { joined }
                }
                _ => path.to_owned(),
            },
            Self::Found(pattern, new) => pattern.replace(path, new.as_str()).into_owned(),
        }
    }
}

#[derive(Debug)]
struct Rewrite {
    path: Option<New>,
    host: Option<HeaderValue>,
}

#[async_trait]
impl Guard for Rewrite {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        if let Some(host) = &self.host {
            asked.head.headers.insert(header::HOST, host.clone());
        }
        let path = self.path.as_ref()?.apply(asked.head.uri.path());
        let query = asked.head.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
        let uri = format!("{path}{query}").parse().ok().filter(|_| path.starts_with('/'));
        let Some(uri) = uri else { return Some(said(StatusCode::BAD_REQUEST, "the new path is none")) };
        asked.head.uri = uri;
        normalise(asked.head).err().map(|why| said(StatusCode::BAD_REQUEST, why))
    }
}

pub(super) fn make(written: &Map<String, Value>, _: &Making<'_>) -> Guarded {
    let settings: Path = parameters(written)?;
    let new = settings.substitution.clone();
    let path = match (&settings.full, &settings.prefix, &settings.pattern) {
        (Some(full), None, None) if full.starts_with('/') => Some(New::Full(full.clone())),
        (Some(full), None, None) => return Err(format!("full: `{full}` does not begin with a slash")),
        (None, Some(prefix), None) => {
            Some(New::Prefix(prefix.clone(), new.ok_or("substitution: with prefix it is needed")?))
        }
        (None, None, Some(pattern)) => {
            let regex = regex::RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build();
            let regex = regex.map_err(|e| format!("pattern: {e}"))?;
            Some(New::Found(regex, new.ok_or("substitution: with pattern it is needed")?))
        }
        (None, None, None) => None,
        _ => return Err("full, prefix and pattern exclude each other".to_owned()),
    };
    let host =
        settings.hostname.as_deref().map(|h| HeaderValue::from_str(h).map_err(|_| format!("hostname: `{h}` is none")));
    let host = host.transpose()?;
    if path.is_none() && host.is_none() {
        return Err("full, prefix, pattern or hostname: one at least".to_owned());
    }
    Ok(Arc::new(Rewrite { path, host }))
}
