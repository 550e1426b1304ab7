//! A listener whose turn has a beginning and an end: before and after it another process serves the same socket.

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use atoll_reach::{Accept, BoxStream};
use tokio::sync::watch;

/// Accepts while it is our turn.
pub(super) struct Gate {
    pub(super) inner: Box<dyn Accept>,
    pub(super) turn: watch::Receiver<bool>,
}

#[async_trait]
impl Accept for Gate {
    async fn accept(&mut self) -> io::Result<(BoxStream, SocketAddr)> {
        let Self { inner, turn } = self;
        let mut over = turn.clone();
        loop {
            if turn.wait_for(|turn| *turn).await.is_err() {
                // Nobody decides any more: the process ends.
                return std::future::pending().await;
            }
            tokio::select! {
                biased;
                Ok(_) = over.wait_for(|turn| !*turn) => {}
                accepted = inner.accept() => return accepted,
            }
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr()
    }
}
