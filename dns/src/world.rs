//! The world as queries see it at one moment: the table, whose word on health counts and what it says, whom nobody reaches directly.
//!
//! In: snapshots of the topology, our probes, the routes found. Out: a [`World`], swapped whole; a query keeps the one it began with.

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

use crate::config::Config;
use crate::federated::View;
use crate::health::Probes;
use crate::table::Table;

/// The world at one moment.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) table: Arc<Table>,
    pub(crate) health: HealthView,
    /// Since the hub's last word; `None`: it never spoke in this life.
    pub(crate) silence: Option<Duration>,
    /// Members whose addresses nobody outside reaches.
    pub(crate) relayed: BTreeSet<ClusterName>,
    /// Members whose DNS does not answer our own probes.
    pub(crate) down: BTreeSet<ClusterName>,
}

impl World {
    /// Puts it together; the table of `before` is kept where the topology is the same.
    pub(crate) fn new(
        before: Option<&Self>,
        snapshot: &Snapshot,
        probes: &Probes,
        dialer: &Dialer,
        config: &Config,
        now: Instant,
    ) -> Self {
        let topology = &snapshot.topology;
        let same = before.map(|b| &b.table).filter(|t| Arc::ptr_eq(&t.topology, topology));
        let table = same.map_or_else(|| Arc::new(Table::new(topology, config)), Arc::clone);
        let silence = snapshot.heard.map(|at| now.saturating_duration_since(at));
        Self {
            health: HealthView::new(topology, silence, &probes.members, &Rules::default()),
            silence,
            relayed: relayed(topology, dialer),
            down: probes.dns.iter().filter(|(_, p)| !p.up()).map(|(name, _)| name.clone()).collect(),
            table,
        }
    }

    /// What federated answers depend on.
    pub(crate) fn view(&self) -> View<'_> {
        View { health: &self.health, relayed: &self.relayed }
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
