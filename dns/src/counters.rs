//! Counts of what is answered: one block for each thread that answers, summed when somebody looks.
//!
//! In: how a query came, its code, how long it took. Out: families for Prometheus. A block has one writer, so that counting is a load and
//! a store without a lock, in memory that no other core writes; the block of the slow path has many, and adds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Histogram, LabelPair, Metric, MetricFamily, MetricType};

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

/// How long answers took.
#[derive(Debug, Default)]
struct Latency {
    /// By bound; the last is beyond them.
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_ns: AtomicU64,
}

/// What one thread counts.
#[derive(Debug, Default)]
pub(crate) struct Block {
    queries: [[AtomicU64; CODES.len()]; WAYS.len()],
    seconds: [Latency; WAYS.len()],
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Block {
    /// A query by UDP was answered with this code; by the block's only thread.
    pub(crate) fn datagram(&self, rcode: u16) {
        let at = match rcode {
            0 => 0,
            3 => 1,
            other => code_at(other.into()),
        };
        own(&self.queries[0][at], 1);
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

    fn query(&self, way: &str, rcode: ResponseCode, took: Duration) {
        let way = WAYS.iter().position(|w| *w == way).unwrap_or(WAYS.len() - 1);
        self.queries[way][code_at(rcode)].fetch_add(1, Ordering::Relaxed);
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
    descs: Arc<[Desc; 3]>,
}

impl Counters {
    /// # Errors
    /// Never: the names are good.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let desc = |name: &str, help: &str, labels: &[&str]| {
            let labels = labels.iter().map(|l| (*l).to_owned()).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, std::collections::HashMap::default())
        };
        let descs = [
            desc("atoll_dns_queries_total", "Queries answered.", &["transport", "rcode"])?,
            desc("atoll_dns_query_seconds", "From a query to its answer.", &["transport"])?,
            desc("atoll_dns_wire_cache_total", "Look-ups among the answers kept as octets.", &["outcome"])?,
        ];
        let slow = Arc::<Block>::default();
        Ok(Self { blocks: Arc::new(Mutex::new(vec![Arc::clone(&slow)])), slow, descs: Arc::new(descs) })
    }

    /// A block for one more thread.
    pub(crate) fn block(&self) -> Arc<Block> {
        let block = Arc::<Block>::default();
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&block));
        block
    }

    /// A query was answered on the slow path.
    pub(crate) fn query(&self, way: &str, rcode: ResponseCode, took: Duration) {
        self.slow.query(way, rcode, took);
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
        let families = [queries, seconds, wire].into_iter().zip(self.descs.iter());
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
        let counters = Counters::new().unwrap();
        let registry = prometheus::Registry::new();
        registry.register(Box::new(counters.clone())).unwrap();
        let (first, second) = (counters.block(), counters.block());
        for (block, rcode) in [(&first, 0), (&first, 3), (&second, 0), (&second, 23)] {
            block.datagram(rcode);
            block.took(1, Duration::from_micros(30));
            block.wire(1, 2);
        }
        counters.query("doq", ResponseCode::ServFail, Duration::from_secs(3));
        counters.query("pigeon", ResponseCode::NoError, Duration::from_micros(1));
        counters.wire(Outcome::Hit);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            r#"atoll_dns_queries_total{rcode="NOERROR",transport="udp"} 2"#,
            r#"atoll_dns_queries_total{rcode="NXDOMAIN",transport="udp"} 1"#,
            r#"atoll_dns_queries_total{rcode="BADCOOKIE",transport="udp"} 1"#,
            r#"atoll_dns_queries_total{rcode="SERVFAIL",transport="doq"} 1"#,
            r#"atoll_dns_queries_total{rcode="NOERROR",transport="other"} 1"#,
            r#"atoll_dns_query_seconds_bucket{transport="udp",le="0.00002"} 0"#,
            r#"atoll_dns_query_seconds_bucket{transport="udp",le="0.00005"} 4"#,
            r#"atoll_dns_query_seconds_bucket{transport="doq",le="2"} 0"#,
            r#"atoll_dns_query_seconds_bucket{transport="doq",le="+Inf"} 1"#,
            r#"atoll_dns_query_seconds_count{transport="doq"} 1"#,
            r#"atoll_dns_wire_cache_total{outcome="hit"} 5"#,
            r#"atoll_dns_wire_cache_total{outcome="miss"} 8"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
