//! How the CA is spoken to: HTTP/1.1 over TLS, by the gateway's own way out.
//!
//! In: requests of the ACME client. Out: answers, whole. Connections are kept. Bounds: the time, the length of an answer, idle connections.
//! Remembers how long the CA last asked to be left alone.

use std::collections::HashMap;
use std::fmt::Display;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_reach::{BoxStream, Connect};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// A request takes no longer.
const WITHIN: Duration = Duration::from_secs(30);
/// An answer is no longer.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Connections that are kept for one server.
const IDLE_LEN_MAX: usize = 8;
/// A CA that asks for more is asked again after that.
const ALONE_MAX: Duration = Duration::from_secs(24 * 3600);

type Sender = http1::SendRequest<Full<Bytes>>;

/// The way to a CA. Clones are the same.
#[derive(Clone)]
pub(super) struct Way(Arc<Inner>);

struct Inner {
    connect: Arc<dyn Connect>,
    tls: Arc<ClientConfig>,
    idle: Mutex<HashMap<String, Vec<Sender>>>,
    alone: Mutex<Option<Instant>>,
    end: CancellationToken,
}

impl Way {
    pub(super) fn new(connect: Arc<dyn Connect>, tls: Arc<ClientConfig>, end: CancellationToken) -> Self {
        Self(Arc::new(Inner { connect, tls, idle: Mutex::default(), alone: Mutex::default(), end }))
    }

    /// For how long the CA wants to be left alone, since it last said so.
    pub(super) fn alone(&self) -> Option<Duration> {
        let until = *self.0.alone.lock().unwrap_or_else(PoisonError::into_inner);
        until.map(|until| until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }
}

impl HttpClient for Way {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            let uri = head.uri.clone();
            let at = uri.authority().map(ToString::to_string).unwrap_or_default();
            let failed = |why: &dyn Display| Error::Other(format!("CA `{at}`: {why}").into());
            let body = body.collect().await.map_err(|e| failed(&e))?.to_bytes();
            head.uri = uri.path_and_query().map_or("/", |p| p.as_str()).parse().map_err(|e| failed(&e))?;
            head.headers.insert(header::HOST, HeaderValue::from_str(&at).map_err(|e| failed(&e))?);
            let asked = inner.ask(&uri, &at, Request::from_parts(head, Full::new(body)));
            let answer = tokio::time::timeout(WITHIN, asked).await.map_err(|_| failed(&"no answer in time"))?;
            let answer = answer.map_err(|why| failed(&why))?;
            inner.heed(&answer);
            let (status, kind) = (answer.status(), answer.headers().get(header::CONTENT_TYPE));
            // What stands before the CA speaks no JSON.
            let is_json = kind.is_some_and(|kind| kind.as_bytes().windows(4).any(|part| part == b"json"));
            if (status.is_client_error() || status.is_server_error()) && !is_json {
                return Err(failed(&format!("`{}` answers {status}", uri.path())));
            }
            Ok(answer.map(Full::new).into())
        })
    }
}

impl Inner {
    async fn ask(&self, uri: &Uri, at: &str, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, String> {
        // A connection that was kept may be closed by now. What was taken all the same finds its nonce used, and is signed anew.
        while let Some(mut kept) = self.kept(at) {
            if kept.ready().await.is_ok() {
                match self.exchange(&mut kept, request.clone()).await {
                    Ok(answer) => return Ok(self.keep(at, kept, answer)),
                    Err(error) if error.is_canceled() || error.is_closed() || error.is_incomplete_message() => {}
                    Err(error) => return Err(said(&error)),
                }
            }
        }
        let stream = TokioIo::new(self.connect(uri).await?);
        let (mut fresh, connection) = http1::handshake(stream).await.map_err(|e| said(&e))?;
        let end = self.end.clone();
        // It ends with its sender.
        tokio::spawn(async move { end.run_until_cancelled(connection).await });
        let answer = self.exchange(&mut fresh, request).await.map_err(|e| said(&e))?;
        Ok(self.keep(at, fresh, answer))
    }

    async fn exchange(&self, sender: &mut Sender, request: Request<Full<Bytes>>) -> hyper::Result<Response<Bytes>> {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let whole = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        // One that is too long is as good as none: what is read of it is no JSON.
        Ok(Response::from_parts(head, whole.map(|body| body.to_bytes()).unwrap_or_default()))
    }

    async fn connect(&self, uri: &Uri) -> Result<BoxStream, String> {
        if uri.scheme_str() != Some("https") {
            return Err(format!("`{uri}` is not https://"));
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| format!("`{host}` is no name of a server"))?;
        let stream = self.connect.connect(&host, uri.port_u16().unwrap_or(443)).await;
        let stream = stream.map_err(|error| format!("can't be reached: {error}"))?;
        let secured = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await;
        Ok(Box::new(secured.map_err(|error| format!("TLS: {error} (gateway.acme.caFile says whom to trust)"))?))
    }

    fn kept(&self, at: &str) -> Option<Sender> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).get_mut(at)?.pop()
    }

    fn keep(&self, at: &str, sender: Sender, answer: Response<Bytes>) -> Response<Bytes> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.entry(at.to_owned()).or_default();
        if kept.len() < IDLE_LEN_MAX && !sender.is_closed() {
            kept.push(sender);
        }
        answer
    }

    /// "the server … includes a Retry-After header field" (RFC 8555 §6.6).
    fn heed(&self, answer: &Response<Bytes>) {
        if !matches!(answer.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            return;
        }
        let after = answer.headers().get(header::RETRY_AFTER).and_then(|after| after.to_str().ok());
        let seconds = after.and_then(|after| match after.trim().parse() {
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => httpdate::parse_http_date(after).ok()?.duration_since(jiff::Timestamp::now().into()).ok(),
        });
        if let Some(seconds) = seconds {
            let until = Instant::now() + seconds.min(ALONE_MAX);
            *self.alone.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        }
    }
}

/// An error with its causes.
fn said(error: &hyper::Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}
