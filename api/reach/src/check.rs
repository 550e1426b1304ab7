//! One health check: a connection, an HTTP status, a gRPC health answer; into members by the dialer, elsewhere as anybody goes.
//!
//! In: a target. Out: whether it is well, within its time. A certificate is not judged: a probe asks only whether somebody serves. Reads no
//! more than a status line or one message. Sources: RFC 9112 §4 (status line), the gRPC Health Checking Protocol (grpc.health.v1).

use std::net::IpAddr;
use std::sync::Arc;

use atoll_api::health::{Check, Target};
use atoll_api::kinds::CheckProtocol;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::dial::Dialer;
use crate::stream::{BoxStream, Connect};
use crate::unjudged::AnyCertificate;

/// `HTTP/1.1 200`.
const STATUS_BYTES: usize = 12;
/// A health answer has a few octets.
const ANSWER_BYTES_MAX: usize = 1024;

/// How health checks go out.
pub struct Checks {
    dialer: Dialer,
    direct: Arc<dyn Connect>,
    tls: Arc<rustls::ClientConfig>,
}

impl std::fmt::Debug for Checks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checks").finish_non_exhaustive()
    }
}

impl Checks {
    /// Into members by `dialer`, elsewhere by `direct`.
    #[expect(clippy::missing_panics_doc, reason = "the provider has TLS 1.2 and 1.3")]
    pub fn new(dialer: Dialer, direct: Arc<dyn Connect>) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().expect("the provider has TLS 1.2 and 1.3");
        let verifier = Arc::new(AnyCertificate(provider));
        let mut tls = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { dialer, direct, tls: Arc::new(tls) }
    }

    /// Whether `target` is well.
    pub async fn probe(&self, target: &Target) -> bool {
        timeout(target.check.timeout, self.ask(target)).await.is_ok_and(|well| well.unwrap_or(false))
    }

    /// `None`: it broke off.
    async fn ask(&self, target: &Target) -> Option<bool> {
        let (host, port) = (target.address.ip().to_string(), target.address.port());
        let stream = match &target.cluster {
            Some(cluster) => self.dialer.dial(cluster.as_str(), &host, port).await.ok()?,
            None => self.direct.connect(&host, port).await.ok()?,
        };
        let check = &target.check;
        let asked = check.host.clone().unwrap_or_else(|| authority(target.address.ip()));
        match check.protocol {
            CheckProtocol::TCP => Some(true),
            CheckProtocol::HTTP => http(stream, check, &asked).await,
            CheckProtocol::HTTPS => {
                let name = ServerName::try_from(asked.split(':').next().unwrap_or_default().to_owned());
                let name = name.unwrap_or_else(|_| ServerName::from(target.address.ip()));
                let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await.ok()?;
                http(Box::new(stream), check, &asked).await
            }
            CheckProtocol::GRPC => grpc(stream, check, &asked).await,
        }
    }
}

fn authority(ip: IpAddr) -> String {
    if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() }
}

/// A GET, of whose answer only the status is read.
async fn http(mut stream: BoxStream, check: &Check, host: &str) -> Option<bool> {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: atoll-health-check\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        check.path
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    stream.flush().await.ok()?;
    let mut line = [0; STATUS_BYTES];
    stream.read_exact(&mut line).await.ok()?;
    let line = std::str::from_utf8(&line).ok()?;
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..))?.parse().ok()?;
    Some(check.expects(status))
}

/// `grpc.health.v1.Health/Check`: well is SERVING.
async fn grpc(stream: BoxStream, check: &Check, host: &str) -> Option<bool> {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.ok()?;
    let name = check.service.as_bytes();
    let mut message = Vec::with_capacity(7 + name.len());
    if !name.is_empty() {
        // Field 1, a string; names are at most 253 octets, so that their length has at most two.
        let length = u8::try_from(name.len()).ok()?;
        message.push(0x0a);
        if length < 0x80 {
            message.push(length)
        } else {
            message.extend([length, 1])
        }
        message.extend_from_slice(name);
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).ok()?.to_be_bytes());
    frame.extend_from_slice(&message);
    let request = http::Request::post(format!("http://{host}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(frame)))
        .ok()?;
    let asked = async {
        let response = sender.send_request(request).await.ok()?;
        if response.status() != http::StatusCode::OK {
            return None;
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.ok()?;
        let failed = |t: &http::HeaderMap| t.get("grpc-status").is_some_and(|s| s != "0");
        if body.trailers().is_some_and(failed) {
            return None;
        }
        // One frame: five octets before the message, of which field 1 is the status; 1 is SERVING.
        Some(body.to_bytes().get(5..).is_some_and(|message| message.starts_with(&[0x08, 1])))
    };
    tokio::select! {
        well = asked => well,
        _ = connection => None,
    }
}
