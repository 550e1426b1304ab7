//! HTTP/2 keep-alive: without it a connection across a partition never ends, and so never heals.
//!
//! In: a connection's ping handle. Out: the moment it must be given up. Pings also while idle.

use std::io;
use std::time::Duration;

use h2::{Ping, PingPong};

/// How often to ask, and how long to wait for the answer.
#[derive(Debug, Clone, Copy)]
pub struct Keepalive {
    /// Between two pings.
    pub interval: Duration,
    /// From a ping to its answer.
    pub timeout: Duration,
}

impl Default for Keepalive {
    /// A dead connection is noticed within 10 s.
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), timeout: Duration::from_secs(5) }
    }
}

impl Keepalive {
    /// Pings until no answer comes. Never returns while the connection is well.
    pub(crate) async fn watch(self, mut pings: PingPong) -> io::Error {
        loop {
            tokio::time::sleep(self.interval).await;
            match tokio::time::timeout(self.timeout, pings.ping(Ping::opaque())).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return crate::tunnel::to_io(error),
                Err(_) => return io::Error::new(io::ErrorKind::TimedOut, "no answer to an HTTP/2 ping"),
            }
        }
    }
}
