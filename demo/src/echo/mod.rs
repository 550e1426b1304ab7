//! The container of a demo pod: answers HTTP/1.1, HTTP/2 without TLS, gRPC, TCP and UDP with its cluster, its pod and what it got.
//!
//! One port speaks all stream protocols: the first bytes tell which. In: an identity and bound ports. Out: answers until the pod ends,
//! after which it still serves for a moment, as a container does between SIGTERM and its end.

mod grpc;
mod http;
mod raw;

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    gate::{Door, Gate, Gated, Hatch},
    serve::serve,
};

/// Connections of one pod served at once.
const CONNECTIONS_MAX: usize = 512;
/// How long connections that are open at the end may take.
const DRAIN: Duration = Duration::from_secs(1);
/// Enough of a connection to tell HTTP by.
const TELLING_BYTES: usize = 4;
/// What an HTTP connection begins with.
const HTTP_STARTS: [&[u8]; 10] =
    [b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"CONN", b"OPTI", b"TRAC", b"PATC", b"PRI "];

/// Who answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    /// The cluster.
    pub(crate) cluster: String,
    /// The pod.
    pub(crate) pod: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// The variable `VERSION` of its container.
    pub(crate) version: String,
}

/// What every protocol answers; fields that a protocol has no word for stay out.
#[derive(Debug, Default, Serialize)]
struct Reply {
    cluster: String,
    pod: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
    proto: String,
    remote: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    method: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    host: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    path: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, Vec<String>>,
    received: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    padding: String,
}

impl Reply {
    fn line(&self) -> String {
        serde_json::to_string(self).expect("strings and maps of strings are JSON")
    }
}

impl Identity {
    fn reply(&self, proto: &str, remote: String, received: String) -> Reply {
        let Self { cluster, pod, namespace, version } = self.clone();
        Reply { cluster, pod, namespace, version, proto: proto.to_owned(), remote, received, ..Reply::default() }
    }
}

/// The bound ports of a pod.
pub(crate) struct Ports {
    doors: Vec<Door>,
    hatches: Vec<Hatch>,
}

impl Ports {
    /// Binds them all, or none.
    ///
    /// # Errors
    /// As `bind`'s, with the address.
    pub(crate) async fn bind(ip: std::net::IpAddr, tcp: &[u16], udp: &[u16], gate: &Gate) -> io::Result<Self> {
        let name = |port: u16| move |e: io::Error| io::Error::new(e.kind(), format!("bind {ip}:{port}: {e}"));
        let doors = tcp.iter().map(|port| Door::bind(SocketAddr::new(ip, *port), gate).map_err(name(*port)));
        let doors = doors.collect::<io::Result<_>>()?;
        let mut hatches = Vec::new();
        for port in udp {
            hatches.push(Hatch::bind(SocketAddr::new(ip, *port), gate).await.map_err(name(*port))?);
        }
        Ok(Self { doors, hatches })
    }

    /// Answers on all of them until `end`; the tasks belong to `tasks`.
    pub(crate) fn serve(self, identity: &Arc<Identity>, end: &CancellationToken, tasks: &TaskTracker) {
        for door in self.doors {
            let (identity, end) = (identity.clone(), end.clone());
            tasks.spawn(async move {
                let one = |stream, peer| connection(stream, peer, identity.clone(), end.clone());
                serve(door, CONNECTIONS_MAX, &end, one).await;
            });
        }
        for hatch in self.hatches {
            tasks.spawn(raw::packets(hatch, identity.clone(), end.clone()));
        }
    }
}

async fn connection(mut stream: Gated<TcpStream>, peer: SocketAddr, identity: Arc<Identity>, end: CancellationToken) {
    let mut start = Vec::with_capacity(512);
    while start.len() < TELLING_BYTES && !start.contains(&b'\n') {
        match end.run_until_cancelled(stream.read_buf(&mut start)).await {
            Some(Ok(n)) if n > 0 => {}
            _ => return,
        }
    }
    let is_http = HTTP_STARTS.iter().any(|s| start.starts_with(s));
    let stream = raw::Started::new(start, stream);
    if !is_http {
        end.run_until_cancelled(raw::lines(stream, peer, &identity)).await;
        return;
    }
    let service = hyper::service::service_fn(move |request| {
        let identity = identity.clone();
        async move { Ok::<_, std::convert::Infallible>(http::answer(&identity, peer, request).await) }
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).half_close(true);
    builder.http2().timer(TokioTimer::new());
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        _ = &mut serving => return,
        () = end.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(DRAIN, serving).await;
}

#[cfg(test)]
mod tests;
