//! Who we are to a registry: Basic, or Bearer with a token of the token service that the registry names.
//!
//! Credentials go to the registry's own host and to token services on that host or listed in the endpoint, nowhere else; a registry
//! that names another one gets an error instead of a password. Tokens are kept a scope, and asked for again at 80 % of their life.
//! Source: RFC 9110 §11 (challenges), the distribution project's token authentication specification.

use std::{collections::BTreeMap, time::Duration};

use base64::Engine as _;
use http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;
use tokio::{sync::Mutex, time::Instant};
use url::Url;

use crate::{endpoint::Endpoint, error::Why};

/// What the token specification says holds where a token names no life of its own.
const TOKEN_LIFE_DEFAULT_S: u64 = 60;
/// A token is asked for anew at least this often, whatever its service says of its life.
const TOKEN_LIFE_MAX: Duration = Duration::from_hours(24);

/// How a registry wants to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scheme {
    /// User name and password with every request.
    Basic,
    /// A token from `realm`.
    Bearer {
        /// The token service.
        realm: Url,
        /// What it calls this registry.
        service: Option<String>,
    },
}

#[derive(Default)]
struct State {
    scheme: Option<Scheme>,
    tokens: BTreeMap<String, (HeaderValue, Instant)>,
}

/// What one registry asked for so far, and the tokens got.
#[derive(Default)]
pub(super) struct Auth {
    state: Mutex<State>,
}

/// What a token service answers.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Auth {
    /// The `Authorization` header for `scopes`, as far as the registry ever asked for one. `fetch` gets a URL, with our
    /// credentials in a header where we have some, and returns the answer's body.
    pub(super) async fn header<F, Fut>(
        &self,
        endpoint: &Endpoint,
        scopes: &[String],
        fetch: F,
    ) -> Result<Option<HeaderValue>, Why>
    where
        F: FnOnce(Url, Option<HeaderValue>) -> Fut,
        Fut: Future<Output = Result<Vec<u8>, Why>>,
    {
        // held over the fetch: tasks that want the same token wait for one answer instead of asking for one each
        let mut state = self.state.lock().await;
        let (realm, service) = match &state.scheme {
            None => return Ok(None),
            Some(Scheme::Basic) => return Ok(basic(endpoint)),
            Some(Scheme::Bearer { realm, service }) => (realm.clone(), service.clone()),
        };
        let key = scopes.join(" ");
        let now = Instant::now();
        if let Some((token, until)) = state.tokens.get(&key)
            && now < *until
        {
            return Ok(Some(token.clone()));
        }
        allowed(endpoint, &realm)?;
        let body = fetch(token_url(realm, service.as_deref(), scopes), basic(endpoint)).await?;
        let answer: TokenAnswer =
            serde_json::from_slice(&body).map_err(|e| Why::Malformed(format!("the token service's answer: {e}")))?;
        let token =
            answer.token.or(answer.access_token).ok_or_else(|| Why::Malformed("no token in the answer".to_owned()))?;
        let mut header = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Why::Malformed("the token can't go into a header".to_owned()))?;
        header.set_sensitive(true);
        let life = Duration::from_secs(answer.expires_in.unwrap_or(TOKEN_LIFE_DEFAULT_S)).min(TOKEN_LIFE_MAX);
        state.tokens.retain(|_, (_, until)| now < *until);
        state.tokens.insert(key, (header.clone(), now + life * 4 / 5));
        Ok(Some(header))
    }

    /// Takes note of a 401. Forgets the token that was refused.
    pub(super) async fn challenged(&self, headers: &HeaderMap, scopes: &[String]) -> Result<(), Why> {
        let scheme =
            challenge(headers).ok_or_else(|| Why::Denied("401 without a challenge that we know".to_owned()))?;
        let mut state = self.state.lock().await;
        state.tokens.remove(&scopes.join(" "));
        state.scheme = Some(scheme);
        Ok(())
    }
}

fn basic(endpoint: &Endpoint) -> Option<HeaderValue> {
    let c = endpoint.credentials.as_ref()?;
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", c.username, c.password));
    let mut header = HeaderValue::try_from(format!("Basic {text}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// Whether the token service `realm` may see our credentials.
fn allowed(endpoint: &Endpoint, realm: &Url) -> Result<(), Why> {
    let host = realm.host_str().unwrap_or_default();
    let with_port = format!("{host}:{}", realm.port_or_known_default().unwrap_or_default());
    let own = endpoint.url.host_str() == realm.host_str();
    if !own && !endpoint.token_hosts.iter().any(|h| *h == host || *h == with_port) {
        return Err(Why::Denied(format!(
            "it names the token service `{with_port}`, which is neither its own host nor allowed"
        )));
    }
    match realm.scheme() {
        "https" => Ok(()),
        "http" if endpoint.insecure => Ok(()),
        other => Err(Why::Denied(format!("it names a token service over `{other}`, which needs `insecure`"))),
    }
}

fn token_url(mut realm: Url, service: Option<&str>, scopes: &[String]) -> Url {
    {
        let mut query = realm.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        for scope in scopes {
            query.append_pair("scope", scope);
        }
    }
    realm
}

/// The challenge that we take: Bearer before Basic.
fn challenge(headers: &HeaderMap) -> Option<Scheme> {
    let mut basic = false;
    for value in headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok()) {
        let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            let params = parameters(rest);
            if let Some(realm) = params.get("realm").and_then(|r| Url::parse(r).ok()) {
                return Some(Scheme::Bearer { realm, service: params.get("service").cloned() });
            }
        }
        basic |= scheme.eq_ignore_ascii_case("basic");
    }
    basic.then_some(Scheme::Basic)
}

/// `key="value", key=value` as a map.
fn parameters(mut text: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    while let Some((key, rest)) = text.split_once('=') {
        let key = key.trim_matches([' ', ',']).to_ascii_lowercase();
        let (value, end) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (value, len) = unquote(quoted);
                (value, 1 + len)
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim().to_owned(), end)
            }
        };
        out.insert(key, value);
        text = &rest[end..];
    }
    out
}

/// What stands before the closing quote, and how long it was with that quote. A backslash takes the next character as it is.
fn unquote(text: &str) -> (String, usize) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, at + 1),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|v| (header::WWW_AUTHENTICATE, HeaderValue::from_str(v).expect("header"))).collect()
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Scheme::Bearer { realm: realm.parse().expect("url"), service: service.map(str::to_owned) })
        };
        let cases = [
            (vec![r#"Basic realm="Registry Realm""#], Some(Scheme::Basic)),
            (
                vec![r#"Bearer realm="https://auth.example/token",service="reg,1",scope="repository:a/b:pull,push""#],
                bearer("https://auth.example/token", Some("reg,1")),
            ),
            (vec!["Basic realm=x", "bearer realm=https://a.example/"], bearer("https://a.example/", None)),
            (
                vec![r#"Bearer service="a\"b", realm="https://a.example/t?x=1""#],
                bearer("https://a.example/t?x=1", Some("a\"b")),
            ),
            (vec!["Negotiate"], None),
            (vec![r#"Bearer realm="no url""#], None),
            (vec![], None),
        ];
        for (values, want) in cases {
            assert_eq!(challenge(&headers(&values)), want, "{values:?}");
        }
    }

    #[test]
    fn credentials_go_to_no_token_service_but_the_allowed() {
        let mut endpoint = Endpoint::new("https://reg.example:5000").expect("endpoint");
        endpoint.token_hosts = vec!["auth.example".to_owned(), "other.example:8443".to_owned()];
        let cases = [
            ("https://reg.example/token", true),
            ("https://auth.example/token", true),
            ("https://other.example:8443/", true),
            ("https://other.example/", false),
            ("https://evil.example/", false),
            ("https://reg.example.evil.example/", false),
            ("http://reg.example/token", false),
        ];
        for (realm, want) in cases {
            assert_eq!(allowed(&endpoint, &realm.parse().expect("url")).is_ok(), want, "{realm}");
        }
        endpoint.insecure = true;
        assert!(allowed(&endpoint, &"http://reg.example/token".parse().expect("url")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_asked_for_once_a_scope_and_again_before_it_expires() {
        let endpoint = Endpoint::new("https://reg.example").expect("endpoint");
        let auth = Auth::default();
        let scopes = ["repository:a:pull".to_owned()];
        let asked = std::sync::atomic::AtomicU32::new(0);
        let ask = async || {
            let fetch = |url: Url, _| {
                let n = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                assert_eq!(url.query(), Some("scope=repository%3Aa%3Apull"));
                async move { Ok(format!(r#"{{"token":"t{n}","expires_in":100}}"#).into_bytes()) }
            };
            auth.header(&endpoint, &scopes, fetch).await.expect("header")
        };
        assert_eq!(ask().await, None);
        auth.challenged(&headers(&[r#"Bearer realm="https://reg.example/t""#]), &scopes).await.expect("challenge");
        assert_eq!(ask().await.expect("token"), "Bearer t0");
        tokio::time::advance(Duration::from_secs(79)).await;
        assert_eq!(ask().await.expect("token"), "Bearer t0");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(ask().await.expect("token"), "Bearer t1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_says_it_lives_for_ever_is_asked_for_again_within_a_day() {
        let endpoint = Endpoint::new("https://reg.example").expect("endpoint");
        let auth = Auth::default();
        auth.challenged(&headers(&[r#"Bearer realm="https://reg.example/t""#]), &[]).await.expect("challenge");
        for token in ["first", "second"] {
            let answer = format!(r#"{{"token":"{token}","expires_in":{}}}"#, u64::MAX).into_bytes();
            let held = auth.header(&endpoint, &[], async |_, _| Ok(answer)).await.expect("header");
            assert_eq!(held.expect("token"), format!("Bearer {token}"));
            tokio::time::advance(TOKEN_LIFE_MAX).await;
        }
    }
}
