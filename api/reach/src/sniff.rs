//! Which HTTP a connection speaks: HTTP/2 begins with its preface (RFC 9113 §3.4), all else is HTTP/1.1.
//!
//! In: a stream from an accept, and how long its client may take to say so much. Servers have bounds for heads and idle connections of their
//! own, but those begin with the first octet: a client that sends nothing is cut here.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::stream::{BoxStream, Stream};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads as much as tells; the stream that comes back gives it again. True for HTTP/2.
///
/// # Errors
/// As the stream's; `TimedOut` when it took longer than `within`.
pub async fn sniff(stream: BoxStream, within: Duration) -> io::Result<(bool, BoxStream)> {
    tokio::time::timeout(within, read(stream))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the client did not begin to speak"))?
}

async fn read(mut stream: BoxStream) -> io::Result<(bool, BoxStream)> {
    let mut seen = vec![0; PREFACE.len()];
    let mut len = 0;
    while len < PREFACE.len() && seen[..len] == PREFACE[..len] {
        match stream.read(&mut seen[len..]).await? {
            0 => break,
            n => len += n,
        }
    }
    seen.truncate(len);
    let h2 = seen == PREFACE;
    Ok((h2, again(seen, stream)))
}

/// A stream that first gives bytes that were read of it.
#[must_use]
pub fn again(seen: Vec<u8>, stream: BoxStream) -> BoxStream {
    Box::new(Again { seen, at: 0, stream })
}

/// The TCP connection that `stream` is, or is again with all given that was read before. Nothing for any other stream.
#[must_use]
pub fn tcp(stream: &dyn Stream) -> Option<&TcpStream> {
    let any: &dyn Any = stream;
    match any.downcast_ref::<Again>() {
        Some(again) if again.seen.is_empty() => tcp(&*again.stream),
        Some(_) => None,
        None => any.downcast_ref(),
    }
}

/// A stream whose first bytes were read already.
struct Again {
    seen: Vec<u8>,
    at: usize,
    stream: BoxStream,
}

impl AsyncRead for Again {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.at < self.seen.len() {
            let n = (self.seen.len() - self.at).min(buf.remaining());
            buf.put_slice(&self.seen[self.at..self.at + n]);
            self.at += n;
            if self.at == self.seen.len() {
                (self.seen, self.at) = (Vec::new(), 0);
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Again {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn the_preface_tells_and_nothing_is_lost() {
        let long = [PREFACE, b"rest"].concat();
        for (sent, expected) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], false),
            (b"P", false),
            (b"PRI * HTTP/1.1\r\n", false),
            (b"", false),
            (PREFACE, true),
            (&long, true),
        ] {
            let (near, mut far) = tokio::io::duplex(64);
            far.write_all(sent).await.unwrap();
            far.shutdown().await.unwrap();
            let (h2, mut stream) = sniff(Box::new(near), Duration::from_secs(1)).await.unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            assert_eq!((h2, got.as_slice()), (expected, sent));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_only_half_is_cut() {
        for sent in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
            let (near, mut far) = tokio::io::duplex(64);
            far.write_all(sent).await.unwrap();
            let cut = sniff(Box::new(near), Duration::from_secs(1)).await.err().unwrap();
            assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
        }
    }
}
