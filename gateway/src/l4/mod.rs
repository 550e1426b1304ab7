//! Streams and packets that are not looked into: TCP, TLS passed through or ended, UDP.
//!
//! In: a stream or packets, and the rule that takes them. Out: bytes both ways between client and one endpoint, chosen as for requests.

mod packet;
mod stream;

use std::net::IpAddr;
use std::sync::Arc;

use atoll_api::kinds::BalanceMethod;
pub(crate) use packet::packets;
pub(crate) use stream::stream;
use tokio::time::Instant;

use crate::balance::{Balance, Picked, Wish, draw, pick};
use crate::balancer::Terms;
use crate::choose::{Full, Question, Seat, client_number, place, seat};
use crate::endpoint::{Endpoint, Live, LivePart};
use crate::filter::Permit;
use crate::plane::{Plane, Snapshot};
use crate::table::{ListenerTable, Policy, StreamRule};

/// Whether policies let a client come, and what is held while it is there.
///
/// # Errors
/// Why not.
fn admit(
    plane: &Plane,
    listener: &ListenerTable,
    rule: &StreamRule,
    client: IpAddr,
) -> Result<Vec<Permit>, &'static str> {
    if rule.over.is_some() {
        return Err("the route is over a limit of its namespace");
    }
    if let Some(terms) = &rule.terms {
        terms.admit(client)?;
    }
    let policies = plane.policies.load_full().ok_or("no policies are known yet")?;
    policies.chain(listener, &rule.route, None).map_or_else(|| Ok(Vec::new()), |chain| chain.admit(client))
}

/// Where a client was sent before, if it is to come back there.
fn sent(plane: &Plane, terms: &Terms, client: IpAddr, live: &Live) -> Option<Picked> {
    let ip = plane.affinities.of(&terms.service, client, terms.affinity?, Instant::now())?;
    let place = |part: &LivePart| part.endpoints.iter().position(|e| e.endpoint.address.ip == ip);
    live.parts.iter().enumerate().find_map(|(at, part)| Some((at, place(part)?)))
}

/// Endpoints of a rule for one client: each is tried once, the best first.
struct Endpoints<'a> {
    plane: &'a Plane,
    snapshot: Arc<Snapshot>,
    upstream: usize,
    tiers: crate::choose::Tiers,
    zone: Option<String>,
    method: BalanceMethod,
    key: u64,
    /// Of whom what is remembered, where clients come back to the endpoint that they were sent to; and where that is.
    terms: Option<Arc<Terms>>,
    client: IpAddr,
    session: Option<Picked>,
    /// Bounds the clusters.
    policy: Option<Arc<Policy>>,
    tried: Vec<Picked>,
    /// Clusters that have as much as they may.
    full: Vec<usize>,
}

impl<'a> Endpoints<'a> {
    /// Of a backend drawn by weight; nothing where it is missing. `rule` is of the snapshot's table.
    fn of(plane: &'a Plane, snapshot: Arc<Snapshot>, rule: &StreamRule, client: IpAddr) -> Option<Self> {
        let upstream = *draw(&rule.backends, &plane.dice)?.target.as_ref().ok()?;
        let (standing_at, standing) = plane.clients.standing(client);
        let question = Question {
            table: &snapshot.table,
            upstream: &snapshot.table.upstreams[upstream],
            live: &snapshot.live[upstream],
            host: "",
            standing,
            client: client_number(client),
            dice: plane.dice.roll(),
        };
        let tiers = question.tiers(&plane.health, &snapshot.remembered[upstream], standing_at);
        let zone = place(standing, &snapshot.table.topology).zone;
        let returns = rule.terms.clone().filter(|terms| terms.affinity.is_some());
        let method = match &returns {
            // The same at every replica.
            Some(_) => BalanceMethod::RingHash,
            None => question.policy().map_or_else(BalanceMethod::default, |p| p.balance.method),
        };
        let session = returns.as_ref().and_then(|terms| sent(plane, terms, client, &snapshot.live[upstream]));
        let key = Balance::key_of_client(client);
        let policy = question.policy().cloned();
        let (terms, tried, full) = (returns, Vec::new(), Vec::new());
        Some(Self { plane, snapshot, upstream, policy, tiers, zone, method, key, terms, client, session, tried, full })
    }

    /// The client was sent there.
    fn keep(&self, endpoint: &Endpoint) {
        if let Some(terms) = &self.terms {
            self.plane.affinities.keep(&terms.service, self.client, endpoint.address.ip, Instant::now());
        }
    }

    /// The next endpoint, and what it takes of its cluster's capacity; nothing when all were tried or are full.
    fn next(&mut self) -> Option<(Arc<Endpoint>, Option<Seat>)> {
        let live = &self.snapshot.live[self.upstream];
        loop {
            let (method, zone) = (self.method, self.zone.as_deref());
            let wish = Wish {
                method,
                key: self.key,
                session: self.session,
                zone,
                full: &self.full,
                care: self.policy.as_ref().map(|policy| &*policy.care),
                heeded: self.plane.health.heeds(),
            };
            let at = pick(live, &self.tiers, &wish, &self.tried, &self.plane.dice, Instant::now())?;
            match seat(self.plane, self.policy.as_deref(), live, at.0) {
                Ok(seat) => {
                    self.tried.push(at);
                    return Some((Arc::clone(&crate::balance::endpoint(live, at).endpoint), seat));
                }
                Err(Full) => self.full.push(at.0),
            }
        }
    }
}
