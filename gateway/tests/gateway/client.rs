//! A client: one connection a request, over TCP or TLS, HTTP/1.1 or HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: String,
    pub(crate) octets: Bytes,
    pub(crate) trailers: http::HeaderMap,
}

impl Answer {
    /// The pod that answered, as it says itself.
    pub(crate) fn pod(&self) -> &str {
        self.headers.get("x-pod").and_then(|p| p.to_str().ok()).unwrap_or_default()
    }

    /// What the pod says that it got.
    pub(crate) fn said(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// A header of the answer.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    async fn read(response: Response<hyper::body::Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let collected = body.collect().await.ok();
        let trailers = collected.as_ref().and_then(|c| c.trailers().cloned()).unwrap_or_default();
        let body = collected.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Self {
            trailers,
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
            octets: body,
        }
    }
}

/// A request; `target` begins with the method, as `GET /path`.
pub(crate) fn request(host: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let (method, uri) = target.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(uri).header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
}

/// Sends one request over plain HTTP/1.1.
pub(crate) async fn send(at: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let sent = async {
        let stream = TcpStream::connect(at).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Answer::read(sender.send_request(request).await.unwrap()).await
    };
    tokio::time::timeout(Duration::from_secs(30), sent).await.expect("an answer within 30 s")
}

/// A plain GET.
pub(crate) async fn get(at: SocketAddr, host: &str, path: &str) -> Answer {
    send(at, request(host, &format!("GET {path}"), &[], "")).await
}

/// Sends one request over HTTP/2 without TLS.
pub(crate) async fn send_h2c(at: SocketAddr, uri: &str) -> Answer {
    let stream = TcpStream::connect(at).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().uri(uri).header("te", "trailers").body(Full::<Bytes>::default()).unwrap();
    Answer::read(sender.send_request(request).await.unwrap()).await
}

/// A TLS connection opened for `name`, trusting `roots`, offering `alpn`.
pub(crate) async fn tls(
    at: SocketAddr,
    name: &str,
    roots: &[CertificateDer<'static>],
    alpn: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let stream = TcpStream::connect(at).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
}

/// Sends one GET over HTTPS.
pub(crate) async fn get_tls(
    at: SocketAddr,
    name: &str,
    roots: &[CertificateDer<'static>],
    alpn: &str,
    host: &str,
    path: &str,
) -> std::io::Result<Answer> {
    let stream = TokioIo::new(tls(at, name, roots, alpn).await?);
    let response = if alpn == "h2" {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().uri(format!("https://{host}{path}")).body(Full::<Bytes>::default()).unwrap();
        sender.send_request(request).await
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request(host, &format!("GET {path}"), &[], "")).await
    };
    Ok(Answer::read(response.map_err(std::io::Error::other)?).await)
}
