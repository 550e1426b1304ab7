//! `oidc`: people log in at a provider of OpenID Connect (authorization code with PKCE, state and nonce); who came stands in an encrypted cookie.
//!
//! Browsers that ask for a page are sent to the provider and come back to the path that they asked for, never to another host; everybody else is
//! answered 401. The backend sees neither these cookies nor what clients say in the headers of claims. A session is asked for anew (refresh
//! token) when its tokens end, and ends when its time is over. Without the provider nobody logs in (503), and sessions that hold go on.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use atoll_api::kinds::route_policy::filters::Oidc;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header, response};
use moka::future::Cache;
use serde_json::{Map, Value};

use super::jwt::{tell, told};
use super::{Guard, Guarded, Making, parameters, time};
use crate::policy::carried::Carried;
use crate::policy::jose::claim;
use crate::policy::oidc::page::{failed, is_page, own, redirect, within};
use crate::policy::oidc::provider::{Granted, Provider, query, value_of};
use crate::policy::oidc::session::{Login, Seal, Session, chance, joined, names, pieces};
use crate::policy::places::drop_cookie;
use crate::policy::{Asked, Back};

/// So long somebody may take to log in.
const LOGIN_SECONDS: i64 = 600;
const SESSION_MAX: Duration = Duration::from_secs(12 * 3600);
const SKEW: Duration = Duration::from_secs(60);
/// Refreshes that are remembered, since of several requests with one old session the provider takes the first alone.
const REFRESHES_MAX: u64 = 10_000;
const REFRESHED_FOR: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Logins {
    provider: Arc<Provider>,
    seal: Seal,
    cookie: String,
    redirect_path: String,
    logout_path: String,
    scope: String,
    told: Vec<(String, HeaderName)>,
    session_seconds: i64,
    refreshed: Arc<Refreshed>,
}

struct Refreshed(Cache<String, Arc<Session>>);

impl std::fmt::Debug for Refreshed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Refreshed")
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

impl Logins {
    /// The names of cookies: over TLS browsers take them from this host alone.
    fn name(&self, tls: bool) -> String {
        if tls { format!("__Host-{}", self.cookie) } else { self.cookie.clone() }
    }

    fn set(name: &str, value: &str, seconds: i64, tls: bool) -> Option<HeaderValue> {
        let secure = if tls { "; Secure" } else { "" };
        HeaderValue::from_str(&format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"))
            .ok()
    }

    /// The cookies of a session, and the end of those that it has no more.
    fn cookies(&self, headers: &HeaderMap, session: Option<&Session>, tls: bool) -> Option<Vec<HeaderValue>> {
        let name = self.name(tls);
        let all = match session {
            Some(session) => pieces(&name, &self.seal.close(&name, session)?)?,
            None => Vec::new(),
        };
        let seconds = session.map_or(0, |session| session.end.saturating_sub(now()).max(0));
        let mut lines: Vec<HeaderValue> = all.iter().filter_map(|(n, v)| Self::set(n, v, seconds, tls)).collect();
        let gone = names(&name).filter(|n| all.iter().all(|(new, _)| new != n));
        let held = gone.filter(|n| crate::http::cookie::find(headers, n).is_some());
        lines.extend(held.filter_map(|n| Self::set(&n, "", 0, tls)));
        Some(lines)
    }

    /// Sends a browser to the provider.
    async fn send(&self, asked: &mut Asked<'_>) -> Response<Bytes> {
        let Some(known) = self.provider.known(asked.plane).await else { return failed("its provider is not known") };
        let target = asked.head.uri.path_and_query().map_or("/", |p| p.as_str());
        let (Some(state), Some(nonce), Some(verifier)) = (chance(), chance(), chance()) else {
            return failed("no chance");
        };
        // RFC 7636 §4.2: S256.
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
        let parameters = query(&[
            ("response_type", "code"),
            ("client_id", &self.provider.client),
            ("redirect_uri", &self.redirect_uri(asked)),
            ("scope", &self.scope),
            ("state", &state),
            ("nonce", &nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        let name = self.login(&state, asked.tls);
        let login = Login { state, nonce, verifier, to: within(target), end: now() + LOGIN_SECONDS };
        let mark = if known.authorize.contains('?') { '&' } else { '?' };
        let mut answer = redirect(&format!("{}{mark}{parameters}", known.authorize));
        let closed = self.seal.close(&name, &login).and_then(|v| Self::set(&name, &v, LOGIN_SECONDS, asked.tls));
        match closed {
            Some(cookie) => drop(answer.headers_mut().append(header::SET_COOKIE, cookie)),
            None => return failed("no cookie"),
        }
        answer
    }

    /// The cookie of one login: several may be under way in one browser.
    fn login(&self, state: &str, tls: bool) -> String {
        format!("{}-login-{}", self.name(tls), state.get(..8).unwrap_or_default())
    }

    fn origin(asked: &Asked<'_>) -> String {
        let scheme = if asked.tls { "https" } else { "http" };
        let host = asked.head.headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or(asked.host);
        format!("{scheme}://{host}")
    }

    fn redirect_uri(&self, asked: &Asked<'_>) -> String {
        format!("{}{}", Self::origin(asked), self.redirect_path)
    }

    /// Somebody comes back from the provider (Core §3.1.2.5).
    async fn returned(&self, asked: &mut Asked<'_>) -> Response<Bytes> {
        let parameters = asked.head.uri.query().unwrap_or_default();
        let bad = |why: &str| own(StatusCode::BAD_REQUEST, why);
        let Some(state) = value_of(parameters, "state").filter(|s| s.is_ascii()) else { return bad("no state") };
        let name = self.login(&state, asked.tls);
        let held = crate::http::cookie::find(&asked.head.headers, &name);
        let login = held.and_then(|text| self.seal.open::<Login>(&name, text));
        let Some(login) = login.filter(|login| login.end > now() && login.state == state) else {
            return bad("this login was not begun here, or took too long");
        };
        let redirect_uri = self.redirect_uri(asked);
        let code = match (value_of(parameters, "code"), value_of(parameters, "error")) {
            (Some(code), None) => code,
            (_, why) => {
                tracing::debug!(why = why.unwrap_or_default(), "oidc: the provider says no");
                return own(StatusCode::FORBIDDEN, "the provider says no");
            }
        };
        let granted = self.provider.redeem(asked.plane, &code, &redirect_uri, &login.verifier, &login.nonce).await;
        let session = match granted.and_then(|granted| self.session(&granted, None)) {
            Ok(session) => session,
            Err(why) => {
                tracing::warn!(why, "oidc: a code is worth nothing");
                return own(StatusCode::FORBIDDEN, "the login does not count");
            }
        };
        let mut answer = redirect(&login.to);
        let Some(cookies) = self.cookies(&asked.head.headers, Some(&session), asked.tls) else {
            return own(StatusCode::BAD_GATEWAY, "the session is too long for cookies");
        };
        let over = Self::set(&name, "", 0, asked.tls);
        for cookie in cookies.into_iter().chain(over) {
            answer.headers_mut().append(header::SET_COOKIE, cookie);
        }
        answer
    }

    /// The session that was granted. `before`: the one that it goes on from.
    fn session(&self, granted: &Granted, before: Option<&Session>) -> Result<Session, String> {
        let at = now();
        let user = granted.claims.as_ref().and_then(|claims| claim(claims, "sub"));
        let (user, told) = match (&granted.claims, user, before) {
            (Some(claims), Some(user), _) => (user, self.told.iter().map(|(path, _)| claim(claims, path)).collect()),
            // Core §12.2: a refresh "might not contain an id_token".
            (None, _, Some(before)) => (before.user.clone(), before.told.clone()),
            _ => return Err("the ID token names nobody".to_owned()),
        };
        // Core §12.2: "its sub Claim Value MUST be the same".
        if before.is_some_and(|before| before.user != user) {
            return Err("somebody else came back".to_owned());
        }
        let expires = granted.claims.as_ref().and_then(|claims| claims.get("exp")?.as_i64());
        let end = before.map_or(at + self.session_seconds, |before| before.end);
        let until = granted.expires_in.map(|seconds| at.saturating_add(seconds)).or(expires).unwrap_or(end);
        let refresh = granted.refresh.clone().or_else(|| before?.refresh.clone());
        Ok(Session { user, told, until: until.min(end), end, refresh })
    }

    /// The session of a request; whether it is another than its cookies hold.
    async fn found(&self, asked: &mut Asked<'_>) -> Option<(Session, bool)> {
        let name = self.name(asked.tls);
        let session: Session = self.seal.open(&name, &joined(&asked.head.headers, &name)?)?;
        let at = now();
        if session.end <= at || session.told.len() != self.told.len() {
            return None;
        }
        if session.until > at {
            return Some((session, false));
        }
        let token = session.refresh.clone()?;
        let plane = Arc::clone(asked.plane);
        let refreshed = self.refreshed.0.try_get_with(token.clone(), async {
            let granted = self.provider.refresh(&plane, &token).await?;
            self.session(&granted, Some(&session)).map(Arc::new)
        });
        match Box::pin(refreshed).await {
            Ok(session) => Some((Session::clone(&session), true)),
            Err(why) => {
                tracing::debug!(%why, "oidc: a session is not refreshed");
                None
            }
        }
    }

    /// Ends the session here and, where the provider takes that, there.
    async fn logout(&self, asked: &mut Asked<'_>) -> Response<Bytes> {
        if asked.head.headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
            return own(StatusCode::FORBIDDEN, "another site asks for that");
        }
        let known = self.provider.known(asked.plane).await;
        let mut answer = match known.as_ref().and_then(|known| known.end_session.as_ref()) {
            Some(url) => {
                let back = format!("{}/", Self::origin(asked));
                let parameters = query(&[("client_id", &self.provider.client), ("post_logout_redirect_uri", &back)]);
                redirect(&format!("{url}{}{parameters}", if url.contains('?') { '&' } else { '?' }))
            }
            None => own(StatusCode::OK, "logged out"),
        };
        for cookie in self.cookies(&asked.head.headers, None, asked.tls).into_iter().flatten() {
            answer.headers_mut().append(header::SET_COOKIE, cookie);
        }
        answer
    }

    /// Takes away what the backend has no use for.
    fn clear(&self, asked: &mut Asked<'_>) {
        let name = self.name(asked.tls);
        let logins = format!("{name}-login-");
        let lines = asked.head.headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
        let all = lines.flat_map(|v| v.split(';')).filter_map(|pair| pair.split_once('=')).map(|(n, _)| n.trim());
        let is_ours = |n: &&str| n.starts_with(&logins) || names(&name).any(|ours| ours == *n);
        let ours: Vec<String> = all.filter(is_ours).map(str::to_owned).collect();
        ours.iter().for_each(|name| drop_cookie(asked.head, name));
    }
}

/// Cookies that go out with an answer.
struct Renewed(Vec<HeaderValue>);

#[async_trait]
impl Back for Renewed {
    async fn answer(self: Box<Self>, head: &mut response::Parts, body: Carried) -> Carried {
        for cookie in self.0 {
            head.headers.append(header::SET_COOKIE, cookie);
        }
        body
    }
}

#[async_trait]
impl Guard for Logins {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        asked.authorized = true;
        tell(&mut asked.head.headers, &self.told, None);
        let path = asked.head.uri.path();
        if path == self.redirect_path {
            return Some(self.returned(asked).await);
        }
        if path == self.logout_path {
            return Some(self.logout(asked).await);
        }
        let Some((session, renewed)) = self.found(asked).await else {
            if is_page(&asked.head.method, &asked.head.headers) {
                return Some(self.send(asked).await);
            }
            return Some(own(StatusCode::UNAUTHORIZED, "a login is needed"));
        };
        if renewed && let Some(cookies) = self.cookies(&asked.head.headers, Some(&session), asked.tls) {
            asked.backs.push(Box::new(Renewed(cookies)));
        }
        self.clear(asked);
        for ((_, header), value) in self.told.iter().zip(&session.told) {
            if let Some(value) = value.as_ref().and_then(|value| HeaderValue::from_str(value).ok()) {
                asked.head.headers.insert(header, value);
            }
        }
        asked.user = Some(session.user);
        None
    }
}

pub(super) fn make(written: &Map<String, Value>, making: &Making<'_>) -> Guarded {
    let settings: Oidc = parameters(written)?;
    let data = making.secret(settings.secret_ref.as_ref())?;
    let of = |key: &str| data.get(key).ok_or_else(|| format!("secretRef: the Secret has no key `{key}`"));
    let text = |key: &str| String::from_utf8(of(key)?.clone()).map_err(|_| format!("secretRef: `{key}` is no text"));
    let secret = text("client-secret")?.trim().to_owned();
    let whose = format!("{} {}", settings.issuer, settings.client_id);
    let told = told(&settings.claim_headers)?;
    // A session holds its claims in the order of `claimHeaders`: of another order it is another's.
    let claims: Vec<&str> = told.iter().map(|(path, _)| path.as_str()).collect();
    let bound = format!("{whose} {}", claims.join(" "));
    let seal = Seal::new(of("cookie-key")?, &bound).map_err(|why| format!("secretRef: `cookie-key`: {why}"))?;
    let skew = time("clockSkew", settings.clock_skew.as_ref(), SKEW)?;
    let made = Provider::new(&settings.issuer, &settings.client_id, secret.clone(), skew);
    let made = made.map_err(|why| format!("issuer: {why}"))?;
    // Another secret is another client.
    let mark = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, secret.as_bytes()));
    let provider = making.stores.keep(&format!("oidc {whose} {mark}"), || made);
    let path = |field: &str, written: Option<String>, default: &str| {
        let path = written.unwrap_or_else(|| default.to_owned());
        let fits = path.len() > 1 && path.starts_with('/') && !path.contains(['?', '#', ' ']);
        if fits { Ok(path) } else { Err(format!("{field}: `{path}` is no path")) }
    };
    let cookie = settings.cookie_name.unwrap_or_else(|| "atoll-session".to_owned());
    if cookie.is_empty() || !cookie.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(format!("cookieName: `{cookie}` is none"));
    }
    let mut scopes = settings.scopes;
    if !scopes.iter().any(|scope| scope == "openid") {
        scopes.insert(0, "openid".to_owned());
    }
    let refreshed = || Refreshed(Cache::builder().max_capacity(REFRESHES_MAX).time_to_live(REFRESHED_FOR).build());
    let seconds = time("sessionMax", settings.session_max.as_ref(), SESSION_MAX)?.as_secs();
    Ok(Arc::new(Logins {
        provider,
        seal,
        cookie,
        redirect_path: path("redirectPath", settings.redirect_path, "/oauth2/callback")?,
        logout_path: path("logoutPath", settings.logout_path, "/oauth2/logout")?,
        scope: scopes.join(" "),
        told,
        session_seconds: i64::try_from(seconds).unwrap_or(i64::MAX).max(1),
        refreshed: making.stores.keep(&format!("{} refreshed", making.id), refreshed),
    }))
}
