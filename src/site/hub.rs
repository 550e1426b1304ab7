//! The way to the hub: gRPC over the site's own mutual TLS.

use std::io;
use std::sync::Arc;

use atoll_reach::{Connect, Expect, host_and_port};
use atoll_wire::channel::{self, GRPC_ALPN};
use tonic::transport::Channel;

use super::certificate::Current;

/// How the hub is dialed.
#[derive(Clone)]
pub(super) struct Way {
    /// host:port.
    pub(super) at: String,
    pub(super) connect: Arc<dyn Connect>,
    pub(super) identity: Current,
}

impl Way {
    /// A channel of one connection. Waits for a certificate.
    pub(super) async fn channel(mut self) -> io::Result<Channel> {
        let tls = self.identity.wait_for(Option::is_some).await.ok().and_then(|tls| tls.clone());
        let tls = tls.ok_or_else(|| io::Error::other("there will be no certificate any more"))?;
        let (host, port) =
            host_and_port(&self.at).ok_or_else(|| io::Error::other(format!("`{}` is not host:port", self.at)))?;
        let tcp = self.connect.connect(host, port).await?;
        let stream = tls.connect(tcp, host, Expect::Hub, &[GRPC_ALPN]).await?.stream;
        channel::over(stream, &self.at).await.map_err(io::Error::other)
    }
}
