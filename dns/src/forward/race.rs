//! Several servers, one question: the next one is asked when one fails or is slow, the first good reply wins.
//!
//! In: servers, a deadline, what one attempt is (at which server, and whether again). Out: the reply, or the last failure. SERVFAIL, REFUSED, NOTIMP and FORMERR of one server
//! say nothing about the name: the next is asked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hickory_proto::op::{Message, ResponseCode};
use tokio::time::{Instant, sleep_until};

use super::Failed;

/// A server that is silent for so long gets company.
const HEDGE: Duration = Duration::from_millis(400);
/// Attempts for one question.
const ATTEMPTS_MAX: usize = 4;
/// A server that failed is asked last for so long.
const AVOID: Duration = Duration::from_secs(5);
/// Servers remembered.
const REMEMBERED_MAX: usize = 16_384;

/// Which servers failed a moment ago.
#[derive(Debug, Default)]
pub(super) struct Recent {
    failed: Mutex<HashMap<SocketAddr, Instant>>,
}

impl Recent {
    fn order(&self, servers: &[SocketAddr], now: Instant) -> Vec<SocketAddr> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let bad = |s: &SocketAddr| failed.get(s).is_some_and(|at| now.saturating_duration_since(*at) < AVOID);
        let mut ordered = servers.to_vec();
        ordered.sort_by_key(bad);
        ordered
    }

    fn note(&self, server: SocketAddr, ok: bool, now: Instant) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if ok {
            failed.remove(&server);
            return;
        }
        if failed.len() >= REMEMBERED_MAX {
            failed.retain(|_, at| now.saturating_duration_since(*at) < AVOID);
        }
        if failed.len() < REMEMBERED_MAX {
            failed.insert(server, now);
        }
    }
}

/// Asks `servers` by `attempt` until one says yes or no.
pub(super) async fn race<F>(
    servers: &[SocketAddr],
    recent: &Recent,
    deadline: Instant,
    attempt: impl Fn(SocketAddr, bool) -> F,
) -> Result<Message, Failed>
where
    F: Future<Output = Result<Message, Failed>>,
{
    let ordered = recent.order(servers, Instant::now());
    // Each once, then once more by another way: a packet may have been lost, or all of them are.
    let rounds = ordered.iter().map(|s| (*s, false)).chain(ordered.iter().map(|s| (*s, true)));
    let mut plan = rounds.take(ATTEMPTS_MAX);
    let named = |(server, again): (SocketAddr, bool)| {
        let reply = attempt(server, again);
        async move { (server, reply.await.and_then(decided)) }
    };
    let mut running = FuturesUnordered::new();
    let mut hedge_at = Instant::now() + HEDGE;
    let mut left = true;
    running.push(named(plan.next().ok_or(Failed::NoServers)?));
    let mut last = Failed::TimedOut;
    loop {
        tokio::select! {
            Some((server, reply)) = running.next(), if !running.is_empty() => {
                recent.note(server, reply.is_ok(), Instant::now());
                match reply {
                    Ok(reply) => return Ok(reply),
                    Err(failed) => last = failed,
                }
                match plan.next() {
                    Some(next) => running.push(named(next)),
                    None if running.is_empty() => return Err(last),
                    None => left = false,
                }
            }
            () = sleep_until(hedge_at), if left => {
                hedge_at += HEDGE;
                match plan.next() {
                    Some(next) => running.push(named(next)),
                    None => left = false,
                }
            }
            () = sleep_until(deadline) => {
                for server in ordered {
                    recent.note(server, false, Instant::now());
                }
                return Err(if matches!(last, Failed::Code(_)) { last } else { Failed::TimedOut });
            }
        }
    }
}

fn decided(reply: Message) -> Result<Message, Failed> {
    match reply.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(reply),
        code => Err(Failed::Code(code)),
    }
}
