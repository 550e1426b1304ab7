//! Queries by UDP, on threads of our own.
//!
//! ```text
//!   socket ── recvmmsg ── hit, or nobody would answer? ── sendmmsg      one thread a core, one socket for each local address
//!                          │ no: a pass of its party (gate), else a failure in the same batch
//!                          ├── a plain question for a member ── straight to it and back, on the same thread
//!                          ├── decided at once, while there is time for it ── sendmmsg
//!                          └── queue (bounded, the newest is shed) ── tokio ── sendto on the same socket
//! ```
//!
//! In: bound sockets; those of one address share it, so that each thread gets one of them. Out: replies from the socket that was asked.
//! A thread waits for packets and for nothing else. Errors of a socket (an unreachable client, no memory left) are waited out, never spun
//! on.

mod batch;
mod slow;
mod straight;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::unistd::Pid;
use socket2::SockRef;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Serving, Sockets};
use crate::error::Error;
use crate::forward::Ports;
use crate::respond::Responder;
use slow::Slow;
use worker::Worker;

/// Queries of one thread that nobody has looked at yet: twice what one party may have there.
const QUEUE_MAX: usize = 2048;
/// A thread looks so often whether it is to end, when nothing wakes it.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What the kernel may hold for a thread that is busy, where it lets us: a burst is not lost while a batch is answered.
const RECEIVE_BYTES: usize = 4 * 1024 * 1024;

pub(super) fn serve(
    sockets: &mut Sockets,
    responder: &Responder,
    shutdown: &CancellationToken,
) -> Result<Vec<Serving>, Error> {
    let failed = |source| Error::Socket { transport: "udp", source };
    let threads = share(sockets.udp.drain(..).collect()).map_err(failed)?;
    let cores = cores();
    let pinned = cores.len() == threads.len();
    threads
        .into_iter()
        .enumerate()
        .map(|(i, sockets)| {
            let core = cores.get(i).copied().filter(|_| pinned);
            thread(i, sockets, core, responder, shutdown).map_err(failed)
        })
        .collect()
}

/// One thread over `sockets`: the future that owns it.
fn thread(
    number: usize,
    sockets: Vec<Arc<UdpSocket>>,
    core: Option<usize>,
    responder: &Responder,
    shutdown: &CancellationToken,
) -> std::io::Result<Serving> {
    for socket in &sockets {
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(LOOK_EVERY))?;
        // More than the system's bound is for those who may (CAP_NET_ADMIN); for others that bound holds.
        if setsockopt(socket.as_ref(), RcvBufForce, &RECEIVE_BYTES).is_err() {
            let _ = SockRef::from(socket.as_ref()).set_recv_buffer_size(RECEIVE_BYTES);
        }
    }
    let (queue, queued) = mpsc::channel(QUEUE_MAX);
    let (ended, end) = oneshot::channel::<()>();
    let running = Running { stop: Arc::default(), sockets: sockets.clone() };
    let waiting = TaskTracker::new();
    let handle = Handle::current();
    let slow = Slow { queue, waiting: waiting.clone(), shutdown: shutdown.clone(), handle: handle.clone() };
    let (stopped, answers, reads) = (Arc::clone(&running.stop), responder.clone(), sockets.clone());
    let ports = Ports::new(&sockets)?;
    std::thread::Builder::new().name(format!("dns-udp-{number}")).spawn(move || {
        if let Some(core) = core {
            pin(core);
        }
        let _runtime = handle.enter();
        // Made here: its memory is this core's.
        Worker::new(answers, reads, slow, ports).run(&stopped);
        // Dropped with the thread: told either way.
        drop(ended);
    })?;
    let (responder, shutdown) = (responder.clone(), shutdown.clone());
    Ok(Box::pin(async move {
        shutdown.run_until_cancelled(slow::answer(queued, &responder, &waiting, &shutdown)).await;
        drop(running);
        let _ = end.await;
        waiting.close();
        waiting.wait().await;
    }))
}

/// A thread that was started; it ends when this is dropped, be it before its future ever ran.
struct Running {
    stop: Arc<AtomicBool>,
    sockets: Vec<Arc<UdpSocket>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for socket in &self.sockets {
            // An unconnected socket says that it is not connected, and wakes whoever reads from it all the same.
            let _ = SockRef::from(socket.as_ref()).shutdown(std::net::Shutdown::Read);
        }
    }
}

/// The sockets of each thread: one of each address.
fn share(sockets: Vec<UdpSocket>) -> std::io::Result<Vec<Vec<Arc<UdpSocket>>>> {
    let mut taken = BTreeMap::new();
    let mut threads: Vec<Vec<Arc<UdpSocket>>> = Vec::new();
    for socket in sockets {
        let thread: &mut usize = taken.entry(socket.local_addr()?).or_default();
        if *thread == threads.len() {
            threads.push(Vec::new());
        }
        threads[*thread].push(Arc::new(socket));
        *thread += 1;
    }
    Ok(threads)
}

/// The cores that this process may run on.
fn cores() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false)).collect()
}

/// Keeps this thread on one core: its memory and its socket's packets stay in that core's caches.
fn pin(core: usize) {
    let mut set = CpuSet::new();
    if set.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).is_err() {
        tracing::debug!(core, "a thread could not be kept on its core");
    }
}
