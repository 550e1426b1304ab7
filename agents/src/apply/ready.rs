//! Whether an applied object is ready, and how many replicas it has.
//!
//! In: a live object. Out: [`State`]. Pure. The rules are `kubectl rollout status`'s for workloads, the `Ready` condition for
//! whatever else has one, and being there for the rest.

use std::collections::BTreeMap;

use kube::core::DynamicObject;
use serde_json::Value;

/// What a live object says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) ready: bool,
    pub(crate) replicas: i32,
    pub(crate) ready_replicas: i32,
    /// Labels of its pods, for workloads.
    pub(crate) selector: Option<BTreeMap<String, String>>,
    /// Why it is not ready.
    pub(crate) message: Option<String>,
}

/// Reads the state of a live object.
pub(crate) fn of(object: &DynamicObject) -> State {
    let kind = object.types.as_ref().map(|t| t.kind.as_str()).unwrap_or_default();
    let data = &object.data;
    let observed = int(data, "/status/observedGeneration");
    let generation = object.metadata.generation;
    if let (Some(observed), Some(generation)) = (observed, generation)
        && observed < generation
    {
        let replicas = small(int(data, "/spec/replicas").unwrap_or(0));
        return State { replicas, message: Some("the change is not taken up yet".to_owned()), ..State::default() };
    }
    match kind {
        "Deployment" | "StatefulSet" | "ReplicaSet" => workload(kind, data, observed),
        "DaemonSet" => daemon_set(data, observed),
        "Job" => job(data),
        "Pod" | "Node" => condition(data, "Ready", false),
        _ => condition(data, "Ready", true),
    }
}

fn workload(kind: &str, data: &Value, observed: Option<i64>) -> State {
    let wanted = int(data, "/spec/replicas").unwrap_or(1);
    let have = int(data, "/status/readyReplicas").unwrap_or(0);
    let settled = match kind {
        // Old pods count as available: the rollout is over only when all are of the new revision.
        "Deployment" => {
            int(data, "/status/updatedReplicas").unwrap_or(0) >= wanted
                && int(data, "/status/availableReplicas").unwrap_or(0) >= wanted
        }
        "StatefulSet" => {
            text(data, "/status/updateRevision") == text(data, "/status/currentRevision")
                || int(data, "/status/updatedReplicas").unwrap_or(0) >= wanted
        }
        _ => true,
    };
    let ready = observed.is_some() && have >= wanted && settled;
    let message = (!ready).then(|| blocked(data).unwrap_or_else(|| format!("{have} of {wanted} replicas ready")));
    State { ready, replicas: small(wanted), ready_replicas: small(have), selector: selector(data), message }
}

fn daemon_set(data: &Value, observed: Option<i64>) -> State {
    let wanted = int(data, "/status/desiredNumberScheduled").unwrap_or(0);
    let have = int(data, "/status/numberReady").unwrap_or(0);
    let ready = observed.is_some() && have >= wanted;
    let message = (!ready).then(|| format!("{have} of {wanted} nodes ready"));
    State { ready, replicas: small(wanted), ready_replicas: small(have), selector: selector(data), message }
}

fn job(data: &Value) -> State {
    if let Some(failed) = find(data, "Failed").filter(|c| text(c, "/status") == Some("True")) {
        return State { message: Some(text(failed, "/message").unwrap_or("failed").to_owned()), ..State::default() };
    }
    let done = find(data, "Complete").is_some_and(|c| text(c, "/status") == Some("True"));
    State { ready: done, message: (!done).then(|| "still running".to_owned()), ..State::default() }
}

fn condition(data: &Value, which: &str, absent_is_ready: bool) -> State {
    match find(data, which) {
        None if absent_is_ready => State { ready: true, ..State::default() },
        None => State { message: Some(format!("no condition {which} yet")), ..State::default() },
        Some(found) => {
            let ready = text(found, "/status") == Some("True");
            let why = text(found, "/message").filter(|m| !m.is_empty()).or(text(found, "/reason")).unwrap_or(which);
            State { ready, message: (!ready).then(|| why.to_owned()), ..State::default() }
        }
    }
}

/// Why a Deployment makes no progress, in its own words.
fn blocked(data: &Value) -> Option<String> {
    ["ReplicaFailure", "Progressing"].into_iter().find_map(|which| {
        let found = find(data, which)?;
        let bad = if which == "Progressing" { "False" } else { "True" };
        (text(found, "/status") == Some(bad)).then(|| text(found, "/message").unwrap_or(which).to_owned())
    })
}

fn selector(data: &Value) -> Option<BTreeMap<String, String>> {
    serde_json::from_value(data.pointer("/spec/selector/matchLabels")?.clone()).ok()
}

fn find<'a>(data: &'a Value, which: &str) -> Option<&'a Value> {
    data.pointer("/status/conditions")?.as_array()?.iter().find(|c| text(c, "/type") == Some(which))
}

fn int(data: &Value, pointer: &str) -> Option<i64> {
    data.pointer(pointer)?.as_i64()
}

fn text<'a>(data: &'a Value, pointer: &str) -> Option<&'a str> {
    data.pointer(pointer)?.as_str()
}

fn small(n: i64) -> i32 {
    i32::try_from(n.max(0)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_is_ready_by_the_rules_of_its_kind() {
        let deployment = |spec: i32, updated: i32, ready: i32, observed: i64| {
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"generation": 2},
                   "spec": {"replicas": spec, "selector": {"matchLabels": {"app": "web"}}},
                   "status": {"observedGeneration": observed, "updatedReplicas": updated, "readyReplicas": ready,
                              "availableReplicas": ready}})
        };
        let with = |kind: &str, conditions: Value| json!({"apiVersion": "v1", "kind": kind, "metadata": {}, "status": {"conditions": conditions}});
        for (name, object, ready, replicas) in [
            ("all there", deployment(2, 2, 2, 2), true, 2),
            ("not seen yet", deployment(2, 2, 2, 1), false, 2),
            ("one missing", deployment(2, 2, 1, 2), false, 2),
            ("old pods only", deployment(2, 1, 2, 2), false, 2),
            ("scaled to none", deployment(0, 0, 0, 2), true, 0),
            ("a Service", json!({"apiVersion": "v1", "kind": "Service", "metadata": {}}), true, 0),
            ("a Pod without a word", with("Pod", json!([])), false, 0),
            ("a Pod", with("Pod", json!([{"type": "Ready", "status": "True"}])), true, 0),
            ("a Job at work", with("Job", json!([])), false, 0),
            ("a Job done", with("Job", json!([{"type": "Complete", "status": "True"}])), true, 0),
            ("a Job gone wrong", with("Job", json!([{"type": "Failed", "status": "True"}])), false, 0),
            ("a foreign kind", with("Database", json!([{"type": "Ready", "status": "False"}])), false, 0),
        ] {
            let state = of(&serde_json::from_value(object).unwrap());
            assert_eq!((state.ready, state.replicas), (ready, replicas), "{name}: {state:?}");
            assert_eq!(state.ready, state.message.is_none(), "{name}: what is not ready says why");
        }
    }
}
