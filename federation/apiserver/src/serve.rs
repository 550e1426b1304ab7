//! The listener: TLS, HTTP/1.1 and HTTP/2, a user from the client certificate or a fixed token.
//! In: a bound listener and its TLS; out: served requests until shutdown. Connections beyond the limit wait in the
//! kernel's queue; of those that show no certificate a quarter at most come from one address, and one that says nothing is
//! cut. On shutdown those open get a moment to finish.

use std::{
    net::IpAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use atoll_reach::{BoxStream, Door, Guest, neighbourhood, sniff};
use http::{Request, Response, header};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    ApiServer, Error,
    config::User,
    http::{Body, full, handle},
    refusal::Refusal,
    server::{Inner, authenticated},
};

/// TLS, then the first octets, each.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// A head of HTTP/1.1, or a word of an HTTP/2 client that is asked whether it lives.
const IDLE_MAX: Duration = Duration::from_secs(30);
const DRAIN_MAX: Duration = Duration::from_secs(3);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl ApiServer {
    /// Serves HTTPS on a listener until `shutdown`. May be called for several listeners.
    ///
    /// # Errors
    /// The listener fails for good.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let acceptor = TlsAcceptor::from(tls);
        let permits = Arc::new(Semaphore::new(self.inner().config.connections_max));
        let strangers_max = self.inner().config.connections_max.div_ceil(4);
        let strangers = Door::new(strangers_max * 2, strangers_max);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                permit = permits.clone().acquire_owned() => {
                    let Ok(permit) = permit else { break };
                    tokio::select! {
                        accepted = listener.accept() => accepted.map(|accepted| (accepted, permit)),
                        () = shutdown.cancelled() => break,
                        () = self.inner().shutdown.cancelled() => break,
                    }
                }
                () = shutdown.cancelled() => break,
                () = self.inner().shutdown.cancelled() => break,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok(((stream, from), permit)) => {
                    let guest = strangers.enter(neighbourhood(from.ip()));
                    let (inner, acceptor, shutdown) = (self.inner().clone(), acceptor.clone(), shutdown.clone());
                    connections.spawn(async move {
                        serve_connection(inner, acceptor, stream, guest, shutdown).await;
                        drop(permit);
                    });
                }
                // Out of descriptors, or the peer left already: wait a little rather than spin.
                Err(why) => {
                    tracing::debug!(%why, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Those that don't end in time are cut when the set is dropped.
        let _ = timeout(DRAIN_MAX, async { while connections.join_next().await.is_some() {} }).await;
        Ok(())
    }
}

async fn serve_connection(
    server: Arc<Inner>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    guest: Guest<IpAddr>,
    shutdown: CancellationToken,
) {
    // Without this small watch events wait for the peer's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let too_many = guest.end().clone();
    let stream = match too_many.run_until_cancelled(timeout(HANDSHAKE_MAX, acceptor.accept(stream))).await {
        Some(Ok(Ok(stream))) => stream,
        Some(Ok(Err(why))) => return tracing::debug!(%why, "handshake failed"),
        Some(Err(_)) => return tracing::debug!("handshake timed out"),
        None => return tracing::debug!("too many connections without a certificate"),
    };
    let user = user_of(&stream);
    let begun = too_many.run_until_cancelled(sniff(Box::new(stream), HANDSHAKE_MAX)).await;
    let (h2, stream) = match begun {
        Some(Ok(begun)) => begun,
        Some(Err(why)) => return tracing::debug!(%why, "connection ended"),
        None => return tracing::debug!("too many connections without a certificate"),
    };
    // Who has shown a certificate of ours is no stranger any more.
    let guest = user.is_none().then_some(guest);
    let too_many = guest.as_ref().map(|guest| guest.end().clone()).unwrap_or_default();
    let closing = server.shutdown.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (server, user) = (server.clone(), user.clone());
        async move { Ok::<Response<Body>, std::convert::Infallible>(respond(&server, user, request).await) }
    });
    let ended = async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = closing.cancelled() => {}
            () = too_many.cancelled() => {}
        }
        // Counted until here.
        drop(guest);
    };
    let stream: TokioIo<BoxStream> = TokioIo::new(stream);
    if h2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(IDLE_MAX).max_concurrent_streams(250);
        drive(pin!(builder.serve_connection(stream, service)), |c| c.graceful_shutdown(), ended).await;
    } else {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(IDLE_MAX);
        drive(pin!(builder.serve_connection(stream, service)), |c| c.graceful_shutdown(), ended).await;
    }
}

/// Drives a connection to its end, or to ours.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    finish: impl FnOnce(Pin<&mut C>),
    ended: impl Future<Output = ()>,
) {
    tokio::select! {
        _ = connection.as_mut() => return,
        () = ended => finish(connection.as_mut()),
    }
    // Watches never end by themselves: the peer gets a moment, then the connection goes.
    let _ = timeout(DRAIN_MAX / 3, connection).await;
}

async fn respond(server: &Arc<Inner>, user: Option<User>, request: Request<Incoming>) -> Response<Body> {
    match user.or_else(|| bearer(server, &request)) {
        Some(user) => handle(server, authenticated(user), request).await,
        // Health is for everybody; who asks for more has to say who they are.
        None if matches!(request.uri().path(), "/healthz" | "/livez" | "/readyz" | "/version") => {
            let user = User { name: "system:anonymous".into(), groups: vec!["system:authenticated".into()] };
            handle(server, user, request).await
        }
        None => {
            let mut response = Response::new(full(Refusal::unauthorized().to_value().to_string().into()));
            *response.status_mut() = http::StatusCode::UNAUTHORIZED;
            response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
            response
        }
    }
}

fn bearer(server: &Inner, request: &Request<Incoming>) -> Option<User> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| server.user_of_token(token.trim()))?
}

/// The user that a verified client certificate names: CN and Os.
fn user_of(stream: &TlsStream<TcpStream>) -> Option<User> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = parsed.subject().iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    Some(User { name, groups })
}
