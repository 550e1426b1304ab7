//! How long a server takes to answer: its percentiles over the last few hundred answers. Pure.
//!
//! In: durations. Out: the bound of the half-octave in which a percentile lies. Old answers count half each time that many came.

use std::time::Duration;

/// Half octaves from 1 µs: the last begins at over an hour.
const BUCKETS: usize = 64;
/// Answers after which all count half.
const WINDOW: u32 = 512;
/// With fewer nothing is said.
const SAMPLES_MIN: u32 = 16;

/// The durations.
#[derive(Debug, Clone)]
pub(super) struct Times {
    buckets: [u16; BUCKETS],
    count: u32,
}

impl Default for Times {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], count: 0 }
    }
}

impl Times {
    pub(super) fn note(&mut self, took: Duration) {
        if self.count >= WINDOW {
            for bucket in &mut self.buckets {
                *bucket /= 2;
            }
            self.count = self.buckets.iter().map(|n| u32::from(*n)).sum();
        }
        let bucket = &mut self.buckets[bucket(took)];
        *bucket = bucket.saturating_add(1);
        self.count += 1;
    }

    /// So many percent of the answers take no longer; `None` while too little is known.
    pub(super) fn percentile(&self, percent: u32) -> Option<Duration> {
        if self.count < SAMPLES_MIN {
            return None;
        }
        let mut left = (self.count * percent).div_ceil(100);
        let at = self.buckets.iter().position(|n| {
            left = left.saturating_sub(u32::from(*n));
            left == 0
        });
        at.map(bound)
    }
}

/// Twice the binary logarithm of the microseconds.
fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let octave = micros.ilog2();
    // The upper half of the octave begins at 1.5 times its start.
    let upper = octave > 0 && micros >> (octave - 1) & 1 == 1;
    (2 * octave as usize + usize::from(upper)).min(BUCKETS - 1)
}

fn bound(bucket: usize) -> Duration {
    let start = 1_u64 << (bucket / 2);
    Duration::from_micros(if bucket.is_multiple_of(2) { start + start.div_ceil(2) } else { start * 2 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_within_half_an_octave_and_follow_change() {
        let mut times = Times::default();
        assert_eq!(times.percentile(95), None);
        for _ in 0..94 {
            times.note(Duration::from_millis(1));
        }
        for _ in 0..6 {
            times.note(Duration::from_millis(100));
        }
        let within = |percent, least: u64, most: u64, times: &Times| {
            let got = times.percentile(percent).unwrap();
            assert!(got >= Duration::from_micros(least) && got <= Duration::from_micros(most), "{percent}: {got:?}");
        };
        within(50, 1_000, 1_600, &times);
        within(95, 100_000, 160_000, &times);
        for _ in 0..5_000 {
            times.note(Duration::from_micros(200));
        }
        within(95, 200, 320, &times);
        times.note(Duration::ZERO);
        times.note(Duration::MAX);
    }
}
