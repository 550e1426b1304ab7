//! Statuses of RoutePolicies (GEP-713): at each Gateway on which they have an effect; where there is none, at what they target. Pure.

use std::collections::BTreeSet;

use atoll_api::kinds::RoutePolicy;
use atoll_api::kinds::gateway::{
    GATEWAY_CONTROLLER, GATEWAY_GROUP, ParentReference, PolicyAncestorStatus, PolicyStatus,
};
use atoll_api::topology::BalancerProblem;
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::condition::{Verdict, alike, replace};
use super::{INGRESS, Update, Warning};
use crate::ingress::{CLOSED, Derived};
use crate::policy::{Judged, Target};
use crate::table::{ListenerTable, Table};

/// A status names at most so many ancestors.
const ANCESTORS_MAX: usize = 16;

/// What other fleets say.
pub(crate) struct Others<'a> {
    /// Whether what stands at a parent is theirs.
    pub(crate) leaves: Box<dyn Fn(&ParentReference) -> bool + 'a>,
    /// Whether they say what became of the policy where we serve nothing of it.
    pub(crate) left: bool,
}

/// What is to be told of policies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) updates: Vec<Update>,
    /// Of Ingresses, whose policies are nobody's objects.
    pub(crate) warnings: Vec<Warning>,
}

impl Told {
    /// Whether it says something else.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        let is_other = |(a, b): (&Update, &Update)| !a.says(b);
        self.updates.len() != other.updates.len()
            || self.updates.iter().zip(&other.updates).any(is_other)
            || self.warnings != other.warnings
    }
}

/// What is to be told of an Ingress whose filters can't be made; what its words say already is told with these.
pub(crate) fn warnings(judged: &Judged, derived: &Derived) -> Vec<Warning> {
    let Some(target) = judged.object.spec.target_refs.first() else { return Vec::new() };
    let namespace = judged.object.namespace().unwrap_or_default();
    let uid = derived.live.get(&(namespace.clone(), target.name.clone())).and_then(|live| live.uid.clone());
    let of = |why: &String| Warning {
        kind: INGRESS,
        namespace: namespace.clone(),
        name: target.name.clone(),
        uid: uid.clone(),
        problem: BalancerProblem {
            reason: "Closed".to_owned(),
            message: format!("{why}; it protects, so its paths answer 503"),
        },
    };
    judged.problems.iter().filter(|why| filter_of(why) != CLOSED).map(of).collect()
}

/// The filter that a problem names.
pub(crate) fn filter_of(problem: &str) -> &str {
    problem.split('`').nth(1).unwrap_or_default()
}

/// The Gateways, as namespace and name, on which anything of `targets` is served.
pub(crate) fn ancestors(table: &Table, targets: &[Target]) -> BTreeSet<(String, String)> {
    let listeners = table.slots.values().flat_map(|slot| slot.listeners.values());
    // The Gateway of Ingresses is nobody's object: there the target itself is told.
    let listeners = listeners.filter(|listener| !listener.gateway.contains(':'));
    let touched = listeners.filter(|listener| targets.iter().any(|target| touches(listener, target)));
    touched.filter_map(|l| l.gateway.split_once('/')).map(|(at, name)| (at.to_owned(), name.to_owned())).collect()
}

/// Targets that are there and serve nobody, because their namespace has as many routes as it may have; and whether that is all of them.
pub(crate) fn unserved(table: &Table, targets: &[Target]) -> Option<(String, bool)> {
    let listeners = || table.slots.values().flat_map(|slot| slot.listeners.values());
    let over = |target: &Target| {
        let route = format!("{} {}/{}", target.kind, target.namespace, target.name);
        // All rules of a route are, or none.
        let found = listeners().find_map(|listener| {
            let mut requests = listener.routes.values().flat_map(|entries| entries.iter());
            let mut streams = listener.streams.values();
            let request = requests.find(|entry| *entry.rule.route == *route).map(|entry| match &entry.rule.refused {
                Some(refused) => refused.over(),
                None => None,
            });
            request.or_else(|| streams.find(|rule| *rule.route == *route).map(|rule| rule.over.as_ref()))
        });
        Some(format!("{} `{}` is not served: {}", target.kind, target.name, found??))
    };
    let found: Vec<String> = targets.iter().filter_map(over).collect();
    (!found.is_empty()).then(|| (found.join("; "), found.len() == targets.len()))
}

fn touches(listener: &ListenerTable, target: &Target) -> bool {
    let path = format!("{}/{}", target.namespace, target.name);
    match target.kind.as_str() {
        "Gateway" => listener.gateway == path,
        "ListenerSet" => listener.set.as_ref() == Some(&path),
        kind => {
            let route = format!("{kind} {path}");
            let mut requests = listener.routes.values().flat_map(|entries| entries.iter());
            requests.any(|entry| *entry.rule.route == *route)
                || listener.streams.values().any(|rule| *rule.route == *route)
        }
    }
}

/// What is said of a policy of which a target is missing, or not served.
pub(crate) fn accepted(judged: &Judged, missing: Option<String>, unserved: Option<(String, bool)>) -> Verdict {
    let accepted = &judged.accepted;
    match (missing, unserved) {
        _ if !accepted.status => accepted.clone(),
        (Some(why), _) => Verdict::new("Accepted", false, "TargetNotFound", why),
        (None, Some((why, true))) => Verdict::new("Accepted", false, "TargetNotServed", why),
        (None, Some((why, false))) => {
            Verdict::new("Accepted", true, accepted.reason, format!("{}; {why}", accepted.message))
        }
        (None, None) => accepted.clone(),
    }
}

/// The status of a policy of which that is `accepted`, where it says something else than before. What other controllers and
/// other fleets say stays.
pub(crate) fn update(
    newest: &RoutePolicy,
    accepted: &Verdict,
    gateways: &BTreeSet<(String, String)>,
    others: &Others<'_>,
    now: Timestamp,
) -> Option<Update> {
    let of_gateways =
        gateways.iter().map(|(namespace, name)| reference(GATEWAY_GROUP, "Gateway", namespace, name, None));
    let mut refs: Vec<ParentReference> = of_gateways.collect();
    if refs.is_empty() && !others.left {
        let own = newest.namespace().unwrap_or_default();
        let of_targets = newest.spec.target_refs.iter();
        refs.extend(of_targets.map(|t| reference(&t.group, &t.kind, &own, &t.name, t.section_name.clone())));
    }
    let old = newest.status.clone().unwrap_or_default().0.ancestors;
    let ours = |a: &PolicyAncestorStatus| a.controller_name == GATEWAY_CONTROLLER && !(others.leaves)(&a.ancestor_ref);
    let mut fresh: Vec<_> = old.iter().filter(|a| !ours(a)).cloned().collect();
    for ancestor_ref in refs.into_iter().take(ANCESTORS_MAX.saturating_sub(fresh.len())) {
        let is_it = |a: &&PolicyAncestorStatus| ours(a) && a.ancestor_ref == ancestor_ref;
        let kept = old.iter().find(is_it).map(|a| a.conditions.as_slice()).unwrap_or_default();
        let conditions = replace(kept, vec![accepted.clone()], newest.metadata.generation, now);
        fresh.push(PolicyAncestorStatus { ancestor_ref, controller_name: GATEWAY_CONTROLLER.to_owned(), conditions });
    }
    (!alike(&old, &fresh)).then(|| Update::of(newest, &PolicyStatus { ancestors: fresh })).flatten()
}

fn reference(group: &str, kind: &str, namespace: &str, name: &str, section: Option<String>) -> ParentReference {
    ParentReference {
        group: Some(group.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: Some(namespace.to_owned()),
        name: name.to_owned(),
        section_name: section,
        ..ParentReference::default()
    }
}
