//! A small seeded generator (SplitMix64), so that a lossy run can be had again. Not for secrets.

/// Throws for losses.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// The same seed, the same throws.
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Whether this one is lost, with that probability.
    pub(super) fn lost(&mut self, probability: f64) -> bool {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        // The upper 32 bits are exact in a double.
        let throw = f64::from(u32::try_from(z >> 32).expect("32 bits")) / (f64::from(u32::MAX) + 1.0);
        throw < probability
    }
}
