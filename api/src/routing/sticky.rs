//! `sticky`: the same client goes to the same cluster, and moves only when that one goes. `{policy: sticky}`.
//!
//! Highest random weight (Thaler and Ravishankar 1998): each cluster is scored by a hash of client and name; the order of the rest
//! does not change when one leaves.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::policy::{Parsed, read};
use super::{Asker, Candidate, Route};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sticky {}

pub(super) fn parse(parameters: &Map<String, Value>) -> Parsed {
    Ok(Box::new(read::<Sticky>("sticky", parameters)?))
}

impl Route for Sticky {
    fn route(&self, asker: &Asker<'_>, candidates: &[Candidate<'_>], mut tier: Vec<usize>) -> Vec<Vec<usize>> {
        tier.sort_by_key(|i| std::cmp::Reverse(hash(asker.client, candidates[*i].name())));
        tier.into_iter().map(|i| vec![i]).collect()
    }

    fn keyed(&self) -> bool {
        true
    }
}

/// A hash of key and name that every build of every replica agrees on: FNV-1a, then the finaliser of MurmurHash3.
pub(super) fn hash(key: u64, name: &str) -> u64 {
    let fnv = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
    let mut h = key.to_be_bytes().iter().chain(name.as_bytes()).fold(0xcbf2_9ce4_8422_2325, fnv);
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}
