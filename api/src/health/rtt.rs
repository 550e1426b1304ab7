//! Round-trip times from a region to members: what the DNS servers of a region measure, as one number that does not jitter. Pure.
//!
//! In: reports of servers. Out: for each region milliseconds by member. A number changes only when it is another by [`is_other`]: a topology
//! that changed with every measurement would wake everybody for nothing.

use std::collections::BTreeMap;

use crate::names::ClusterName;

/// Less than this is noise.
const NOISE_MS: u32 = 4;

/// Whether `new` is worth telling when `old` was told: by more than 4 ms and a quarter.
pub fn is_other(old: u32, new: u32) -> bool {
    old.abs_diff(new) > NOISE_MS.max(old / 4)
}

/// What is told of every region.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured {
    regions: BTreeMap<String, BTreeMap<ClusterName, u32>>,
}

impl Measured {
    /// Takes what servers say now, each with its region; the middle of one region's counts. What nobody measures any more is forgotten.
    pub fn fold<'a>(&mut self, reports: impl Iterator<Item = (&'a str, &'a BTreeMap<ClusterName, u32>)>) {
        let mut said: BTreeMap<String, BTreeMap<ClusterName, Vec<u32>>> = BTreeMap::new();
        for (region, members) in reports {
            for (member, ms) in members {
                said.entry(region.to_owned()).or_default().entry(member.clone()).or_default().push(*ms);
            }
        }
        let told = std::mem::take(&mut self.regions);
        for (region, members) in said {
            let old = told.get(&region);
            let stable = members.into_iter().map(|(member, mut ms)| {
                ms.sort_unstable();
                let new = ms[(ms.len() - 1) / 2];
                let before = old.and_then(|o| o.get(&member)).copied();
                (member, before.filter(|b| !is_other(*b, new)).unwrap_or(new))
            });
            self.regions.insert(region, stable.collect());
        }
    }

    /// By region.
    pub fn regions(&self) -> &BTreeMap<String, BTreeMap<ClusterName, u32>> {
        &self.regions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_region_is_told_and_noise_is_not() {
        let say = |ms: u32| BTreeMap::from([("prod-eu".parse::<ClusterName>().unwrap(), ms)]);
        let mut measured = Measured::default();
        for (said, told) in [
            (vec![("eu", 10)], Some(10)),
            (vec![("eu", 13)], Some(10)),
            (vec![("eu", 30), ("eu", 12), ("eu", 500)], Some(30)),
            (vec![("eu", 35)], Some(30)),
            (vec![("us", 1)], None),
        ] {
            let said: Vec<(&str, BTreeMap<ClusterName, u32>)> = said.into_iter().map(|(r, ms)| (r, say(ms))).collect();
            measured.fold(said.iter().map(|(region, members)| (*region, members)));
            let eu = measured.regions().get("eu").and_then(|m| m.values().next().copied());
            assert_eq!(eu, told, "{said:?}");
        }
    }
}
