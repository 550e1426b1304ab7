//! `jwt`: a signed token, checked with keys that stand in the policy or are published. What does not count is answered 401 (RFC 6750 §3.1).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use atoll_api::kinds::route_policy::filters::{ClaimHeader, Jwt};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value};

use super::{Guard, Guarded, Making, header_name, parameters, said, time};
use crate::plane::Plane;
use crate::policy::Asked;
use crate::policy::jose::{Expect, Keys, Refused, claim};
use crate::policy::peer::Peer;
use crate::policy::places::Places;
use crate::policy::published::Published;

const SKEW: Duration = Duration::from_secs(60);

#[derive(Debug)]
enum Source {
    Own(Keys),
    Published(Arc<Published>),
}

#[derive(Debug)]
struct Tokens {
    source: Source,
    expect: Expect,
    places: Places,
    told: Vec<(String, HeaderName)>,
    forward: bool,
}

impl Tokens {
    async fn claims(&self, plane: &Plane, token: &str) -> Result<Value, Option<&'static str>> {
        let now = jiff::Timestamp::now().as_second();
        let bad = |refused: Refused| match refused {
            Refused::Bad(why) => Some(why),
            Refused::UnknownKey => Some("its key is not known"),
        };
        let published = match &self.source {
            Source::Own(keys) => return keys.claims(token, &self.expect, now).map_err(bad),
            Source::Published(published) => published,
        };
        let keys = published.keys(plane, false).await.ok_or(None)?;
        match keys.claims(token, &self.expect, now) {
            Err(Refused::UnknownKey) => {
                let keys = published.keys(plane, true).await.ok_or(None)?;
                keys.claims(token, &self.expect, now).map_err(bad)
            }
            other => other.map_err(bad),
        }
    }
}

#[async_trait]
impl Guard for Tokens {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        tell(&mut asked.head.headers, &self.told, None);
        let found = self.places.find(asked.head).map(|token| token.strip_prefix("Bearer ").unwrap_or(token).trim());
        let Some(token) = found.map(str::to_owned) else {
            return Some(challenge("Bearer", "a token is needed"));
        };
        match self.claims(asked.plane, &token).await {
            Ok(claims) => {
                if !self.forward {
                    self.places.clear(asked.head);
                }
                tell(&mut asked.head.headers, &self.told, Some(&claims));
                asked.user = claim(&claims, "sub");
                None
            }
            Err(Some(why)) => {
                tracing::debug!(why, "token refused");
                Some(challenge("Bearer error=\"invalid_token\"", "the token does not count"))
            }
            Err(None) => Some(said(StatusCode::SERVICE_UNAVAILABLE, "the keys of tokens are not known")),
        }
    }
}

/// Tells the backend claims; what a client says in such a header itself is not believed.
pub(super) fn tell(headers: &mut HeaderMap, told: &[(String, HeaderName)], claims: Option<&Value>) {
    for (path, name) in told {
        headers.remove(name);
        let value = claims.and_then(|claims| HeaderValue::from_str(&claim(claims, path)?).ok());
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
}

/// The headers in which claims are told, as a field writes them.
pub(super) fn told(written: &[ClaimHeader]) -> Result<Vec<(String, HeaderName)>, String> {
    written.iter().map(|c| Ok((c.claim.clone(), header_name("claimHeaders.header", &c.header)?))).collect()
}

fn challenge(says: &'static str, why: &str) -> Response<Bytes> {
    let mut answer = said(StatusCode::UNAUTHORIZED, why);
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(says));
    answer
}

pub(super) fn make(written: &Map<String, Value>, making: &Making<'_>) -> Guarded {
    let settings: Jwt = parameters(written)?;
    let source = match (&settings.jwks, &settings.jwks_uri) {
        (Some(set), None) => Source::Own(Keys::parse(set, true).map_err(|why| format!("jwks: {why}"))?),
        (None, Some(url)) => {
            let (peer, uri) = Peer::url(url).map_err(|why| format!("jwksUri: {why}"))?;
            Source::Published(making.stores.keep(&format!("keys {url}"), || Published::new(Arc::new(peer), uri)))
        }
        _ => return Err("jwks or jwksUri: one of them".to_owned()),
    };
    Ok(Arc::new(Tokens {
        source,
        expect: Expect {
            issuer: settings.issuer,
            audiences: settings.audiences,
            skew: time("clockSkew", settings.clock_skew.as_ref(), SKEW)?,
        },
        places: Places::new(&settings.from_headers, &settings.from_queries, &settings.from_cookies, "authorization")?,
        told: told(&settings.claim_headers)?,
        forward: settings.forward == Some(true),
    }))
}
