//! The one connection to the hub: gRPC over a stream that is secured already.
//!
//! In: a stream, the hub's address for messages. Out: a tonic channel that does not reconnect: whoever holds it notices and dials anew.
//! Never: dials, or decides whom to trust.

use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint, Error};
use tower::service_fn;

/// The application protocol of gRPC.
pub const GRPC_ALPN: &[u8] = b"h2";
/// The hub is asked for a sign of life so often, and has so long for it.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// gRPC over `stream`, with keep-alives in all three ways (interval, time-out, while idle), without which a partition would never heal.
///
/// # Errors
/// When `hub` is no authority of a URI, or the other side does not speak HTTP/2.
pub async fn over<S>(stream: S, hub: &str) -> Result<Channel, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let endpoint = Endpoint::from_shared(format!("http://{hub}"))?
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
    endpoint.connect_with_connector(connector).await
}
