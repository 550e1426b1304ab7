//! Counts of what is answered: one block for each thread that answers, summed when somebody looks.
//!
//! In: how a query came, its code, whose the answer is, how long it took. Out: families for Prometheus. A block has one writer, so that
//! counting is a load and a store without a lock, in memory that no other core writes; the block of the slow path has many, and adds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::answer::Answer;
use crate::labels::{LABELS_MAX, Label, Labels};

/// How queries come; what is not here counts as the last.
const WAYS: [&str; 7] = ["udp", "tcp", "dot", "doh", "doq", "doh3", "other"];
/// Codes; what is not here counts as the last.
const CODES: [(ResponseCode, &str); 10] = [
    (ResponseCode::NoError, "NOERROR"),
    (ResponseCode::NXDomain, "NXDOMAIN"),
    (ResponseCode::ServFail, "SERVFAIL"),
    (ResponseCode::Refused, "REFUSED"),
    (ResponseCode::FormErr, "FORMERR"),
    (ResponseCode::NotImp, "NOTIMP"),
    (ResponseCode::NotAuth, "NOTAUTH"),
    (ResponseCode::BADVERS, "BADVERS"),
    (ResponseCode::BADCOOKIE, "BADCOOKIE"),
    (ResponseCode::Unknown(u16::MAX), "OTHER"),
];
/// Of those, as many are told apart by zone and member, and the rest.
const SHORT: [&str; 5] = ["NOERROR", "NXDOMAIN", "SERVFAIL", "REFUSED", "OTHER"];
/// Extended errors (RFC 8914 §4) from 0; what is beyond counts as the last.
const EDES: usize = 33;
/// Upper bounds in microseconds, and the word for each.
const BOUNDS_US: [u64; 11] = [20, 50, 100, 200, 500, 1_000, 5_000, 20_000, 100_000, 500_000, 2_000_000];

/// A code's word, bounded in number.
pub(crate) fn code(rcode: ResponseCode) -> &'static str {
    CODES[code_at(rcode)].1
}

fn code_at(rcode: ResponseCode) -> usize {
    CODES.iter().position(|(code, _)| *code == rcode).unwrap_or(CODES.len() - 1)
}

/// Whether an answer was kept as octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was.
    Hit,
    /// It was not.
    Miss,
}

/// An answer, as far as it is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) rcode: u16,
    /// Whose it is, of [`crate::labels`].
    pub(crate) label: u16,
    /// Its first extended error's number, and one; 0: none.
    pub(crate) ede: u8,
}

impl From<ResponseCode> for Told {
    /// An answer that is nobody's.
    fn from(rcode: ResponseCode) -> Self {
        Self { rcode: rcode.into(), ..Self::default() }
    }
}

impl Told {
    /// Of an answer that belongs to the one with this number.
    pub(crate) fn of(answer: &Answer, label: u16) -> Self {
        let ede = answer.edes.first().map_or(0, |ede| u8::try_from(ede.code.saturating_add(1)).unwrap_or(u8::MAX));
        Self { rcode: answer.rcode.into(), label, ede }
    }

    pub(crate) fn code(self) -> ResponseCode {
        ResponseCode::from((self.rcode >> 4) as u8, (self.rcode & 0x0f) as u8)
    }

    fn code_at(self) -> usize {
        match self.rcode {
            0 => 0,
            3 => 1,
            _ => code_at(self.code()),
        }
    }

    /// Which count among all labels' is its.
    fn label_at(self) -> usize {
        (usize::from(self.label) * SHORT.len() + self.code_at().min(SHORT.len() - 1)).min(LABELS_MAX * SHORT.len() - 1)
    }

    fn ede_at(self) -> Option<usize> {
        Some(usize::from(self.ede).checked_sub(1)?.min(EDES - 1))
    }
}

/// How long answers took.
#[derive(Debug, Default)]
struct Latency {
    /// By bound; the last is beyond them.
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_ns: AtomicU64,
}

/// What one thread counts.
#[derive(Debug)]
pub(crate) struct Block {
    queries: [[AtomicU64; CODES.len()]; WAYS.len()],
    /// By label, and of each by code.
    labels: Box<[AtomicU64]>,
    edes: [AtomicU64; EDES],
    seconds: [Latency; WAYS.len()],
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Default for Block {
    fn default() -> Self {
        Self {
            queries: Default::default(),
            labels: (0..LABELS_MAX * SHORT.len()).map(|_| AtomicU64::new(0)).collect(),
            edes: [const { AtomicU64::new(0) }; EDES],
            seconds: Default::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }
}

impl Block {
    /// A query by UDP was answered so; by the block's only thread.
    pub(crate) fn datagram(&self, told: Told) {
        own(&self.queries[0][told.code_at()], 1);
        own(&self.labels[told.label_at()], 1);
        if let Some(ede) = told.ede_at() {
            own(&self.edes[ede], 1);
        }
    }

    /// So many datagrams took so long, each; by the block's only thread.
    pub(crate) fn took(&self, count: u64, each: Duration) {
        let latency = &self.seconds[0];
        own(&latency.buckets[bucket(each)], count);
        own(&latency.sum_ns, count.saturating_mul(nanos(each)));
    }

    /// So many were hits and misses; by the block's only thread.
    pub(crate) fn wire(&self, hits: u64, misses: u64) {
        own(&self.hits, hits);
        own(&self.misses, misses);
    }

    fn query(&self, way: &str, told: Told, took: Duration) {
        let way = WAYS.iter().position(|w| *w == way).unwrap_or(WAYS.len() - 1);
        self.queries[way][told.code_at()].fetch_add(1, Ordering::Relaxed);
        self.labels[told.label_at()].fetch_add(1, Ordering::Relaxed);
        if let Some(ede) = told.ede_at() {
            self.edes[ede].fetch_add(1, Ordering::Relaxed);
        }
        self.seconds[way].buckets[bucket(took)].fetch_add(1, Ordering::Relaxed);
        self.seconds[way].sum_ns.fetch_add(nanos(took), Ordering::Relaxed);
    }
}

/// Adds, where nobody else writes.
fn own(count: &AtomicU64, more: u64) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

fn bucket(took: Duration) -> usize {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len())
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

/// All blocks; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Counters {
    /// The first is the slow path's.
    blocks: Arc<Mutex<Vec<Arc<Block>>>>,
    slow: Arc<Block>,
    labels: Arc<Labels>,
    descs: Arc<[Desc; 6]>,
}

impl Counters {
    /// # Errors
    /// Never: the names are good.
    pub(crate) fn new(labels: Arc<Labels>) -> Result<Self, prometheus::Error> {
        let desc = |name: &str, help: &str, labels: &[&str]| {
            let labels = labels.iter().map(|l| (*l).to_owned()).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, std::collections::HashMap::default())
        };
        let descs = [
            desc("atoll_dns_queries_total", "Queries answered.", &["transport", "rcode"])?,
            desc("atoll_dns_query_seconds", "From a query to its answer.", &["transport"])?,
            desc("atoll_dns_wire_cache_total", "Look-ups among the answers kept as octets.", &["outcome"])?,
            desc("atoll_dns_zone_queries_total", "Queries answered, by zone.", &["zone", "rcode"])?,
            desc("atoll_dns_member_queries_total", "Queries answered for names of members.", &["member", "rcode"])?,
            desc("atoll_dns_extended_errors_total", "Answers with an extended error (RFC 8914).", &["ede"])?,
        ];
        let slow = Arc::<Block>::default();
        let blocks = Arc::new(Mutex::new(vec![Arc::clone(&slow)]));
        Ok(Self { blocks, slow, labels, descs: Arc::new(descs) })
    }

    /// A block for one more thread.
    pub(crate) fn block(&self) -> Arc<Block> {
        let block = Arc::<Block>::default();
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&block));
        block
    }

    /// A query was answered on the slow path.
    pub(crate) fn query(&self, way: &str, told: Told, took: Duration) {
        self.slow.query(way, told, took);
    }

    /// What became of a look-up on the slow path.
    pub(crate) fn wire(&self, outcome: Outcome) {
        let count = if outcome == Outcome::Hit { &self.slow.hits } else { &self.slow.misses };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Collector for Counters {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sum = |count: &dyn Fn(&Block) -> &AtomicU64| blocks.iter().map(|b| count(b).load(Ordering::Relaxed)).sum();
        let mut queries = Vec::new();
        let mut seconds = Vec::new();
        for (way, name) in WAYS.iter().enumerate() {
            for (code, (_, word)) in CODES.iter().enumerate() {
                let count: u64 = sum(&|b| &b.queries[way][code]);
                if count > 0 {
                    queries.push(counted(&[("rcode", word), ("transport", name)], count));
                }
            }
            let buckets: Vec<u64> = (0..=BOUNDS_US.len()).map(|i| sum(&|b| &b.seconds[way].buckets[i])).collect();
            if buckets.iter().any(|count| *count > 0) {
                seconds.push(histogram(name, &buckets, sum(&|b| &b.seconds[way].sum_ns)));
            }
        }
        let wire = vec![
            counted(&[("outcome", "hit")], sum(&|b| &b.hits)),
            counted(&[("outcome", "miss")], sum(&|b| &b.misses)),
        ];
        let (mut zones, mut members) = (Vec::new(), Vec::new());
        for number in 0..self.labels.len().min(LABELS_MAX) {
            for (code, short) in SHORT.iter().enumerate() {
                let count: u64 = sum(&|b| &b.labels[number * SHORT.len() + code]);
                match self.labels.label(number as u16) {
                    _ if count == 0 => {}
                    Label::Zone(zone) => zones.push(counted(&[("rcode", short), ("zone", &zone)], count)),
                    Label::Member(member) => members.push(counted(&[("member", &member), ("rcode", short)], count)),
                }
            }
        }
        let edes = (0..EDES).map(|ede| (ede, sum(&|b| &b.edes[ede])));
        let word = |ede: usize| if ede == EDES - 1 { "other".to_owned() } else { ede.to_string() };
        let edes = edes.filter(|(_, count)| *count > 0).map(|(ede, count)| counted(&[("ede", &word(ede))], count));
        let families = [queries, seconds, wire, zones, members, edes.collect()].into_iter().zip(self.descs.iter());
        families.filter(|(metrics, _)| !metrics.is_empty()).map(|(metrics, desc)| family(metrics, desc)).collect()
    }
}

fn family(metrics: Vec<Metric>, desc: &Desc) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    let seconds = desc.fq_name.ends_with("_seconds");
    family.set_field_type(if seconds { MetricType::HISTOGRAM } else { MetricType::COUNTER });
    family.set_metric(metrics);
    family
}

fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    pairs.iter().map(pair).collect()
}

fn counted(pairs: &[(&str, &str)], count: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(count as f64);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_counter(counter);
    metric
}

fn histogram(way: &str, buckets: &[u64], sum_ns: u64) -> Metric {
    let mut histogram = Histogram::default();
    let mut below = 0;
    let mut cumulative = Vec::new();
    for (count, bound) in buckets.iter().zip(BOUNDS_US) {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_cumulative_count(below);
        bucket.set_upper_bound(Duration::from_micros(bound).as_secs_f64());
        cumulative.push(bucket);
    }
    histogram.set_bucket(cumulative);
    histogram.set_sample_count(buckets.iter().sum());
    histogram.set_sample_sum(Duration::from_nanos(sum_ns).as_secs_f64());
    let mut metric = Metric::from_label(labels(&[("transport", way)]));
    metric.set_histogram(histogram);
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_count_for_themselves_and_are_summed() {
        let labels = Arc::new(Labels::default());
        let counters = Counters::new(Arc::clone(&labels)).unwrap();
        let registry = prometheus::Registry::new();
        registry.register(Box::new(counters.clone())).unwrap();
        let (first, second) = (counters.block(), counters.block());
        let made = |source| Answer { sources: vec![source], ..Answer::records(vec![]) };
        let apex = hickory_proto::rr::Name::from_ascii("own.example.").unwrap();
        let zone = labels.of(&made(crate::answer::Source::Zone(apex.clone())), Some(&apex));
        let member = labels.of(&made(crate::answer::Source::Member("eu".parse().unwrap())), Some(&apex));
        for (block, rcode, label, ede) in [
            (&first, 0, zone, 0),
            (&first, 3, zone, 0),
            (&second, 0, zone, 0),
            (&second, 23, crate::labels::NOBODY, 0),
            (&second, 0, member, 4),
        ] {
            block.datagram(Told { rcode, label, ede });
            block.took(1, Duration::from_micros(30));
            block.wire(1, 2);
        }
        let failed = Told { label: member, ede: 23, ..ResponseCode::ServFail.into() };
        counters.query("doq", failed, Duration::from_secs(3));
        counters.query("pigeon", Told { ede: u8::MAX, ..Told::default() }, Duration::from_micros(1));
        counters.wire(Outcome::Hit);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            r#"atoll_dns_queries_total{rcode="NOERROR",transport="udp"} 3"#,
            r#"atoll_dns_queries_total{rcode="NXDOMAIN",transport="udp"} 1"#,
            r#"atoll_dns_queries_total{rcode="BADCOOKIE",transport="udp"} 1"#,
            r#"atoll_dns_queries_total{rcode="SERVFAIL",transport="doq"} 1"#,
            r#"atoll_dns_queries_total{rcode="NOERROR",transport="other"} 1"#,
            r#"atoll_dns_query_seconds_bucket{transport="udp",le="0.00002"} 0"#,
            r#"atoll_dns_query_seconds_bucket{transport="udp",le="0.00005"} 5"#,
            r#"atoll_dns_query_seconds_bucket{transport="doq",le="2"} 0"#,
            r#"atoll_dns_query_seconds_bucket{transport="doq",le="+Inf"} 1"#,
            r#"atoll_dns_query_seconds_count{transport="doq"} 1"#,
            r#"atoll_dns_wire_cache_total{outcome="hit"} 6"#,
            r#"atoll_dns_wire_cache_total{outcome="miss"} 10"#,
            r#"atoll_dns_zone_queries_total{rcode="NOERROR",zone="own.example"} 2"#,
            r#"atoll_dns_zone_queries_total{rcode="NXDOMAIN",zone="own.example"} 1"#,
            r#"atoll_dns_zone_queries_total{rcode="OTHER",zone="(none)"} 1"#,
            r#"atoll_dns_member_queries_total{member="eu",rcode="NOERROR"} 1"#,
            r#"atoll_dns_member_queries_total{member="eu",rcode="SERVFAIL"} 1"#,
            r#"atoll_dns_extended_errors_total{ede="3"} 1"#,
            r#"atoll_dns_extended_errors_total{ede="22"} 1"#,
            r#"atoll_dns_extended_errors_total{ede="other"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
