//! Servers that filters ask: authorisation servers, processors, publishers of keys, providers of logins.
//!
//! In: a request of ours. Out: its answer, whole. Connections are kept. Endpoints are asked in turn; one that can't be
//! reached is passed over. Nothing here decides anything: whoever gets no answer refuses.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_reach::BoxStream;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri, Version, header, response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::plane::Plane;
use crate::tls::BackendTls;

/// An answer is at most this long.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Idle connections of one peer.
const IDLE_LEN_MAX: usize = 32;
/// A connect that takes longer has failed.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// What a request to a peer carries.
pub(crate) type Sent = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A body that is there.
pub(crate) fn sent(bytes: impl Into<Bytes>) -> Sent {
    Full::new(bytes.into()).boxed_unsync()
}

/// An endpoint of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct At {
    /// The member that it is in; nothing: the hub's own network.
    pub(crate) cluster: Option<String>,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl At {
    pub(crate) fn ip(cluster: Option<&str>, ip: IpAddr, port: u16) -> Self {
        Self { cluster: cluster.map(str::to_owned), host: ip.to_string(), port }
    }
}

/// How TLS is spoken to a peer.
pub(crate) enum Tls {
    Not,
    /// By the name in its URL, which an authority of the machine's must vouch for.
    Outside,
    /// As a BackendTLSPolicy says.
    Known(Arc<BackendTls>),
}

/// A server that is asked.
pub(crate) struct Peer {
    /// What it is called, for messages.
    pub(crate) name: String,
    /// Its authority, where a request names none.
    host: String,
    at: Vec<At>,
    h2: bool,
    tls: Tls,
    turn: AtomicUsize,
    idle: Mutex<Vec<http1::SendRequest<Sent>>>,
    shared: Mutex<Option<http2::SendRequest<Sent>>>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// The beginning of an answer, and the connection where it can be used again.
type Answered = (Response<Incoming>, Option<http1::SendRequest<Sent>>);

/// An answer, read to its end.
pub(crate) struct Said {
    pub(crate) head: response::Parts,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl Peer {
    /// A backend. `h2`: it is spoken to by HTTP/2 without TLS.
    pub(crate) fn backend(name: String, host: String, at: Vec<At>, h2: bool) -> Self {
        Self {
            name,
            host,
            at,
            h2,
            tls: Tls::Not,
            turn: AtomicUsize::default(),
            idle: Mutex::default(),
            shared: Mutex::default(),
        }
    }

    /// The same, spoken to as a BackendTLSPolicy says.
    pub(crate) fn secured(mut self, tls: Option<&Arc<BackendTls>>) -> Self {
        if let Some(tls) = tls {
            self.tls = Tls::Known(Arc::clone(tls));
        }
        self
    }

    /// Whoever stands behind a URL.
    ///
    /// # Errors
    /// It is none of http or https.
    pub(crate) fn url(url: &str) -> Result<(Self, Uri), String> {
        let uri: Uri = url.parse().map_err(|_| format!("`{url}` is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("https") => Tls::Outside,
            Some("http") => Tls::Not,
            _ => return Err(format!("`{url}`: neither http:// nor https://")),
        };
        let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(|| format!("`{url}` names no host"))?;
        let port = uri.port_u16().unwrap_or(if matches!(tls, Tls::Not) { 80 } else { 443 });
        let at = vec![At { cluster: None, host: host.trim_matches(['[', ']']).to_owned(), port }];
        let authority = uri.authority().map_or(host, |a| a.as_str()).to_owned();
        let mut peer = Self::backend(url.to_owned(), authority, at, false);
        peer.tls = tls;
        Ok((peer, uri))
    }

    /// Asks, and reads the answer to its end.
    ///
    /// # Errors
    /// Nobody could be reached, or nobody answered in time.
    pub(crate) async fn ask(&self, plane: &Plane, request: Request<Bytes>, within: Duration) -> Result<Said, String> {
        let asked = async {
            let (mut parts, body) = request.into_parts();
            self.prepare(&mut parts);
            // A connection that was kept may be closed already; a request of ours may be sent again.
            let mut last = String::new();
            for _ in 0..=self.at.len().min(3) {
                match self.send(plane, Request::from_parts(parts.clone(), sent(body.clone()))).await {
                    Ok(answer) => return self.read(answer).await,
                    Err(error) => last = error.to_string(),
                }
            }
            Err(format!("{}: {last}", self.name))
        };
        tokio::time::timeout(within, asked).await.map_err(|_| format!("{}: no answer in time", self.name))?
    }

    /// Begins an exchange by HTTP/2 that both sides go on with: the answer, as soon as its head is there.
    ///
    /// # Errors
    /// Nobody could be reached, or nobody answered.
    pub(crate) async fn stream(&self, plane: &Plane, request: Request<Sent>) -> io::Result<Response<Incoming>> {
        let (mut parts, body) = request.into_parts();
        self.prepare(&mut parts);
        self.send_on_h2(plane, Request::from_parts(parts, body)).await
    }

    fn prepare(&self, parts: &mut http::request::Parts) {
        let target = parts.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        if self.h2 {
            parts.version = Version::HTTP_2;
            parts.headers.remove(header::HOST);
            let scheme = if matches!(self.tls, Tls::Not) { "http" } else { "https" };
            if let Ok(uri) = format!("{scheme}://{}{target}", self.host).parse() {
                parts.uri = uri;
            }
            return;
        }
        parts.version = Version::HTTP_11;
        if !parts.headers.contains_key(header::HOST)
            && let Ok(host) = self.host.parse()
        {
            parts.headers.insert(header::HOST, host);
        }
        if let Ok(uri) = target.parse() {
            parts.uri = uri;
        }
    }

    async fn read(&self, (answer, kept): Answered) -> Result<Said, String> {
        let (head, body) = answer.into_parts();
        let all = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|e| format!("{}: {e}", self.name))?;
        let trailers = all.trailers().cloned().unwrap_or_default();
        if let Some(kept) = kept.filter(|kept| !kept.is_closed()) {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE_LEN_MAX {
                idle.push(kept);
            }
        }
        Ok(Said { head, body: all.to_bytes(), trailers })
    }

    async fn send(&self, plane: &Plane, request: Request<Sent>) -> io::Result<Answered> {
        if self.h2 {
            return Ok((self.send_on_h2(plane, request).await?, None));
        }
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().filter(|c| !c.is_closed());
        let mut sender = match idle {
            Some(sender) => sender,
            None => {
                let stream = TokioIo::new(self.connect(plane).await?);
                let (sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
                drive(plane, connection);
                sender
            }
        };
        sender.ready().await.map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        Ok((answer, Some(sender)))
    }

    async fn send_on_h2(&self, plane: &Plane, request: Request<Sent>) -> io::Result<Response<Incoming>> {
        let known = self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|c| !c.is_closed());
        let mut connection = match known {
            Some(connection) => connection,
            None => {
                let stream = TokioIo::new(self.connect(plane).await?);
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(20));
                let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
                drive(plane, connection);
                *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender.clone());
                sender
            }
        };
        connection.send_request(request).await.map_err(io::Error::other)
    }

    async fn connect(&self, plane: &Plane) -> io::Result<BoxStream> {
        let none = || io::Error::new(io::ErrorKind::NotFound, "no endpoint is ready");
        let mut last = none();
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        for nth in 0..self.at.len().min(4) {
            let at = &self.at[(first + nth) % self.at.len()];
            let dialed = async {
                match &at.cluster {
                    None => plane.pool.connect.connect(&at.host, at.port).await,
                    Some(cluster) => plane.pool.dialer.dial(cluster, &at.host, at.port).await.map_err(io::Error::other),
                }
            };
            let timed_out = || io::Error::new(io::ErrorKind::TimedOut, "connect took too long");
            match tokio::time::timeout(CONNECT_MAX, dialed).await.map_err(|_| timed_out()).flatten() {
                Ok(stream) => return self.secure(plane, stream, &at.host).await,
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn secure(&self, plane: &Plane, stream: BoxStream, host: &str) -> io::Result<BoxStream> {
        let (config, name) = match &self.tls {
            Tls::Not => return Ok(stream),
            Tls::Outside => {
                (Arc::clone(&plane.outside), ServerName::try_from(host.to_owned()).map_err(io::Error::other)?)
            }
            Tls::Known(known) => (Arc::clone(&known.config), known.name.clone()),
        };
        let connector = TlsConnector::from(config);
        let secured = tokio::time::timeout(CONNECT_MAX, connector.connect(name, stream)).await;
        Ok(Box::new(secured.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??))
    }
}

/// Runs a connection until it ends, or we do.
fn drive(plane: &Plane, connection: impl Future<Output = hyper::Result<()>> + Send + 'static) {
    let end = plane.end.clone();
    plane.pool.tracker.spawn(async move { end.run_until_cancelled(connection).await });
}
