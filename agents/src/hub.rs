//! The connection to the hub: gRPC over our own mutual TLS.
//!
//! In: connector, address, how to secure it. Out: a tonic channel of one connection, with keep-alives in all three ways
//! (interval, time-out, while idle), without which a partition would never heal.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use atoll_reach::{BoxStream, Connect, Expect, TlsIdentity};
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::error::AgentError;

/// TCP, TLS and HTTP/2 together.
const CONNECT_MAX: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(5);
/// The application protocol of gRPC.
pub(crate) const GRPC_ALPN: &[u8] = b"h2";

/// Connects to the hub as a member that has joined.
pub(crate) async fn channel(connect: &Arc<dyn Connect>, tls: &TlsIdentity, hub: &str) -> Result<Channel, AgentError> {
    let unreachable = |cause: String| AgentError::Unreachable { hub: hub.to_owned(), cause };
    let (host, port) = split(hub).ok_or(AgentError::NoHub)?;
    let dial = async {
        let tcp = connect.connect(host, port).await?;
        let secured = tls.connect(tcp, host, Expect::Hub, &[GRPC_ALPN]).await?;
        io::Result::Ok(secured.stream)
    };
    let stream = tokio::time::timeout(CONNECT_MAX, dial)
        .await
        .map_err(|_| unreachable("no connection within 10 s".to_owned()))?
        .map_err(|e| unreachable(e.to_string()))?;
    over(stream, hub).await
}

/// gRPC over a stream that is secured already. The channel does not reconnect: whoever holds it notices and dials anew.
pub(crate) async fn over(stream: BoxStream, hub: &str) -> Result<Channel, AgentError> {
    let unreachable = |cause: String| AgentError::Unreachable { hub: hub.to_owned(), cause };
    let endpoint = Endpoint::from_shared(format!("http://{hub}"))
        .map_err(|e| unreachable(e.to_string()))?
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    let mut once = Some(TokioIo::new(stream));
    let connector = service_fn(move |_| {
        let stream = once.take().ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection is over"));
        std::future::ready(stream)
    });
    tokio::time::timeout(CONNECT_MAX, endpoint.connect_with_connector(connector))
        .await
        .map_err(|_| unreachable("no HTTP/2 within 10 s".to_owned()))?
        .map_err(|e| unreachable(root_cause(&e)))
}

/// `host:port`, `[v6]:port`.
pub(crate) fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then_some((host, port.parse().ok()?))
}

/// What a gRPC call's failure means.
pub(crate) fn failure(hub: &str, status: &tonic::Status) -> AgentError {
    use tonic::Code;
    let (hub, message) = (hub.to_owned(), status.message().to_owned());
    match status.code() {
        Code::InvalidArgument
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition => AgentError::Refused { hub, message },
        _ => AgentError::Unreachable { hub, cause: status.to_string() },
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
