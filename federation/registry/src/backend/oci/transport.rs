//! HTTP/1.1 connections to registries over the connector that we were given, with TLS where the URL says `https`.
//!
//! One pool per registry. HTTP/1.1 alone: blobs gain nothing from sharing one HTTP/2 connection's window, and need several connections.
//! Never: a redirect, a credential, a retry; those are its callers' affair.

use std::{
    io,
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio_rustls::TlsConnector;

use atoll_reach::{AnyCertificate, BoxStream, Connect};

use crate::{
    endpoint::Endpoint,
    error::{Error, Why, innermost},
};

/// How long a connection, its TLS handshake included, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How many unused connections are kept a host.
const IDLE_MAX: usize = 16;

/// A request's body.
pub(super) type Body = UnsyncBoxBody<Bytes, Error>;

/// A pool of connections.
#[derive(Clone)]
pub(super) struct Transport {
    client: Client<Dialer, Body>,
}

impl Transport {
    /// A pool for `endpoint`, still empty.
    pub(super) fn new(endpoint: &Endpoint, connect: Arc<dyn Connect>) -> Result<Self, Error> {
        let config = |why: String| Error::new(endpoint.at("", ""), Why::Config(why));
        let tls = TlsConnector::from(Arc::new(tls(endpoint).map_err(config)?));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_timer(TokioTimer::new())
            .build(Dialer { connect, tls });
        Ok(Self { client })
    }

    /// Sends a request; the answer's body is still to come.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Why> {
        self.client.request(request).await.map_err(|e| match e.is_connect() {
            true => Why::Unreachable(innermost(&e)),
            false => Why::Broken(innermost(&e)),
        })
    }
}

fn tls(endpoint: &Endpoint) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let mut config = match &endpoint.ca_pem {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for cert in CertificateDer::pem_slice_iter(pem) {
                roots.add(cert.map_err(|e| format!("CA: {e}"))?).map_err(|e| format!("CA: {e}"))?;
            }
            if roots.is_empty() {
                return Err("CA: no certificate in it".to_owned());
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        None if endpoint.insecure => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth(),
        None => builder.with_root_certificates(SYSTEM_ROOTS.clone()).with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The system's certificates, read once.
static SYSTEM_ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Arc::new(roots)
});

#[derive(Clone)]
struct Dialer {
    connect: Arc<dyn Connect>,
    tls: TlsConnector,
}

impl tower::Service<Uri> for Dialer {
    type Response = Conn;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Conn>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            match tokio::time::timeout(CONNECT_TIMEOUT, dialer.dial(&uri)).await {
                Ok(done) => done.map(|stream| Conn(TokioIo::new(stream))),
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("not open after {CONNECT_TIMEOUT:?}"))),
            }
        })
    }
}

impl Dialer {
    async fn dial(&self, uri: &Uri) -> io::Result<BoxStream> {
        let https = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let stream = self.connect.connect(host, port).await?;
        if !https {
            return Ok(stream);
        }
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(self.tls.connect(name, stream).await?))
    }
}

struct Conn(TokioIo<BoxStream>);

impl Connection for Conn {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
