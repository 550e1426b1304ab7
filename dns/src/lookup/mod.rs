//! Answers of others: from the cache, else asked once for everybody who wants them, else what was answered before.
//!
//! ```text
//!   fresh in cache ─► it (in the last tenth of its time one caller also renews it)
//!   below a name that the member says does not exist ─► neither does it (RFC 8020), where the member is seen to know the difference
//!   failed a moment ago, or the member is down by our probes, or failed the last time and is stale ─► stale, else failure, at once
//!   too many names that do not exist ─► failure
//!   else one flight for each key ─► ask ─► translate ─► cache ─► it;   failed ─► stale, else failure
//! ```
//!
//! In: a member and what it is asked, or a name for the upstreams; what the query may still cost. Out: [`Looked`] before the deadline.

mod above;
mod flights;
mod limiter;
mod straight;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, Record, RecordType};
use prometheus::IntCounter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::budget::Budget;
use crate::cache::{Bits, Cache, Cached, Failures, HELD_MAX, Kept, Key};
use crate::config::Caching;
use crate::forward::{Failed, Forwarder, Trail};
use crate::metrics::Metrics;
use crate::outside;
use crate::table::Member;
use crate::translate::{Asked, Refused, reply};
use flights::Flights;
use limiter::Limiter;
pub(crate) use straight::{Departure, Landed};

/// The fingerprints of the upstreams and of the federation's DNS servers; members have hashes.
const UPSTREAMS: u64 = 0;
const FEDERATION: u64 = 1;
/// Answers that are renewed early, and names above others that are asked for, at once.
const AHEAD_MAX: usize = 64;
/// So long at most a member's failure to answer is held against a name: our probes say within that time whether it is back.
const SILENCE_HELD_MAX: Duration = Duration::from_secs(5);
/// So long at most a member's refusal is: it has to learn its names after a start.
const REFUSAL_HELD_MAX: Duration = Duration::from_secs(30);

/// What became of a look-up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// An answer that holds.
    Fresh(Kept),
    /// What was answered before, and why there is nothing newer.
    Stale(Kept, Failed),
    /// Nothing, and why.
    Failed(Failed),
}

/// What became of it, and by which way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Looked {
    pub(crate) outcome: Outcome,
    /// The cache's part in it, a word of its metric.
    pub(crate) cache: &'static str,
}

/// Who asks, and what the query may still cost.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    pub(crate) budget: Budget,
    /// The asker's neighbourhood.
    pub(crate) client: u64,
    /// What the query came with.
    pub(crate) trail: Option<Trail>,
}

/// What is looked up where.
struct Question {
    whose: u64,
    name: Name,
    kind: RecordType,
    bits: Bits,
}

impl Question {
    fn key(&self) -> Key {
        Key::new(self.whose, &self.name, self.kind, self.bits)
    }
}

/// Looks up.
pub(crate) struct Lookups {
    cache: Cache,
    failures: Failures,
    flights: Flights,
    limiter: Arc<Limiter>,
    forwarder: Arc<Forwarder>,
    metrics: Metrics,
    /// Look-ups that asked.
    misses: IntCounter,
    ahead: Arc<Semaphore>,
}

impl Lookups {
    pub(crate) fn new(
        caching: &Caching,
        forwarder: Arc<Forwarder>,
        metrics: Metrics,
        (tasks, shutdown): (TaskTracker, CancellationToken),
    ) -> Self {
        Self {
            cache: Cache::new(caching.bytes_max, caching.stale_max),
            failures: Failures::new(),
            flights: Flights::new(tasks, shutdown),
            limiter: Arc::new(Limiter::new(Instant::now())),
            forwarder,
            misses: metrics.caches("miss"),
            metrics,
            ahead: Arc::new(Semaphore::new(AHEAD_MAX)),
        }
    }

    /// Whom it asks.
    pub(crate) fn forwarder(&self) -> &Arc<Forwarder> {
        &self.forwarder
    }

    /// Whether anything is kept of a member's name, be it over; as [`Cache::knows`] takes it.
    pub(crate) fn knows(&self, whose: u64, name: &[u8], kind: u16) -> bool {
        self.cache.knows(whose, name, kind)
    }

    /// Keeps an answer as if it had been asked for.
    #[cfg(test)]
    pub(crate) fn put(&self, whose: u64, name: &Name, kind: RecordType, bits: Bits, kept: &Kept) {
        self.cache.put(whose, name, kind, bits, kept, Instant::now());
    }

    /// Counts what could not be asked of a member.
    pub(crate) fn refused(&self, member: &Member, refused: Refused) {
        self.metrics.refused(member.name.as_str(), refused.word());
    }

    /// What a member answers for `name`, which it calls `asked`. `soa` is for negative answers that bring none.
    pub(crate) async fn below(
        &self,
        member: &Arc<Member>,
        name: &Name,
        asked: Asked,
        soa: Record,
        down: bool,
        asking: &Asking,
    ) -> Looked {
        let question =
            Question { whose: member.fingerprint, name: name.clone(), kind: asked.qtype, bits: Bits::default() };
        let above = member.above(&asked.native);
        if let Some(kept) = self.absent_above(member, &above) {
            return self.looked("above", Outcome::Fresh(kept));
        }
        let ask = self.asked_of(member, asked, soa.clone(), asking.budget.clone());
        let shut = |now| if down { Some(Failed::unprobed()) } else { self.forwarder.shut(Some(member), now) };
        let looked = self.look_up(question, shut, asking, ask).await;
        if looked.cache == "miss" && matches!(&looked.outcome, Outcome::Fresh(kept) if kept.nxdomain) {
            self.learn_above(member, above.first(), soa);
        }
        looked
    }

    /// What the upstreams answer.
    pub(crate) async fn outside(&self, name: &Name, kind: RecordType, bits: Bits, asking: &Asking) -> Looked {
        let question = Question { whose: UPSTREAMS, name: name.clone(), kind, bits };
        let (forwarder, budget, metrics) = (Arc::clone(&self.forwarder), asking.budget.clone(), self.metrics.clone());
        let (name, asked, trail) = (name.clone(), Query::query(name.clone(), kind), asking.trail);
        // Boxed: it is handed on a few times before it runs.
        let ask = Box::pin(async move {
            let message = forwarder.upstream(&asked, bits, trail, &budget).await?;
            let scrubbed = outside::scrub(&name, kind, bits.dnssec, message);
            let (kept, dropped) = scrubbed.map_err(|why| Failed::Unusable(why.to_owned()))?;
            (0..dropped).for_each(|_| metrics.refused("(upstream)", "bailiwick"));
            Ok(kept)
        });
        self.look_up(question, |now| self.forwarder.shut(None, now), asking, ask).await
    }

    /// What the federation's DNS servers answer.
    pub(crate) async fn federation(
        &self,
        servers: Vec<SocketAddr>,
        name: &Name,
        kind: RecordType,
        bits: Bits,
        asking: &Asking,
    ) -> Looked {
        let question = Question { whose: FEDERATION, name: name.clone(), kind, bits };
        let (forwarder, budget) = (Arc::clone(&self.forwarder), asking.budget.clone());
        let (name, asked, trail) = (name.clone(), Query::query(name.clone(), kind), asking.trail);
        let ask = Box::pin(async move {
            let message = forwarder.federation(&servers, &asked, bits, trail, &budget).await?;
            let scrubbed = outside::scrub(&name, kind, bits.dnssec, message);
            scrubbed.map(|(kept, _)| kept).map_err(|why| Failed::Unusable(why.to_owned()))
        });
        self.look_up(question, |_| None, asking, ask).await
    }

    fn asked_of(
        &self,
        member: &Arc<Member>,
        asked: Asked,
        soa: Record,
        budget: Budget,
    ) -> impl Future<Output = Result<Kept, Failed>> + Send + use<> {
        let (forwarder, metrics, member) = (Arc::clone(&self.forwarder), self.metrics.clone(), Arc::clone(member));
        Box::pin(async move {
            let question = Query::query(asked.native.clone(), asked.qtype);
            let message = forwarder.member(&member, &question, asked.trail, &budget).await?;
            translated(&member, &asked, &message, || soa, &metrics)
        })
    }

    async fn look_up(
        &self,
        question: Question,
        shut: impl FnOnce(Instant) -> Option<Failed>,
        asking: &Asking,
        ask: impl Future<Output = Result<Kept, Failed>> + Send + 'static,
    ) -> Looked {
        let (key, now) = (question.key(), Instant::now());
        let cached = self.cache.get(question.whose, &question.name, question.kind, question.bits, now);
        let stale = match cached {
            Cached::Fresh(kept) => return self.looked("hit", Outcome::Fresh(kept)),
            Cached::Ending(kept) => {
                self.renew(&question, shut(now).is_some(), asking, ask);
                return self.looked("hit", Outcome::Fresh(kept));
            }
            Cached::Stale(kept) if question.whose == UPSTREAMS || may_be_stale(&kept) => Some(kept),
            Cached::Stale(_) | Cached::None => None,
        };
        if let Some(failed) = self.failures.of(&key, now).or_else(|| shut(now)) {
            return self.failed(stale, failed);
        }
        // RFC 8767 §5: who failed the last time is asked again, but not waited for while there is something to give.
        if let (Some(kept), Some(failed)) = (&stale, self.failures.last(&key)) {
            self.renew(&question, false, asking, ask);
            return self.looked("stale", Outcome::Stale(kept.clone(), failed));
        }
        if !self.limiter.allows(question.whose, asking.client, now) {
            return self.failed(stale, Failed::Flooded);
        }
        if let Some(landing) = self.flights.landing(&key) {
            // Told or not, it is over.
            let _ = timeout_at(asking.budget.deadline, landing).await;
            let now = Instant::now();
            let cached = self.cache.get(question.whose, &question.name, question.kind, question.bits, now);
            if let Cached::Fresh(kept) | Cached::Ending(kept) = cached {
                return self.looked("shared", Outcome::Fresh(kept));
            }
        }
        let (flight, new) = self.board(&question, asking, None, ask);
        // Our own ends by our own deadline; another's may be later.
        let landed = if new { Ok(flight.await) } else { timeout_at(asking.budget.deadline, flight).await };
        match landed {
            Ok(Ok(kept)) => self.looked(if new { "miss" } else { "shared" }, Outcome::Fresh(Kept::clone(&kept))),
            Ok(Err(failed)) => self.failed(stale, failed),
            Err(_) => self.failed(stale, Failed::TimedOut),
        }
    }

    fn failed(&self, stale: Option<Kept>, failed: Failed) -> Looked {
        match stale {
            Some(kept) => self.looked("stale", Outcome::Stale(kept, failed)),
            None => self.looked("failed", Outcome::Failed(failed)),
        }
    }

    fn looked(&self, cache: &'static str, outcome: Outcome) -> Looked {
        self.metrics.cache(cache);
        Looked { outcome, cache }
    }

    /// Asks ahead of need, as far as there is room for it.
    fn renew(
        &self,
        question: &Question,
        down: bool,
        asking: &Asking,
        ask: impl Future<Output = Result<Kept, Failed>> + Send + 'static,
    ) {
        if let Some(permit) = Arc::clone(&self.ahead).try_acquire_owned().ok().filter(|_| !down) {
            self.metrics.cache("renewed");
            self.ahead(question, asking, permit, ask);
        }
    }

    /// Asks, and nobody waits for it.
    fn ahead(
        &self,
        question: &Question,
        asking: &Asking,
        permit: OwnedSemaphorePermit,
        ask: impl Future<Output = Result<Kept, Failed>> + Send + 'static,
    ) {
        let (flight, new) = self.board(question, asking, Some(permit), ask);
        if new {
            self.flights.launch(flight);
        }
    }

    /// The flight that asks, and whether it is new. What lands is kept, or held against the key.
    fn board(
        &self,
        question: &Question,
        asking: &Asking,
        permit: Option<OwnedSemaphorePermit>,
        ask: impl Future<Output = Result<Kept, Failed>> + Send + 'static,
    ) -> (flights::Flight, bool) {
        let (cache, failures, limiter) = (self.cache.clone(), self.failures.clone(), Arc::clone(&self.limiter));
        let Question { whose, name, kind, bits } = question;
        let (whose, name, kind, bits, client) = (*whose, name.clone(), *kind, *bits, asking.client);
        let key = question.key();
        let fly = async move {
            // The forwarder ends by the budget's deadline.
            let result = ask.await.map(Kept::settled);
            let now = Instant::now();
            match &result {
                Ok(kept) => {
                    cache.put(whose, &name, kind, bits, kept, now);
                    failures.clear(&Key::new(whose, &name, kind, bits));
                    if kept.nxdomain {
                        limiter.absent(whose, client, now);
                    }
                }
                // What is used up on our side says nothing about the name.
                Err(Failed::Busy | Failed::Flooded | Failed::Exhausted) => {}
                Err(failed) => {
                    failures.note(Key::new(whose, &name, kind, bits), failed.clone(), held_max(whose, failed), now);
                }
            }
            drop(permit);
            result.map(Arc::new)
        };
        self.flights.board(&key, fly)
    }
}

/// Whether an answer of a member's may be given when it is over: that a name was not there says nothing once nobody can tell.
fn may_be_stale(kept: &Kept) -> bool {
    !kept.nxdomain && !kept.answers.is_empty()
}

/// How long a failure may be held against a key at most.
fn held_max(whose: u64, failed: &Failed) -> Duration {
    match failed {
        _ if whose == UPSTREAMS => HELD_MAX,
        Failed::TimedOut | Failed::Network(_) | Failed::NoServers | Failed::Loop(_) => SILENCE_HELD_MAX,
        _ => REFUSAL_HELD_MAX,
    }
}

/// A member's reply in our names.
pub(crate) fn translated(
    member: &Member,
    asked: &Asked,
    message: &Message,
    soa: impl FnOnce() -> Record,
    metrics: &Metrics,
) -> Result<Kept, Failed> {
    let said = reply(&member.rename, asked, message);
    let said = said.inspect_err(|refused| metrics.refused(member.name.as_str(), refused.word()));
    let said = said.map_err(|refused| Failed::Unusable(format!("its answer can't be passed on: {refused}")))?;
    for refused in &said.refused {
        metrics.refused(member.name.as_str(), refused.word());
    }
    let complete = said.answers.iter().any(|r| r.record_type() == asked.qtype) || said.next.is_some();
    let authorities = if complete { Vec::new() } else { vec![said.soa.unwrap_or_else(soa)] };
    let (answers, additionals, next) = (said.answers, said.additionals, said.next);
    Ok(Kept { nxdomain: said.nxdomain, secure: false, answers, authorities, additionals, next, spent_ms: 0 })
}
