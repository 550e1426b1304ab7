//! How a test asks over each transport: one row for each of `TRANSPORTS`; and what clients do beyond that.
//!
//! In: a stage, the address to ask from, a query's octets. Out: the reply's octets, `None` when the server says nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use atoll_dns::Encrypted;
use atoll_reach::{Listen as _, System};
use bytes::{Buf as _, Bytes};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{PATIENCE, Stage};

/// One question over one transport.
type Ask = for<'a> fn(&'a Stage, &'a str, &'a [u8]) -> BoxFuture<'a, Option<Vec<u8>>>;

/// How to ask over a transport.
pub(crate) struct Way {
    pub(crate) transport: &'static str,
    pub(crate) ask: Ask,
}

/// Every way: a connection of its own for each question. `None` when the server says nothing, closes, or refuses.
pub(crate) const WAYS: &[Way] = &[
    Way { transport: "udp", ask: |stage, from, packet| stage.raw(from, packet).boxed() },
    Way { transport: "tcp", ask: |stage, from, packet| within(stage.by_tcp(from, packet)) },
    Way { transport: "dot", ask: |stage, from, packet| within(stage.by_tls(from, packet)) },
    Way { transport: "doh", ask: |stage, from, packet| within(stage.by_https(from, packet)) },
    Way { transport: "doq", ask: |stage, from, packet| within(stage.by_quic_as(from, packet)) },
    Way { transport: "doh3", ask: |stage, from, packet| within(stage.by_h3_as(from, packet)) },
];

fn within<'a>(asked: impl Future<Output = Option<Vec<u8>>> + Send + 'a) -> BoxFuture<'a, Option<Vec<u8>>> {
    async { timeout(PATIENCE, asked).await.ok()? }.boxed()
}

/// A connection from an address of ours.
pub(crate) async fn dial(from: &str, at: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from.parse::<std::net::Ipv4Addr>().unwrap(), 0).into())?;
    socket.connect(at).await
}

/// Where the encrypted transports are, and whose certificate they show.
#[derive(Clone)]
pub(crate) struct Ends {
    pub(crate) tls: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) quic: SocketAddr,
    pub(crate) h3: SocketAddr,
    /// The certificate, which is its own authority.
    pub(crate) pem: String,
    roots: Arc<RootCertStore>,
}

/// Sockets for every encrypted transport, with a certificate for `localhost`.
pub(crate) async fn encrypted() -> (Encrypted, Ends) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let shown = CertifiedKey::from_der(vec![made.cert.der().clone()], key, &provider).unwrap();
    let (system, any) = (System::default(), SocketAddr::from(([127, 0, 0, 1], 0)));
    let (tls, https) = (system.tcp(any).await.unwrap(), system.tcp(any).await.unwrap());
    let (quic, h3) = (std::net::UdpSocket::bind(any).unwrap(), std::net::UdpSocket::bind(any).unwrap());
    let ends = Ends {
        tls: tls.local_addr(),
        https: https.local_addr(),
        quic: quic.local_addr().unwrap(),
        h3: h3.local_addr().unwrap(),
        pem: made.cert.pem(),
        roots: Arc::new(roots),
    };
    let certificate: Arc<dyn ResolvesServerCert> = Arc::new(Shown(Arc::new(shown)));
    let encrypted = Encrypted {
        tls: Some(tls),
        https: Some(https),
        quic: Some(quic),
        h3: Some(h3),
        certificate: Some(certificate),
    };
    (encrypted, ends)
}

#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl Ends {
    /// A client's configuration.
    pub(crate) fn client(&self, alpn: &str) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(Arc::clone(&self.roots)).with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        config
    }

    /// A TLS connection.
    pub(crate) async fn secured(
        &self,
        from: &str,
        at: SocketAddr,
        alpn: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        self.secure(dial(from, at).await?, alpn).await
    }

    /// TLS over a connection that is there.
    pub(crate) async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        alpn: &str,
    ) -> std::io::Result<TlsStream<S>> {
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(self.client(alpn))).connect(name, stream).await
    }

    /// A QUIC connection, and the endpoint that it needs.
    pub(crate) async fn quic(
        &self,
        from: &str,
        at: SocketAddr,
        alpn: &str,
    ) -> Option<(quinn::Endpoint, quinn::Connection)> {
        let mut endpoint = quinn::Endpoint::client(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        let crypto = QuicClientConfig::try_from(self.client(alpn)).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
        let connection = endpoint.connect(at, "localhost").unwrap().await.ok()?;
        Some((endpoint, connection))
    }
}

impl Stage {
    async fn by_tcp(&self, from: &str, packet: &[u8]) -> Option<Vec<u8>> {
        framed(&mut dial(from, self.addr).await.ok()?, packet).await
    }

    async fn by_tls(&self, from: &str, packet: &[u8]) -> Option<Vec<u8>> {
        framed(&mut self.ends().secured(from, self.ends().tls, "dot").await.ok()?, packet).await
    }

    async fn by_https(&self, from: &str, packet: &[u8]) -> Option<Vec<u8>> {
        let (status, _, octets) = self.https(from, https_post(packet)).await?;
        (status == 200).then_some(octets)
    }

    async fn by_h3_as(&self, from: &str, packet: &[u8]) -> Option<Vec<u8>> {
        let (status, octets) = self.by_h3(from, https_post(packet)).await?;
        (status == 200).then_some(octets)
    }

    /// The identifier is 0 on the way (RFC 9250 §4.2.1).
    async fn by_quic_as(&self, from: &str, packet: &[u8]) -> Option<Vec<u8>> {
        let mut zero = packet.to_vec();
        zero.get_mut(..2)?.fill(0);
        let mut reply = self.by_quic(from, &zero).await.ok()?;
        reply.get_mut(..2)?.copy_from_slice(&packet[..2]);
        Some(reply)
    }

    /// A stream on a connection of its own: what comes back, or with which code the server ends stream or connection.
    pub(crate) async fn by_quic(&self, from: &str, packet: &[u8]) -> Result<Vec<u8>, u64> {
        let framed = [&u16::try_from(packet.len()).unwrap().to_be_bytes()[..], packet].concat();
        self.by_quic_stream(from, &framed).await
    }

    /// As [`Stage::by_quic`], the stream's octets as they are.
    pub(crate) async fn by_quic_stream(&self, from: &str, octets: &[u8]) -> Result<Vec<u8>, u64> {
        let (_endpoint, connection) = self.ends().quic(from, self.ends().quic, "doq").await.ok_or(u64::MAX)?;
        let (mut send, mut receive) = connection.open_bi().await.map_err(|_| u64::MAX)?;
        // The server may have said no before all is written.
        let _ = send.write_all(octets).await;
        let _ = send.finish();
        match receive.read_to_end(2 + 65_535).await {
            Ok(octets) => Ok(octets.get(2..).unwrap_or_default().to_vec()),
            Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => Err(code.into_inner()),
            Err(_) => match connection.closed().await {
                quinn::ConnectionError::ApplicationClosed(closed) => Err(closed.error_code.into_inner()),
                other => panic!("{other}"),
            },
        }
    }

    /// A request by HTTP/2 on a connection of its own.
    pub(crate) async fn https(
        &self,
        from: &str,
        request: http::Request<Bytes>,
    ) -> Option<(u16, http::HeaderMap, Vec<u8>)> {
        let tls = self.ends().secured(from, self.ends().https, "h2").await.ok()?;
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.ok()?;
        let driving = tokio::spawn(connection);
        let response = sender.send_request(request.map(Full::new)).await.ok()?;
        let (head, body) = response.into_parts();
        let octets = body.collect().await.ok()?.to_bytes().to_vec();
        driving.abort();
        Some((head.status.as_u16(), head.headers, octets))
    }

    /// A request by HTTP/1.1 on a connection of its own.
    pub(crate) async fn https1(&self, mut request: http::Request<Bytes>) -> Option<(u16, Vec<u8>)> {
        let tls = self.ends().secured("127.0.0.1", self.ends().https, "http/1.1").await.ok()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.ok()?;
        let driving = tokio::spawn(connection);
        let path = request.uri().path_and_query().unwrap().to_string();
        *request.uri_mut() = path.parse().unwrap();
        request.headers_mut().insert("host", "localhost".parse().unwrap());
        let response = sender.send_request(request.map(Full::new)).await.ok()?;
        let status = response.status().as_u16();
        let octets = response.into_body().collect().await.ok()?.to_bytes().to_vec();
        driving.abort();
        Some((status, octets))
    }

    /// A request by HTTP/3 on a connection of its own.
    pub(crate) async fn by_h3(&self, from: &str, request: http::Request<Bytes>) -> Option<(u16, Vec<u8>)> {
        let (_endpoint, connection) = self.ends().quic(from, self.ends().h3, "h3").await?;
        let (mut driver, mut sender) = h3::client::new(h3_quinn::Connection::new(connection)).await.ok()?;
        let driving = tokio::spawn(async move { driver.wait_idle().await });
        let (head, body) = request.into_parts();
        let mut stream = sender.send_request(http::Request::from_parts(head, ())).await.ok()?;
        // Who is refused already takes no body.
        let _ = stream.send_data(body).await;
        let _ = stream.finish().await;
        let response = stream.recv_response().await.ok()?;
        let mut octets = Vec::new();
        while let Some(mut data) = stream.recv_data().await.ok()? {
            octets.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        }
        driving.abort();
        Some((response.status().as_u16(), octets))
    }
}

/// Octets both ways.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

impl Stage {
    /// A connection by TCP or DoT; `None` when the server does not take it.
    pub(crate) async fn talk(&self, from: &str, secure: bool) -> Option<Box<dyn Wire>> {
        if secure {
            return Some(Box::new(self.ends().secured(from, self.ends().tls, "dot").await.ok()?));
        }
        Some(Box::new(dial(from, self.addr).await.ok()?))
    }

    /// One question by TCP, DoT or DoH, on a connection that begins with `first`: what a balancer says.
    pub(crate) async fn behind(&self, transport: &str, from: &str, first: &[u8], packet: &[u8]) -> Option<Vec<u8>> {
        let at = match transport {
            "tcp" => self.addr,
            "dot" => self.ends().tls,
            _ => self.ends().https,
        };
        let mut stream = dial(from, at).await.ok()?;
        stream.write_all(first).await.ok()?;
        match transport {
            "tcp" => framed(&mut stream, packet).await,
            "dot" => framed(&mut self.ends().secure(&mut stream, "dot").await.ok()?, packet).await,
            _ => {
                let mut tls = self.ends().secure(&mut stream, "http/1.1").await.ok()?;
                tls.write_all(&http1_post(packet, "close")).await.ok()?;
                let mut said = Vec::new();
                tls.read_to_end(&mut said).await.ok()?;
                let body = said.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
                Some(said[body..].to_vec())
            }
        }
    }
}

/// As a balancer says who its client is: PROXY protocol, version 2, TCP over IPv4.
pub(crate) fn proxied(client: std::net::Ipv4Addr) -> Vec<u8> {
    let mut octets = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    octets.extend(client.octets());
    octets.extend([127, 0, 0, 1, 0x30, 0x39, 0, 53]);
    octets
}

/// The same question as HTTP/1.1 has it, whole.
pub(crate) fn http1_post(packet: &[u8], connection: &str) -> Vec<u8> {
    let head = format!(
        "POST /dns-query HTTP/1.1\r\nhost: x\r\nconnection: {connection}\r\ncontent-type: application/dns-message\r\ncontent-length: {}\r\n\r\n",
        packet.len()
    );
    [head.as_bytes(), packet].concat()
}

/// A query as RFC 8484 §4.1 has it.
pub(crate) fn https_post(packet: &[u8]) -> http::Request<Bytes> {
    http::Request::post("https://localhost/dns-query")
        .header("content-type", "application/dns-message")
        .body(Bytes::copy_from_slice(packet))
        .unwrap()
}

/// Sends one message and reads one; `None` when the stream ends instead.
pub(crate) async fn framed(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), packet: &[u8]) -> Option<Vec<u8>> {
    send(stream, packet).await.ok()?;
    receive(stream).await
}

pub(crate) async fn send(stream: &mut (impl AsyncWrite + Unpin), packet: &[u8]) -> std::io::Result<()> {
    let framed = [&u16::try_from(packet.len()).unwrap().to_be_bytes()[..], packet].concat();
    stream.write_all(&framed).await?;
    stream.flush().await
}

pub(crate) async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = stream.read_u16().await.ok()?;
    let mut octets = vec![0; usize::from(length)];
    stream.read_exact(&mut octets).await.ok()?;
    Some(octets)
}
