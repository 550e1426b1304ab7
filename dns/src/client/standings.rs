//! Who stands where: every standing that addresses may lead to, made out of the topology, the configuration and the files. Pure.
//!
//! In: members' ranges, the operator's ranges and views, what files say. Out: [`Clients`]. A standing comes in every way of being served (may
//! recurse, barred, spared, outside; each view and none), so that a look-up makes nothing. Standings that were there before keep their numbers.

use std::collections::HashSet;
use std::sync::Arc;

use atoll_api::topology::{Standing, Topology};
use ipnet::IpNet;

use super::{Asker, Clients, WAYS, Ways};
use crate::config::Config;
use crate::geo::{Borders, Geo};

impl Clients {
    /// Out of the topology, the configuration and the files; standings that `before` had keep their numbers. Ranges that don't parse are
    /// left out: the hub reports them.
    pub(crate) fn new(topology: &Topology, config: &Config, geo: &Geo, before: Option<&Self>) -> Self {
        let mut clients = Self {
            own: config.standing.clone(),
            home: config.home.is_some(),
            last: before.map_or(0, |b| b.last),
            views: config.views.clone().into(),
            geo: geo.clone(),
            sticky: topology.traffic.values().any(|t| t.strategy.iter().any(|step| step.policy == "sticky")),
            ..Self::default()
        };
        let own = config.home.as_ref().map_or_else(|| config.standing.clone(), |home| home.standing(topology));
        clients.standing(place(topology, own), before);
        for (name, cluster) in &topology.clusters {
            let standing = Standing { cluster: Some(name.as_str().to_owned()), ..Standing::default() };
            let at = clients.standing(place(topology, standing), before);
            let ranges =
                cluster.cidrs.pods.iter().chain(&cluster.cidrs.services).filter_map(|c| c.parse::<IpNet>().ok());
            for net in ranges.chain(cluster.nodes.iter().map(|ip| IpNet::from(ip.to_canonical()))) {
                clients.members.insert(net, at);
            }
        }
        for (net, standing) in geo.map.ranges.iter().chain(&config.clients) {
            let at = clients.standing(place(topology, standing.clone()), before);
            clients.written.insert(*net, at);
        }
        clients.spotted(topology, before);
        for (nets, of) in [(&config.recursion, &mut clients.recursion), (&config.ecs, &mut clients.forwarders)] {
            nets.iter().for_each(|net| of.insert(*net, ()));
        }
        for net in &config.allow {
            clients.allowed.get_or_insert_default().insert(*net, ());
        }
        if !config.ecs.is_empty() {
            clients.everywhere(before);
            let borders = Borders::new(clients.members.nets().chain(clients.written.nets()));
            clients.borders = borders;
        }
        clients
    }

    /// Who stands near each member that says where on earth it is.
    fn spotted(&mut self, topology: &Topology, before: Option<&Self>) {
        if self.geo.mmdb.is_none() {
            return;
        }
        for (name, cluster) in &topology.clusters {
            let region = cluster.spec.region.clone();
            let at = cluster.spec.location.as_ref().and_then(atoll_api::kinds::Location::degrees);
            // A member without a place is found by its region's name only.
            if at.is_none() && region.is_none() {
                continue;
            }
            let standing = Standing { region, cluster_set: self.own.cluster_set.clone(), ..Standing::default() };
            let near = at.map(|_| name.clone());
            let standing = self.standing(Asker { near, ..place(topology, standing) }, before);
            self.spots.push((at, standing));
        }
    }

    /// Every place on the map, in every cluster set: where a forwarder's client may be moved to.
    fn everywhere(&mut self, before: Option<&Self>) {
        let bases: Vec<Asker> = (0..self.standings.len()).map(|at| self.base(at).clone()).collect();
        let sets: HashSet<&String> = bases.iter().map(|b| &b.set).collect();
        for set in sets {
            for base in &bases {
                self.standing(regional(base, set), before);
            }
        }
    }

    /// The place of a standing among those that are known, under its numbers.
    fn standing(&mut self, asker: Asker, before: Option<&Self>) -> usize {
        if let Some(at) = self.index.get(&asker) {
            return *at;
        }
        let known = before.and_then(|b| Some(Arc::clone(&b.standings[*b.index.get(&asker)?])));
        let ways = known.unwrap_or_else(|| self.ways(&asker));
        self.standings.push(ways);
        self.index.insert(asker, self.standings.len() - 1);
        self.standings.len() - 1
    }

    /// All ways of a standing. Whether it is barred or spared is told before anything is kept: that makes no other number.
    fn ways(&mut self, asker: &Asker) -> Ways {
        let first = self.last + 1;
        let mut ways = Vec::with_capacity((self.views.len() + 1) * WAYS);
        for view in 0..=self.views.len() {
            let seen = view.checked_sub(1).map(|at| &self.views[at]);
            let set = seen.and_then(|v| v.cluster_set.clone()).unwrap_or_else(|| asker.set.clone());
            for way in 0..WAYS {
                let flag = |bit: usize| way & bit != 0;
                // Four numbers for each view: recursion and outside make another.
                let number = (view * 4 + (way & 1) + (way >> 3 << 1)) as u32;
                self.last = self.last.max(first + number);
                ways.push(Arc::new(Asker {
                    id: first + number,
                    view: view.checked_sub(1).and_then(|at| u16::try_from(at).ok()),
                    set: set.clone(),
                    recursion: flag(1),
                    barred: flag(2),
                    spared: flag(4),
                    outside: flag(8),
                    ..asker.clone()
                }));
            }
        }
        ways.into()
    }
}

/// A place on the map alone, seen from another cluster set.
pub(super) fn regional(base: &Asker, set: &str) -> Asker {
    let (region, zone, near) = (base.region.clone(), base.zone.clone(), base.near.clone());
    Asker { set: set.to_owned(), region, zone, near, ..Asker::default() }
}

/// Fills in what a standing leaves open: from its member, else from the settings.
pub(super) fn place(topology: &Topology, standing: Standing) -> Asker {
    let own = standing.cluster.as_deref().and_then(|c| topology.clusters.get(c));
    let set = standing.cluster_set.or_else(|| own.map(|c| c.set().to_owned()));
    Asker {
        set: set.unwrap_or_else(|| topology.settings.default_set.clone()),
        region: standing.region.or_else(|| own.and_then(|c| c.spec.region.clone())),
        zone: standing.zone.or_else(|| own.and_then(|c| c.spec.zone.clone())),
        cluster: standing.cluster,
        ..Asker::default()
    }
}
