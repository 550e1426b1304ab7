//! The way to the hub: gRPC over the site's own mutual TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use atoll_reach::{Connect, Expect};
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::certificate::Current;

const GRPC_ALPN: &[u8] = b"h2";
const KEEPALIVE: Duration = Duration::from_secs(5);

/// How the hub is dialed.
#[derive(Clone)]
pub(super) struct Way {
    /// host:port.
    pub(super) at: String,
    pub(super) connect: Arc<dyn Connect>,
    pub(super) identity: Current,
}

impl Way {
    /// A channel of one connection, with keep-alives without which a partition would never heal. Waits for a certificate.
    pub(super) async fn channel(mut self) -> io::Result<Channel> {
        let tls = self.identity.wait_for(Option::is_some).await.ok().and_then(|tls| tls.clone());
        let tls = tls.ok_or_else(|| io::Error::other("there will be no certificate any more"))?;
        let (host, port) =
            split(&self.at).ok_or_else(|| io::Error::other(format!("`{}` is not host:port", self.at)))?;
        let tcp = self.connect.connect(host, port).await?;
        let stream = tls.connect(tcp, host, Expect::Hub, &[GRPC_ALPN]).await?.stream;
        let endpoint = Endpoint::from_shared(format!("http://{}", self.at)).map_err(io::Error::other)?;
        let endpoint = endpoint
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        let mut once = Some(TokioIo::new(stream));
        let connector = service_fn(move |_| {
            let stream =
                once.take().ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection is over"));
            std::future::ready(stream)
        });
        endpoint.connect_with_connector(connector).await.map_err(io::Error::other)
    }
}

/// `host:port`, `[v6]:port`.
fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then_some((host, port.parse().ok()?))
}
