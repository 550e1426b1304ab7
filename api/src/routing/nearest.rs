//! `nearest`: the asker's own cluster, then its zone, its region, then neighbouring regions, then by distance over the earth.
//! `{policy: nearest, neighbours: {eu-central: [eu-north, eu-west]}}`.
//!
//! Clusters of the same zone or region are equal. Beyond the region, the regions that `neighbours` names come first, in its order; then
//! whole kilometres of great-circle distance decide (haversine, Sinnott 1984); a cluster without a location comes last. An asker without a
//! location stands in the middle of its region's candidates.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::policy::{Parsed, read};
use super::{Asker, Candidate, Route, by_rank};

const EARTH_RADIUS_KM: f64 = 6371.0;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nearest {
    #[serde(default)]
    neighbours: BTreeMap<String, Vec<String>>,
}

pub(super) fn parse(parameters: &Map<String, Value>) -> Parsed {
    Ok(Box::new(read::<Nearest>("nearest", parameters)?))
}

impl Route for Nearest {
    fn route(&self, asker: &Asker<'_>, candidates: &[Candidate<'_>], tier: Vec<usize>) -> Vec<Vec<usize>> {
        let here = asker.location.or_else(|| middle(asker.region?, candidates));
        by_rank(&tier, |i| self.rank(asker, here, &candidates[i]))
    }
}

impl Nearest {
    /// (how far in words, how far in kilometres or neighbours).
    fn rank(&self, asker: &Asker<'_>, here: Option<(f64, f64)>, c: &Candidate<'_>) -> (u8, u32) {
        let spec = &c.cluster.spec;
        let same_region = asker.region.is_some() && asker.region == spec.region.as_deref();
        // The same word for a zone in two regions is two zones.
        let other_region = asker.region.is_some() && spec.region.is_some() && !same_region;
        if asker.cluster == Some(c.name()) {
            return (0, 0);
        }
        if asker.zone.is_some() && asker.zone == spec.zone.as_deref() && !other_region {
            return (1, 0);
        }
        if same_region {
            return (2, 0);
        }
        let listed = asker.region.and_then(|r| self.neighbours.get(r));
        let neighbour = listed.and_then(|l| l.iter().position(|r| Some(r) == spec.region.as_ref()));
        if let Some(at) = neighbour {
            return (3, u32::try_from(at).unwrap_or(u32::MAX));
        }
        let there = spec.location.as_ref().and_then(crate::kinds::Location::degrees);
        match (here, there) {
            (Some(a), Some(b)) => (4, whole_km(distance_km(a, b))),
            (Some(_), None) => (4, u32::MAX),
            (None, _) => (4, 0),
        }
    }
}

/// The middle of the candidates of `region`: good enough for clusters that share a region.
fn middle(region: &str, candidates: &[Candidate<'_>]) -> Option<(f64, f64)> {
    let mut places: Vec<(f64, f64)> = candidates
        .iter()
        .filter(|c| c.cluster.spec.region.as_deref() == Some(region))
        .filter_map(|c| c.cluster.spec.location.as_ref()?.degrees())
        .collect();
    // Sums of floats depend on their order; the answer must not.
    places.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let n = places.len() as f64;
    let sum = places.iter().fold((0.0, 0.0), |s, p| (s.0 + p.0, s.1 + p.1));
    (!places.is_empty()).then(|| (sum.0 / n, sum.1 / n))
}

/// Great-circle distance between two places in degrees, in kilometres.
pub fn distance_km(a: (f64, f64), b: (f64, f64)) -> f64 {
    let (lat_a, lat_b) = (a.0.to_radians(), b.0.to_radians());
    let (d_lat, d_lon) = ((b.0 - a.0).to_radians(), (b.1 - a.1).to_radians());
    let h = (d_lat / 2.0).sin().powi(2) + lat_a.cos() * lat_b.cos() * (d_lon / 2.0).sin().powi(2);
    2.0 * EARTH_RADIUS_KM * h.clamp(0.0, 1.0).sqrt().asin()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "half the earth's girth is 20,016 km")]
fn whole_km(km: f64) -> u32 {
    km.round() as u32
}
