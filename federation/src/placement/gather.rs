//! What a placement pass reasons about, gathered from objects and reports. Pure but for reading memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::duration;
use atoll_api::kinds::{Assignment, Bundle, PlacementPolicy, PlacementRules, SyncMode};
use atoll_api::names::ClusterName;
use atoll_api::topology::BundleReport;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;

use super::model::{Member, Resources, Standing};
use super::render::REPLICAS_MAX;
use crate::membership::{Judged, Phase};

/// A Bundle by namespace and name.
pub(super) type Key = (String, String);

pub(super) fn key_of(bundle: &Bundle) -> Key {
    (bundle.namespace().unwrap_or_default(), bundle.name_any())
}

/// What a cluster was told of a Bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) replicas: i32,
    pub(super) revision: String,
    /// RFC 3339, since when it is to leave.
    pub(super) leaving: Option<String>,
}

/// What every cluster was told of every Bundle.
pub(super) type Tellings = BTreeMap<Key, BTreeMap<String, Told>>;

/// The tellings that the Assignments hold: where a hub that starts goes on from.
pub(super) fn tellings(assignments: &[Arc<Assignment>]) -> Tellings {
    let mut all = Tellings::new();
    for assignment in assignments {
        for b in &assignment.spec.bundles {
            let told =
                Told { replicas: b.replicas.unwrap_or(1), revision: b.revision.clone(), leaving: b.leaving.clone() };
            let key = (b.namespace.clone(), b.name.clone());
            all.entry(key).or_default().insert(assignment.spec.cluster.clone(), told);
        }
    }
    all
}

/// The rules of a Bundle with its durations parsed.
#[derive(Debug, Clone)]
pub(super) struct Ruled {
    pub(super) rules: PlacementRules,
    pub(super) after: Duration,
    pub(super) stabilise: Duration,
}

/// Finds and checks the rules that hold for `bundle`: the policy it refers to, else its own, else those of the policy that
/// selects it.
pub(super) fn rules_of(bundle: &Bundle, policies: &[Arc<PlacementPolicy>]) -> Result<Ruled, String> {
    let namespace = bundle.namespace();
    let mut here: Vec<_> = policies.iter().filter(|p| p.namespace() == namespace).collect();
    here.sort_by_key(|p| (std::cmp::Reverse(p.spec.rules.priority), p.name_any()));
    let placement = &bundle.spec.placement;
    let rules = match &placement.policy_ref {
        Some(wanted) => {
            let found = here.iter().find(|p| p.name_any() == wanted.name);
            &found
                .ok_or_else(|| format!("placement policy `{}`: there is none in this namespace", wanted.name))?
                .spec
                .rules
        }
        None if placement.rules == PlacementRules::default() => {
            let selects =
                |p: &&&Arc<PlacementPolicy>| p.spec.bundles.as_ref().is_some_and(|s| selected(s, bundle.labels()));
            here.iter().find(selects).map_or(&placement.rules, |p| &p.spec.rules)
        }
        None => &placement.rules,
    };
    parse(rules)
}

/// Parses the durations and checks what a schema can't.
fn parse(rules: &PlacementRules) -> Result<Ruled, String> {
    let after = duration::parse(&rules.failover.after).map_err(|e| format!("failover.after: {e}"))?;
    let stabilise = duration::parse(&rules.failback.stabilise).map_err(|e| format!("failback.stabilise: {e}"))?;
    for spread in &rules.spread {
        if let (Some(min), Some(max)) = (spread.min, spread.max)
            && min > max
        {
            return Err(format!("spread by `{}`: min {min} is more than max {max}", spread.by));
        }
    }
    Ok(Ruled { rules: rules.clone(), after, stabilise })
}

/// Whether rules make sense.
pub(crate) fn check(rules: &PlacementRules) -> Result<(), String> {
    parse(rules).map(drop)
}

fn selected(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let exact = selector.match_labels.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    let expressions = selector.match_expressions.iter().flatten().all(|e| {
        let (have, values) = (labels.get(&e.key), e.values.as_deref().unwrap_or_default());
        match e.operator.as_str() {
            "In" => have.is_some_and(|v| values.contains(v)),
            "NotIn" => have.is_none_or(|v| !values.contains(v)),
            "Exists" => have.is_some(),
            "DoesNotExist" => have.is_none(),
            _ => false,
        }
    });
    exact && expressions
}

/// How `judged` stands for a Bundle with these rules that had lost it there before (`was_lost`). `storm`: nobody is
/// declared lost.
pub(super) fn standing(judged: &Judged, ruled: &Ruled, was_lost: bool, storm: bool) -> Standing {
    if judged.cluster.spec.sync.mode == SyncMode::None {
        return Standing::NamesOnly;
    }
    let verdict = &judged.verdict;
    match verdict.phase {
        Phase::Ready if was_lost && (!ruled.rules.failback.enabled || verdict.good_for < ruled.stabilise) => {
            Standing::Stabilising
        }
        Phase::Ready => Standing::Ready,
        Phase::Joining => Standing::Suspect,
        _ if ruled.rules.failover.enabled && !storm && verdict.silent_for > ruled.after => Standing::Lost,
        _ => Standing::Suspect,
    }
}

/// The member as the solver wants it; free room as reported, else as last written.
pub(super) fn member(name: &ClusterName, judged: &Judged) -> Member {
    let status = judged.cluster.status.as_ref();
    let free = if judged.member.free.is_empty() {
        status.map(|s| Resources::from_quantities(&s.free)).unwrap_or_default()
    } else {
        Resources::from_quantities(&judged.member.free)
    };
    Member {
        name: name.to_string(),
        spec: judged.cluster.spec.clone(),
        labels: judged.cluster.labels().clone(),
        standing: Standing::Suspect,
        free,
    }
}

/// A report as an agent sent it, with numbers that can be: a member's word must not disturb the sums of others.
pub(super) fn report(json: &[u8]) -> Option<BundleReport> {
    let report: BundleReport = serde_json::from_slice(json).ok()?;
    let bound = |n: i32| n.clamp(0, REPLICAS_MAX);
    Some(BundleReport {
        replicas: bound(report.replicas),
        ready_replicas: bound(report.ready_replicas),
        unschedulable: bound(report.unschedulable),
        ..report
    })
}

/// Replicas of a Bundle that a cluster was told to run and that do not show in its free room yet.
pub(super) fn pending(told: i32, report: Option<&BundleReport>) -> i32 {
    let running = report.map_or(0, |r| r.ready_replicas.max(r.replicas - r.unschedulable));
    (told - running).max(0)
}

/// More than half of the members lost while the hub has just started: it is more likely us.
pub(super) fn is_storm(members: &BTreeMap<ClusterName, Judged>, up_for: Duration) -> bool {
    let linked: Vec<_> = members.values().filter(|j| j.cluster.spec.sync.mode != SyncMode::None).collect();
    let known = linked.iter().filter(|j| j.verdict.phase != Phase::Joining);
    let (lost, all) =
        known.fold((0, 0), |(lost, all), j| (lost + usize::from(j.verdict.phase != Phase::Ready), all + 1));
    up_for < Duration::from_secs(120) && lost * 2 > all
}

#[cfg(test)]
mod tests {
    use atoll_api::kinds::{Failback, Failover, NameRef, PlacementPolicySpec, Spread};
    use serde_json::json;

    use super::*;

    fn policy(name: &str, priority: i32, tier: &str) -> Arc<PlacementPolicy> {
        let selector = LabelSelector {
            match_labels: Some([("tier".to_owned(), tier.to_owned())].into()),
            ..LabelSelector::default()
        };
        let rules = PlacementRules { priority, ..PlacementRules::default() };
        let mut policy = PlacementPolicy::new(name, PlacementPolicySpec { bundles: Some(selector), rules });
        policy.metadata.namespace = Some("shop".into());
        Arc::new(policy)
    }

    #[test]
    fn the_rules_are_those_referred_to_else_its_own_else_those_that_select_it() {
        let policies = [policy("low", 1, "gold"), policy("high", 5, "gold"), policy("other", 9, "tin")];
        let mut bundle = Bundle::new("web", Default::default());
        bundle.metadata.namespace = Some("shop".into());
        bundle.metadata.labels = Some([("tier".to_owned(), "gold".to_owned())].into());
        assert_eq!(rules_of(&bundle, &policies).unwrap().rules.priority, 5);
        bundle.spec.placement.rules.priority = 3;
        assert_eq!(rules_of(&bundle, &policies).unwrap().rules.priority, 3);
        bundle.spec.placement.policy_ref = Some(NameRef { name: "low".into() });
        assert_eq!(rules_of(&bundle, &policies).unwrap().rules.priority, 1);
        bundle.spec.placement.policy_ref = Some(NameRef { name: "none".into() });
        assert!(rules_of(&bundle, &policies).unwrap_err().contains("`none`"));
    }

    #[test]
    fn what_a_schema_cannot_check_is_checked_and_named() {
        let bad_after = Failover { after: "soon".into(), ..Failover::default() };
        let bad_back = Failback { stabilise: "10".into(), ..Failback::default() };
        let spread = Spread { by: "region".into(), min: Some(3), max: Some(2), max_skew: None };
        for (rules, says) in [
            (PlacementRules { failover: bad_after, ..PlacementRules::default() }, "failover.after"),
            (PlacementRules { failback: bad_back, ..PlacementRules::default() }, "failback.stabilise"),
            (PlacementRules { spread: vec![spread], ..PlacementRules::default() }, "min 3 is more than max 2"),
        ] {
            assert!(check(&rules).unwrap_err().contains(says), "{says}");
        }
        assert!(check(&PlacementRules::default()).is_ok());
    }

    #[test]
    fn numbers_that_cannot_be_are_bounded_before_anything_is_computed() {
        let low = i32::MIN;
        for (json, want) in [
            (json!({"replicas": 3, "readyReplicas": 2, "unschedulable": 1}), [3, 2, 1]),
            (json!({"replicas": i32::MAX, "readyReplicas": low, "unschedulable": low}), [REPLICAS_MAX, 0, 0]),
        ] {
            let report = report(json.to_string().as_bytes()).unwrap();
            assert_eq!([report.replicas, report.ready_replicas, report.unschedulable], want);
            assert!(pending(4, Some(&report)) <= 4);
        }
        assert!(report(b"7").is_none() && report(br#"{"replicas": 3000000000}"#).is_none());
    }
}
