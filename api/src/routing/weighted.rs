//! `weighted`: clusters by weight, each question anew. `{policy: weighted, weights: {prod-eu: 3, prod-us: 1}}`.
//!
//! A cluster without a weight has 1; weight 0 is asked only when nobody else is left. Weighted rendezvous (score −w / ln u): the
//! first of the order is drawn by weight, and when it fails, so is the next.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::policy::{Parsed, bad, read};
use super::{Asker, Candidate, Route, sticky};

const WEIGHT_MAX: u32 = 1_000_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Weighted {
    weights: BTreeMap<String, u32>,
}

pub(super) fn parse(parameters: &Map<String, Value>) -> Parsed {
    let step: Weighted = read("weighted", parameters)?;
    if let Some((name, _)) = step.weights.iter().find(|(_, w)| **w > WEIGHT_MAX) {
        return Err(bad("weighted", format!("weights: `{name}` is more than {WEIGHT_MAX}")));
    }
    if step.weights.values().all(|w| *w == 0) {
        return Err(bad("weighted", "weights: give at least one cluster more than 0"));
    }
    Ok(Box::new(step))
}

impl Route for Weighted {
    fn route(&self, asker: &Asker<'_>, candidates: &[Candidate<'_>], mut tier: Vec<usize>) -> Vec<Vec<usize>> {
        let score = |i: usize| {
            let name = candidates[i].name();
            // The upper 53 bits of the hash, as a number in (0, 1).
            let u = ((sticky::hash(asker.dice, name) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
            -f64::from(*self.weights.get(name).unwrap_or(&1)) / u.ln()
        };
        tier.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
        tier.into_iter().map(|i| vec![i]).collect()
    }

    fn keyed(&self) -> bool {
        true
    }
}
