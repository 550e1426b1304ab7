//! Queries over QUIC (RFC 9250) and HTTPS (RFC 8484), a stream for each: dnsperf knows no QUIC, and its HTTPS stops at some servers.
//!
//! In: a server, names, the certificate that it shows. Out: how many were answered and how long that took.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};
use tokio_rustls::TlsConnector;

use crate::load::Kind;
use crate::{Result, say, secure};

const CONNECTIONS: u64 = 8;
/// On the way on each connection.
const STREAMS: u64 = 8;
const REPLY_BYTES_MAX: usize = 2 + 65_535;
/// Whom the certificate is for.
const SERVER: &str = "localhost";

/// How a query goes.
#[derive(Clone)]
enum Way {
    Quic(Connection),
    Https(SendRequest<Full<Bytes>>),
}

/// Asks by `way` for `seconds` and says what came of it.
pub(crate) fn ask(way: &str, at: SocketAddr, kind: Kind, seconds: f64, folder: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into())?;
        let crypto = QuicClientConfig::try_from(secure::client(folder, "doq")?)?;
        endpoint.set_default_client_config(ClientConfig::new(Arc::new(crypto)));
        let mut ways = Vec::new();
        for _ in 0..CONNECTIONS {
            ways.push(match way {
                "doq" => Way::Quic(endpoint.connect(at, SERVER)?.await?),
                "doh" => Way::Https(https(at, folder).await?),
                other => return Err(format!("`{other}` is no way: doq, doh").into()),
            });
        }
        let (number, until) = (Arc::new(AtomicU64::new(0)), Instant::now() + Duration::from_secs_f64(seconds));
        let mut streams = JoinSet::new();
        for way in ways.iter().flat_map(|way| (0..STREAMS).map(|_| way.clone())) {
            let number = Arc::clone(&number);
            streams.spawn(turns(way, kind, number, until));
        }
        let mut took = Vec::new();
        while let Some(done) = streams.join_next().await {
            took.extend(done??);
        }
        took.sort_unstable();
        say("answered", took.len())?;
        say("rate", format!("{:.0}", took.len() as f64 / seconds))?;
        for (name, part) in [("p50_us", 0.5), ("p99_us", 0.99)] {
            let at = ((took.len() as f64 * part) as usize).min(took.len().saturating_sub(1));
            say(name, took.get(at).map_or(0, Duration::as_micros))?;
        }
        endpoint.close(0_u32.into(), b"");
        Ok(())
    })
}

/// One query after the other.
async fn turns(mut way: Way, kind: Kind, number: Arc<AtomicU64>, until: Instant) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    while Instant::now() < until {
        let start = Instant::now();
        // RFC 9250 §4.2.1: "the DNS Message ID MUST be set to 0"; RFC 8484 §4.1 recommends it.
        let query = kind.packet(number.fetch_add(1, Ordering::Relaxed), 0);
        let reply = match &mut way {
            Way::Quic(connection) => by_quic(connection, &query).await?,
            Way::Https(sender) => by_https(sender, query).await?,
        };
        if reply.len() < 12 || reply[3] & 0x0f != 0 || reply[6..8] == [0, 0] {
            return Err(format!("no answer: {reply:?}").into());
        }
        took.push(start.elapsed());
    }
    Ok(took)
}

async fn by_quic(connection: &Connection, query: &[u8]) -> Result<Bytes> {
    let (mut send, mut receive) = connection.open_bi().await?;
    let length = u16::try_from(query.len())?.to_be_bytes();
    send.write_all(&[&length[..], query].concat()).await?;
    send.finish()?;
    let reply = receive.read_to_end(REPLY_BYTES_MAX).await?;
    Ok(Bytes::from(reply).split_off(2))
}

async fn https(at: SocketAddr, folder: &Path) -> Result<SendRequest<Full<Bytes>>> {
    let connector = TlsConnector::from(Arc::new(secure::client(folder, "h2")?));
    let tcp = TcpStream::connect(at).await?;
    tcp.set_nodelay(true)?;
    let tls = connector.connect(SERVER.try_into()?, tcp).await?;
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
    // It ends with its sender.
    tokio::spawn(connection);
    Ok(sender)
}

async fn by_https(sender: &mut SendRequest<Full<Bytes>>, query: Vec<u8>) -> Result<Bytes> {
    sender.ready().await?;
    let request = Request::post("https://localhost/dns-query")
        .header(header::CONTENT_TYPE, "application/dns-message")
        .header(header::ACCEPT, "application/dns-message");
    let response = sender.send_request(request.body(Full::new(Bytes::from(query)))?).await?;
    match response.status() {
        StatusCode::OK => Ok(response.into_body().collect().await?.to_bytes()),
        status => Err(format!("status {status}").into()),
    }
}
