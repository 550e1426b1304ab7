//! Publishes the topology: a pass at every change, a generation for every difference.
//!
//! After a start the hub keeps still until every member that it had Ready has reported, or the time to settle is over: a topology
//! without their endpoints would take them out of DNS although they are well.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::facts::{Facts, key};
use atoll_api::kinds::SyncMode;
use atoll_api::names::ClusterName;
use atoll_api::topology::{Settings, Site, Topology, Version};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::checks::{Checked, Checks};
use super::fold::{Inputs, fold};
use super::serials::Serials;
use super::sites::Sites;
use crate::accept;
use crate::config::Config;
use crate::membership::{Judged, Membership, Phase, verdicts};
use crate::metrics::Metrics;
use crate::pulse::Pulse;
use crate::sessions::{Member, Part};
use crate::zones::Known;

/// One published topology.
#[derive(Debug, Clone)]
pub struct Published {
    /// Its version.
    pub version: Version,
    /// As facts.
    pub facts: Arc<Facts>,
    /// As data planes read it.
    pub topology: Arc<Topology>,
}

/// Makes topologies.
pub(crate) struct Publisher {
    pub(crate) membership: Arc<Membership>,
    pub(crate) config: Arc<Config>,
    pub(crate) hub_id: String,
    pub(crate) epoch: u64,
    pub(crate) out: watch::Sender<Option<Published>>,
    pub(crate) metrics: Metrics,
}

impl Publisher {
    /// Runs until cancelled.
    pub(crate) async fn run(self) {
        let m = Arc::clone(&self.membership);
        let watches = vec![m.objects.changes(), m.sessions.changes(), m.sites.changes()];
        let mut pulse = Pulse::new(watches, Duration::from_secs(1));
        let (mut zones, mut stored, mut generation) = (Known::default(), None, 0);
        let mut checks = Checks::new(Instant::now());
        let mut serials = Serials::begin(&m.client, Timestamp::now().as_second().unsigned_abs()).await;
        loop {
            let now = Instant::now();
            let members = verdicts(&m, now);
            self.metrics.note(&m, members.values());
            let sites = m.sites.list(now);
            if self.out.borrow().is_some() || self.settled(&members, now) {
                self.tell_agents(&members, &sites);
                let before = self.out.borrow().as_ref().map(|p| Arc::clone(&p.topology));
                let checked = checks.look(before.as_deref(), &m.sites.said(now), now);
                let next = serials.base().wrapping_add((generation + 1) as u32);
                let facts = self.facts(&members, &sites, &mut zones, (serials.base(), next), &checked).await;
                let same = self.out.borrow().as_ref().is_some_and(|p| p.facts.digest() == facts.digest());
                if !same {
                    generation += 1;
                    serials.cover(generation).await;
                    self.publish(facts, generation);
                }
                if stored.as_ref() != Some(&sites) {
                    match Sites::store(&m.client, &sites).await {
                        Ok(()) => stored = Some(sites),
                        Err(error) => tracing::warn!(%error, "known sites not stored"),
                    }
                }
            }
            pulse.next().await;
        }
    }

    fn settled(&self, members: &BTreeMap<ClusterName, Judged>, now: Instant) -> bool {
        let sessions = &self.membership.sessions;
        if now.saturating_duration_since(sessions.started) >= self.config.settle {
            return true;
        }
        let held = sessions.lock();
        members.iter().all(|(name, judged)| {
            let awaited = judged.cluster.spec.sync.mode != SyncMode::None && judged.verdict.ready;
            !awaited || (judged.verdict.phase != Phase::Joining && held.get(name).is_some_and(Member::has_reported))
        })
    }

    async fn facts(
        &self,
        members: &BTreeMap<ClusterName, Judged>,
        sites: &[Site],
        zones: &mut Known,
        (serial_base, next): (u32, u32),
        checked: &Checked,
    ) -> Facts {
        let m = &self.membership;
        let reported = m.sessions.reported();
        let settings = Settings {
            hub_id: self.hub_id.clone(),
            apex: self.config.apex.clone(),
            default_set: self.config.default_set.clone(),
            revoked: m.revoked.serials().await,
            serial: serial_base,
        };
        let records = m.objects.records.state();
        // A zone that is another one now has the serial of the generation that says so.
        let all = zones.entries(&m.objects, sites, next, Timestamp::now().as_second());
        let traffic: Vec<_> =
            m.objects.traffic.state().into_iter().filter(|t| accept::traffic(&t.spec).is_ok()).collect();
        let mut all_sites = sites.to_vec();
        all_sites.push(self.config.site());
        fold(&Inputs {
            settings,
            loopback_members: self.config.loopback_members,
            members,
            reported: &reported,
            zones: &all,
            records: &records,
            traffic: &traffic,
            imports: &m.objects.imports.state(),
            sites: &all_sites,
            failing: &checked.failing,
            rtt: &checked.rtt,
        })
    }

    fn publish(&self, facts: Facts, generation: u64) {
        let version = Version { epoch: self.epoch, generation };
        let topology = Arc::new(Topology::from_facts(version, &facts));
        self.metrics.published(self.epoch, generation, facts.len());
        tracing::debug!(generation, facts = facts.len(), "topology published");
        self.out.send_replace(Some(Published { version, facts: Arc::new(facts), topology }));
    }

    /// Every agent keeps a relay connection to each site that wants one, the hub included.
    fn tell_agents(&self, members: &BTreeMap<ClusterName, Judged>, sites: &[Site]) {
        let hub = self.config.site();
        let mut facts = Facts::default();
        for site in sites.iter().chain([&hub]).filter(|s| !s.relay.is_empty()) {
            facts.put(format!("{}/{}", key::SITE, site.instance), site);
        }
        let by_member = members.keys().map(|name| (name.clone(), facts.clone())).collect();
        self.membership.sessions.set_desired(Part::Sites, by_member);
    }
}
