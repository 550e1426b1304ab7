//! `failover`: groups of clusters in order. `{policy: failover, groups: [[prod-eu, prod-us], [dr]]}`.
//!
//! A cluster in no group is not asked. Groups replace the roles: who writes them says who stands by.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::policy::{Parsed, bad, read};
use super::{Asker, Candidate, Route, by_rank};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Failover {
    groups: Vec<Vec<String>>,
}

pub(super) fn parse(parameters: &Map<String, Value>) -> Parsed {
    let step: Failover = read("failover", parameters)?;
    let mut named: Vec<&String> = step.groups.iter().flatten().collect();
    named.sort_unstable();
    if named.is_empty() {
        return Err(bad("failover", "groups: name at least one cluster"));
    }
    if let Some(twice) = named.windows(2).find(|w| w[0] == w[1]) {
        return Err(bad("failover", format!("groups: cluster `{}` is named twice", twice[0])));
    }
    Ok(Box::new(step))
}

impl Route for Failover {
    fn route(&self, _: &Asker<'_>, candidates: &[Candidate<'_>], mut tier: Vec<usize>) -> Vec<Vec<usize>> {
        let group = |i: usize| self.groups.iter().position(|g| g.iter().any(|name| name == candidates[i].name()));
        tier.retain(|i| group(*i).is_some());
        by_rank(&tier, group)
    }

    fn ranks_roles(&self) -> bool {
        true
    }
}
