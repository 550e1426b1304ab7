//! `forwardAuth`: another server is asked whether a request may pass. 2xx says yes; every other answer is given to the client; without an
//! answer nobody passes (503).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use atoll_api::kinds::route_policy::filters::{ForwardAuth, SigninReturn};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, Uri, header};
use serde_json::{Map, Value};

use super::{Guard, Guarded, Making, parameters, said, time};
use crate::policy::Asked;
use crate::policy::asking::{Told, admit, forwarded, names, refuse};
use crate::policy::oidc::provider::escape;
use crate::policy::peer::Peer;

/// An answer that takes longer is none.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Server {
    peer: Arc<Peer>,
    path: Uri,
    /// It is asked by its own name, not by the host of the request.
    own_host: bool,
    told: Told,
    back: Vec<HeaderName>,
    signin: Option<String>,
    signin_return: SigninReturn,
    within: Duration,
}

impl Server {
    /// Where people who are refused are sent.
    fn sign_in(&self, asked: &Asked<'_>, scheme: &str) -> Option<Response<Bytes>> {
        let url = self.signin.as_ref()?;
        let target = asked.head.uri.path_and_query().map_or("/", |p| p.as_str());
        let host = asked.head.headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or(asked.host);
        let back = match self.signin_return {
            SigninReturn::Url => escape(&format!("{scheme}://{host}{target}")),
            SigninReturn::Path => escape(target),
        };
        let mark = if url.contains('?') { '&' } else { '?' };
        let mut answer = said(StatusCode::FOUND, "sign in");
        let place = HeaderValue::from_str(&format!("{url}{mark}rd={back}")).ok()?;
        answer.headers_mut().insert(header::LOCATION, place);
        Some(answer)
    }
}

#[async_trait]
impl Guard for Server {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        asked.authorized = true;
        let scheme = if asked.tls { "https" } else { "http" };
        let question = forwarded(asked.head, &self.path, &self.told, scheme, self.own_host);
        match self.peer.ask(asked.plane, question, self.within).await {
            Ok(answer) if answer.head.status.is_success() => {
                admit(asked.head, &answer, &self.back);
                None
            }
            Ok(answer) if answer.head.status == StatusCode::UNAUTHORIZED && self.signin.is_some() => {
                self.sign_in(asked, scheme).or_else(|| Some(refuse(answer, &asked.head.method)))
            }
            Ok(answer) => Some(refuse(answer, &asked.head.method)),
            Err(why) => {
                tracing::warn!(why, "forwardAuth: no answer, so nobody passes");
                Some(said(StatusCode::SERVICE_UNAVAILABLE, "nobody says whether this may pass"))
            }
        }
    }
}

pub(super) fn make(written: &Map<String, Value>, making: &Making<'_>) -> Guarded {
    let settings: ForwardAuth = parameters(written)?;
    let path = settings.auth_path.as_deref().unwrap_or("/");
    let parsed = path.parse().ok().filter(|_| path.starts_with('/'));
    let mut path: Uri = parsed.ok_or_else(|| format!("authPath: `{path}` is no path"))?;
    let (peer, own_host) = match (&settings.backend_ref, &settings.url) {
        (Some(backend), None) => ((making.peer)(backend, false)?, false),
        (None, Some(url)) => {
            let (peer, uri) = Peer::url(url).map_err(|why| format!("url: {why}"))?;
            if settings.auth_path.is_none() {
                path = uri.path_and_query().map_or("/", |p| p.as_str()).parse().map_err(|_| "url: its path is none")?;
            }
            (making.stores.keep(&format!("url {url}"), || peer), true)
        }
        _ => return Err("backendRef or url: one of them".to_owned()),
    };
    Ok(Arc::new(Server {
        peer,
        path,
        own_host,
        told: Told::new(&settings.allowed_headers, true)?,
        back: names("allowedResponseHeaders", &settings.allowed_response_headers)?,
        signin: settings.signin_url,
        signin_return: settings.signin_return.unwrap_or_default(),
        within: time("timeout", settings.timeout.as_ref(), ANSWER_MAX)?,
    }))
}
