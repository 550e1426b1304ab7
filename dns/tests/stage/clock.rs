//! A clock that stands, for tests whose runtime has a paused one: sockets and threads take real time, and nothing that waits for the clock
//! goes on until the test lets it. So what must not wait is told from what does, however busy the machine is.

use std::pin::pin;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// Real time between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(5);
/// How far the clock moves at a look.
const STRIDE: Duration = Duration::from_millis(10);
/// Looks after which something hangs, and is not slow: a minute.
const LOOKS_MAX: u32 = 12_000;

/// The clock stands as long as this is held.
pub(crate) struct Standing {
    _held: SyncSender<()>,
}

/// Makes the paused clock of this runtime stand.
pub(crate) fn stand() -> Standing {
    let (held, ended) = sync_channel::<()>(1);
    // tokio moves a paused clock by itself when nothing runs, except while a blocking task does.
    tokio::task::spawn_blocking(move || ended.recv());
    Standing { _held: held }
}

/// A moment of real time.
pub(crate) async fn looked() {
    tokio::task::spawn_blocking(|| std::thread::park_timeout(LOOK)).await.unwrap();
}

/// Awaits `future` and leaves the clock as it is.
pub(crate) async fn still<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..LOOKS_MAX {
        tokio::select! {
            biased;
            done = &mut future => return done,
            () = looked() => {}
        }
    }
    panic!("it hangs, or waits for the clock")
}

/// Awaits `future`; after so many looks the clock moves.
pub(crate) async fn moving<T>(looks: u32, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for look in 0..LOOKS_MAX {
        tokio::select! {
            biased;
            done = &mut future => return done,
            () = looked() => if look > looks { tokio::time::advance(STRIDE).await },
        }
    }
    panic!("it hangs, though the clock moves")
}
