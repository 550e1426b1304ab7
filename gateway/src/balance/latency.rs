//! How long an endpoint takes to answer: a moving average that follows peaks at once and forgets them slowly. Pure but for the type of its
//! clock: time is an argument.
//!
//! In: times of answers. Out: what one more request would cost. Source: "peak EWMA" as Finagle's load balancer has it.

use std::time::Duration;

type Instant = tokio::time::Instant;

/// After this time a measure weighs 1/e.
const DECAY: Duration = Duration::from_secs(10);
/// What an endpoint costs that is asked something and never answered yet.
const UNKNOWN: Duration = Duration::from_secs(1);

/// The average.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct PeakEwma {
    /// Seconds, and when that was so.
    last: Option<(f64, Instant)>,
}

impl PeakEwma {
    /// An answer took `took`.
    pub(crate) fn observe(&mut self, took: Duration, now: Instant) {
        let took = took.as_secs_f64();
        let average = match self.last {
            // A peak counts at once.
            Some((average, _)) if took > average => took,
            Some((average, at)) => {
                let old = weight(at, now);
                average * old + took * (1.0 - old)
            }
            None => took,
        };
        self.last = Some((average, now));
    }

    /// What a request costs where `in_flight` others are under way, seconds. An endpoint that nobody asked for long is tried again.
    pub(crate) fn cost(&self, in_flight: usize, now: Instant) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "nobody has 2⁵² requests in flight")]
        let others = in_flight as f64;
        match self.last {
            Some((average, at)) => average * weight(at, now) * (others + 1.0),
            None => UNKNOWN.as_secs_f64() * others,
        }
    }
}

/// How much what was measured at `at` still weighs.
fn weight(at: Instant, now: Instant) -> f64 {
    (-now.saturating_duration_since(at).as_secs_f64() / DECAY.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let (mut latency, start) = (PeakEwma::default(), Instant::now());
        let ms = Duration::from_millis;
        assert!(
            latency.cost(0, start) == 0.0 && latency.cost(1, start) > 0.9,
            "a new one gets one request to begin with"
        );
        latency.observe(ms(10), start);
        latency.observe(ms(500), start);
        assert!((latency.cost(0, start) - 0.5).abs() < 1e-9, "{latency:?}");
        assert!((latency.cost(3, start) - 2.0).abs() < 1e-9, "others in flight multiply");
        let later = start + ms(1000);
        latency.observe(ms(10), later);
        let cost = latency.cost(0, later);
        assert!((0.40..0.47).contains(&cost), "{cost}: one good answer does not wipe a peak out");
        assert!(latency.cost(0, later + ms(60_000)) < 0.002, "who was not asked for a minute is tried again");
    }
}
