//! Questions by TCP: one pipelined connection for each server, opened when needed, closed when idle or silent (RFC 7766).
//!
//! In: a way to dial and a query. Out: the reply that answers it, in whatever order replies come. A connection that a question finds
//! closed is opened anew once. Never gives up by itself: the caller has the deadline.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use atoll_reach::BoxStream;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use hickory_proto::op::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Failed, answers};

/// Questions that wait to be written to one connection.
const QUEUE_MAX: usize = 64;
/// Questions in flight on one connection.
const IN_FLIGHT_MAX: usize = 512;
/// A connection without questions ends.
const IDLE: Duration = Duration::from_secs(10);
/// A connection that owes an answer and says nothing at all for so long is taken for dead.
const SILENT: Duration = Duration::from_millis(1500);
/// One write.
const WRITE_MAX: Duration = Duration::from_secs(2);

/// DNS messages on a stream: two octets of length before each (RFC 1035 §4.2.2).
fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().length_field_length(2).max_frame_length(usize::from(u16::MAX)).new_codec()
}

struct Job {
    octets: Vec<u8>,
    reply: oneshot::Sender<Bytes>,
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

    /// Asks `server`; `dial` opens a connection to it.
    pub(super) async fn exchange<F>(
        &self,
        member: &str,
        server: SocketAddr,
        query: Message,
        dial: impl Fn() -> F,
    ) -> Result<Message, Failed>
    where
        F: Future<Output = io::Result<BoxStream>>,
    {
        let key = (member.to_owned(), server);
        let octets = query.to_vec().map_err(|e| Failed::Network(e.to_string()))?;
        let known = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(sender) = known.filter(|s| !s.is_closed())
            && let Some(reply) = ask(&sender, octets.clone()).await
        {
            return check(&query, &reply);
        }
        let failed = |why: String| Failed::Network(format!("{server} by TCP: {why}"));
        let stream = dial().await.map_err(|e| failed(e.to_string()))?;
        let (sender, jobs) = mpsc::channel(QUEUE_MAX);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(key, sender.clone());
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move { shutdown.run_until_cancelled(drive(stream, jobs)).await });
        match ask(&sender, octets).await {
            Some(reply) => check(&query, &reply),
            None => Err(failed("the connection ended".to_owned())),
        }
    }
}

async fn ask(sender: &mpsc::Sender<Job>, octets: Vec<u8>) -> Option<Bytes> {
    let (reply, answered) = oneshot::channel();
    sender.send(Job { octets, reply }).await.ok()?;
    answered.await.ok()
}

fn check(query: &Message, octets: &[u8]) -> Result<Message, Failed> {
    let reply = Message::from_vec(octets).map_err(|e| Failed::Network(format!("not a DNS message: {e}")))?;
    // The connection gave the message an id of its own.
    let mut own = query.clone();
    own.metadata.id = reply.metadata.id;
    if answers(&own, &reply) { Ok(reply) } else { Err(Failed::Network("the reply is to another question".to_owned())) }
}

/// Runs one connection until it is idle, silent or broken.
async fn drive(stream: BoxStream, mut jobs: mpsc::Receiver<Job>) {
    let mut framed = Framed::new(stream, codec());
    let mut waiting: HashMap<u16, oneshot::Sender<Bytes>> = HashMap::new();
    let mut next: u16 = rand::random();
    let mut heard = Instant::now();
    loop {
        let patience = if waiting.is_empty() { IDLE } else { SILENT };
        tokio::select! {
            job = jobs.recv(), if waiting.len() < IN_FLIGHT_MAX => {
                let Some(Job { mut octets, reply }) = job else { return };
                if waiting.is_empty() {
                    heard = Instant::now();
                }
                while waiting.contains_key(&next) {
                    next = next.wrapping_add(1);
                }
                if let Some(id) = octets.get_mut(..2) {
                    id.copy_from_slice(&next.to_be_bytes());
                }
                waiting.insert(next, reply);
                next = next.wrapping_add(1);
                match timeout(WRITE_MAX, framed.send(Bytes::from(octets))).await {
                    Ok(Ok(())) => {}
                    _ => return,
                }
            }
            frame = framed.next() => {
                let Some(Ok(frame)) = frame else { return };
                heard = Instant::now();
                deliver(frame, &mut waiting);
            }
            () = sleep_until(heard + patience) => return,
        }
    }
}

fn deliver(frame: BytesMut, waiting: &mut HashMap<u16, oneshot::Sender<Bytes>>) {
    let Some(id) = frame.first_chunk::<2>() else { return };
    if let Some(reply) = waiting.remove(&u16::from_be_bytes(*id)) {
        // Who asked may have given up meanwhile.
        let _ = reply.send(frame.freeze());
    }
}
