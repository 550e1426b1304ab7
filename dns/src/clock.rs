//! Jumps of the wall clock: NTP that steps, a machine that was asleep, somebody's hand. Pure.
//!
//! In: both clocks at each look. Out: whether the wall clock has jumped since the last one. Intervals (times to live, circuits, probes,
//! heartbeats) are measured by the clock that never jumps, so nothing else has to know; what is kept with signatures in it is made anew,
//! for those say by the wall clock when they count (RFC 4034 §3.1.5).

use std::time::Duration;

/// More than clocks are slewed by between two looks, less than validators bear: an hour before ([`crate::sign`]).
const JUMP: Duration = Duration::from_secs(60);

/// The wall clock beside the other.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    last: Option<(Duration, i64)>,
}

impl Clock {
    /// Whether it has jumped since the last look; `since` never goes back, `wall_s` is the wall clock's.
    pub(crate) fn jumped(&mut self, since: Duration, wall_s: i64) -> bool {
        let Some((before, then)) = self.last.replace((since, wall_s)) else { return false };
        let passed = i64::try_from(since.saturating_sub(before).as_secs()).unwrap_or(i64::MAX);
        wall_s.saturating_sub(then).saturating_sub(passed).unsigned_abs() > JUMP.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_told_once_and_time_that_passes_is_none() {
        let mut clock = Clock::default();
        for (case, since, wall, jumped) in [
            ("the first look", 0, 1_000_000, false),
            ("a second", 1, 1_000_001, false),
            ("a look that came late", 400, 1_000_400, false),
            ("slewed", 401, 1_000_402, false),
            ("six hours ahead", 402, 1_021_603, true),
            ("and on from there", 403, 1_021_604, false),
            ("twelve hours back", 404, 978_405, true),
            ("and on from there", 405, 978_406, false),
            ("two minutes back", 406, 978_286, true),
        ] {
            assert_eq!(clock.jumped(Duration::from_secs(since), wall), jumped, "{case}");
        }
    }
}
