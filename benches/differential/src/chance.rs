//! Chance by a seed: the same on every machine, for ever. Pure.
//!
//! In: a seed. Out: numbers. Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (SplitMix64).

/// A sequence of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    /// The sequence of the `n`th thing of a seed.
    pub(crate) fn of(seed: u64, n: u64) -> Self {
        let mut chance = Self(seed ^ n.wrapping_mul(0xd134_2543_de82_ef95));
        chance.next();
        chance
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// One of `0..end`; 0 when that is empty.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end.max(1)
    }

    /// Whether something happens that does so in `percent` of a hundred cases.
    pub(crate) fn happens(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub(crate) fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }

    /// One octet.
    pub(crate) fn octet(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}
