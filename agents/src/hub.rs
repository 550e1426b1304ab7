//! The connection to the hub: gRPC over our own mutual TLS.
//!
//! In: connector, address, how to secure it. Out: a tonic channel of one connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use atoll_reach::{BoxStream, Connect, Expect, TlsIdentity, host_and_port};
use atoll_wire::channel;
pub(crate) use atoll_wire::channel::GRPC_ALPN;
use tonic::transport::Channel;

use crate::error::AgentError;

/// TCP and TLS together; then HTTP/2 once more.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long the hub may take to answer one call.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Host and port of a hub's address.
pub(crate) fn address(hub: &str) -> Result<(&str, u16), AgentError> {
    if hub.is_empty() {
        return Err(AgentError::NoHub);
    }
    host_and_port(hub).ok_or_else(|| AgentError::BadHub { address: hub.to_owned() })
}

/// Connects to the hub as a member that has joined.
pub(crate) async fn channel(connect: &Arc<dyn Connect>, tls: &TlsIdentity, hub: &str) -> Result<Channel, AgentError> {
    let unreachable = |cause: String| AgentError::Unreachable { hub: hub.to_owned(), cause };
    let (host, port) = address(hub)?;
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
    tokio::time::timeout(CONNECT_MAX, channel::over(stream, hub))
        .await
        .map_err(|_| unreachable("no HTTP/2 within 10 s".to_owned()))?
        .map_err(|e| unreachable(root_cause(&e)))
}

/// The answer to one call, which is not waited for without end.
pub(crate) async fn answer<T>(
    hub: &str,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, AgentError> {
    match tokio::time::timeout(ANSWER_MAX, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(failure(hub, &status)),
        Err(_) => {
            let cause = format!("no answer within {} s", ANSWER_MAX.as_secs());
            Err(AgentError::Unreachable { hub: hub.to_owned(), cause })
        }
    }
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
