//! Who looks on at DNS queries: the query log and dnstap. Each has a bounded queue that the DNS server never waits for, and a task that
//! empties it.
//!
//! In: what the file says. Out: taps for the DNS server, and the tasks behind them, which end with `shutdown`.

mod dnstap;
mod frames;
mod log;

use std::path::PathBuf;

use atoll_dns::Tap;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Queries that wait to be written; more are lost.
const QUEUE_MAX: usize = 4096;

/// What the file says of those who look on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Looking {
    /// One query in so many is logged, to this file or else among the process's own messages.
    pub(crate) log: Option<(u32, Option<PathBuf>)>,
    /// The socket of who collects dnstap.
    pub(crate) dnstap: Option<PathBuf>,
}

/// Starts what is wanted.
pub(crate) fn start(
    looking: &Looking,
    instance: &str,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> Vec<Tap> {
    let mut taps = Vec::new();
    if let Some((every, file)) = looking.log.clone() {
        let (queue, queued) = mpsc::channel(QUEUE_MAX);
        tasks.spawn(log::write(queued, file, shutdown.clone()));
        taps.push(Tap { name: "log", every, queue });
    }
    if let Some(socket) = looking.dnstap.clone() {
        let (queue, queued) = mpsc::channel(QUEUE_MAX);
        tasks.spawn(dnstap::send(queued, socket, instance.to_owned(), shutdown.clone()));
        taps.push(Tap { name: "dnstap", every: 1, queue });
    }
    taps
}
