//! `geofence`: a border that is never crossed. `{policy: geofence, only: {regions: [eu-central]}, from: [eu-central]}`.
//!
//! `only` is a selector of clusters; without it, the asker's own region. `from` says for askers from which regions the border
//! holds; without it, for all. An asker of unknown region has no own region and gets nobody.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::policy::{Parsed, read};
use super::{Asker, Candidate, Route};
use crate::selector::ClusterSelector;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Geofence {
    only: Option<ClusterSelector>,
    #[serde(default)]
    from: Vec<String>,
}

pub(super) fn parse(parameters: &Map<String, Value>) -> Parsed {
    Ok(Box::new(read::<Geofence>("geofence", parameters)?))
}

impl Route for Geofence {
    fn route(&self, asker: &Asker<'_>, candidates: &[Candidate<'_>], mut tier: Vec<usize>) -> Vec<Vec<usize>> {
        let applies = self.from.is_empty() || asker.region.is_some_and(|r| self.from.iter().any(|f| f == r));
        if applies {
            tier.retain(|i| {
                let c = candidates[*i].cluster;
                match &self.only {
                    Some(only) => only.matches(c.name.as_str(), &c.spec, &c.labels),
                    None => asker.region.is_some() && c.spec.region.as_deref() == asker.region,
                }
            });
        }
        vec![tier]
    }
}
