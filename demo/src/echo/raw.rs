//! TCP and UDP to a demo pod: a line in, a line out, until the client closes; a packet in, a packet out.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::Identity;
use crate::gate::Hatch;

/// The longest line; a longer one ends the connection.
const LINE_BYTES_MAX: u64 = 1 << 20;
const PACKET_BYTES_MAX: usize = 65_535;

pub(super) async fn lines<S: AsyncRead + AsyncWrite + Unpin>(stream: S, peer: SocketAddr, identity: &Identity) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let read = (&mut stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await;
        if !read.is_ok_and(|n| n > 0) {
            break;
        }
        let whole = line.ends_with(b"\n");
        let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
        let answer = identity.reply("TCP", peer.to_string(), text).line() + "\n";
        if stream.write_all(answer.as_bytes()).await.is_err() || !whole {
            break;
        }
    }
    // the client closed its half; what we said last must still get there
    let _ = stream.shutdown().await;
}

pub(super) async fn packets(hatch: Hatch, identity: Arc<Identity>, end: CancellationToken) {
    let mut packet = vec![0; PACKET_BYTES_MAX];
    while let Some((len, from)) = end.run_until_cancelled(hatch.receive(&mut packet)).await {
        let text = String::from_utf8_lossy(&packet[..len]).trim_end_matches('\n').to_owned();
        hatch.send(identity.reply("UDP", from.to_string(), text).line().as_bytes(), from).await;
    }
}

/// A stream of which some bytes were read already.
pub(super) struct Started<S> {
    start: Vec<u8>,
    given: usize,
    inner: S,
}

impl<S> Started<S> {
    pub(super) fn new(start: Vec<u8>, inner: S) -> Self {
        Self { start, given: 0, inner }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Started<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.given < this.start.len() {
            let len = buf.remaining().min(this.start.len() - this.given);
            buf.put_slice(&this.start[this.given..this.given + len]);
            this.given += len;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Started<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
