//! `weighted`: one cluster by weight, each question anew. `{policy: weighted, weights: {prod-eu: 3, prod-us: 1}}`.
//!
//! A cluster without a weight has 1; weight 0 is asked only when nobody else is left. The dice are taken modulo a number of slots, and
//! each slot belongs to one cluster, so that an answer has as many variants as there are slots and no more: a cache keeps them all.
//! Slots are shared out in whole numbers by the largest remainder (Hamilton), anew among those that are left: whoever is down leaves
//! its share to the others in their proportions.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::policy::{BadPolicy, Parsed, bad, read};
use super::{Asker, Candidate, Key, Route};

const WEIGHT_MAX: u32 = 1_000_000;
/// Slots, at most: a share is off by less than one of them.
const SLOTS_MAX: u64 = 120;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    weights: BTreeMap<String, u32>,
}

#[derive(Debug)]
struct Weighted {
    weights: BTreeMap<String, u32>,
    slots: u16,
}

pub(super) fn parse(parameters: &Map<String, Value>) -> Parsed {
    let Written { weights } = read("weighted", parameters)?;
    check("weighted", &weights)?;
    let slots = slots(&weights);
    Ok(Box::new(Weighted { weights, slots }))
}

/// Refuses weights that are too large, or that leave nobody.
pub(super) fn check(policy: &'static str, weights: &BTreeMap<String, u32>) -> Result<(), BadPolicy> {
    if let Some((name, _)) = weights.iter().find(|(_, w)| **w > WEIGHT_MAX) {
        return Err(bad(policy, format!("weights: `{name}` is more than {WEIGHT_MAX}")));
    }
    if weights.values().all(|w| *w == 0) {
        return Err(bad(policy, "weights: give at least one cluster more than 0"));
    }
    Ok(())
}

/// As many slots as make every share exact, times what fits; else the most there may be.
fn slots(weights: &BTreeMap<String, u32>) -> u16 {
    let divisor = weights.values().fold(0, |d, w| gcd(d, *w)).max(1);
    let total: u64 = weights.values().map(|w| u64::from(w / divisor)).sum();
    let slots = if (1..=SLOTS_MAX).contains(&total) { SLOTS_MAX / total * total } else { SLOTS_MAX };
    u16::try_from(slots).unwrap_or(u16::MAX)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Whose `slot` of `slots` is: the index into `weights`, of which at least one is not 0.
fn owner(slot: u64, slots: u64, weights: &[u32]) -> usize {
    let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
    let exact = |i: usize| u64::from(weights[i]) * slots;
    let mut shares: Vec<u64> = (0..weights.len()).map(|i| exact(i) / total).collect();
    let left = slots - shares.iter().sum::<u64>();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|i| (std::cmp::Reverse(exact(*i) % total), *i));
    for i in by_remainder.into_iter().take(usize::try_from(left).unwrap_or(0)) {
        shares[i] += 1;
    }
    let mut end = 0;
    let ends = shares.iter().map(|share| {
        end += share;
        end
    });
    ends.collect::<Vec<_>>().iter().position(|end| slot < *end).unwrap_or(0)
}

impl Route for Weighted {
    fn route(&self, asker: &Asker<'_>, candidates: &[Candidate<'_>], mut tier: Vec<usize>) -> Vec<Vec<usize>> {
        let slots = u64::from(self.slots);
        let slot = asker.dice % slots;
        tier.sort_by(|a, b| candidates[*a].name().cmp(candidates[*b].name()));
        let mut order = Vec::with_capacity(tier.len());
        while !tier.is_empty() {
            let mut weights: Vec<u32> =
                tier.iter().map(|i| *self.weights.get(candidates[*i].name()).unwrap_or(&1)).collect();
            if weights.iter().all(|w| *w == 0) {
                weights.fill(1);
            }
            order.push(vec![tier.remove(owner(slot, slots, &weights))]);
        }
        order
    }

    fn key(&self) -> Key {
        Key::Slots(self.slots)
    }
}
