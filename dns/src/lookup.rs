//! Answers of others: from the cache, else asked once for everybody who wants them, else what was answered before.
//!
//! ```text
//!   fresh in cache ─► it
//!   failed a moment ago, or the member is down by our probes ─► stale, else failure, at once
//!   else one flight for each key ─► ask ─► translate ─► cache ─► it;   failed ─► stale, else failure
//! ```
//!
//! In: a member and what it is asked, or a name for the upstreams. Out: [`Outcome`] before the deadline.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::Shared;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, Record};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use crate::cache::{Cache, Cached, Kept, Key};
use crate::forward::{Failed, Forwarder};
use crate::metrics::Metrics;
use crate::table::Member;
use crate::translate::{Asked, Refused, reply};

/// The fingerprint of the upstreams; members have hashes.
const UPSTREAMS: u64 = 0;

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

type Flight = Shared<oneshot::Receiver<Result<Kept, Failed>>>;

/// Looks up.
pub(crate) struct Lookups {
    cache: Cache,
    flights: Arc<Mutex<HashMap<Key, Flight>>>,
    forwarder: Arc<Forwarder>,
    metrics: Metrics,
    tasks: TaskTracker,
}

impl Lookups {
    pub(crate) fn new(forwarder: Arc<Forwarder>, metrics: Metrics, tasks: TaskTracker) -> Self {
        Self { cache: Cache::new(), flights: Arc::default(), forwarder, metrics, tasks }
    }

    /// Whom it asks.
    pub(crate) fn forwarder(&self) -> &Arc<Forwarder> {
        &self.forwarder
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
        deadline: Instant,
    ) -> Outcome {
        let key = Key { whose: member.fingerprint, name: name.clone(), kind: asked.qtype, dnssec: false };
        let (forwarder, metrics, member) = (Arc::clone(&self.forwarder), self.metrics.clone(), Arc::clone(member));
        // Boxed: it is handed on a few times before it runs.
        let ask = Box::pin(async move {
            let question = Query::query(asked.native.clone(), asked.qtype);
            let message = forwarder.member(&member, &question, asked.trail, deadline).await?;
            translated(&member, &asked, &message, soa, &metrics)
        });
        let down = down.then(|| Failed::Network("it does not answer our probes".to_owned()));
        self.look_up(key, down, deadline, ask).await
    }

    /// What the upstreams answer.
    pub(crate) async fn outside(&self, asked: Asked, dnssec: bool, deadline: Instant) -> Outcome {
        let Asked { native: name, qtype: kind, trail } = asked;
        let key = Key { whose: UPSTREAMS, name: name.clone(), kind, dnssec };
        let (forwarder, question) = (Arc::clone(&self.forwarder), Query::query(name, kind));
        let ask = Box::pin(async move { Ok(as_said(forwarder.upstream(&question, dnssec, trail, deadline).await?)) });
        self.look_up(key, None, deadline, ask).await
    }

    async fn look_up(
        &self,
        key: Key,
        down: Option<Failed>,
        deadline: Instant,
        ask: impl Future<Output = Result<Kept, Failed>> + Send + 'static,
    ) -> Outcome {
        let now = Instant::now();
        let stale = match self.cache.get(&key, now) {
            Cached::Fresh(kept) => {
                self.metrics.cache("hit");
                return Outcome::Fresh(kept);
            }
            // That a name was not there says nothing once nobody can tell: only what was there is given stale.
            Cached::Stale(kept) if !kept.nxdomain && !kept.answers.is_empty() => Some(kept),
            Cached::Stale(_) | Cached::None => None,
        };
        let failed = match self.cache.failed(&key, now).or(down) {
            Some(failed) => failed,
            None => match self.fly(&key, deadline, ask).await {
                Ok(kept) => return Outcome::Fresh(kept),
                Err(failed) => failed,
            },
        };
        self.metrics.cache(if stale.is_some() { "stale" } else { "failed" });
        match stale {
            Some(kept) => Outcome::Stale(kept, failed),
            None => Outcome::Failed(failed),
        }
    }

    async fn fly(
        &self,
        key: &Key,
        deadline: Instant,
        ask: impl Future<Output = Result<Kept, Failed>> + Send + 'static,
    ) -> Result<Kept, Failed> {
        let flight = self.board(key, deadline, ask);
        match timeout_at(deadline, flight).await {
            Ok(Ok(landed)) => landed,
            Ok(Err(_)) => Err(Failed::Network("the question was given up".to_owned())),
            Err(_) => Err(Failed::TimedOut),
        }
    }

    /// The flight for `key`: the one that is under way, else a new one. As many as the forwarder has slots do something.
    fn board(
        &self,
        key: &Key,
        deadline: Instant,
        ask: impl Future<Output = Result<Kept, Failed>> + Send + 'static,
    ) -> Flight {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key) {
            self.metrics.cache("shared");
            return flight.clone();
        }
        self.metrics.cache("miss");
        let (landed, flight) = oneshot::channel();
        let flight = flight.shared();
        flights.insert(key.clone(), flight.clone());
        drop(flights);
        let (flights, cache, key) = (Arc::clone(&self.flights), self.cache.clone(), key.clone());
        self.tasks.spawn(async move {
            let result = timeout_at(deadline, ask).await.unwrap_or(Err(Failed::TimedOut));
            let now = Instant::now();
            match &result {
                Ok(kept) => cache.put(key.clone(), kept.clone(), now),
                // A full budget says nothing about the name.
                Err(Failed::Busy) => {}
                Err(failed) => cache.fail(key.clone(), failed.clone(), now),
            }
            flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            // Everybody who waited may have gone.
            let _ = landed.send(result);
        });
        flight
    }
}

/// A member's reply in our names.
fn translated(
    member: &Member,
    asked: &Asked,
    message: &Message,
    soa: Record,
    metrics: &Metrics,
) -> Result<Kept, Failed> {
    let said = reply(&member.rename, asked, message);
    let said = said.inspect_err(|refused| metrics.refused(member.name.as_str(), refused.word()));
    let said = said.map_err(|refused| Failed::Unusable(format!("its answer can't be passed on: {refused}")))?;
    for refused in &said.refused {
        metrics.refused(member.name.as_str(), refused.word());
    }
    let complete = said.answers.iter().any(|r| r.record_type() == asked.qtype) || said.next.is_some();
    let authorities = if complete { Vec::new() } else { vec![said.soa.unwrap_or(soa)] };
    let (answers, additionals, next) = (said.answers, said.additionals, said.next);
    Ok(Kept { nxdomain: said.nxdomain, answers, authorities, additionals, next })
}

/// An upstream's reply as it is.
fn as_said(message: Message) -> Kept {
    let nxdomain = message.metadata.response_code == ResponseCode::NXDomain;
    let Message { answers, authorities, additionals, .. } = message;
    Kept { nxdomain, answers, authorities, additionals, next: None }
}
