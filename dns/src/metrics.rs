//! What is counted. Labels are bounded: transports, codes, members, outcomes.

use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

pub(crate) use crate::counters::code;
use crate::counters::{Block, Counters, Outcome};

/// The counters; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    counters: Counters,
    forwards: IntCounterVec,
    cache: IntCounterVec,
    refused: IntCounterVec,
    dropped: IntCounterVec,
    up: IntGaugeVec,
    hedges: IntCounterVec,
    looping: IntGaugeVec,
    connections: IntGaugeVec,
    tap_lost: IntCounterVec,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// When something of the same name is registered already.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let counters = Counters::new()?;
        registry.register(Box::new(counters.clone()))?;
        let up =
            IntGaugeVec::new(Opts::new("atoll_dns_member_up", "Whether a member answers our probes."), &["member"])?;
        registry.register(Box::new(up.clone()))?;
        let looping =
            Opts::new("atoll_dns_looping", "Whether what a member or the upstreams are asked comes back to us.");
        let looping = IntGaugeVec::new(looping, &["member"])?;
        registry.register(Box::new(looping.clone()))?;
        let connections = Opts::new("atoll_dns_connections", "Connections of clients.");
        let connections = IntGaugeVec::new(connections, &["transport"])?;
        registry.register(Box::new(connections.clone()))?;
        Ok(Self {
            connections,
            counters,
            forwards: counter(
                "atoll_dns_forwards_total",
                "Questions asked of members and upstreams.",
                &["member", "outcome"],
            )?,
            cache: counter("atoll_dns_cache_total", "Look-ups in the cache of forwarded answers.", &["outcome"])?,
            refused: counter(
                "atoll_dns_refused_records_total",
                "Records of members that were left out.",
                &["member", "why"],
            )?,
            dropped: counter("atoll_dns_dropped_total", "Packets that got no answer.", &["transport", "why"])?,
            hedges: counter(
                "atoll_dns_second_questions_total",
                "Questions asked of a further server because the first was slow.",
                &["member"],
            )?,
            tap_lost: counter(
                "atoll_dns_tap_lost_total",
                "Queries that the query log or dnstap did not take in time.",
                &["tap"],
            )?,
            up,
            looping,
        })
    }

    pub(crate) fn query(&self, transport: &str, rcode: ResponseCode, took: Duration) {
        self.counters.query(transport, rcode, took);
    }

    /// What became of a look-up among the answers kept as octets, on the slow path.
    pub(crate) fn wire(&self, outcome: Outcome) {
        self.counters.wire(outcome);
    }

    /// A thread's own counts.
    pub(crate) fn block(&self) -> Arc<Block> {
        self.counters.block()
    }

    /// The count of packets that got no answer for one reason, for who counts many.
    pub(crate) fn drops(&self, transport: &str, why: &str) -> IntCounter {
        self.dropped.with_label_values(&[transport, why])
    }

    /// How many connections a transport has.
    pub(crate) fn connections(&self, transport: &str) -> IntGauge {
        self.connections.with_label_values(&[transport])
    }

    /// The count of what a tap did not take.
    pub(crate) fn tap_lost(&self, tap: &str) -> IntCounter {
        self.tap_lost.with_label_values(&[tap])
    }

    pub(crate) fn forward(&self, member: &str, outcome: &str) {
        self.forwards.with_label_values(&[member, outcome]).inc();
    }

    pub(crate) fn cache(&self, outcome: &str) {
        self.cache.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn refused(&self, member: &str, why: &str) {
        self.refused.with_label_values(&[member, why]).inc();
    }

    pub(crate) fn dropped(&self, transport: &str, why: &str) {
        self.dropped.with_label_values(&[transport, why]).inc();
    }

    pub(crate) fn member_up(&self, member: &str, up: bool) {
        self.up.with_label_values(&[member]).set(i64::from(up));
    }

    pub(crate) fn hedged(&self, member: &str, questions: u64) {
        if questions > 0 {
            self.hedges.with_label_values(&[member]).inc_by(questions);
        }
    }

    pub(crate) fn looping(&self, member: &str, looping: bool) {
        self.looping.with_label_values(&[member]).set(i64::from(looping));
    }

    pub(crate) fn member_gone(&self, member: &str) {
        // It was never probed when there is nothing to remove.
        let _ = (self.up.remove_label_values(&[member]), self.looping.remove_label_values(&[member]));
    }
}
