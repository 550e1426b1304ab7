//! Which RoutePolicy gives each filter at a place. Pure. Source: GEP-713 (inherited policies, conflicts).
//!
//! In: policies, the oldest first, with what they target; a place as its levels, the most specific first (rule, route, listener, ListenerSet,
//! Gateway). Out: for each filter the one policy that gives it: the most specific, of those the oldest.

use std::collections::{BTreeMap, HashMap};

/// What a policy targets, or what a place is a part of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) section: Option<String>,
}

impl Target {
    pub(crate) fn new(kind: &str, namespace: &str, name: &str, section: Option<&str>) -> Self {
        let (kind, namespace, name) = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        Self { kind, namespace, name, section: section.map(str::to_owned) }
    }
}

/// The levels of a place, the most specific first.
pub(crate) fn levels(
    gateway: (&str, &str),
    set: Option<(&str, &str)>,
    listener: &str,
    route: (&str, &str, &str),
    rule: Option<&str>,
) -> Vec<Target> {
    let mut levels = Vec::with_capacity(6);
    if rule.is_some() {
        levels.push(Target::new(route.0, route.1, route.2, rule));
    }
    levels.push(Target::new(route.0, route.1, route.2, None));
    match set {
        Some((namespace, name)) => {
            levels.push(Target::new("ListenerSet", namespace, name, Some(listener)));
            levels.push(Target::new("ListenerSet", namespace, name, None));
        }
        None => levels.push(Target::new("Gateway", gateway.0, gateway.1, Some(listener))),
    }
    levels.push(Target::new("Gateway", gateway.0, gateway.1, None));
    levels
}

/// What one policy says: its targets, and the names of its filters.
pub(crate) struct Said {
    pub(crate) targets: Vec<Target>,
    pub(crate) filters: Vec<String>,
}

/// Policies by what they target.
#[derive(Debug, Default)]
pub(crate) struct Index {
    by_target: HashMap<Target, Vec<usize>>,
    filters: Vec<Vec<String>>,
}

impl Index {
    /// `policies`: the oldest first.
    pub(crate) fn new(policies: Vec<Said>) -> Self {
        let mut index = Self::default();
        for (at, policy) in policies.into_iter().enumerate() {
            for target in policy.targets {
                let there = index.by_target.entry(target).or_default();
                if there.last() != Some(&at) {
                    there.push(at);
                }
            }
            index.filters.push(policy.filters);
        }
        index
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_target.is_empty()
    }

    /// Whether any policy targets it.
    pub(crate) fn has(&self, target: &Target) -> bool {
        self.by_target.contains_key(target)
    }

    /// For each filter the policy, by its place, that gives it.
    pub(crate) fn winners(&self, levels: &[Target]) -> BTreeMap<&str, usize> {
        let mut winners = BTreeMap::new();
        for policy in levels.iter().filter_map(|level| self.by_target.get(level)).flatten() {
            for filter in &self.filters[*policy] {
                winners.entry(filter.as_str()).or_insert(*policy);
            }
        }
        winners
    }

    /// Filters of a policy that an older one with the same target gives, with that one; only those that lose at every target of theirs.
    pub(crate) fn lost(&self, policy: usize, targets: &[Target]) -> BTreeMap<&str, usize> {
        let older = |filter: &str, target: &Target| {
            let there = self.by_target.get(target)?;
            there.iter().copied().find(|other| *other < policy && self.filters[*other].iter().any(|f| f == filter))
        };
        let of = |filter: &'_ str| -> Option<usize> {
            let mut all = targets.iter().map(|target| older(filter, target));
            let first = all.next()??;
            all.all(|other| other.is_some()).then_some(first)
        };
        self.filters[policy].iter().filter_map(|filter| Some((filter.as_str(), of(filter)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kind/name` or `kind/name#section`, all of namespace `n`.
    fn target(written: &str) -> Target {
        let (kind, rest) = written.split_once('/').unwrap();
        let (name, section) = rest.split_once('#').map_or((rest, None), |(name, section)| (name, Some(section)));
        Target::new(kind, "n", name, section)
    }

    fn index(policies: &[(&str, &str)]) -> Index {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let said = policies.iter().map(|(targets, filters)| Said {
            targets: words(targets).iter().map(|t| target(t)).collect(),
            filters: words(filters),
        });
        Index::new(said.collect())
    }

    #[test]
    fn the_most_specific_gives_a_filter_then_the_oldest() {
        let at_gateway = levels(("n", "g"), None, "l", ("HTTPRoute", "n", "r"), Some("first"));
        let at_set = levels(("n", "g"), Some(("n", "s")), "l", ("HTTPRoute", "n", "r"), None);
        type Case = (&'static str, &'static [(&'static str, &'static str)], bool, &'static [(&'static str, usize)]);
        let cases: [Case; 10] = [
            ("nobody", &[], true, &[]),
            ("a Gateway's goes down to its routes", &[("Gateway/g", "rate")], true, &[("rate", 0)]),
            ("a route's goes before", &[("Gateway/g", "rate"), ("HTTPRoute/r", "rate")], true, &[("rate", 1)]),
            (
                "for each filter alone",
                &[("Gateway/g", "rate jwt"), ("HTTPRoute/r", "rate")],
                true,
                &[("jwt", 0), ("rate", 1)],
            ),
            (
                "a rule's before its route's",
                &[("HTTPRoute/r", "rate"), ("HTTPRoute/r#first", "rate")],
                true,
                &[("rate", 1)],
            ),
            ("another rule's is none", &[("HTTPRoute/r#second", "rate")], true, &[]),
            (
                "a listener's before its Gateway's",
                &[("Gateway/g", "rate"), ("Gateway/g#l", "rate")],
                true,
                &[("rate", 1)],
            ),
            (
                "of two the older",
                &[("HTTPRoute/r", "rate"), ("HTTPRoute/r", "rate cors")],
                true,
                &[("cors", 1), ("rate", 0)],
            ),
            (
                "a set's between",
                &[("Gateway/g", "rate"), ("ListenerSet/s", "rate"), ("ListenerSet/s#l", "cors")],
                false,
                &[("cors", 2), ("rate", 1)],
            ),
            ("a Gateway's section is none of its set's", &[("Gateway/g#l", "rate")], false, &[]),
        ];
        for (name, policies, own, expected) in cases {
            let found = index(policies);
            let found = found.winners(if own { &at_gateway } else { &at_set });
            assert_eq!(found.into_iter().collect::<Vec<_>>(), expected, "{name}");
        }
    }

    #[test]
    fn a_policy_lost_a_filter_only_where_an_older_one_has_every_target() {
        for (policies, lost) in [
            (&[("HTTPRoute/r", "rate"), ("HTTPRoute/r", "rate cors")][..], &["rate"][..]),
            (&[("HTTPRoute/r", "rate"), ("HTTPRoute/r HTTPRoute/q", "rate")], &[]),
            (&[("HTTPRoute/r HTTPRoute/q", "rate"), ("HTTPRoute/q", "rate")], &["rate"]),
            (&[("Gateway/g", "rate"), ("HTTPRoute/r", "rate")], &[]),
        ] {
            let targets: Vec<Target> = policies[1].0.split(' ').map(target).collect();
            assert_eq!(index(policies).lost(1, &targets).into_keys().collect::<Vec<_>>(), lost, "{policies:?}");
        }
    }
}
