//! A provider of logins: what it publishes of itself, and what codes and tokens are worth there.
//!
//! In: an issuer, a code or a refresh token. Out: claims that were signed, and when they end. What the provider published is asked for again once it is old, and
//! kept when the provider is gone. Where the issuer is reached by TLS everything of it is.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use serde::Deserialize;
use serde_json::Value;

use crate::plane::Plane;
use crate::policy::held::Held;
use crate::policy::is_unreserved;
use crate::policy::jose::{Expect, Refused};
use crate::policy::peer::Peer;
use crate::policy::published::Published;

/// What was published is asked for again after this.
const OLD: Duration = Duration::from_secs(3600);
/// So often at most it is asked for in vain.
const AGAIN: Duration = Duration::from_secs(5);
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What a provider publishes (Discovery §3).
#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    end_session_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// The same, ready to be used.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) authorize: String,
    pub(crate) end_session: Option<String>,
    token: (Peer, Uri),
    keys: Published,
    /// The secret stands in the body, since the header is not taken.
    in_body: bool,
}

/// A provider, and who we are there.
pub(crate) struct Provider {
    pub(crate) expect: Expect,
    pub(crate) client: String,
    secret: String,
    published: (Peer, Uri),
    known: Held<Known>,
}

/// What a code or a refresh token was worth.
#[derive(Debug)]
pub(crate) struct Granted {
    /// Of the ID token, where there is one.
    pub(crate) claims: Option<Value>,
    /// In so many seconds it is over.
    pub(crate) expires_in: Option<i64>,
    pub(crate) refresh: Option<String>,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Provider({})", self.expect.issuer)
    }
}

impl Provider {
    /// # Errors
    /// The issuer is no URL.
    pub(crate) fn new(issuer: &str, client: &str, secret: String, skew: Duration) -> Result<Self, String> {
        let published = Peer::url(&format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')))?;
        let expect = Expect { issuer: issuer.to_owned(), audiences: vec![client.to_owned()], skew };
        let known = Held::new(OLD, AGAIN);
        Ok(Self { expect, client: client.to_owned(), secret, published, known })
    }

    /// What it publishes, as fresh as can be had.
    pub(crate) async fn known(&self, plane: &Plane) -> Option<Arc<Known>> {
        let discovered = async {
            let known = self.discover(plane).await;
            let issuer = &self.expect.issuer;
            known.inspect_err(|why| tracing::warn!(issuer, why, "a provider of logins is not known")).ok()
        };
        self.known.get(false, discovered).await
    }

    async fn discover(&self, plane: &Plane) -> Result<Known, String> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = self.published.1.clone();
        let said = self.published.0.ask(plane, request, ANSWER_MAX).await?;
        let document: Document = serde_json::from_slice(&said.body).map_err(|e| format!("what it publishes: {e}"))?;
        // Discovery §4.3: "MUST be identical to the Issuer URL that was used as the prefix".
        if document.issuer != self.expect.issuer {
            return Err(format!("it calls itself `{}`", document.issuer));
        }
        let scheme = self.published.1.scheme_str().unwrap_or("https");
        let same = |field: &str, url: &str| match url.starts_with("https://")
            || scheme == "http" && url.starts_with("http://")
        {
            true => Ok(()),
            false => Err(format!("{field}: `{url}` is not reached by https")),
        };
        same("authorization_endpoint", &document.authorization_endpoint)?;
        same("token_endpoint", &document.token_endpoint)?;
        same("jwks_uri", &document.jwks_uri)?;
        let (peer, uri) = Peer::url(&document.jwks_uri)?;
        let methods = document.token_endpoint_auth_methods_supported;
        Ok(Known {
            authorize: document.authorization_endpoint,
            end_session: document.end_session_endpoint,
            token: Peer::url(&document.token_endpoint)?,
            keys: Published::new(Arc::new(peer), uri),
            in_body: methods.is_some_and(|all| !all.iter().any(|m| m == "client_secret_basic")),
        })
    }

    /// What a code is worth (Core §3.1.3). `nonce`: the one that its ID token must hold.
    ///
    /// # Errors
    /// Nothing, or nobody says.
    pub(crate) async fn redeem(
        &self,
        plane: &Plane,
        code: &str,
        redirect: &str,
        verifier: &str,
        nonce: &str,
    ) -> Result<Granted, String> {
        let known = self.known(plane).await.ok_or("its provider is not known")?;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect),
            ("code_verifier", verifier),
        ];
        let granted = self.ask(plane, &known, &form).await?;
        let claims = granted.claims.as_ref().ok_or("there is no ID token")?;
        // Core §3.1.3.7, 11: "a nonce Claim MUST be present and its value checked".
        if claims.get("nonce").and_then(Value::as_str) != Some(nonce) {
            return Err("the ID token is of another login".to_owned());
        }
        Ok(granted)
    }

    /// What a refresh token is worth (Core §12).
    ///
    /// # Errors
    /// Nothing, or nobody says.
    pub(crate) async fn refresh(&self, plane: &Plane, token: &str) -> Result<Granted, String> {
        let known = self.known(plane).await.ok_or("its provider is not known")?;
        self.ask(plane, &known, &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    async fn ask(&self, plane: &Plane, known: &Known, form: &[(&str, &str)]) -> Result<Granted, String> {
        let mut all: Vec<(&str, &str)> = form.to_vec();
        if known.in_body {
            all.extend([("client_id", self.client.as_str()), ("client_secret", self.secret.as_str())]);
        }
        let mut request = Request::new(Bytes::from(query(&all)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = known.token.1.clone();
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if !known.in_body {
            // RFC 6749 §2.3.1: both are encoded as in a form first.
            let both = format!("{}:{}", escape(&self.client), escape(&self.secret));
            let value = HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(both)));
            headers.insert(header::AUTHORIZATION, value.map_err(|e| e.to_string())?);
        }
        let said = known.token.0.ask(plane, request, ANSWER_MAX).await?;
        let answer: Value = serde_json::from_slice(&said.body).map_err(|e| format!("its answer: {e}"))?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str);
        if !said.head.status.is_success() {
            return Err(format!("{}: {}", said.head.status, text("error").unwrap_or_default()));
        }
        let claims = match text("id_token") {
            Some(token) => Some(self.claims(plane, known, token).await?),
            None => None,
        };
        let expires_in = answer.get("expires_in").and_then(Value::as_i64);
        Ok(Granted { claims, expires_in, refresh: text("refresh_token").map(str::to_owned) })
    }

    async fn claims(&self, plane: &Plane, known: &Known, token: &str) -> Result<Value, String> {
        let mut found = Err(Refused::UnknownKey);
        for again in [false, true] {
            let keys = known.keys.keys(plane, again).await.ok_or("its keys are not known")?;
            found = keys.claims(token, &self.expect, jiff::Timestamp::now().as_second());
            if !matches!(found, Err(Refused::UnknownKey)) {
                break;
            }
        }
        let claims = found.map_err(|why| format!("the ID token: {why:?}"))?;
        // Core §3.1.3.7, 5: where it names who it was issued to, that is us.
        if claims.get("azp").is_some_and(|azp| azp.as_str() != Some(&self.client)) {
            return Err("the ID token is for somebody else".to_owned());
        }
        Ok(claims)
    }
}

/// As a value of a query or a form.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_unreserved(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Names and values as a query or a form.
pub(crate) fn query(all: &[(&str, &str)]) -> String {
    all.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect::<Vec<_>>().join("&")
}

/// A value of a query.
pub(crate) fn value_of(query: &str, name: &str) -> Option<String> {
    let written = crate::http::query::find(query, name)?;
    let mut out = Vec::with_capacity(written.len());
    let mut octets = written.bytes();
    while let Some(octet) = octets.next() {
        out.push(match octet {
            b'+' => b' ',
            b'%' => {
                let digits = [octets.next()?, octets.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            octet => octet,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_through_queries_unchanged() {
        for text in ["", "a b", "a&b=c", "https://x.test/?a=b#c", "ü+%"] {
            assert_eq!(value_of(&query(&[("x", "1"), ("y", text)]), "y").as_deref(), Some(text));
        }
        assert_eq!(value_of("a=%4", "a"), None);
        assert_eq!(value_of("a=b+c", "a").as_deref(), Some("b c"));
        assert_eq!(value_of("b=c", "a"), None);
    }
}
