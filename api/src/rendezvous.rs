//! Highest random weight: for each key every cluster has a score, the highest serves. Pure.
//!
//! Source: Thaler and Ravishankar 1998; weighted as Schindelhauer and Schomaker 2005 (score −w / ln u). Who leaves moves only its own
//! keys, who comes takes only the keys that become its own.

/// A hash of key and name that every build of every replica agrees on: FNV-1a, then the finaliser of MurmurHash3.
pub fn hash(key: u64, name: &[u8]) -> u64 {
    let fnv = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
    let mut h = key.to_be_bytes().iter().chain(name).fold(0xcbf2_9ce4_8422_2325, fnv);
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

/// The score of `name` with `weight` for `key`; the higher serves first. Weight 0 scores 0, below every other.
pub(crate) fn score(key: u64, name: &str, weight: u32) -> f64 {
    // The upper 53 bits of the hash, as a number in (0, 1).
    let u = ((hash(key, name.as_bytes()) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    if weight == 0 { 0.0 } else { -f64::from(weight) / u.ln() }
}
