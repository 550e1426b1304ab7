//! ReplicaSets: as many pods as asked for, made and deleted one by one, and a status that counts them. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use kube::ResourceExt;
use serde_json::json;

use super::{
    action::{Action, collection},
    deployments::{owner, same},
    world::{World, controlled_by, is_active, is_ready},
};

/// What all ReplicaSets need. `counter` makes the names of new pods.
pub(super) fn reconcile(world: &World, counter: &mut u64) -> Vec<Action> {
    let alive = world.replica_sets.all().filter(|r| r.metadata.deletion_timestamp.is_none());
    alive.flat_map(|r| one(world, r, counter)).collect()
}

fn one(world: &World, set: &ReplicaSet, counter: &mut u64) -> Vec<Action> {
    let (Some(spec), Some(uid), namespace) = (&set.spec, set.uid(), set.namespace().unwrap_or_default()) else {
        return Vec::new();
    };
    let mut pods: Vec<&Pod> =
        world.pods.within(&namespace).filter(|p| controlled_by(*p, &uid) && is_active(p)).collect();
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or_default();
    let mut actions = Vec::new();
    for _ in pods.len()..wanted {
        *counter += 1;
        actions.push(create(set, &uid, &namespace, *counter));
    }
    // those that are the least loss first: not ready, not placed, youngest
    pods.sort_by_key(|p| {
        let placed = p.spec.as_ref().is_some_and(|s| s.node_name.is_some());
        (is_ready(p), placed, std::cmp::Reverse(p.metadata.creation_timestamp.clone()))
    });
    let surplus = pods.len().saturating_sub(wanted);
    actions.extend(pods.iter().take(surplus).map(|p| Action::delete(*p, "Pod")));

    let ready = pods.iter().filter(|p| is_ready(p)).count();
    let status = json!({
        "observedGeneration": set.metadata.generation, "replicas": pods.len(), "fullyLabeledReplicas": pods.len(),
        "readyReplicas": ready, "availableReplicas": ready,
    });
    let old = set.status.as_ref().map(|s| json!(s)).unwrap_or_else(|| json!({}));
    if !same(&old, &status) {
        actions.push(Action::status(set, &status));
    }
    actions
}

fn create(set: &ReplicaSet, uid: &str, namespace: &str, counter: u64) -> Action {
    let mut hasher = DefaultHasher::new();
    (uid, counter).hash(&mut hasher);
    let name = format!("{}-{}", set.name_any(), super::letters(hasher.finish(), 5));
    let template = set.spec.as_ref().and_then(|s| s.template.as_ref()).map(|t| json!(t)).unwrap_or_default();
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": namespace,
            "labels": template["metadata"]["labels"], "annotations": template["metadata"]["annotations"],
            "ownerReferences": [owner("apps/v1", "ReplicaSet", &set.name_any(), uid.to_owned())],
        },
        "spec": template["spec"],
        "status": {"phase": "Pending"},
    });
    Action::Create { path: collection::<Pod>(namespace), object }
}
