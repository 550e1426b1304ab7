//! Which members' address ranges overlap: an address says nothing about whose it is then. Pure, O(n log n) without overlaps.

use std::collections::{BTreeMap, BTreeSet};

use atoll_api::kinds::Cidrs;
use ipnet::IpNet;

/// For every member with an overlap, those it overlaps with, in order. What does not parse is left out.
pub(crate) fn overlaps<'a>(members: impl IntoIterator<Item = (&'a str, &'a Cidrs)>) -> BTreeMap<&'a str, Vec<String>> {
    let mut ranges: Vec<(IpNet, &str)> = members
        .into_iter()
        .flat_map(|(name, cidrs)| cidrs.pods.iter().chain(&cidrs.services).map(move |c| (c, name)))
        .filter_map(|(c, name)| Some((c.parse::<IpNet>().ok()?.trunc(), name)))
        .collect();
    // Wider ranges before narrower ones that start at the same address; families apart.
    ranges.sort_by_key(|(net, name)| (net.network(), net.prefix_len(), *name));
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut open: Vec<(IpNet, &str)> = Vec::new();
    for (net, name) in ranges {
        // Ranges nest or are apart, so those still open form a stack.
        while open.last().is_some_and(|(outer, _)| !outer.contains(&net)) {
            open.pop();
        }
        for (_, other) in open.iter().filter(|(_, other)| *other != name) {
            found.entry(name).or_default().insert(other);
            found.entry(other).or_default().insert(name);
        }
        open.push((net, name));
    }
    found.into_iter().map(|(name, others)| (name, others.into_iter().map(str::to_owned).collect())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_are_found_between_members_and_never_within_one() {
        let member = |pods: &[&str], services: &[&str]| Cidrs {
            pods: pods.iter().map(|s| (*s).to_owned()).collect(),
            services: services.iter().map(|s| (*s).to_owned()).collect(),
        };
        let members = [
            ("a", member(&["10.1.0.0/16"], &["10.96.0.0/12"])),
            ("b", member(&["10.2.0.0/16"], &["10.97.0.0/16"])),
            ("c", member(&["10.3.0.0/16", "10.3.4.0/24"], &["fd00::/64"])),
            ("d", member(&["fd00::/80", "garbage"], &[])),
            ("e", member(&["0.0.0.0/32"], &[])),
        ];
        let found = overlaps(members.iter().map(|(n, c)| (*n, c)));
        let expected = [("a", vec!["b"]), ("b", vec!["a"]), ("c", vec!["d"]), ("d", vec!["c"])];
        assert_eq!(found, expected.map(|(n, o)| (n, o.into_iter().map(str::to_owned).collect())).into());
    }
}
