//! Whose word on a cluster's health counts: one rule for DNS and gateway.
//!
//! In: the topology, how long ago the hub last spoke to this replica, and the replica's own probes. Out: [`HealthView`]. While
//! the hub's view is fresh it counts; when it is stale each replica trusts its own probes, so that failover goes on with the hub
//! dead. Never reads a clock. Source: hysteresis and panic threshold as HAProxy's fall, rise and Envoy's
//! panic mode, but saying when the observer and not the observed is ill.

mod check;
mod judge;
mod rtt;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use check::{Check, TARGETS_MAX, Target, targets};
pub use judge::{Judge, Judged, Opinion, Votes};
pub use rtt::{Measured, is_other};

use crate::names::ClusterName;
use crate::topology::Topology;

/// The numbers of the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long after its last word the hub's view still counts.
    pub fresh: Duration,
    /// So many failed probes in a row take a cluster out.
    pub fall: u8,
    /// So many good probes in a row bring it back.
    pub rise: u8,
    /// When fewer than this share (%) of the probed clusters are up, the replica distrusts its own eyes.
    pub panic_percent: u8,
}

impl Default for Rules {
    fn default() -> Self {
        Self { fresh: Duration::from_secs(15), fall: 3, rise: 2, panic_percent: 20 }
    }
}

/// The state of one probe with hysteresis. Starts up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    up: bool,
    against: u8,
}

impl Default for Probe {
    fn default() -> Self {
        Self { up: true, against: 0 }
    }
}

impl Probe {
    /// A probe that is up or down from the start.
    pub fn new(up: bool) -> Self {
        Self { up, against: 0 }
    }

    /// Takes a result. Returns whether the state changed.
    pub fn observe(&mut self, ok: bool, rules: &Rules) -> bool {
        if ok == self.up {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let needed = if self.up { rules.fall } else { rules.rise };
        if self.against < needed {
            return false;
        }
        *self = Self::new(ok);
        true
    }

    /// Whether it counts as up.
    pub fn up(&self) -> bool {
        self.up
    }
}

/// Whose word counts now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The hub's: its view is fresh.
    Hub,
    /// This replica's own probes: the hub has been silent for too long.
    Probes,
    /// The hub's last word: it is silent, but our own probes say that almost nobody is up, so it is us who can't see.
    Panic,
}

/// Which clusters are healthy, and on whose word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthView {
    source: Source,
    ready: BTreeSet<ClusterName>,
}

impl HealthView {
    /// Judges. `silence` is the time since the hub's last word to this replica; `None` when it never spoke in this life. `probes`
    /// are this replica's own; a cluster that was never probed counts as the hub last said.
    pub fn new(
        topology: &Topology,
        silence: Option<Duration>,
        probes: &BTreeMap<ClusterName, Probe>,
        rules: &Rules,
    ) -> Self {
        let known = probes.iter().filter(|(name, _)| topology.clusters.contains_key(*name));
        let (up, all) = known.fold((0, 0), |(up, all), (_, p)| (up + usize::from(p.up()), all + 1));
        let source = if silence.is_some_and(|s| s <= rules.fresh) {
            Source::Hub
        } else if all == 0 || up * 100 < all * usize::from(rules.panic_percent) {
            Source::Panic
        } else {
            Source::Probes
        };
        let ready = topology.clusters.iter().filter(|(name, facts)| match (source, probes.get(*name)) {
            (Source::Probes, Some(probe)) => probe.up(),
            _ => facts.ready,
        });
        Self { source, ready: ready.map(|(name, _)| name.clone()).collect() }
    }

    /// Whether own probes are believed rather than the hub.
    pub fn trusts_own_eyes(&self) -> bool {
        self.source == Source::Probes
    }

    /// Whether `cluster` is healthy. An unknown one is not.
    pub fn ready(&self, cluster: &str) -> bool {
        self.ready.contains(cluster)
    }

    /// On whose word.
    pub fn source(&self) -> Source {
        self.source
    }
}

#[cfg(test)]
mod tests;
