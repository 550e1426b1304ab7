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
use crate::choose::{Question, client_number, place};
use crate::endpoint::Endpoint;
use crate::filter::Permit;
use crate::plane::{Plane, Snapshot};
use crate::table::{ListenerTable, StreamRule};

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
    let policies = plane.policies.load_full().ok_or("no policies are known yet")?;
    policies.chain(listener, &rule.route, None).map_or_else(|| Ok(Vec::new()), |chain| chain.admit(client))
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
    tried: Vec<Picked>,
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
        let method = question.policy().map_or_else(BalanceMethod::default, |p| p.balance.method);
        let key = Balance::key_of_client(client);
        Some(Self { plane, snapshot, upstream, tiers, zone, method, key, tried: Vec::new() })
    }

    /// The next endpoint; nothing when all were tried.
    fn next(&mut self) -> Option<Arc<Endpoint>> {
        let live = &self.snapshot.live[self.upstream];
        let wish = Wish { method: self.method, key: self.key, session: None, zone: self.zone.as_deref() };
        let at = pick(live, &self.tiers, &wish, &self.tried, &self.plane.dice, Instant::now())?;
        self.tried.push(at);
        Some(Arc::clone(&crate::balance::endpoint(live, at).endpoint))
    }
}
