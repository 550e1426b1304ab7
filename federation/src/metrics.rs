//! What the hub counts, for Prometheus.

use atoll_api::kinds::RequestState;
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntGauge, IntGaugeVec, Opts, Registry};

use crate::membership::{Judged, Membership};

/// The hub's gauges.
pub(crate) struct Metrics {
    epoch: IntGauge,
    generation: IntGauge,
    facts: IntGauge,
    members: IntGaugeVec,
    agents: IntGauge,
    requests: IntGauge,
    passes: Histogram,
}

impl Metrics {
    /// Registers them.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::with_opts(Opts::new(name, help))?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let members =
            IntGaugeVec::new(Opts::new("atoll_hub_members", "Members, by whether they are Ready"), &["ready"])?;
        registry.register(Box::new(members.clone()))?;
        let buckets = prometheus::exponential_buckets(0.000_1, 2.0, 14)?;
        let help = "Time of a pass that folds the topology";
        let passes =
            Histogram::with_opts(HistogramOpts::new("atoll_hub_topology_pass_seconds", help).buckets(buckets))?;
        registry.register(Box::new(passes.clone()))?;
        Ok(Self {
            epoch: gauge("atoll_hub_epoch", "The hub's epoch")?,
            generation: gauge("atoll_hub_topology_generation", "Generation of the topology that is published")?,
            facts: gauge("atoll_hub_topology_facts", "Facts in the topology")?,
            members,
            passes,
            agents: gauge("atoll_hub_agents_connected", "Agents whose link is open")?,
            requests: gauge("atoll_hub_requests_waiting", "Image requests that wait for approval")?,
        })
    }

    /// Notes what a pass of the topology saw.
    pub(crate) fn note<'a>(&self, membership: &Membership, members: impl Iterator<Item = &'a Judged>) {
        let (mut ready, mut not) = (0, 0);
        for judged in members {
            *(if judged.verdict.ready { &mut ready } else { &mut not }) += 1;
        }
        self.members.with_label_values(&["true"]).set(ready);
        self.members.with_label_values(&["false"]).set(not);
        let agents = membership.sessions.lock().values().filter(|m| m.connected.is_some()).count();
        self.agents.set(i64::try_from(agents).unwrap_or(i64::MAX));
        let requests = membership.objects.requests.state();
        let waits = |r: &&std::sync::Arc<atoll_api::kinds::ReplicationRequest>| {
            r.status.as_ref().is_some_and(|s| s.state == RequestState::PendingApproval)
        };
        self.requests.set(i64::try_from(requests.iter().filter(waits).count()).unwrap_or(i64::MAX));
    }

    /// Notes how long a pass took.
    pub(crate) fn passed(&self, took: Duration) {
        self.passes.observe(took.as_secs_f64());
    }

    /// Notes a topology that was published.
    pub(crate) fn published(&self, epoch: u64, generation: u64, facts: usize) {
        self.epoch.set(i64::try_from(epoch).unwrap_or(i64::MAX));
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.facts.set(i64::try_from(facts).unwrap_or(i64::MAX));
    }
}
