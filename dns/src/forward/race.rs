//! Several servers, one question: the next one is asked when one fails or is slow, the first good reply wins.
//!
//! In: servers, a deadline, what one attempt is (at which server, and whether again). Out: the reply, or the last failure. SERVFAIL,
//! REFUSED, NOTIMP and FORMERR of one server say nothing about the name: the next is asked. That a name is not there is no last word of a server
//! that has not read its names yet.

use std::iter::Peekable;
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
    let mut race = Race::new(party, servers);
    let named = |(server, again): Runner| {
        let (start, reply) = (Instant::now(), attempt(server, again));
        async move { (server, start, reply.await.and_then(decided)) }
    };
    let mut running = FuturesUnordered::new();
    let Some(first) = race.next() else { return (Err(Failed::NoServers), 0) };
    running.push(named(first));
    race.set_clock(first.0, Instant::now());
    // One timer for both: most questions are answered before it is ever set again.
    let mut timer = pin!(sleep_until(race.next_at.min(deadline)));
    let ended = loop {
        tokio::select! {
            biased;
            Some((server, start, reply)) = running.next(), if !running.is_empty() => {
                if let Some(ended) = race.replied((server, start), reply, Instant::now()) {
                    break ended;
                }
                match race.next() {
                    Some(next) => running.push(named(next)),
                    None if running.is_empty() => break race.lost(),
                    None => {}
                }
            }
            () = &mut timer => {
                let now = Instant::now();
                if now >= deadline {
                    break race.late(now);
                }
                running.extend(race.second(now).map(&named));
                timer.as_mut().reset(race.next_at.min(deadline));
            }
        }
    };
    (ended, race.hedges)
}

/// A server, and whether it is asked again.
type Runner = (SocketAddr, bool);

/// What is known while a question runs.
struct Race<'p> {
    party: &'p Party,
    servers: &'p [SocketAddr],
    plan: Peekable<std::vec::IntoIter<Runner>>,
    asked: Vec<SocketAddr>,
    /// That there is nothing, by a server that may not have read its names yet.
    fallback: Option<Message>,
    last: Failed,
    begun: Instant,
    next_at: Instant,
    hedges: u64,
}

impl<'p> Race<'p> {
    fn new(party: &'p Party, servers: &'p [SocketAddr]) -> Self {
        // Each once, then once more by another way: a packet may have been lost, or all of them are.
        let rounds = [false, true].into_iter().flat_map(|again| servers.iter().map(move |server| (*server, again)));
        let plan: Vec<Runner> = rounds.take(ATTEMPTS_MAX).collect();
        let (asked, plan) = (Vec::with_capacity(plan.len()), plan.into_iter().peekable());
        let (fallback, last, begun) = (None, Failed::TimedOut, Instant::now());
        Self { party, servers, plan, asked, fallback, last, begun, next_at: begun, hedges: 0 }
    }

    /// Who is asked next.
    fn next(&mut self) -> Option<Runner> {
        let next = self.plan.next()?;
        self.asked.push(next.0);
        Some(next)
    }

    /// When the second one is asked, if `first` says nothing.
    fn set_clock(&mut self, first: SocketAddr, now: Instant) {
        let early = early(self.party, first, self.plan.peek());
        (self.begun, self.next_at) = (now, now + early.unwrap_or(RETRY));
    }

    /// What one attempt came to; the end, where it is one.
    fn replied(
        &mut self,
        (server, start): (SocketAddr, Instant),
        reply: Result<Message, Failed>,
        now: Instant,
    ) -> Option<Result<Message, Failed>> {
        if let Err(Failed::Exhausted) = reply {
            // That is nobody's fault, and nobody else can be asked.
            return Some(self.failed(Failed::Exhausted));
        }
        let took = reply.is_ok().then(|| now.saturating_duration_since(start));
        self.party.note(server, took, now);
        match reply {
            Ok(reply) if is_no(&reply) && self.party.is_unsure(server, self.servers) => self.fallback = Some(reply),
            Ok(reply) => return Some(Ok(reply)),
            Err(failed) => self.last = failed,
        }
        None
    }

    /// The one that is asked because the others say nothing.
    fn second(&mut self, now: Instant) -> Option<Runner> {
        if self.plan.peek().is_some()
            && let Some(later) = self.party.second_at(self.begun, now)
        {
            self.next_at = later;
            return None;
        }
        self.next_at = now + RETRY;
        let next = self.next()?;
        self.hedges += 1;
        Some(next)
    }

    /// Nobody is left to be asked.
    fn lost(&mut self) -> Result<Message, Failed> {
        self.fallback.take().ok_or_else(|| self.last.clone())
    }

    /// Time is over: only those that had the question are to blame.
    fn late(&mut self, now: Instant) -> Result<Message, Failed> {
        for server in &self.asked {
            self.party.note(*server, None, now);
        }
        self.failed(Failed::TimedOut)
    }

    /// What a server said of itself says more than `failed`.
    fn failed(&mut self, failed: Failed) -> Result<Message, Failed> {
        let failed = if matches!(self.last, Failed::Code(_)) { self.last.clone() } else { failed };
        self.fallback.take().ok_or(failed)
    }
}

/// How soon `next` is asked beside `first`; `None` where it is the same server by another way, or nothing is known yet.
fn early(party: &Party, first: SocketAddr, next: Option<&Runner>) -> Option<std::time::Duration> {
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
