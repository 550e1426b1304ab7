//! What a client hears before the answer: to go on with its body (RFC 9110 §10.1.1), and what the endpoint says early.
//!
//! In: the answer as a future. Out: the answer; what of the other could not be written by then, to be written before it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::AsyncWrite as _;

use super::halves::Writes;
use super::render;
use crate::http::Early;

/// What may be said before an answer.
pub(super) struct Before<'a> {
    /// What is written next.
    pub(super) said: &'a mut Vec<u8>,
    pub(super) early: &'a Early,
    /// Whether somebody wants the body, where the client waits for that.
    pub(super) wanted: Option<&'a AtomicBool>,
}

impl Before<'_> {
    /// Waits for the answer, and tells the client meanwhile. The answer stays where it is: taken over, there would be room for it twice.
    pub(super) async fn tell<T>(mut self, writer: &mut Writes, mut answer: Pin<&mut impl Future<Output = T>>) -> T {
        let mut begun = false;
        poll_fn(|cx| {
            let polled = answer.as_mut().poll(cx);
            self.gather(polled.is_pending());
            if polled.is_pending() && (begun || !self.said.is_empty()) {
                begun = true;
                self.write(writer, cx);
            }
            polled
        })
        .await
    }

    fn gather(&mut self, waits: bool) {
        // Who has its answer need not go on.
        if waits && self.wanted.is_some_and(|wanted| wanted.load(Ordering::Relaxed)) {
            self.said.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            self.wanted = None;
        }
        if self.early.are_some() {
            for (status, headers) in self.early.take() {
                render::early(self.said, status, &headers);
            }
        }
    }

    fn write(&mut self, writer: &mut Writes, cx: &mut Context<'_>) {
        let mut written = 0;
        while written < self.said.len() {
            match Pin::new(&mut *writer).poll_write(cx, &self.said[written..]) {
                Poll::Ready(Ok(n)) if n > 0 => written += n,
                // Who is gone hears nothing; the answer finds that out.
                Poll::Ready(_) => written = self.said.len(),
                Poll::Pending => break,
            }
        }
        self.said.drain(..written);
        let _ = Pin::new(writer).poll_flush(cx);
    }
}
