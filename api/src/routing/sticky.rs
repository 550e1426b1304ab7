//! `sticky`: the same client goes to the same cluster, and moves only when that one goes. `{policy: sticky, weights: {prod-eu: 3}}`.
//!
//! Weighted rendezvous (`rendezvous`): a cluster without a weight has 1; one of weight 0 serves only when nobody else is left.
//! A change of one weight moves only clients to or from that cluster.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::policy::{Parsed, read};
use super::weighted::check;
use super::{Asker, Candidate, Key, Route};
use crate::rendezvous::{hash, score};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sticky {
    #[serde(default)]
    weights: BTreeMap<String, u32>,
}

pub(super) fn parse(parameters: &Map<String, Value>) -> Parsed {
    let step: Sticky = read("sticky", parameters)?;
    if !step.weights.is_empty() {
        check("sticky", &step.weights)?;
    }
    Ok(Box::new(step))
}

impl Route for Sticky {
    fn route(&self, asker: &Asker<'_>, candidates: &[Candidate<'_>], mut tier: Vec<usize>) -> Vec<Vec<usize>> {
        let rank = |i: usize| {
            let name = candidates[i].name();
            (score(asker.client, name, *self.weights.get(name).unwrap_or(&1)), hash(asker.client, name.as_bytes()))
        };
        tier.sort_by(|a, b| {
            let (a, b) = (rank(*a), rank(*b));
            b.0.total_cmp(&a.0).then(b.1.cmp(&a.1))
        });
        tier.into_iter().map(|i| vec![i]).collect()
    }

    fn key(&self) -> Key {
        Key::Client
    }
}
