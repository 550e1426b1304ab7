//! How long to wait before a connection is opened anew.
//!
//! In: how long the last one held. Out: a pause that doubles as long as connections end early, never twice the same.

use std::time::Duration;

use rand::RngExt as _;

/// A connection that held for this long was a good one.
const GOOD_AFTER: Duration = Duration::from_secs(30);

/// The pauses between connections to one address.
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    last: Duration,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, last: min }
    }

    /// The pause after a connection that held for `held`.
    pub(crate) fn after(&mut self, held: Duration) -> Duration {
        self.last = if held > GOOD_AFTER { self.min } else { (self.last * 2).min(self.max) };
        self.last.mul_f64(rand::rng().random_range(0.5..1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_begin_anew_after_a_good_connection() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(10));
        for (held, most) in [(0, 2), (0, 4), (29, 8), (0, 10), (0, 10), (31, 1), (0, 2)] {
            let pause = backoff.after(seconds(held));
            assert!(pause >= seconds(most) / 2 && pause <= seconds(most), "held {held} s: {pause:?}, at most {most} s");
        }
    }
}
