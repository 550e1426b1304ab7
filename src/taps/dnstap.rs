//! dnstap: each query and each reply as a message to a collector at a UNIX socket.
//!
//! In: what was seen. Out: frames. A collector that is away is tried again every second, one that is slow loses messages; queries are
//! answered all the same. Source: dnstap.proto (dnstap.info), by its field numbers.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atoll_dns::Seen;
use jiff::{SignedDuration, Timestamp};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc::Receiver;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::frames::{CONTROL_BYTES_MAX, Control, control, data, is};

const AGAIN: Duration = Duration::from_secs(1);
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// One write to a collector that does not read.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// Messages in one write.
const BATCH_MAX: usize = 64;

#[derive(Clone, PartialEq, prost::Message)]
struct Dnstap {
    #[prost(bytes = "vec", optional, tag = "1")]
    identity: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    version: Option<Vec<u8>>,
    #[prost(message, optional, tag = "14")]
    message: Option<Said>,
    /// 1: a message.
    #[prost(uint32, required, tag = "15")]
    kind: u32,
}

/// Message.
#[derive(Clone, PartialEq, prost::Message)]
struct Said {
    /// 5: CLIENT_QUERY, 6: CLIENT_RESPONSE.
    #[prost(uint32, required, tag = "1")]
    kind: u32,
    /// 1: INET, 2: INET6.
    #[prost(uint32, optional, tag = "2")]
    family: Option<u32>,
    /// 1: UDP, 2: TCP, 3: DOT, 4: DOH, 7: DOQ.
    #[prost(uint32, optional, tag = "3")]
    protocol: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "4")]
    query_address: Option<Vec<u8>>,
    #[prost(uint32, optional, tag = "6")]
    query_port: Option<u32>,
    #[prost(uint64, optional, tag = "8")]
    query_time_s: Option<u64>,
    #[prost(fixed32, optional, tag = "9")]
    query_time_ns: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "10")]
    query: Option<Vec<u8>>,
    #[prost(uint64, optional, tag = "12")]
    response_time_s: Option<u64>,
    #[prost(fixed32, optional, tag = "13")]
    response_time_ns: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "14")]
    response: Option<Vec<u8>>,
}

/// Sends until `shutdown`.
pub(super) async fn send(mut queued: Receiver<Seen>, socket: PathBuf, identity: String, shutdown: CancellationToken) {
    let mut silent = false;
    while !shutdown.is_cancelled() {
        match stream(&mut queued, &socket, &identity, &shutdown).await {
            Ok(()) => return,
            // Said once, not every second.
            Err(error) if !silent => {
                tracing::warn!(socket = %socket.display(), %error, "no dnstap collector, tried again")
            }
            Err(_) => {}
        }
        silent = true;
        shutdown.run_until_cancelled(sleep(AGAIN)).await;
    }
}

/// One connection, from READY to FINISH.
async fn stream(
    queued: &mut Receiver<Seen>,
    socket: &Path,
    identity: &str,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    let mut stream = timeout(HANDSHAKE_MAX, open(socket)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    tracing::info!(socket = %socket.display(), "a dnstap collector takes what is asked and answered");
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            count = queued.recv_many(&mut batch, BATCH_MAX) => {
                if count == 0 {
                    break;
                }
                let frames: Vec<u8> = batch.drain(..).flat_map(|seen| messages(&seen, identity)).collect();
                timeout(WRITE_MAX, stream.write_all(&frames)).await.map_err(|_| io::ErrorKind::TimedOut)??;
            }
        }
    }
    // A collector that does not say that it has all is left all the same.
    let ending = async {
        stream.write_all(&control(Control::Stop)).await?;
        read(&mut stream).await.map(|body| is(&body, Control::Finish))
    };
    let _ = timeout(AGAIN, ending).await;
    Ok(())
}

async fn open(socket: &Path) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&control(Control::Ready)).await?;
    if !is(&read(&mut stream).await?, Control::Accept) {
        return Err(io::Error::other("it does not accept dnstap"));
    }
    stream.write_all(&control(Control::Start)).await?;
    Ok(stream)
}

/// The body of a control frame.
async fn read(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let (escape, length) = (stream.read_u32().await?, stream.read_u32().await?);
    if escape != 0 || length > CONTROL_BYTES_MAX {
        return Err(io::Error::other("it does not speak Frame Streams"));
    }
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// The query's frame and the reply's.
fn messages(seen: &Seen, identity: &str) -> Vec<u8> {
    let since = |past: Duration| Timestamp::now() - SignedDuration::try_from(past).unwrap_or_default();
    let answered = since(seen.answered.elapsed());
    let asked = answered - SignedDuration::try_from(seen.took).unwrap_or_default();
    let parts = |at: Timestamp| (u64::try_from(at.as_second()).ok(), u32::try_from(at.subsec_nanosecond()).ok());
    let (address, family) = match seen.from.ip().to_canonical() {
        IpAddr::V4(ip) => (ip.octets().to_vec(), 1),
        IpAddr::V6(ip) => (ip.octets().to_vec(), 2),
    };
    let protocol = match seen.transport {
        "udp" => 1,
        "dot" => 3,
        "doh" | "doh3" => 4,
        "doq" => 7,
        _ => 2,
    };
    let ((query_time_s, query_time_ns), (response_time_s, response_time_ns)) = (parts(asked), parts(answered));
    let query = Said {
        kind: 5,
        family: Some(family),
        protocol: Some(protocol),
        query_address: Some(address),
        query_port: Some(seen.from.port().into()),
        query_time_s,
        query_time_ns,
        query: Some(seen.query.clone()),
        ..Said::default()
    };
    let reply = Said {
        kind: 6,
        query: None,
        response_time_s,
        response_time_ns,
        response: Some(seen.reply.clone()),
        ..query.clone()
    };
    let frame = |message: Said| {
        let whole = Dnstap {
            identity: Some(identity.as_bytes().to_vec()),
            version: Some(concat!("atoll ", env!("CARGO_PKG_VERSION")).as_bytes().to_vec()),
            message: Some(message),
            kind: 1,
        };
        data(&whole.encode_to_vec())
    };
    [frame(query), frame(reply)].concat()
}
