//! Several servers, one question: the next one is asked when one fails or is slow, the first good reply wins.
//!
//! In: servers, a deadline, what one attempt is (at which server, and whether again). Out: the reply, or the last failure. SERVFAIL,
//! REFUSED, NOTIMP and FORMERR of one server say nothing about the name: the next is asked. That a name is not there is no last word of a server
//! that has not read its names yet.

use std::net::SocketAddr;
use std::pin::pin;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hickory_proto::op::{Message, ResponseCode};
use tokio::time::{Instant, sleep_until};

use super::Failed;
use super::party::{Party, RETRY};

/// Attempts for one question.
const ATTEMPTS_MAX: usize = 4;

/// Asks `servers`, the first ones first, by `attempt` until one says yes or no. The second value says how many were second questions.
pub(super) async fn race<F>(
    party: &Party,
    servers: &[SocketAddr],
    deadline: Instant,
    attempt: impl Fn(SocketAddr, bool) -> F,
) -> (Result<Message, Failed>, u64)
where
    F: Future<Output = Result<Message, Failed>>,
{
    // Each once, then once more by another way: a packet may have been lost, or all of them are.
    let rounds = [false, true].into_iter().flat_map(|again| servers.iter().map(move |server| (*server, again)));
    let plan: Vec<(SocketAddr, bool)> = rounds.take(ATTEMPTS_MAX).collect();
    let mut plan = plan.into_iter().peekable();
    let named = |(server, again): (SocketAddr, bool)| {
        let (start, reply) = (Instant::now(), attempt(server, again));
        async move { (server, start, reply.await.and_then(decided)) }
    };
    let mut running = FuturesUnordered::new();
    let Some(first) = plan.next() else { return (Err(Failed::NoServers), 0) };
    let mut asked = vec![first.0];
    running.push(named(first));
    let mut last = Failed::TimedOut;
    let mut fallback = None;
    let mut hedges = 0;
    let mut early = early(party, first.0, plan.peek());
    let begun = Instant::now();
    let mut next_at = begun + early.unwrap_or(RETRY);
    // One timer for both: most questions are answered before it is ever set again.
    let mut timer = pin!(sleep_until(next_at.min(deadline)));
    loop {
        tokio::select! {
            biased;
            Some((server, start, reply)) = running.next(), if !running.is_empty() => {
                if let Err(Failed::Exhausted) = reply {
                    // That is nobody's fault, and nobody else can be asked.
                    let failed = if matches!(last, Failed::Code(_)) { last } else { Failed::Exhausted };
                    return (fallback.ok_or(failed), hedges);
                }
                let now = Instant::now();
                let took = reply.is_ok().then(|| now.saturating_duration_since(start));
                party.note(server, took, now);
                match reply {
                    Ok(reply) if is_no(&reply) && party.is_unsure(server, servers) => fallback = Some(reply),
                    Ok(reply) => return (Ok(reply), hedges),
                    Err(failed) => last = failed,
                }
                match plan.next() {
                    Some(next) => {
                        asked.push(next.0);
                        running.push(named(next));
                    }
                    None if running.is_empty() => return (fallback.ok_or(last), hedges),
                    None => {}
                }
            }
            () = &mut timer => {
                let now = Instant::now();
                if now >= deadline {
                    // Only those that had the question are to blame.
                    for server in asked {
                        party.note(server, None, now);
                    }
                    let failed = if matches!(last, Failed::Code(_)) { last } else { Failed::TimedOut };
                    return (fallback.ok_or(failed), hedges);
                }
                // A second question before the time at which a packet counts as lost is a hedge, and those are few.
                let many = plan.peek().is_some() && early.take().is_some() && !party.spend_hedge();
                next_at = if many { begun + RETRY } else { now + RETRY };
                if let Some(next) = plan.next_if(|_| !many) {
                    hedges += 1;
                    asked.push(next.0);
                    running.push(named(next));
                }
                timer.as_mut().reset(next_at.min(deadline));
            }
        }
    }
}

/// How soon `next` is asked beside `first`; `None` where it is the same server by another way, or nothing is known yet.
fn early(party: &Party, first: SocketAddr, next: Option<&(SocketAddr, bool)>) -> Option<std::time::Duration> {
    next.filter(|(server, again)| !again && *server != first).and_then(|_| party.hedge(first))
}

/// Whether it says that there is nothing.
fn is_no(reply: &Message) -> bool {
    reply.metadata.response_code == ResponseCode::NXDomain || reply.answers.is_empty()
}

fn decided(reply: Message) -> Result<Message, Failed> {
    match reply.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(reply),
        code => Err(Failed::Code(code)),
    }
}
