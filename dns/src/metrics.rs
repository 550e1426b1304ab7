//! What is counted. Labels are bounded: transports, codes, zones, members, extended errors, outcomes.

use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::answer::Answer;
pub(crate) use crate::counters::code;
use crate::counters::{Block, Counters, Outcome, Told};
use crate::labels::Labels;

/// The counters; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    counters: Counters,
    labels: Arc<Labels>,
    updates: IntCounterVec,
    transfers: IntCounterVec,
    notifies: IntCounterVec,
    forwards: IntCounterVec,
    cache: IntCounterVec,
    refused: IntCounterVec,
    dropped: IntCounterVec,
    shed: IntCounterVec,
    up: IntGaugeVec,
    hedges: IntCounterVec,
    looping: IntGaugeVec,
    degraded: IntGauge,
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
        let labels = Arc::new(Labels::default());
        let counters = Counters::new(Arc::clone(&labels))?;
        registry.register(Box::new(counters.clone()))?;
        let up =
            IntGaugeVec::new(Opts::new("atoll_dns_member_up", "Whether a member answers our probes."), &["member"])?;
        registry.register(Box::new(up.clone()))?;
        let looping =
            Opts::new("atoll_dns_looping", "Whether what a member or the upstreams are asked comes back to us.");
        let looping = IntGaugeVec::new(looping, &["member"])?;
        registry.register(Box::new(looping.clone()))?;
        let degraded = IntGauge::new(
            "atoll_dns_degraded",
            "Whether the hub is silent: its last word and our own probes count, and answers go on.",
        )?;
        registry.register(Box::new(degraded.clone()))?;
        let connections = Opts::new("atoll_dns_connections", "Connections of clients.");
        let connections = IntGaugeVec::new(connections, &["transport"])?;
        registry.register(Box::new(connections.clone()))?;
        Ok(Self {
            connections,
            counters,
            labels,
            updates: counter("atoll_dns_updates_total", "Updates (RFC 2136) by zone and code.", &["zone", "rcode"])?,
            transfers: counter(
                "atoll_dns_transfers_total",
                "Zone transfers out: begun (NOERROR), or refused with a code.",
                &["zone", "kind", "rcode"],
            )?,
            notifies: counter("atoll_dns_notifies_total", "Secondaries told of a change.", &["zone", "outcome"])?,
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
            dropped: counter(
                "atoll_dns_dropped_total",
                "Packets that got no answer, or none but that their signature is refused.",
                &["transport", "why"],
            )?,
            shed: counter(
                "atoll_dns_shed_total",
                "Queries that were answered SERVFAIL before any work: their member answers nothing, or has its share.",
                &["member", "why"],
            )?,
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
            degraded,
        })
    }

    pub(crate) fn query(&self, transport: &str, told: Told, took: Duration) {
        self.counters.query(transport, told, took);
    }

    /// The number of whose an answer is; `zone` is the one that the question's name lies in.
    pub(crate) fn label(&self, answer: &Answer, zone: Option<&Name>) -> u16 {
        self.labels.of(answer, zone)
    }

    /// An update of a zone came to this.
    pub(crate) fn update(&self, zone: Option<&Name>, rcode: ResponseCode) {
        self.updates.with_label_values(&[&*self.labels.zone(zone), code(rcode)]).inc();
    }

    /// A transfer of a zone, whole or by differences, was begun or refused.
    pub(crate) fn transfer(&self, zone: Option<&Name>, kind: RecordType, rcode: ResponseCode) {
        let kind = if kind == RecordType::IXFR { "IXFR" } else { "AXFR" };
        self.transfers.with_label_values(&[&*self.labels.zone(zone), kind, code(rcode)]).inc();
    }

    /// A secondary was told of a change, or does not answer.
    pub(crate) fn notify(&self, zone: &Name, outcome: &str) {
        self.notifies.with_label_values(&[&*self.labels.zone(Some(zone)), outcome]).inc();
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

    /// The count of queries for one member that nothing was done for, for one reason.
    pub(crate) fn shed(&self, member: &str, why: &str) -> IntCounter {
        self.shed.with_label_values(&[&*self.labels.member(member), why])
    }

    /// How many connections a transport has.
    pub(crate) fn connections(&self, transport: &str) -> IntGauge {
        self.connections.with_label_values(&[transport])
    }

    /// The count of what a tap did not take.
    pub(crate) fn tap_lost(&self, tap: &str) -> IntCounter {
        self.tap_lost.with_label_values(&[tap])
    }

    /// The count of questions to a member that came to one outcome, for who counts many.
    pub(crate) fn forwards(&self, member: &str, outcome: &str) -> IntCounter {
        self.forwards.with_label_values(&[&*self.labels.member(member), outcome])
    }

    /// The count of look-ups among forwarded answers that came to one outcome, for who counts many.
    pub(crate) fn caches(&self, outcome: &str) -> IntCounter {
        self.cache.with_label_values(&[outcome])
    }

    pub(crate) fn forward(&self, member: &str, outcome: &str) {
        self.forwards.with_label_values(&[&*self.labels.member(member), outcome]).inc();
    }

    pub(crate) fn cache(&self, outcome: &str) {
        self.cache.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn refused(&self, member: &str, why: &str) {
        self.refused.with_label_values(&[&*self.labels.member(member), why]).inc();
    }

    pub(crate) fn dropped(&self, transport: &str, why: &str) {
        self.dropped.with_label_values(&[transport, why]).inc();
    }

    pub(crate) fn member_up(&self, member: &str, up: bool) {
        self.up.with_label_values(&[member]).set(i64::from(up));
    }

    pub(crate) fn hedged(&self, member: &str, questions: u64) {
        if questions > 0 {
            self.hedges.with_label_values(&[&*self.labels.member(member)]).inc_by(questions);
        }
    }

    /// Whether the hub is silent.
    pub(crate) fn degraded(&self, degraded: bool) {
        self.degraded.set(i64::from(degraded));
    }

    pub(crate) fn looping(&self, member: &str, looping: bool) {
        self.looping.with_label_values(&[member]).set(i64::from(looping));
    }

    pub(crate) fn member_gone(&self, member: &str) {
        // It was never probed when there is nothing to remove.
        let _ = (self.up.remove_label_values(&[member]), self.looping.remove_label_values(&[member]));
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use hickory_proto::op::{Message, MessageType, OpCode, Query};
    use prometheus::core::Collector as _;

    use super::*;
    use crate::respond::{Responder, Via};
    use crate::wire::Local;
    use crate::wire::tests::{responder, stage};

    fn text(metrics: &Metrics) -> String {
        let families = [metrics.counters.collect(), metrics.updates.collect(), metrics.transfers.collect()].concat();
        let families: Vec<_> = families.into_iter().filter(|family| !family.get_metric().is_empty()).collect();
        prometheus::TextEncoder::new().encode_to_string(&families).unwrap()
    }

    fn packet(name: &str, kind: RecordType, op: OpCode) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, op);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    /// Asks once on the slow path, then on the fast one, which counts in a block of its own.
    async fn ask(responder: &Responder, block: &Block, name: &str) {
        let from = SocketAddr::from(([10, 1, 0, 7], 4000));
        let packet = packet(name, RecordType::A, OpCode::Query);
        responder.respond(&packet, from, Via::UDP).await.unwrap();
        let (mut local, mut out) = (Local::default(), [0; 1232]);
        match responder.hit(&mut local, &packet, from, responder.moment(), &mut out) {
            crate::respond::Given::Reply(hit) => block.datagram(hit.told),
            other => panic!("{name}: {other:?}"),
        }
    }

    #[tokio::test]
    async fn every_answer_counts_for_its_zone_or_member_and_by_its_extended_error() {
        let responder = responder(stage(), crate::wire::BYTES_MAX);
        let block = responder.metrics.block();
        for name in ["www.example.com.", "no.b.example.com.", "web.shop.svc.atoll.internal.", "example.org."] {
            ask(&responder, &block, name).await;
        }
        // Its DNS is nowhere: kept as a failure for a moment.
        ask(&responder, &block, "web.shop.svc.prod-eu.atoll.internal.").await;
        let text = text(&responder.metrics);
        for line in [
            r#"atoll_dns_zone_queries_total{rcode="NOERROR",zone="example.com"} 2"#,
            r#"atoll_dns_zone_queries_total{rcode="NXDOMAIN",zone="example.com"} 2"#,
            r#"atoll_dns_zone_queries_total{rcode="NOERROR",zone="atoll.internal"} 2"#,
            r#"atoll_dns_zone_queries_total{rcode="REFUSED",zone="(outside)"} 2"#,
            r#"atoll_dns_member_queries_total{member="prod-eu",rcode="SERVFAIL"} 2"#,
            r#"atoll_dns_extended_errors_total{ede="22"} 2"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[tokio::test]
    async fn updates_and_transfers_count_for_their_zone() {
        let responder = responder(stage(), crate::wire::BYTES_MAX);
        let from = SocketAddr::from(([192, 0, 2, 1], 4000));
        for name in ["example.com.", "example.org."] {
            let update = packet(name, RecordType::SOA, OpCode::Update);
            responder.respond(&update, from, Via::UDP).await.unwrap();
        }
        for (name, kind) in [("example.com.", RecordType::AXFR), ("example.com.", RecordType::IXFR)] {
            let transfer = packet(name, kind, OpCode::Query);
            assert!(responder.transfer(&transfer, from, "tcp").is_some());
        }
        responder.metrics.notify(&Name::from_ascii("example.com.").unwrap(), "answered");
        let text = text(&responder.metrics);
        for line in [
            r#"atoll_dns_updates_total{rcode="REFUSED",zone="example.com"} 1"#,
            r#"atoll_dns_updates_total{rcode="NOTAUTH",zone="(none)"} 1"#,
            r#"atoll_dns_transfers_total{kind="AXFR",rcode="REFUSED",zone="example.com"} 1"#,
            r#"atoll_dns_transfers_total{kind="IXFR",rcode="REFUSED",zone="example.com"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert_eq!(responder.metrics.notifies.with_label_values(&["example.com", "answered"]).get(), 1);
    }
}
