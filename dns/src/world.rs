//! The world as queries see it at one moment: the table, whose word on health counts and what it says, whom nobody reaches directly.
//!
//! In: snapshots of the topology, our probes, the routes found. Out: a [`World`], swapped whole; a query keeps the one it began with. Its
//! generation goes up when something in it differs from the one before, and what differs is listed: kept answers made of that are void.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::health::{HealthView, Rules};
use atoll_api::kinds::Reach;
use atoll_api::names::ClusterName;
use atoll_api::topology::Topology;
use atoll_reach::{Dialer, Route};
use atoll_wire::follow::Snapshot;
use tokio::time::Instant;

use crate::answer::Source;
use crate::changes::changes;
use crate::config::Config;
use crate::geo::Geo;
use crate::health::Probes;
use crate::table::Table;
use crate::view::{Findings, LastGood, View};
use crate::wire::Changes;

/// The hub says every 5 s that it is alive: later than this it has missed a word.
const LATE: Duration = Duration::from_secs(7);

/// The world at one moment.
#[derive(Debug)]
pub(crate) struct World {
    /// Counts worlds that differ, from 1.
    pub(crate) generation: u64,
    /// When the first was made.
    pub(crate) started: Instant,
    pub(crate) table: Arc<Table>,
    pub(crate) health: HealthView,
    /// Since the hub's last word; `None`: it never spoke in this life.
    pub(crate) silence: Option<Duration>,
    /// Members whose addresses nobody outside reaches.
    pub(crate) relayed: BTreeSet<ClusterName>,
    /// Members whose DNS does not answer our own probes.
    pub(crate) down: BTreeSet<ClusterName>,
    /// What our own health checks take out.
    pub(crate) own: Arc<Findings>,
    /// Services that nobody can serve now, and what was good of them.
    pub(crate) good: Arc<LastGood>,
}

impl World {
    /// Puts it together, and lists what differs; the table of `before` is kept where the topology is the same.
    pub(crate) fn new(
        before: Option<&Self>,
        snapshot: &Snapshot,
        probes: &Probes,
        dialer: &Dialer,
        (config, geo): (&Config, &Geo),
        now: Instant,
    ) -> (Self, Changes) {
        let topology = &snapshot.topology;
        let table = match before.map(|b| &b.table) {
            None => Arc::new(Table::new(topology, config, geo)),
            Some(table) if Arc::ptr_eq(&table.topology, topology) && table.clients.geo().is_same(geo) => {
                Arc::clone(table)
            }
            Some(table) => Arc::new(table.next(topology, config, geo)),
        };
        let silence = snapshot.heard.map(|at| now.saturating_duration_since(at));
        let mut world = Self {
            generation: 1,
            started: before.map_or(now, |b| b.started),
            health: HealthView::new(topology, silence, &probes.members, &Rules::default()),
            silence,
            relayed: relayed(topology, dialer),
            down: probes.dns.iter().filter(|(_, p)| !p.up()).map(|(name, _)| name.clone()).collect(),
            own: Arc::clone(&probes.own),
            good: before.map(|b| Arc::clone(&b.good)).unwrap_or_default(),
            table,
        };
        let Some(before) = before else { return (world, Changes { everything: true, ..Changes::default() }) };
        let changes = changes(before, &world);
        if !changes.is_empty() || !before.good.is_empty() {
            let (was, is) = (&before.table.topology, &world.table.topology);
            let services = |source: &'_ Source| match source {
                Source::Service(name) => Some(name.clone()),
                _ => None,
            };
            let changed = (!changes.everything).then(|| changes.sources.iter().filter_map(services).collect());
            let now = now.saturating_duration_since(world.started);
            let (was, is) = ((was.as_ref(), &before.health), (is.as_ref(), &world.health));
            world.good = Arc::new(before.good.next(was, is, changed.as_ref(), now));
        }
        world.generation = before.generation + u64::from(!changes.is_empty());
        (world, changes)
    }

    /// What federated answers depend on.
    pub(crate) fn view(&self) -> View<'_> {
        // A hub that has missed a word: when it has been silent for too long, our own probes count.
        let late = self.silence.filter(|s| *s > LATE && !self.health.trusts_own_eyes());
        View {
            health: &self.health,
            relayed: &self.relayed,
            own: &self.own,
            good: &self.good,
            until: late.map(|silence| Rules::default().fresh.saturating_sub(silence)),
        }
    }
}

/// Whom nobody outside reaches: as written, by overlap, else as our own probe found.
fn relayed(topology: &Topology, dialer: &Dialer) -> BTreeSet<ClusterName> {
    let hidden = topology.clusters.values().filter(|c| match c.spec.reach {
        Reach::Direct => false,
        Reach::Relay => true,
        Reach::Auto => c.overlaps || dialer.route(c.name.as_str()) == Route::Relay,
    });
    hidden.map(|c| c.name.clone()).collect()
}
