//! `latency`: by the round-trip time measured from the asker's region. `{policy: latency, toleranceMs: 10}`.
//!
//! The DNS servers measure it with every probe, and the hub folds what those of one region say into one number for each cluster. The
//! asker's own cluster comes first; clusters within the tolerance of the best are equal, so that noise moves nobody; those that nobody
//! measured come last. From a region in which nothing stands that measures, it is `nearest`.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::nearest::Nearest;
use super::policy::{Parsed, read};
use super::{Asker, Candidate, Route};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Latency {
    #[serde(default = "tolerance")]
    tolerance_ms: u32,
}

fn tolerance() -> u32 {
    10
}

pub(super) fn parse(parameters: &Map<String, Value>) -> Parsed {
    Ok(Box::new(read::<Latency>("latency", parameters)?))
}

impl Route for Latency {
    fn route(&self, asker: &Asker<'_>, candidates: &[Candidate<'_>], tier: Vec<usize>) -> Vec<Vec<usize>> {
        let Some(measured) = asker.rtt.filter(|rtt| !rtt.is_empty()) else {
            return Nearest::default().route(asker, candidates, tier);
        };
        let ms = |i: usize| match candidates[i].name() {
            own if asker.cluster == Some(own) => Some(0),
            other => measured.get(other).copied(),
        };
        let (mut known, unknown): (Vec<usize>, Vec<usize>) = tier.into_iter().partition(|i| ms(*i).is_some());
        known.sort_by(|a, b| ms(*a).cmp(&ms(*b)).then_with(|| candidates[*a].name().cmp(candidates[*b].name())));
        let mut tiers: Vec<Vec<usize>> = Vec::new();
        let mut best = 0u32;
        for i in known {
            let own = ms(i).unwrap_or(u32::MAX);
            match tiers.last_mut().filter(|_| own <= best.saturating_add(self.tolerance_ms)) {
                Some(tier) => tier.push(i),
                None => {
                    best = own;
                    tiers.push(vec![i]);
                }
            }
        }
        for tier in &mut tiers {
            tier.sort_by(|a, b| candidates[*a].name().cmp(candidates[*b].name()));
        }
        tiers.push(unknown);
        tiers
    }
}
