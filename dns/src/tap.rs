//! What is asked and answered, for those who look on: a query log, dnstap.
//!
//! In: a query, its reply, chance. Out: a copy for every tap that takes it, on a queue that is never waited for: what does not fit is
//! lost, and counted. Without taps nothing is copied.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// A query that was answered.
#[derive(Debug, Clone)]
pub struct Seen {
    /// How it came: `udp`, `tcp`, `dot`, `doh`, `doq` or `doh3`.
    pub transport: &'static str,
    /// The client.
    pub from: SocketAddr,
    /// As it came.
    pub query: Vec<u8>,
    /// As it goes.
    pub reply: Vec<u8>,
    /// When the reply was ready.
    pub answered: Instant,
    /// From the query to the reply.
    pub took: Duration,
}

/// Somebody who looks on.
#[derive(Debug, Clone)]
pub struct Tap {
    /// The word for it in metrics.
    pub name: &'static str,
    /// It takes one in so many, by chance; at least 1.
    pub every: u32,
    /// Its queue.
    pub queue: Sender<Seen>,
}

/// All who look on; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taps {
    taps: Arc<[(Tap, IntCounter)]>,
}

impl Taps {
    pub(crate) fn new(taps: Vec<Tap>, metrics: &Metrics) -> Self {
        Self { taps: taps.into_iter().map(|tap| (tap.clone(), metrics.tap_lost(tap.name))).collect() }
    }

    /// Whether nobody looks on.
    pub(crate) fn is_off(&self) -> bool {
        self.taps.is_empty()
    }

    /// Shows what was answered to those whose turn it is.
    pub(crate) fn show(&self, dice: u64, seen: impl Fn() -> Seen) {
        // The low half decides slots of policies.
        let chance = dice >> 32;
        for (tap, lost) in self.taps.iter().filter(|(tap, _)| chance.is_multiple_of(tap.every.max(1).into())) {
            if tap.queue.try_send(seen()).is_err() {
                lost.inc();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_full_tap_loses_and_counts_and_never_waits() {
        let registry = prometheus::Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let ((all, mut first), (some, mut second)) = (mpsc::channel(2), mpsc::channel(64));
        let tap = |name, every, queue| Tap { name, every, queue };
        let taps = Taps::new(vec![tap("log", 1, all), tap("dnstap", 4, some)], &metrics);
        let seen = || Seen {
            transport: "udp",
            from: "192.0.2.1:53".parse().unwrap(),
            query: vec![1],
            reply: vec![2],
            answered: Instant::now(),
            took: Duration::ZERO,
        };
        for turn in 0..8_u64 {
            taps.show(turn << 32, seen);
        }
        assert_eq!((first.recv().await.unwrap().query, second.recv().await.unwrap().reply), (vec![1], vec![2]));
        assert_eq!((first.len(), second.len()), (1, 1));
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [r#"atoll_dns_tap_lost_total{tap="log"} 6"#, r#"atoll_dns_tap_lost_total{tap="dnstap"} 0"#] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
