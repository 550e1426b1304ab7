//! A client of QUIC, and of HTTP/3 by the library `h3`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use h3::client::SendRequest;
use h3::error::{ConnectionError, StreamError};
use h3_quinn::OpenStreams;
use http::{HeaderMap, Request};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, TransportConfig};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::task::JoinHandle;

use crate::client::Answer;

pub(crate) const LONG: Duration = Duration::from_secs(20);

/// How somebody connects.
#[derive(Clone)]
pub(crate) struct Caller<'a> {
    pub(crate) name: &'a str,
    pub(crate) roots: &'a [CertificateDer<'static>],
    pub(crate) identity: Option<(CertificateDer<'static>, Vec<u8>)>,
    pub(crate) alpn: &'a str,
    /// How much it takes of an answer before it reads it; 0: as the library has it.
    pub(crate) window: u32,
}

impl<'a> Caller<'a> {
    pub(crate) fn new(name: &'a str, roots: &'a [CertificateDer<'static>]) -> Self {
        Self { name, roots, identity: None, alpn: "h3", window: 0 }
    }

    /// A connection of QUIC. Its endpoint lives as long as it does.
    pub(crate) async fn connect(&self, at: SocketAddr) -> Result<Connection, String> {
        let mut store = RootCertStore::empty();
        for root in self.roots {
            store.add(root.clone()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(store);
        let mut config = match self.identity.clone() {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                builder.with_client_auth_cert(vec![certificate], PrivateKeyDer::try_from(key).unwrap()).unwrap()
            }
        };
        config.alpn_protocols = vec![self.alpn.as_bytes().to_vec()];
        config.enable_early_data = true;
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(LONG.try_into().unwrap()));
        if self.window > 0 {
            transport.stream_receive_window(self.window.into()).receive_window(self.window.into());
        }
        config.transport_config(Arc::new(transport));
        let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let connecting = endpoint.connect_with(config, at, self.name).unwrap();
        tokio::time::timeout(LONG, connecting).await.map_err(|_| "late".to_owned())?.map_err(|error| error.to_string())
    }

    /// A connection that speaks HTTP/3.
    pub(crate) async fn open(&self, at: SocketAddr) -> Result<Http3, String> {
        let connection = self.connect(at).await?;
        let opened = h3::client::new(h3_quinn::Connection::new(connection.clone())).await;
        let (mut driver, sender) = opened.map_err(|error| error.to_string())?;
        let driver = tokio::spawn(async move { futures::future::poll_fn(|cx| driver.poll_close(cx)).await });
        Ok(Http3 { sender, connection, driver })
    }
}

/// A client's connection.
pub(crate) struct Http3 {
    pub(crate) sender: SendRequest<OpenStreams, Bytes>,
    pub(crate) connection: Connection,
    pub(crate) driver: JoinHandle<ConnectionError>,
}

/// A request for `target`, as `GET /path`.
pub(crate) fn asks(host: &str, target: &str, headers: &[(&str, &str)]) -> Request<()> {
    let (method, path) = target.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(format!("https://{host}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

impl Http3 {
    pub(crate) async fn get(&mut self, host: &str, path: &str) -> Result<Answer, StreamError> {
        self.ask(asks(host, &format!("GET {path}"), &[]), &[], None).await
    }

    /// Sends a request with its body in these pieces, and reads the answer to its end.
    pub(crate) async fn ask(
        &mut self,
        request: Request<()>,
        pieces: &[&[u8]],
        trailers: Option<HeaderMap>,
    ) -> Result<Answer, StreamError> {
        let asked = async {
            let mut stream = self.sender.send_request(request).await?;
            for piece in pieces {
                stream.send_data(Bytes::copy_from_slice(piece)).await?;
            }
            if let Some(trailers) = trailers {
                stream.send_trailers(trailers).await?;
            }
            stream.finish().await?;
            let head = stream.recv_response().await?;
            let mut body = BytesMut::new();
            while let Some(mut data) = stream.recv_data().await? {
                body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
            }
            let trailers = stream.recv_trailers().await?.unwrap_or_default();
            Ok(Answer {
                status: head.status().as_u16(),
                headers: head.headers().clone(),
                body: String::from_utf8_lossy(&body).into_owned(),
                octets: body.freeze(),
                trailers,
            })
        };
        tokio::time::timeout(LONG, asked).await.expect("an answer in time")
    }
}
