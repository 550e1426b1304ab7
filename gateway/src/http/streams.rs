//! The streams of one HTTP/2 connection: each a task of the plane's, ended when its client takes nothing of the answer.
//!
//! In: what hyper has to run for a stream. HTTP/2 lets a client hold back single streams while its connection goes on (RFC 9113 §5.2), so a
//! stream that stands still is seen here and not at the socket: by whether hyper asks for the next piece of a body. A task that ends early
//! resets its stream, and nothing else of the connection.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::metrics::Cut;
use crate::plane::Plane;

/// A body is handed on in pieces of this size at most, so that a client that takes it slowly is seen to take it.
pub(super) const PIECE_BYTES_MAX: usize = 16 * 1024;

tokio::task_local! {
    /// Of the stream that a task serves.
    static TURNS: Arc<Turns>;
}

/// Whose turn it is: odd while the client has a piece that it did not take yet.
#[derive(Debug, Default)]
struct Turns(AtomicU64);

/// Whether this task serves a stream of HTTP/2.
pub(super) fn is_stream() -> bool {
    TURNS.try_with(|_| ()).is_ok()
}

/// A piece goes out.
pub(super) fn given() {
    let _ = TURNS.try_with(|turns| turns.0.fetch_or(1, Ordering::Relaxed));
}

/// The next piece is asked for: the one before was taken.
pub(super) fn asked() {
    let _ = TURNS.try_with(|turns| {
        if turns.0.load(Ordering::Relaxed) % 2 == 1 {
            turns.0.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// So many requests may be given up before they are answered within [`GIVEN_UP_WITHIN`]; a client that gives up more makes endpoints work for
/// nobody, whether it resets its streams (CVE-2023-44487) or makes us do it (CVE-2025-8671), and its connection ends.
const GIVEN_UP_MAX: u32 = 256;
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(30);

/// Runs the streams of one connection. Clones count together.
#[derive(Clone)]
pub(crate) struct Streams {
    plane: Arc<Plane>,
    count: Arc<Count>,
}

#[derive(Default)]
struct Count {
    begun: AtomicU64,
    open: AtomicUsize,
    given_up: AtomicU32,
    /// Too many were.
    costly: Notify,
}

impl Streams {
    pub(crate) fn new(plane: Arc<Plane>) -> Self {
        Self { plane, count: Arc::default() }
    }

    /// One more is open, until that is dropped.
    pub(crate) fn hold(&self) -> Open {
        self.count.begun.fetch_add(1, Ordering::Relaxed);
        self.count.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(&self.count))
    }

    /// A request that was asked; who drops it before it is answered gave it up.
    pub(crate) fn asked(&self) -> Unanswered {
        Unanswered(Some(Arc::clone(&self.count)))
    }

    /// Waits until more requests were given up than may be.
    pub(crate) async fn are_costly(&self) {
        let mut windows = tokio::time::interval(GIVEN_UP_WITHIN);
        loop {
            tokio::select! {
                () = self.count.costly.notified() => return,
                _ = windows.tick() => self.count.given_up.store(0, Ordering::Relaxed),
            }
        }
    }

    /// Waits until there was no stream for `within`; twice as long at the most.
    pub(crate) async fn are_gone(&self, within: Duration) {
        let mut before = None;
        loop {
            let begun = self.count.begun.load(Ordering::Relaxed);
            if before == Some(begun) && self.count.open.load(Ordering::Relaxed) == 0 {
                return;
            }
            before = Some(begun);
            sleep(within).await;
        }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        // What is spawned is moved several times.
        let stream = Box::pin(stream);
        let open = self.hold();
        let plane = Arc::clone(&self.plane);
        self.plane.tracker.spawn(async move {
            let end = plane.end.clone();
            end.run_until_cancelled(serve(&plane, stream)).await;
            drop(open);
        });
    }
}

/// A request without an answer.
pub(crate) struct Unanswered(Option<Arc<Count>>);

impl Unanswered {
    /// It has one now.
    pub(crate) fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let Some(count) = &self.0 else { return };
        if count.given_up.fetch_add(1, Ordering::Relaxed) >= GIVEN_UP_MAX {
            count.costly.notify_one();
        }
    }
}

/// An open stream.
pub(crate) struct Open(Arc<Count>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a stream until it ends, or stood still for the time that writes have.
async fn serve(plane: &Plane, stream: impl Future<Output = ()>) {
    let turns = Arc::new(Turns::default());
    let mut stream = pin!(TURNS.scope(Arc::clone(&turns), stream));
    let mut before = 0;
    loop {
        tokio::select! {
            biased;
            () = stream.as_mut() => return,
            () = sleep(plane.limits.write_timeout) => {}
        }
        let now = turns.0.load(Ordering::Relaxed);
        if now % 2 == 1 && now == before {
            plane.metrics.cut(Cut::Answer);
            return;
        }
        before = now;
    }
}
