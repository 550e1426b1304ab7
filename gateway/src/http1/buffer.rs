//! Octets that were read and not used yet. The memory is lent by a store of the thread's and given back as soon as it holds nothing, so
//! that an idle connection has none.
//!
//! In: what a stream gives. Out: slices. A buffer grows to what it is told at most.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// What is read at once, at first.
pub(crate) const SMALL: usize = 16 * 1024;
/// What is read at once of a long body.
pub(crate) const LARGE: usize = 128 * 1024;
/// Buffers of each size that a thread keeps.
const KEPT_MAX: usize = 64;

type Memory = Vec<u8>;

thread_local! {
    static SMALLS: RefCell<Vec<Memory>> = const { RefCell::new(Vec::new()) };
    static LARGES: RefCell<Vec<Memory>> = const { RefCell::new(Vec::new()) };
}

fn take(size: usize) -> Memory {
    let kept = match size {
        SMALL => SMALLS.try_with(|kept| kept.borrow_mut().pop()),
        LARGE => LARGES.try_with(|kept| kept.borrow_mut().pop()),
        _ => Ok(None),
    };
    kept.ok().flatten().unwrap_or_else(|| vec![0; size])
}

fn give(memory: Memory) {
    let keep = |kept: &RefCell<Vec<Memory>>, memory: Memory| {
        let mut kept = kept.borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.push(memory);
        }
    };
    // A thread that ends keeps nothing.
    let _ = match memory.len() {
        SMALL => SMALLS.try_with(|kept| keep(kept, memory)),
        LARGE => LARGES.try_with(|kept| keep(kept, memory)),
        _ => Ok(()),
    };
}

/// The buffer.
#[derive(Default)]
pub(crate) struct Buffer {
    memory: Memory,
    start: usize,
    end: usize,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.memory));
    }
}

impl Buffer {
    /// What is there.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// How much that is.
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first `n` octets are used. Once all are, the memory is given back.
    pub(crate) fn used(&mut self, n: usize) {
        self.start += n.min(self.len());
        if self.is_empty() {
            self.free();
        }
    }

    fn free(&mut self) {
        give(std::mem::take(&mut self.memory));
        (self.start, self.end) = (0, 0);
    }

    /// Makes room for more: at least one octet, `size` in all where there is nothing yet.
    fn room(&mut self, size: usize) {
        if self.memory.is_empty() {
            self.memory = take(size);
        } else if self.end == self.memory.len() {
            if self.start > 0 {
                self.memory.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.len());
            } else {
                let larger = self.memory.len() * 2;
                self.memory.resize(larger, 0);
            }
        }
    }

    /// Reads once, up to `size` octets where there is nothing yet. Returns how much came; 0: the stream is at its end.
    pub(crate) fn poll_read<R: AsyncRead + Unpin + ?Sized>(
        &mut self,
        stream: &mut R,
        size: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.room(size);
        let mut room = ReadBuf::new(&mut self.memory[self.end..]);
        let read = Pin::new(stream).poll_read(cx, &mut room);
        let n = room.filled().len();
        self.end += n;
        if self.is_empty() {
            // Whoever waits holds nothing.
            self.free();
        }
        ready!(read)?;
        Poll::Ready(Ok(n))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn what_is_read_is_there_until_it_is_used_and_then_nothing_is_held() {
        let sent: Vec<u8> = (0..40_000).map(|n| (n % 251) as u8).collect();
        let (mut stream, mut buffer, mut got) = (sent.as_slice(), Buffer::default(), Vec::new());
        loop {
            let n = poll_fn(|cx| buffer.poll_read(&mut stream, SMALL, cx)).await.unwrap();
            if n == 0 {
                break;
            }
            // Half of it stays, so that the buffer has to move and to grow.
            let used = buffer.len() / 2;
            got.extend_from_slice(&buffer.bytes()[..used]);
            buffer.used(used);
        }
        got.extend_from_slice(buffer.bytes());
        buffer.used(buffer.len());
        assert_eq!((got == sent, buffer.memory.len()), (true, 0));
    }
}
