//! A clock that stands, for tests whose runtime has a paused one: sockets and threads take real time, and nothing that waits for the clock
//! goes on until the test lets it. So what must not wait is told from what does, however busy the machine is.

use std::pin::pin;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

/// Real time between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(3);
/// How far the clock moves at a look.
const STRIDE: Duration = Duration::from_millis(10);
/// Looks after which something hangs, and is not slow: a minute.
const LOOKS_MAX: u32 = 20_000;
/// Looks at which a thread may be at work before the clock moves nevertheless, by one stride: tests run side by side, and such a thread
/// may belong to another.
const BUSY_MAX: u32 = 40;

/// Threads that look at others have this name meanwhile: they are no part of what is looked at.
const LOOKER: &str = "looks";
/// Where a thread's name is (proc(5)).
const COMM: &str = "/proc/thread-self/comm";

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

/// A moment of real time; whether nothing is on its way at its end: on loopback what is sent wakes its receiver at once, a thread that
/// waits for a core counts as running, and one that was woken and sleeps again while it was looked was switched to.
pub(crate) async fn looked() -> bool {
    tokio::task::spawn_blocking(|| {
        std::thread::park_timeout(LOOK);
        let _ = std::fs::write(COMM, LOOKER);
        let before = switches();
        let still = asleep() && switches() == before;
        let _ = std::fs::write(COMM, "looked");
        still
    })
    .await
    .unwrap()
}

/// How often cores went from one thread to another for this process (getrusage(2)).
fn switches() -> i64 {
    let used = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    used.voluntary_context_switches() + used.involuntary_context_switches()
}

/// Whether all threads of this process sleep, those that look left out (proc(5): `stat`, its second and third field).
fn asleep() -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
    // A thread that has ended since has no file.
    let mut stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    stats
        .all(|stat| stat.rsplit_once(") ").is_none_or(|(name, state)| name.ends_with(LOOKER) || state.starts_with('S')))
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
        busy += 1;
        if look > looks && (idle || busy > BUSY_MAX) {
            busy = 0;
            tokio::time::advance(STRIDE).await;
        }
    }
    panic!("it hangs, though the clock moves")
}
