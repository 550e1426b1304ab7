//! A clock that stands, for tests whose runtime has a paused one: sockets and threads take real time, and nothing that waits for the clock
//! goes on until the test lets it. So what must not wait is told from what does, however busy the machine is.

use std::pin::pin;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// Real time between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(3);
/// How far the clock moves at a look.
const STRIDE: Duration = Duration::from_millis(10);
/// Looks after which something hangs, and is not slow: a minute.
const LOOKS_MAX: u32 = 20_000;
/// Looks in a row at which a thread may be at work, before the clock moves nevertheless: tests run side by side, and such a thread may
/// belong to another.
const BUSY_MAX: u32 = 40;

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

/// A moment of real time; whether every other thread sleeps at its end: then nothing is on its way, for on loopback what is sent wakes
/// its receiver at once, and a thread that waits for a core counts as running.
pub(crate) async fn looked() -> bool {
    tokio::task::spawn_blocking(|| {
        std::thread::park_timeout(LOOK);
        asleep()
    })
    .await
    .unwrap()
}

/// Whether of all threads of this process only the calling one runs (proc(5), `/proc/pid/task/tid/stat`, its third field).
fn asleep() -> bool {
    let states = std::fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
        // A thread that has ended since has no file.
        let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        stat.rsplit_once(") ").map(|(_, fields)| fields.starts_with('R'))
    });
    states.filter(|runs| *runs).count() <= 1
}

/// Until nothing is on its way.
pub(crate) async fn settled() {
    for _ in 0..=BUSY_MAX {
        if looked().await {
            return;
        }
    }
}

/// Awaits `future` and leaves the clock as it is.
pub(crate) async fn still<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..LOOKS_MAX {
        tokio::select! {
            biased;
            done = &mut future => return done,
            _ = looked() => {}
        }
    }
    panic!("it hangs, or waits for the clock")
}

/// Awaits `future`; after so many looks the clock moves, at those at which nothing is on its way.
pub(crate) async fn moving<T>(looks: u32, future: impl Future<Output = T>) -> T {
    let (mut future, mut busy) = (pin!(future), 0);
    for look in 0..LOOKS_MAX {
        let idle = tokio::select! {
            biased;
            done = &mut future => return done,
            idle = looked() => idle,
        };
        busy = if idle { 0 } else { busy + 1 };
        if look > looks && (idle || busy > BUSY_MAX) {
            tokio::time::advance(STRIDE).await;
        }
    }
    panic!("it hangs, though the clock moves")
}
