//! One request to a registry and its answer: authorisation, redirects of reads, time limits, errors in words.
//!
//! Never: a retry, but for the one after a 401, which is how a registry says what authorisation it wants.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use url::{Host, Url};

use super::{
    auth::Auth,
    full,
    transport::{Body, Transport},
};
use atoll_reach::Connect;

use crate::{
    endpoint::Endpoint,
    error::{Error, Why},
    name::Digest,
};

/// Longest wait for an answer's head.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for a further piece of an answer's body.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Redirects of one read.
const REDIRECTS_MAX: usize = 5;
/// What we read of an error's body.
const ERROR_BYTES_MAX: usize = 16 << 10;
/// What we show of an error's words.
const ERROR_CHARS_MAX: usize = 200;
/// A token service's answer.
const TOKEN_BYTES_MAX: usize = 256 << 10;
const AGENT: &str = concat!("atoll/", env!("CARGO_PKG_VERSION"));

/// A request and the statuses that are an answer to it.
#[derive(Clone)]
pub(super) struct Expect {
    method: Method,
    url: Url,
    headers: HeaderMap,
    scopes: Vec<String>,
    body: Bytes,
    want: Vec<StatusCode>,
}

impl Expect {
    pub(super) fn new(method: Method, url: Url, want: &[StatusCode]) -> Self {
        let (headers, scopes, want) = (HeaderMap::new(), Vec::new(), want.to_vec());
        Self { method, url, headers, scopes, body: Bytes::new(), want }
    }

    /// A right that the request needs, in the words of the token specification.
    pub(super) fn scope(mut self, scope: String) -> Self {
        self.scopes.push(scope);
        self
    }

    /// A header; values that can't be one are left out and fail at the registry.
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(super) fn body(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }
}

/// A registry, its connections and our standing with it.
pub(super) struct Client {
    pub(super) endpoint: Endpoint,
    base: Url,
    transport: Transport,
    auth: Auth,
}

impl Client {
    pub(super) fn new(endpoint: &Endpoint, connect: Arc<dyn Connect>) -> Result<Self, Error> {
        let config = |why: &str| Error::new(endpoint.at("", ""), Why::Config(why.to_owned()));
        match endpoint.url.scheme() {
            "https" => {}
            "http" if endpoint.insecure => {}
            "http" => return Err(config("plain HTTP needs `insecure: true`")),
            _ => return Err(config("the URL must begin with http:// or https://")),
        }
        let mut base = endpoint.url.clone();
        base.set_query(None);
        base.set_fragment(None);
        // credentials in a URL would end up in messages
        if base.set_username("").and_then(|()| base.set_password(None)).is_err() {
            return Err(config("the URL has no host"));
        }
        base.set_path(&format!("{}/v2/", endpoint.url.path().trim_end_matches('/')));
        let transport = Transport::new(endpoint, connect)?;
        Ok(Self { endpoint: endpoint.clone(), base, transport, auth: Auth::default() })
    }

    /// `path` below `/v2/`.
    pub(super) fn url(&self, path: &str) -> Result<Url, Why> {
        let url = self.base.join(path).map_err(|e| Why::Config(e.to_string()))?;
        if url.path().starts_with(self.base.path()) {
            Ok(url)
        } else {
            Err(Why::Config(format!("`{path}` leaves /v2/")))
        }
    }

    /// Sends a request that can be sent again, follows redirects, and answers a challenge once.
    pub(super) async fn call(&self, mut ask: Expect) -> Result<Response<Incoming>, Why> {
        let mut challenged = false;
        for _ in 0..=REDIRECTS_MAX {
            let request = self.request(&ask, full(ask.body.clone())).await?;
            let answer = within(ANSWER_TIMEOUT, self.transport.send(request)).await?;
            let ours = ask.url.origin() == self.base.origin();
            if answer.status() == StatusCode::UNAUTHORIZED && ours && !challenged {
                challenged = true;
                self.auth.challenged(answer.headers(), &ask.scopes).await?;
                continue;
            }
            let read = ask.method == Method::GET || ask.method == Method::HEAD;
            if read && answer.status().is_redirection() && answer.headers().contains_key(header::LOCATION) {
                ask.url = location(answer.headers(), &ask.url)?;
                continue;
            }
            return self.judge(&ask, answer).await;
        }
        Err(Why::Malformed(format!("more than {REDIRECTS_MAX} redirects")))
    }

    /// Sends a body that can't be sent again. A 401 is a broken connection: whoever resumes gets a new token.
    pub(super) async fn stream(&self, ask: Expect, body: Body) -> Result<Response<Incoming>, Why> {
        let moved = Arc::new(AtomicU64::new(0));
        let counter = moved.clone();
        let body = body
            .map_frame(move |frame| {
                counter.fetch_add(1, Ordering::Relaxed);
                frame
            })
            .boxed_unsync();
        let request = self.request(&ask, body).await?;
        let mut sending = std::pin::pin!(self.transport.send(request));
        // no limit on the whole, but one on standing still
        let answer = loop {
            let before = moved.load(Ordering::Relaxed);
            match tokio::time::timeout(ANSWER_TIMEOUT, &mut sending).await {
                Ok(answer) => break answer?,
                Err(_) if moved.load(Ordering::Relaxed) == before => return Err(Why::TimedOut(ANSWER_TIMEOUT)),
                Err(_) => {}
            }
        };
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.auth.challenged(answer.headers(), &ask.scopes).await?;
            return Err(Why::Broken("authorisation ran out".into()));
        }
        self.judge(&ask, answer).await
    }

    /// An answer's body, of at most `max` bytes.
    pub(super) async fn body(&self, answer: Response<Incoming>, max: usize) -> Result<Bytes, Why> {
        let read = Limited::new(answer.into_body(), max).collect();
        match tokio::time::timeout(ANSWER_TIMEOUT, read).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => {
                Err(Why::Unsupported(format!("an answer of more than {max} bytes")))
            }
            Ok(Err(e)) => Err(Why::Broken(e)),
            Err(_) => Err(Why::TimedOut(ANSWER_TIMEOUT)),
        }
    }

    async fn request(&self, ask: &Expect, body: Body) -> Result<Request<Body>, Why> {
        let mut request = Request::new(body);
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = ask.url.as_str().parse().map_err(|e| Why::Malformed(format!("`{}`: {e}", ask.url)))?;
        request.headers_mut().clone_from(&ask.headers);
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        // "clients MUST NOT forward Authorization across hosts"
        if ask.url.origin() == self.base.origin() {
            let fetch = |url, basic| self.fetch_token(url, basic);
            if let Some(value) = self.auth.header(&self.endpoint, &ask.scopes, fetch).await? {
                request.headers_mut().insert(header::AUTHORIZATION, value);
            }
        } else {
            refuse_inner(&ask.url, &self.base)?;
        }
        Ok(request)
    }

    async fn fetch_token(&self, url: Url, basic: Option<HeaderValue>) -> Result<Vec<u8>, Why> {
        let mut request = Request::new(full(Bytes::new()));
        *request.uri_mut() = url.as_str().parse().map_err(|e| Why::Malformed(format!("token service: {e}")))?;
        if let Some(basic) = basic {
            request.headers_mut().insert(header::AUTHORIZATION, basic);
        }
        let answer = within(ANSWER_TIMEOUT, self.transport.send(request)).await?;
        match answer.status() {
            StatusCode::OK => Ok(self.body(answer, TOKEN_BYTES_MAX).await?.into()),
            status if status.is_server_error() => {
                Err(Why::Status { status: status.as_u16(), message: "token service".into() })
            }
            status => Err(Why::Denied(format!("the token service answered {}", status.as_u16()))),
        }
    }

    /// The answer if it is one that was wanted, else the error that it is.
    async fn judge(&self, ask: &Expect, answer: Response<Incoming>) -> Result<Response<Incoming>, Why> {
        let status = answer.status();
        if ask.want.contains(&status) {
            return Ok(answer);
        }
        let retry_after =
            text(answer.headers(), &header::RETRY_AFTER).and_then(|s| s.parse().ok()).map(Duration::from_secs);
        let message = self.words(answer).await;
        Err(match status {
            StatusCode::NOT_FOUND => Why::NotFound,
            StatusCode::UNAUTHORIZED if self.endpoint.credentials.is_none() => {
                Why::Denied(format!("it wants credentials and there are none{}", colon(&message)))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Why::Denied(format!("{}{}", status.as_u16(), colon(&message)))
            }
            StatusCode::TOO_MANY_REQUESTS => Why::Throttled { retry_after },
            // "Retry-After … with a 503 to indicate how long the service is expected to be unavailable"
            StatusCode::SERVICE_UNAVAILABLE if retry_after.is_some() => Why::Throttled { retry_after },
            status => Why::Status { status: status.as_u16(), message },
        })
    }

    /// The registry's own words, shortened and without control characters.
    async fn words(&self, answer: Response<Incoming>) -> String {
        #[derive(Deserialize)]
        struct Errors {
            errors: Vec<One>,
        }
        #[derive(Deserialize)]
        struct One {
            code: String,
            #[serde(default)]
            message: String,
        }
        let body = self.body(answer, ERROR_BYTES_MAX).await.unwrap_or_default();
        let text = match serde_json::from_slice::<Errors>(&body) {
            Ok(all) => all.errors.iter().map(|e| format!("{} {}", e.code, e.message)).collect::<Vec<_>>().join("; "),
            Err(_) => String::from_utf8_lossy(&body).into_owned(),
        };
        text.chars().filter(|c| !c.is_control()).take(ERROR_CHARS_MAX).collect::<String>().trim().to_owned()
    }
}

fn colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Why>>) -> Result<T, Why> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(Why::TimedOut(limit)))
}

/// Refuses to be led by a registry from one host to a less safe or an inner one: a known way into networks.
fn refuse_inner(to: &Url, from: &Url) -> Result<(), Why> {
    let refuse = |why| Err(Why::Denied(format!("it redirects to `{}`: {why}", to.host_str().unwrap_or_default())));
    if from.scheme() == "https" && to.scheme() != "https" {
        return refuse("not over HTTPS");
    }
    let inner = match to.host() {
        Some(Host::Ipv4(ip)) => {
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast()
        }
        Some(Host::Ipv6(ip)) => {
            ip.is_loopback()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
                || matches!(ip.to_canonical(), IpAddr::V4(v4) if v4.is_loopback() || v4.is_private() || v4.is_link_local())
        }
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => true,
    };
    // the same host on another port is the same machine
    if inner && to.host() != from.host() { refuse("an inner address on another host") } else { Ok(()) }
}

/// The `Location` of an answer to a request for `base`.
pub(super) fn location(headers: &HeaderMap, base: &Url) -> Result<Url, Why> {
    let value =
        text(headers, &header::LOCATION).ok_or_else(|| Why::Malformed("no Location in the answer".to_owned()))?;
    let url = base.join(&value).map_err(|e| Why::Malformed(format!("Location: {e}")))?;
    if ["http", "https"].contains(&url.scheme()) { Ok(url) } else { Err(Why::Malformed(format!("Location `{value}`"))) }
}

/// A header as text.
pub(super) fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The digest that the registry claims.
pub(super) fn digest(headers: &HeaderMap) -> Option<Digest> {
    text(headers, &HeaderName::from_static("docker-content-digest"))?.parse().ok()
}

/// The length that the registry claims.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    text(headers, &header::CONTENT_LENGTH)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_cannot_lead_us_to_inner_addresses_of_other_hosts() {
        let cases = [
            ("https://reg.example/v2/", "https://cdn.example/x", true),
            ("https://reg.example/v2/", "http://cdn.example/x", false),
            ("https://reg.example/v2/", "https://127.0.0.1/x", false),
            ("https://reg.example/v2/", "https://169.254.169.254/x", false),
            ("https://reg.example/v2/", "https://10.0.0.1/x", false),
            ("https://reg.example/v2/", "https://[::ffff:10.0.0.1]/x", false),
            ("https://reg.example/v2/", "https://[fd00::1]/x", false),
            ("https://reg.example/v2/", "https://localhost/x", false),
            ("http://127.0.0.1:5000/v2/", "http://127.0.0.1:5001/x", true),
            ("http://127.0.0.1:5000/v2/", "http://127.0.0.2:5000/x", false),
        ];
        for (from, to, want) in cases {
            let got = refuse_inner(&to.parse().expect("url"), &from.parse().expect("url"));
            assert_eq!(got.is_ok(), want, "{from} → {to}");
        }
    }

    #[test]
    fn names_stay_below_v2() {
        let endpoint = Endpoint::new("http://127.0.0.1:5000/prefix/").expect("endpoint");
        let client = Client::new(&endpoint, Arc::new(atoll_reach::System::default())).expect("client");
        assert_eq!(
            client.url("a/b/tags/list?n=1").expect("url").as_str(),
            "http://127.0.0.1:5000/prefix/v2/a/b/tags/list?n=1"
        );
        for path in ["../x", "/x", "//evil.example/x", "http://evil.example/x"] {
            assert!(client.url(path).is_err(), "{path}");
        }
    }
}
