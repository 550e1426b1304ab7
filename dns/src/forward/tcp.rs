//! Questions by TCP: one pipelined connection for each server, opened when needed, closed when idle or silent (RFC 7766).
//!
//! ```text
//!   exchange ──► the server's task ── dial ── write, as they come ── read, in whatever order ──► who asked
//!                     ▲                                    │
//!                     └── unanswered when it broke: once more, on a new connection
//! ```
//!
//! In: a way to dial and a query. Out: the reply that answers it. However many ask, one connection is dialed; who gives up is forgotten; a peer
//! that owes an answer and brings none is taken for dead. Never gives up on a question by itself: the caller has the deadline.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_reach::BoxStream;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{SinkExt as _, StreamExt as _};
use hickory_proto::op::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Failed;
use super::ask::{Ask, Reply};

/// Questions that wait to be written to one connection.
const QUEUE_MAX: usize = 256;
/// Questions in flight on one connection.
const IN_FLIGHT_MAX: usize = 512;
/// A connection without questions ends.
const IDLE: Duration = Duration::from_secs(10);
/// A connection that owes an answer and brings no whole message for so long is taken for dead; octets that drip are none.
const SILENT: Duration = Duration::from_millis(1500);
/// One write.
const WRITE_MAX: Duration = Duration::from_secs(1);
/// One dial; who asks has given up by then.
const DIAL_MAX: Duration = Duration::from_secs(3);

/// Opens a connection to one server.
pub(super) type Dial = Arc<dyn Fn() -> BoxFuture<'static, io::Result<BoxStream>> + Send + Sync>;

/// DNS messages on a stream: two octets of length before each (RFC 1035 §4.2.2).
fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().length_field_length(2).max_frame_length(usize::from(u16::MAX)).new_codec()
}

struct Job {
    octets: Vec<u8>,
    reply: oneshot::Sender<Result<Bytes, String>>,
    /// It was written to a connection that broke.
    again: bool,
}

/// The open connections, by member and server.
pub(super) struct Pipelines {
    open: Mutex<HashMap<(String, SocketAddr), mpsc::Sender<Job>>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Pipelines {
    pub(super) fn new(tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { open: Mutex::default(), tasks, shutdown }
    }

    /// Forgets the connections of members that are gone; they end when idle.
    pub(super) fn keep(&self, known: impl Fn(&str) -> bool) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(member, _), sender| known(member) && !sender.is_closed());
    }

    /// Asks `server` of `member`; `dial` opens a connection to it.
    pub(super) async fn exchange(
        &self,
        member: &str,
        server: SocketAddr,
        ask: &Ask,
        dial: &Dial,
    ) -> Result<Message, Failed> {
        let failed = |why: &str| Failed::Network(format!("{server} by TCP: {why}"));
        // A task that ends just now is followed by another.
        for _ in 0..2 {
            let (reply, answered) = oneshot::channel();
            let job = Job { octets: ask.octets().to_vec(), reply, again: false };
            match self.pipeline(member, server, dial).try_send(job) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => return Err(Failed::Busy),
                Err(mpsc::error::TrySendError::Closed(_)) => continue,
            }
            let mut octets = match answered.await {
                Ok(Ok(octets)) => Vec::from(octets),
                Ok(Err(why)) => return Err(failed(&why)),
                Err(_) => continue,
            };
            return match ask.judge_but_id(&mut octets) {
                Reply::Ours(reply, _) if !reply.metadata.truncation => Ok(*reply),
                Reply::Ours(..) => Err(failed("the reply is cut")),
                Reply::Broken => Err(failed("the reply can't be read")),
                Reply::Foreign | Reply::Respelled => Err(failed("the reply is to another question")),
            };
        }
        Err(failed("the connection ended"))
    }

    fn pipeline(&self, member: &str, server: SocketAddr, dial: &Dial) -> mpsc::Sender<Job> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (member.to_owned(), server);
        if let Some(sender) = open.get(&key).filter(|s| !s.is_closed()) {
            return sender.clone();
        }
        let (sender, jobs) = mpsc::channel(QUEUE_MAX);
        open.insert(key, sender.clone());
        let (shutdown, dial) = (self.shutdown.clone(), Arc::clone(dial));
        self.tasks.spawn(async move { shutdown.run_until_cancelled(run(dial, jobs)).await });
        sender
    }
}

/// Why a connection is over.
enum End {
    /// Nobody needs it.
    Idle,
    /// It owes answers and says nothing.
    Silent,
    /// It was closed, or broke.
    Broken,
}

/// Serves one server's questions, over as many connections as it takes, until there are none for a while.
async fn run(dial: Dial, mut jobs: mpsc::Receiver<Job>) {
    let mut carried: Vec<Job> = Vec::new();
    loop {
        if carried.is_empty() {
            match timeout(IDLE, jobs.recv()).await {
                Ok(Some(job)) => carried.push(job),
                _ => return,
            }
        }
        let stream = match timeout(DIAL_MAX, dial()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return refuse(carried, jobs, &error.to_string()),
            Err(_) => return refuse(carried, jobs, "no connection in time"),
        };
        let mut waiting = HashMap::new();
        let end = converse(stream, carried, &mut jobs, &mut waiting).await;
        let left: Vec<Job> = waiting.into_values().filter(|job| !job.reply.is_closed()).collect();
        let (second, first): (Vec<Job>, Vec<Job>) = left.into_iter().partition(|job| job.again);
        tell(second, "the connection ended");
        carried = match end {
            End::Idle => return,
            End::Broken => first.into_iter().map(|job| Job { again: true, ..job }).collect(),
            End::Silent => {
                tell(first, "connected, but silent");
                Vec::new()
            }
        };
    }
}

/// Fails what waits: who asks next dials anew.
fn refuse(carried: Vec<Job>, mut jobs: mpsc::Receiver<Job>, why: &str) {
    jobs.close();
    tell(carried, why);
    while let Ok(job) = jobs.try_recv() {
        tell([job], why);
    }
}

fn tell(jobs: impl IntoIterator<Item = Job>, why: &str) {
    for job in jobs {
        // Who asked may have given up meanwhile.
        let _ = job.reply.send(Err(why.to_owned()));
    }
}

/// Runs one connection until it is idle, silent or broken; `waiting` is what it owes then.
async fn converse(
    stream: BoxStream,
    carried: Vec<Job>,
    jobs: &mut mpsc::Receiver<Job>,
    waiting: &mut HashMap<u16, Job>,
) -> End {
    let mut framed = Framed::new(stream, codec());
    let mut next: u16 = rand::random();
    let mut heard = Instant::now();
    let mut carried = carried.into_iter();
    loop {
        let patience = if waiting.is_empty() { IDLE } else { SILENT };
        let job = match carried.next() {
            Some(job) => Some(job),
            None => tokio::select! {
                job = jobs.recv(), if waiting.len() < IN_FLIGHT_MAX => match job {
                    Some(job) => Some(job),
                    None => return End::Idle,
                },
                frame = framed.next() => {
                    let Some(Ok(frame)) = frame else { return End::Broken };
                    heard = Instant::now();
                    deliver(frame, waiting);
                    None
                }
                () = sleep_until(heard + patience) => return if waiting.is_empty() { End::Idle } else { End::Silent },
            },
        };
        let Some(job) = job.filter(|job| !job.reply.is_closed()) else { continue };
        if waiting.is_empty() {
            heard = Instant::now();
        } else if waiting.len() >= IN_FLIGHT_MAX / 2 {
            // Who gave up takes no place; a late answer finds nobody.
            waiting.retain(|_, job| !job.reply.is_closed());
        }
        next = free(waiting, next);
        let mut octets = job.octets.clone();
        if let Some(id) = octets.get_mut(..2) {
            id.copy_from_slice(&next.to_be_bytes());
        }
        waiting.insert(next, job);
        next = next.wrapping_add(1);
        match timeout(WRITE_MAX, framed.send(Bytes::from(octets))).await {
            Ok(Ok(())) => {}
            _ => {
                // What was not written yet is owed as well.
                for job in carried {
                    next = free(waiting, next);
                    waiting.insert(next, job);
                }
                return End::Broken;
            }
        }
    }
}

/// The next id that is not in use; there are many more than questions.
fn free(waiting: &HashMap<u16, Job>, mut id: u16) -> u16 {
    while waiting.contains_key(&id) {
        id = id.wrapping_add(1);
    }
    id
}

fn deliver(frame: BytesMut, waiting: &mut HashMap<u16, Job>) {
    let Some(id) = frame.first_chunk::<2>() else { return };
    if let Some(job) = waiting.remove(&u16::from_be_bytes(*id)) {
        let _ = job.reply.send(Ok(frame.freeze()));
    }
}
