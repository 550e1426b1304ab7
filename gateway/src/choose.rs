//! Which clusters serve a request, in which order: `api::routing` asked with what the gateway knows, and remembered while nothing changes.
//!
//! In: an upstream, who asks, the policy, health. Out: tiers of the upstream's clusters, by index. Never crosses a cluster set.

mod rooms;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use atoll_api::routing::{Asker, Candidate, Chain, Choice, choose};
use atoll_api::topology::{Standing, Topology};
use ipnet::IpNet;
use rooms::Room;
pub(crate) use rooms::{Capacity, Rooms, Seat};
use tokio::time::Instant;

use crate::endpoint::{Live, LivePart};
use crate::health::Health;
use crate::plane::Plane;
use crate::table::{Policy, Table, Upstream, UpstreamId, believes};

/// Choices remembered of one upstream.
const REMEMBERED_MAX: usize = 64;

/// Where clients stand.
#[derive(Debug, Clone)]
pub(crate) struct Clients {
    own: Standing,
    /// The longest range first.
    ranges: Vec<(IpNet, Standing)>,
}

impl Clients {
    pub(crate) fn new(own: Standing, mut ranges: Vec<(IpNet, Standing)>) -> Self {
        ranges.sort_by_key(|(range, _)| std::cmp::Reverse(range.prefix_len()));
        Self { own, ranges }
    }

    /// Where a client stands, and a number for that place.
    pub(crate) fn standing(&self, client: IpAddr) -> (usize, &Standing) {
        let client = client.to_canonical();
        let known = || self.ranges.iter().position(|(range, _)| range.contains(&client));
        match if client.is_loopback() { None } else { known() } {
            Some(at) => (at + 1, &self.ranges[at].1),
            None => (0, &self.own),
        }
    }

    /// The standing of somebody in `region`; absent: where the gateway stands.
    pub(crate) fn standing_in(&self, region: Option<&str>) -> Standing {
        match region {
            Some(region) => Standing { region: Some(region.to_owned()), ..Standing::default() },
            None => self.own.clone(),
        }
    }
}

/// Tiers of an upstream's clusters, best first.
pub(crate) type Tiers = Arc<Vec<Vec<usize>>>;

/// Choices of one upstream that hold as long as nothing changes. Read without a lock.
#[derive(Default)]
pub(crate) struct Remembered {
    choices: ArcSwap<(u64, Vec<(Key, Tiers)>)>,
}

#[derive(Clone, PartialEq, Eq)]
struct Key {
    place: usize,
    /// Which policy of the host there is, by its address.
    policy: usize,
}

/// Who asks, for what.
pub(crate) struct Question<'a> {
    pub(crate) table: &'a Table,
    pub(crate) upstream: &'a Upstream,
    pub(crate) live: &'a Live,
    pub(crate) host: &'a str,
    pub(crate) standing: &'a Standing,
    /// The client's number: the same for the same client.
    pub(crate) client: u64,
    /// New for every question.
    pub(crate) dice: u64,
}

impl Question<'_> {
    /// The policy: of the service, else of the host.
    pub(crate) fn policy(&self) -> Option<&Arc<Policy>> {
        self.upstream.policy.as_ref().or_else(|| self.table.host_policies.get(self.host))
    }

    /// Tiers, remembered under `place` where they depend on nothing else.
    pub(crate) fn tiers(&self, health: &Health, remembered: &Remembered, place: usize) -> Tiers {
        let policy = self.policy();
        if policy.is_some_and(|p| p.chain.keyed()) {
            return Arc::new(self.choice(health).tiers);
        }
        let key = Key { place, policy: policy.map_or(0, |p| Arc::as_ptr(p) as usize) };
        let version = health.version();
        let choices = remembered.choices.load();
        let known = Some(&choices.1).filter(|_| choices.0 == version);
        if let Some((_, tiers)) = known.into_iter().flatten().find(|(known, _)| *known == key) {
            return Arc::clone(tiers);
        }
        let tiers = Arc::new(self.choice(health).tiers);
        // Of two that add at once one is forgotten, and asked for again.
        let mut next = known.filter(|known| known.len() < REMEMBERED_MAX).cloned().unwrap_or_default();
        next.push((key, Arc::clone(&tiers)));
        remembered.choices.store(Arc::new((version, next)));
        tiers
    }

    /// Asks `api::routing`, reasons included.
    pub(crate) fn choice(&self, health: &Health) -> Choice {
        let only = |why: String| Choice { tiers: vec![vec![0]], why: vec![why], ..Choice::default() };
        let set = match &self.upstream.id {
            UpstreamId::Set(set, ..) => set,
            UpstreamId::Local(..) => return only("the hub's own network".to_owned()),
            UpstreamId::Member(cluster, ..) => return only(format!("it is of cluster {cluster}")),
        };
        let (view, heeded) = (health.view(), health.heeds());
        let mut candidates: Vec<Candidate<'_>> = self
            .live
            .parts
            .iter()
            .filter_map(|part| {
                let cluster = part.facts.as_deref()?;
                let unready = part.endpoints.iter().filter(|e| heeded && e.failing).count();
                let ready = believes(&view, &cluster.name, part.is_out());
                Some(Candidate { unready, ..Candidate::new(cluster, ready, part.endpoints.len() - unready) })
            })
            .collect();
        // Where all that there are fail their checks they are what is left.
        if candidates.iter().all(|c| c.endpoints == 0) {
            candidates.iter_mut().for_each(|c| c.last_good = c.unready > 0);
        }
        let place = place(self.standing, &self.table.topology);
        let asker = Asker {
            cluster: place.cluster.as_deref(),
            set,
            region: place.region.as_deref(),
            zone: place.zone.as_deref(),
            location: location(&place, &self.table.topology),
            rtt: place.region.as_deref().and_then(|region| self.table.topology.rtt.get(region)).map(Arc::as_ref),
            client: self.client,
            dice: self.dice,
        };
        let nearest = Chain::default();
        let chain = self.policy().map_or(&nearest, |p| &p.chain);
        choose(&asker, &candidates, chain)
    }
}

/// A seat for one more request in a cluster of an upstream that `policy` orders. `Ok(None)`: nothing bounds that cluster.
///
/// # Errors
/// The cluster has as much as it may.
pub(crate) fn seat(plane: &Plane, policy: Option<&Policy>, live: &Live, part: usize) -> Result<Option<Seat>, Full> {
    let bounded = policy.and_then(|policy| Some((policy, policy.capacity?)));
    let Some((policy, capacity)) = bounded else { return Ok(None) };
    let now = Instant::now();
    let room = room(plane, policy, capacity, live, &live.parts[part]);
    let bound = bound(capacity, &live.parts[part], plane.health.heeds(), now);
    room.take(bound, now).map(Some).ok_or(Full)
}

/// The room of a policy at one cluster. Where each endpoint counts a subset has its own, for its endpoints are fewer.
pub(crate) fn room(plane: &Plane, policy: &Policy, capacity: Capacity, live: &Live, part: &LivePart) -> Arc<Room> {
    let subset = live.subset.as_deref().filter(|_| matches!(capacity, Capacity::PerEndpoint(_)));
    plane.rooms.of(&policy.name, subset, part.name(), &plane.shares)
}

/// What a capacity means for a cluster as it is now. `heeded`: the hub's word on endpoints counts.
pub(crate) fn bound(capacity: Capacity, part: &LivePart, heeded: bool, now: Instant) -> usize {
    capacity.of(|| match part.endpoints.iter().filter(|e| e.is_usable(heeded, now)).count() {
        // Where nobody is well anybody may be tried.
        0 => part.endpoints.len(),
        usable => usable,
    })
}

/// A cluster has as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// The same for the same client: its address, IPv6 by /64.
pub(crate) fn client_number(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(a) => u64::from(u32::from(a)),
        IpAddr::V6(a) => u64::try_from(u128::from(a) >> 64).unwrap_or_default(),
    }
}

/// What a standing does not say is as its cluster has it.
pub(crate) fn place(standing: &Standing, topology: &Topology) -> Standing {
    let mut place = standing.clone();
    let cluster = standing.cluster.as_deref().and_then(|name| topology.clusters.get(name));
    if let Some(cluster) = cluster {
        place.region = place.region.or_else(|| cluster.spec.region.clone());
        place.zone = place.zone.or_else(|| cluster.spec.zone.clone());
    }
    place
}

fn location(standing: &Standing, topology: &Topology) -> Option<(f64, f64)> {
    let cluster = topology.clusters.get(standing.cluster.as_deref()?)?;
    cluster.spec.location.as_ref()?.degrees()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_stands_where_the_longest_range_says_and_loopback_here() {
        let at = |region: &str| Standing { region: Some(region.to_owned()), ..Standing::default() };
        let ranges = [("10.0.0.0/8", "wide"), ("10.1.0.0/16", "narrow"), ("127.0.0.0/8", "never"), ("fd00::/8", "six")];
        let ranges = ranges.map(|(range, region)| (range.parse().unwrap(), at(region)));
        let clients = Clients::new(at("here"), ranges.to_vec());
        for (client, region) in [
            ("10.1.2.3", "narrow"),
            ("10.2.2.3", "wide"),
            ("::ffff:10.1.2.3", "narrow"),
            ("fd00::1", "six"),
            ("127.0.0.1", "here"),
            ("::1", "here"),
            ("192.0.2.1", "here"),
        ] {
            let (_, standing) = clients.standing(client.parse().unwrap());
            assert_eq!(standing.region.as_deref(), Some(region), "{client}");
        }
    }
}
