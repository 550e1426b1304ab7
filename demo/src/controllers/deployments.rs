//! Deployments: one ReplicaSet for each template, rolled over one pod at a time, and the status that says how far that is.
//!
//! Pure. A new template's ReplicaSet grows by one above the wanted number, and an old one shrinks by one for each new pod that is
//! ready; with strategy `Recreate` the old go first. Source: the Kubernetes documentation of Deployments.

use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{
    action::{Action, collection},
    condition::Conditions,
    world::{World, controlled_by},
};

const HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";

/// What all Deployments need.
pub(super) fn reconcile(world: &World, now: &str) -> Vec<Action> {
    let alive = world.deployments.all().filter(|d| d.metadata.deletion_timestamp.is_none());
    alive.flat_map(|d| one(world, d, now)).collect()
}

fn one(world: &World, deployment: &Deployment, now: &str) -> Vec<Action> {
    let (Some(spec), Some(uid)) = (&deployment.spec, deployment.uid()) else { return Vec::new() };
    let namespace = deployment.namespace().unwrap_or_default();
    let owned: Vec<&ReplicaSet> = world.replica_sets.within(&namespace).filter(|r| controlled_by(*r, &uid)).collect();
    let hash = template_hash(&spec.template);
    let is_new = |r: &&&ReplicaSet| r.labels().get(HASH) == Some(&hash);
    let wanted = spec.replicas.unwrap_or(1);
    let old: Vec<&ReplicaSet> = owned.iter().filter(|r| !is_new(r)).copied().collect();
    let old_sum: i32 = old.iter().map(|r| size(r)).sum();
    let recreate = spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate");
    let mut actions = Vec::new();
    let Some(new) = owned.iter().find(is_new) else {
        let start = match (old_sum, recreate) {
            (0, _) => wanted,
            (_, true) => 0,
            (_, false) => wanted.min((wanted + 1 - old_sum).max(0)),
        };
        let revision = owned.iter().map(|r| revision(r)).max().unwrap_or_default() + 1;
        actions.push(create(deployment, &hash, start, revision));
        actions.extend(annotate(deployment, revision));
        return actions;
    };
    if spec.paused != Some(true) {
        // grow the new one
        let room = if recreate && old_sum > 0 { 0 } else { wanted + 1 - old_sum };
        let grown = if old_sum == 0 { wanted } else { size(new).max(room.min(wanted)).min(wanted) };
        if grown != size(new) {
            actions.push(scale(new, grown));
        }
        // shrink the old ones, those that are no use first
        let mut spare = if recreate { old_sum } else { owned.iter().map(|r| ready(r)).sum::<i32>() - wanted };
        for r in &old {
            let useless = size(r) - ready(r);
            let less = useless.max(0) + spare.clamp(0, ready(r).min(size(r)).max(0));
            spare -= less - useless.max(0);
            if less > 0 && size(r) > 0 {
                actions.push(scale(r, (size(r) - less).max(0)));
            }
        }
        // what a rollback could go back to is kept, no more
        let limit = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or_default();
        let mut empty: Vec<_> = old.iter().filter(|r| size(r) == 0 && pods(r) == 0).collect();
        empty.sort_by_key(|r| revision(r));
        let surplus = empty.len().saturating_sub(limit);
        actions.extend(empty.into_iter().take(surplus).map(|r| Action::delete(*r, "ReplicaSet")));
    }
    actions.extend(annotate(deployment, revision(new)));
    actions.extend(status(deployment, &owned, new, wanted, now));
    actions
}

fn size(r: &ReplicaSet) -> i32 {
    r.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

fn pods(r: &ReplicaSet) -> i32 {
    r.status.as_ref().map_or(0, |s| s.replicas)
}

fn ready(r: &ReplicaSet) -> i32 {
    r.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0)
}

fn revision(r: &ReplicaSet) -> u64 {
    r.annotations().get(REVISION).and_then(|v| v.parse().ok()).unwrap_or_default()
}

/// A name for a template: the same template has the same.
fn template_hash(template: &impl serde::Serialize) -> String {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(template).unwrap_or_default().hash(&mut hasher);
    super::letters(hasher.finish(), 9)
}

fn create(deployment: &Deployment, hash: &str, replicas: i32, revision: u64) -> Action {
    let (namespace, name) = (deployment.namespace().unwrap_or_default(), deployment.name_any());
    let spec = deployment.spec.as_ref().map(|s| json!(s)).unwrap_or_default();
    let (mut template, mut selector) = (spec["template"].clone(), spec["selector"].clone());
    template["metadata"]["labels"][HASH] = hash.into();
    selector["matchLabels"][HASH] = hash.into();
    let object = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{name}-{hash}"), "namespace": namespace, "labels": template["metadata"]["labels"],
            "annotations": {REVISION: revision.to_string()},
            "ownerReferences": [owner("apps/v1", "Deployment", &name, deployment.uid().unwrap_or_default())],
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    });
    Action::Create { path: collection::<ReplicaSet>(&namespace), object }
}

/// The reference by which an object is found and ended by its owner.
pub(super) fn owner(version: &str, kind: &str, name: &str, uid: String) -> Value {
    json!({"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": true, "blockOwnerDeletion": true})
}

fn scale(r: &ReplicaSet, replicas: i32) -> Action {
    Action::merge(r, json!({"spec": {"replicas": replicas}}))
}

fn annotate(deployment: &Deployment, revision: u64) -> Option<Action> {
    let said = deployment.annotations().get(REVISION).map(String::as_str);
    let revision = revision.to_string();
    (said != Some(&revision))
        .then(|| Action::merge(deployment, json!({"metadata": {"annotations": {REVISION: revision}}})))
}

fn status(d: &Deployment, owned: &[&ReplicaSet], new: &ReplicaSet, wanted: i32, now: &str) -> Option<Action> {
    let all: i32 = owned.iter().map(|r| pods(r)).sum();
    let ready_all: i32 = owned.iter().map(|r| ready(r)).sum();
    let updated = pods(new);
    let old = d.status.as_ref().map(|s| json!(s)).unwrap_or_else(|| json!({}));
    let mut conditions = Conditions::of(&old, now);
    match ready_all >= wanted {
        true => conditions.set("Available", true, "MinimumReplicasAvailable", "Deployment has minimum availability."),
        false => {
            let message = "Deployment does not have minimum availability.";
            conditions.set("Available", false, "MinimumReplicasUnavailable", message);
        }
    }
    let name = new.name_any();
    if updated == wanted && ready_all == wanted && all == wanted && ready(new) == wanted {
        let message = format!("ReplicaSet \"{name}\" has successfully progressed.");
        conditions.set("Progressing", true, "NewReplicaSetAvailable", &message);
    } else {
        let message = format!("ReplicaSet \"{name}\" is progressing.");
        conditions.set("Progressing", true, "ReplicaSetUpdated", &message);
    }
    let status = json!({
        "observedGeneration": d.metadata.generation, "replicas": all, "updatedReplicas": updated,
        "readyReplicas": ready_all, "availableReplicas": ready_all,
        "unavailableReplicas": (wanted - ready_all).max(0), "conditions": conditions.done(),
    });
    (!same(&old, &status)).then(|| Action::status(d, &status))
}

/// Whether a status says the same; a zero and an absent number are the same to Kubernetes.
pub(super) fn same(old: &Value, new: &Value) -> bool {
    let Some(new) = new.as_object() else { return false };
    new.iter().all(|(key, value)| match old.get(key) {
        Some(known) => known == value,
        None => value.is_null() || *value == 0,
    })
}

#[cfg(test)]
mod tests;
