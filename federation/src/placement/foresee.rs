//! What placement would decide, out of objects alone: for `atoll plan`. Pure.
//!
//! In: the hub's objects, and which clusters are to be thought lost. Out: for each Bundle where it is, where it would be, and why. It
//! is the controller's own line (rules → standing → solve) without the steps in between: what is foreseen is where things end.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use atoll_api::kinds::{Assignment, Bundle, Cluster, PlacementPolicy, SyncMode};
use kube::ResourceExt as _;

use super::gather::{Ruled, key_of, rules_of, tellings};
use super::model::{Demand, Member, Resources, Standing};
use super::render::{demand, render};
use super::solve;

/// The hub's objects.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// Members with their status.
    pub clusters: Vec<Cluster>,
    /// Placement policies of all namespaces.
    pub policies: Vec<Arc<PlacementPolicy>>,
    /// Bundles of all namespaces.
    pub bundles: Vec<Bundle>,
    /// What members were told.
    pub assignments: Vec<Arc<Assignment>>,
}

/// What becomes of one Bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreseen {
    /// Namespace of the Bundle.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Replicas by cluster as told now (1 where nothing is divided).
    pub before: BTreeMap<String, i32>,
    /// Replicas by cluster in the end.
    pub after: BTreeMap<String, i32>,
    /// Replicas that find no place.
    pub unplaced: i32,
    /// Why each cluster has what it has.
    pub why: BTreeMap<String, String>,
    /// Why it can't be placed at all.
    pub error: Option<String>,
}

/// Places every Bundle of `world`, the most important first, with the clusters of `lost` gone.
pub fn foresee(world: &World, lost: &BTreeSet<String>) -> Vec<Foreseen> {
    let told = tellings(&world.assignments);
    let mut members: Vec<Member> = world.clusters.iter().map(member).collect();
    let mut bundles: Vec<(Result<Ruled, String>, &Bundle)> =
        world.bundles.iter().map(|b| (rules_of(b, &world.policies), b)).collect();
    bundles.sort_by_key(|(ruled, b)| (Reverse(ruled.as_ref().map_or(0, |r| r.rules.priority)), key_of(b)));
    // What was told and does not run yet has its room already.
    for (_, bundle) in &bundles {
        let each = demand(&bundle.spec).1;
        for member in &mut members {
            let told = told.get(&key_of(bundle)).and_then(|t| t.get(&member.name)).map_or(0, |t| t.replicas);
            member.free = member.free.plus(&each, -(told - running(bundle, &member.name)).max(0));
        }
    }
    let mut foreseen = Vec::with_capacity(bundles.len());
    for (ruled, bundle) in bundles {
        let before = told.get(&key_of(bundle)).into_iter().flatten().map(|(c, t)| (c.clone(), t.replicas)).collect();
        foreseen.push(place(bundle, ruled, before, &mut members, lost));
    }
    foreseen
}

fn place(
    bundle: &Bundle,
    ruled: Result<Ruled, String>,
    before: BTreeMap<String, i32>,
    members: &mut [Member],
    lost: &BTreeSet<String>,
) -> Foreseen {
    let (namespace, name) = key_of(bundle);
    let mut foreseen = Foreseen { namespace, name, before, ..Foreseen::default() };
    let rendered = || render(bundle, "", &Default::default(), &BTreeMap::new(), None).map_err(|e| e.to_string());
    let ruled = match ruled.and_then(|ruled| rendered().map(|_| ruled)) {
        Ok(ruled) => ruled,
        Err(why) => return Foreseen { after: foreseen.before.clone(), error: Some(why), ..foreseen },
    };
    if bundle.spec.suspend {
        return Foreseen { after: foreseen.before.clone(), ..foreseen };
    }
    let (replicas, each) = demand(&bundle.spec);
    let wanted = Demand {
        uid: bundle.metadata.uid.clone().unwrap_or_default(),
        replicas,
        each,
        rules: ruled.rules.clone(),
        current: foreseen.before.clone(),
    };
    let standing = |m: &Member| Member { standing: standing(m, bundle, &ruled, lost), ..m.clone() };
    let verdict = solve(&wanted, &members.iter().map(standing).collect::<Vec<_>>());
    for member in members {
        let more = verdict.placed.get(&member.name).unwrap_or(&0) - foreseen.before.get(&member.name).unwrap_or(&0);
        member.free = member.free.plus(&each, -more.max(0));
    }
    (foreseen.after, foreseen.unplaced, foreseen.why) = (verdict.placed, verdict.unplaced, verdict.why);
    foreseen
}

fn standing(member: &Member, bundle: &Bundle, ruled: &Ruled, lost: &BTreeSet<String>) -> Standing {
    let was_lost = bundle.status.iter().flat_map(|s| &s.clusters).any(|c| c.name == member.name && c.state == "Lost");
    match member.standing {
        Standing::NamesOnly => Standing::NamesOnly,
        _ if lost.contains(&member.name) && ruled.rules.failover.enabled => Standing::Lost,
        _ if lost.contains(&member.name) => Standing::Suspect,
        Standing::Ready if was_lost => Standing::Stabilising,
        Standing::Suspect if was_lost => Standing::Lost,
        other => other,
    }
}

fn member(cluster: &Cluster) -> Member {
    let status = cluster.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
    Member {
        name: cluster.name_any(),
        spec: cluster.spec.clone(),
        labels: cluster.labels().clone(),
        standing: match (cluster.spec.sync.mode, ready) {
            (SyncMode::None, _) => Standing::NamesOnly,
            (_, true) => Standing::Ready,
            (_, false) => Standing::Suspect,
        },
        free: Resources::from_quantities(&status.free),
    }
}

fn running(bundle: &Bundle, cluster: &str) -> i32 {
    let clusters = bundle.status.iter().flat_map(|status| &status.clusters);
    clusters.into_iter().find(|c| c.name == cluster).and_then(|c| c.ready).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cluster(name: &str, ready: bool) -> Cluster {
        let condition = json!({"type": "Ready", "status": if ready { "True" } else { "False" }, "reason": "x",
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        serde_json::from_value(json!({
            "apiVersion": "atoll.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": name}, "spec": {"environment": "prod"},
            "status": {"conditions": [condition], "free": {"cpu": "4", "memory": "8Gi", "pods": "100"}},
        }))
        .unwrap()
    }

    fn web(replicas: i32) -> Bundle {
        serde_json::from_value(json!({
            "apiVersion": "atoll.dev/v1alpha1", "kind": "Bundle", "metadata": {"name": "web", "namespace": "shop", "uid": "1"},
            "spec": {
                "placement": {"affinityGroups": [["a", "b"], ["c"]], "division": {"mode": "Weighted"}},
                "manifests": [{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
                    "spec": {"replicas": replicas, "template": {"spec": {"containers": [
                        {"name": "web", "resources": {"requests": {"cpu": "1"}}}]}}}}],
            },
        }))
        .unwrap()
    }

    fn counts(list: &[(&str, i32)]) -> BTreeMap<String, i32> {
        list.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
    }

    #[test]
    fn what_a_failure_moves_is_foreseen() {
        let clusters = vec![cluster("a", true), cluster("b", true), cluster("c", true)];
        let world = World { clusters, bundles: vec![web(4)], ..World::default() };
        let lost = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        for (gone, after, unplaced) in [
            (lost(&[]), counts(&[("a", 2), ("b", 2)]), 0),
            (lost(&["a"]), counts(&[("b", 4)]), 0),
            (lost(&["a", "b"]), counts(&[("c", 4)]), 0),
            (lost(&["a", "b", "c"]), counts(&[]), 4),
        ] {
            let foreseen = foresee(&world, &gone);
            assert_eq!(
                (&foreseen[0].after, foreseen[0].unplaced),
                (&after, unplaced),
                "{gone:?}: {:?}",
                foreseen[0].why
            );
        }
    }

    #[test]
    fn a_bundle_that_is_wrong_says_so_and_stays() {
        let mut bad = web(1);
        bad.spec.placement.rules.failover.after = "soon".into();
        let world = World { clusters: vec![cluster("a", true)], bundles: vec![bad], ..World::default() };
        let foreseen = foresee(&world, &BTreeSet::new());
        assert!(foreseen[0].error.as_deref().is_some_and(|e| e.contains("failover.after")), "{foreseen:?}");
    }

    #[test]
    fn nothing_new_goes_to_a_cluster_that_is_not_ready() {
        let world = World {
            clusters: vec![cluster("a", false), cluster("b", true)],
            bundles: vec![web(2)],
            ..World::default()
        };
        assert_eq!(foresee(&world, &BTreeSet::new())[0].after, counts(&[("b", 2)]));
    }
}
