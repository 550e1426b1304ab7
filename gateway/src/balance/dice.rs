//! Numbers that nobody foresees: SplitMix64 from a random seed. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators".

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A source of them, for many threads.
#[derive(Debug)]
pub(crate) struct Dice(AtomicU64);

impl Dice {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(RandomState::new().hash_one("dice")))
    }

    /// The next number.
    pub(crate) fn roll(&self) -> u64 {
        mix(self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP))
    }

    /// Whether something happens that does so with this probability.
    pub(crate) fn hits(&self, probability: f64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "the 53 bits that a float has")]
        let rolled = (self.roll() >> 11) as f64 / (1_u64 << 53) as f64;
        rolled < probability
    }

    /// A number below `n`.
    pub(crate) fn below(&self, n: usize) -> usize {
        // The bias is n / 2⁶⁴.
        usize::try_from(self.roll() % u64::try_from(n.max(1)).unwrap_or(1)).unwrap_or_default()
    }
}

/// SplitMix64's finalizer: each bit of `z` moves about half of the result's.
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
