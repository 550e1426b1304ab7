//! The rest of a long answer from one TCP connection to another by way of a pipe, so that its octets are never copied: splice(2).
//!
//! In: an answer whose length is known, a client without TLS. A pipe is lent by a store of the thread's and given back empty; without one
//! (descriptors run out) octets are copied as ever.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::halves::Writes;

/// What is moved at once at most.
const SPAN: usize = 256 * 1024;
/// Empty pipes that a thread keeps.
const KEPT_MAX: usize = 32;

thread_local! {
    static PIPES: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
}

struct Ends {
    near: OwnedFd,
    far: OwnedFd,
}

impl Ends {
    fn new() -> io::Result<Self> {
        let (far, near) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Who may have no more than the usual size goes on with that.
        let _ = fcntl_setpipe_size(&near, SPAN);
        Ok(Self { near, far })
    }
}

/// A pipe, and how much of an answer is in it.
pub(super) struct Pipe {
    ends: Option<Ends>,
    held: usize,
}

/// Why not all was moved.
pub(super) enum Stopped {
    /// The endpoint's side ended or broke.
    Reading,
    /// The client's side broke.
    Writing(io::Error),
}

impl Pipe {
    /// A pipe, if one can be had.
    pub(super) fn take() -> Option<Self> {
        let kept = PIPES.try_with(|kept| kept.borrow_mut().pop()).ok().flatten();
        let ends = kept.map_or_else(Ends::new, Ok).ok()?;
        Some(Self { ends: Some(ends), held: 0 })
    }

    /// Moves what is `left` of an answer to the client. Ready once all is.
    pub(super) fn poll(
        &mut self,
        from: &TcpStream,
        left: &mut u64,
        client: &mut Writes,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Stopped>> {
        let Some(ends) = &self.ends else { return Poll::Ready(Err(Stopped::Reading)) };
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        loop {
            while self.held > 0 {
                let out =
                    client.poll_by(cx, |to| Ok(rustix::pipe::splice(&ends.far, None, to, None, self.held, flags)?));
                match ready!(out) {
                    Ok(0) => return Poll::Ready(Err(Stopped::Writing(io::ErrorKind::WriteZero.into()))),
                    Ok(n) => self.held -= n,
                    Err(error) => return Poll::Ready(Err(Stopped::Writing(error))),
                }
            }
            if *left == 0 {
                return Poll::Ready(Ok(()));
            }
            if ready!(from.poll_read_ready(cx)).is_err() {
                return Poll::Ready(Err(Stopped::Reading));
            }
            let most = usize::try_from(*left).unwrap_or(SPAN).min(SPAN);
            let read = from
                .try_io(Interest::READABLE, || Ok(rustix::pipe::splice(from, None, &ends.near, None, most, flags)?));
            match read {
                Ok(n) if n > 0 => (self.held, *left) = (n, *left - n as u64),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return Poll::Ready(Err(Stopped::Reading)),
            }
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take().filter(|_| self.held == 0) else { return };
        // A thread that ends keeps nothing.
        let _ = PIPES.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < KEPT_MAX {
                kept.push(ends);
            }
        });
    }
}
