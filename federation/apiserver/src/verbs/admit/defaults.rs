//! The defaults of built-in kinds that clients rely on. Plain functions of the object.
//! Source: pkg/apis/*/v1/defaults.go.

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::object::{map_mut, meta, text};

/// Sets a field if it is absent.
fn or(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    map.entry(key).or_insert_with(|| value.into());
}

fn list_mut<'a>(object: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let list = object.pointer_mut(pointer).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

pub(super) fn namespace(before: Option<&Value>, new: &mut Value) {
    if before.is_none() {
        map_mut(new, "spec").insert("finalizers".into(), json!(["kubernetes"]));
        new["status"] = json!({"phase": "Active"});
    }
    let name = meta(new, "name").to_owned();
    map_mut(&mut new["metadata"], "labels").insert("kubernetes.io/metadata.name".into(), name.into());
}

pub(super) fn secret(new: &mut Value) {
    if let Some(plain) = new.as_object_mut().and_then(|map| map.shift_remove("stringData")) {
        let data = map_mut(new, "data");
        for (key, text) in plain.as_object().into_iter().flatten() {
            let text = text.as_str().unwrap_or_default();
            data.insert(key.clone(), base64::engine::general_purpose::STANDARD.encode(text).into());
        }
    }
    if let Some(map) = new.as_object_mut() {
        or(map, "type", "Opaque");
    }
}

pub(super) fn service(before: Option<&Value>, new: &mut Value) {
    let held = before.filter(|before| text(before, &["spec", "type"]) != "ExternalName");
    let spec = map_mut(new, "spec");
    or(spec, "type", "ClusterIP");
    or(spec, "sessionAffinity", "None");
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    if kind != "ExternalName" {
        or(spec, "internalTrafficPolicy", "Cluster");
        or(spec, "ipFamilies", json!(["IPv4"]));
        or(spec, "ipFamilyPolicy", "SingleStack");
        // An update that leaves the address out keeps it.
        for key in ["clusterIP", "clusterIPs"] {
            if let Some(value) = held.and_then(|before| before["spec"].get(key)).filter(|_| !spec.contains_key(key)) {
                spec.insert(key.into(), value.clone());
            }
        }
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        or(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        or(spec, "allocateLoadBalancerNodePorts", true);
    }
    for port in list_mut(new, "/spec/ports") {
        or(port, "protocol", "TCP");
        // Zero is how the binary encoding says "absent".
        if port.get("targetPort").is_none_or(|target| *target == json!(0)) {
            let number = port.get("port").cloned().unwrap_or_default();
            port.insert("targetPort".into(), number);
        }
        if port.get("nodePort") == Some(&json!(0)) {
            port.shift_remove("nodePort");
        }
    }
    let ports: Vec<Value> = held.and_then(|b| b["spec"]["ports"].as_array().cloned()).unwrap_or_default();
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        for port in list_mut(new, "/spec/ports").filter(|port| !port.contains_key("nodePort")) {
            let old = ports.iter().find(|old| old["port"] == port["port"] && old["protocol"] == port["protocol"]);
            if let Some(number) = old.and_then(|old| old.get("nodePort")) {
                port.insert("nodePort".into(), number.clone());
            }
        }
    }
    map_mut(new, "status").entry("loadBalancer").or_insert_with(|| json!({}));
}

/// The defaults of a pod's spec, wherever it is.
fn pod_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    for list in ["/containers", "/initContainers"] {
        for container in list_mut(spec, list) {
            let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
            let last = image.rsplit('/').next().unwrap_or_default();
            let latest = !image.contains('@') && (!last.contains(':') || last.ends_with(":latest"));
            let policy = if latest { "Always" } else { "IfNotPresent" };
            or(container, "imagePullPolicy", policy);
            or(container, "resources", json!({}));
            or(container, "terminationMessagePath", "/dev/termination-log");
            or(container, "terminationMessagePolicy", "File");
            for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(port) = port.as_object_mut() {
                    or(port, "protocol", "TCP");
                }
            }
            for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
                let Some(probe) = container.get_mut(probe).and_then(Value::as_object_mut) else { continue };
                for (key, value) in
                    [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
                {
                    or(probe, key, value);
                }
                if let Some(get) = probe.get_mut("httpGet").and_then(Value::as_object_mut) {
                    or(get, "path", "/");
                    or(get, "scheme", "HTTP");
                }
            }
        }
    }
    let Some(map) = spec.as_object_mut() else { return };
    or(map, "restartPolicy", "Always");
    or(map, "terminationGracePeriodSeconds", 30);
    or(map, "dnsPolicy", "ClusterFirst");
    or(map, "securityContext", json!({}));
    or(map, "schedulerName", "default-scheduler");
    if let Some(account) = map.get("serviceAccountName").cloned() {
        or(map, "serviceAccount", account);
    }
}

pub(super) fn pod(before: Option<&Value>, new: &mut Value) {
    pod_spec(&mut new["spec"]);
    if let Some(map) = new["spec"].as_object_mut() {
        or(map, "enableServiceLinks", true);
        or(map, "serviceAccountName", "default");
    }
    if before.is_none() {
        new["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"});
    }
}

fn template(new: &mut Value) {
    pod_spec(&mut new["spec"]["template"]["spec"]);
}

fn spec_defaults(new: &mut Value, defaults: &[(&str, Value)]) {
    let spec = map_mut(new, "spec");
    for (key, value) in defaults {
        or(spec, key, value.clone());
    }
}

pub(super) fn deployment(new: &mut Value) {
    template(new);
    let rolling = json!({"maxUnavailable": "25%", "maxSurge": "25%"});
    spec_defaults(
        new,
        &[
            ("replicas", 1.into()),
            ("strategy", json!({"type": "RollingUpdate"})),
            ("revisionHistoryLimit", 10.into()),
            ("progressDeadlineSeconds", 600.into()),
        ],
    );
    let strategy = map_mut(&mut new["spec"], "strategy");
    or(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        or(strategy, "rollingUpdate", rolling);
    }
}

pub(super) fn replica_set(new: &mut Value) {
    template(new);
    spec_defaults(new, &[("replicas", 1.into())]);
}

pub(super) fn stateful_set(new: &mut Value) {
    template(new);
    spec_defaults(
        new,
        &[
            ("replicas", 1.into()),
            ("podManagementPolicy", "OrderedReady".into()),
            ("updateStrategy", json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})),
            ("revisionHistoryLimit", 10.into()),
            ("persistentVolumeClaimRetentionPolicy", json!({"whenDeleted": "Retain", "whenScaled": "Retain"})),
        ],
    );
}

pub(super) fn daemon_set(new: &mut Value) {
    template(new);
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}});
    spec_defaults(new, &[("updateStrategy", rolling), ("revisionHistoryLimit", 10.into())]);
}

pub(super) fn job(new: &mut Value) {
    template(new);
    spec_defaults(
        new,
        &[
            ("completions", 1.into()),
            ("parallelism", 1.into()),
            ("backoffLimit", 6.into()),
            ("completionMode", "NonIndexed".into()),
            ("suspend", false.into()),
            ("podReplacementPolicy", "TerminatingOrFailed".into()),
        ],
    );
    // A job finds its pods by its own uid.
    let uid = meta(new, "uid").to_owned();
    let labels = json!({"batch.kubernetes.io/controller-uid": uid});
    let spec = map_mut(new, "spec");
    if !spec.contains_key("selector") {
        spec.insert("selector".into(), json!({"matchLabels": labels}));
        let name = meta(new, "name").to_owned();
        let labels_mut = &mut new["spec"]["template"]["metadata"]["labels"];
        labels_mut["batch.kubernetes.io/controller-uid"] = uid.into();
        labels_mut["batch.kubernetes.io/job-name"] = name.into();
    }
}

pub(super) fn cron_job(new: &mut Value) {
    spec_defaults(
        new,
        &[
            ("concurrencyPolicy", "Allow".into()),
            ("suspend", false.into()),
            ("successfulJobsHistoryLimit", 3.into()),
            ("failedJobsHistoryLimit", 1.into()),
        ],
    );
    pod_spec(&mut new["spec"]["jobTemplate"]["spec"]["template"]["spec"]);
}
