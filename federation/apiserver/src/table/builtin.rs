//! The columns of built-in kinds: one row each, between Name and Age. Source: pkg/printers/internalversion.

use serde_json::Value;

use super::{Cell, Column, age};
use crate::object::{at, text};

type Make = fn(&Value) -> Value;

/// Collection, then its columns: name (a trailing `*` shows it with `-o wide` only) and cell.
#[rustfmt::skip]
const TABLE: &[(&str, &[(&str, Make)])] = &[
    ("/namespaces", &[("Status", |o| get(o, &["status", "phase"]))]),
    ("/nodes", &[("Status", node_status), ("Roles", node_roles), ("Version", |o| get(o, &["status", "nodeInfo", "kubeletVersion"])),
        ("Internal-IP*", |o| or_none(find(o, "/status/addresses", "type", "InternalIP", "address"))),
        ("OS-Image*", |o| get(o, &["status", "nodeInfo", "osImage"]))]),
    ("/pods", &[("Ready", pod_ready), ("Status", pod_status), ("Restarts", pod_restarts), ("IP*", |o| get(o, &["status", "podIP"])),
        ("Node*", |o| get(o, &["spec", "nodeName"]))]),
    ("/services", &[("Type", |o| get(o, &["spec", "type"])), ("Cluster-IP", |o| get(o, &["spec", "clusterIP"])),
        ("External-IP", service_external), ("Port(s)", service_ports), ("Selector*", |o| pairs(o.pointer("/spec/selector")))]),
    ("/endpoints", &[("Endpoints", endpoints)]),
    ("/configmaps", &[("Data", |o| (len(o, "/data") + len(o, "/binaryData")).into())]),
    ("/secrets", &[("Type", |o| get(o, &["type"])), ("Data", |o| len(o, "/data").into())]),
    ("/serviceaccounts", &[("Secrets", |o| len(o, "/secrets").into())]),
    ("/events", &[("Last Seen", event_seen), ("Type", |o| get(o, &["type"])), ("Reason", |o| get(o, &["reason"])),
        ("Object", event_object), ("Message", |o| get(o, &["message"]))]),
    ("/persistentvolumeclaims", &[("Status", |o| get(o, &["status", "phase"])), ("Volume", |o| get(o, &["spec", "volumeName"])),
        ("Capacity", |o| get(o, &["status", "capacity", "storage"])), ("StorageClass", |o| get(o, &["spec", "storageClassName"]))]),
    ("/persistentvolumes", &[("Capacity", |o| get(o, &["spec", "capacity", "storage"])), ("Status", |o| get(o, &["status", "phase"]))]),
    ("apps/deployments", &[("Ready", ready_of_wanted), ("Up-to-date", |o| number(o, "/status/updatedReplicas")),
        ("Available", |o| number(o, "/status/availableReplicas")), ("Containers*", containers), ("Images*", images),
        ("Selector*", |o| pairs(o.pointer("/spec/selector/matchLabels")))]),
    ("apps/replicasets", &[("Desired", |o| number(o, "/spec/replicas")), ("Current", |o| number(o, "/status/replicas")),
        ("Ready", |o| number(o, "/status/readyReplicas")), ("Containers*", containers), ("Images*", images)]),
    ("apps/statefulsets", &[("Ready", ready_of_wanted), ("Containers*", containers), ("Images*", images)]),
    ("apps/daemonsets", &[("Desired", |o| number(o, "/status/desiredNumberScheduled")), ("Current", |o| number(o, "/status/currentNumberScheduled")),
        ("Ready", |o| number(o, "/status/numberReady")), ("Up-to-date", |o| number(o, "/status/updatedNumberScheduled")),
        ("Available", |o| number(o, "/status/numberAvailable")), ("Node Selector", |o| pairs(o.pointer("/spec/template/spec/nodeSelector"))),
        ("Images*", images)]),
    ("/replicationcontrollers", &[("Desired", |o| number(o, "/spec/replicas")), ("Current", |o| number(o, "/status/replicas")),
        ("Ready", |o| number(o, "/status/readyReplicas"))]),
    ("batch/jobs", &[("Status", job_status), ("Completions", |o| format!("{}/{}", number(o, "/status/succeeded"), number(o, "/spec/completions")).into())]),
    ("batch/cronjobs", &[("Schedule", |o| get(o, &["spec", "schedule"])), ("Suspend", |o| o.pointer("/spec/suspend").map_or("False".into(), title)),
        ("Active", |o| len(o, "/status/active").into()), ("Last Schedule", |o| since(text(o, &["status", "lastScheduleTime"])))]),
    ("discovery.k8s.io/endpointslices", &[("AddressType", |o| get(o, &["addressType"])), ("Ports", slice_ports), ("Endpoints", slice_addresses)]),
    ("networking.k8s.io/ingresses", &[("Class", |o| get(o, &["spec", "ingressClassName"])), ("Hosts", ingress_hosts),
        ("Address", ingress_address), ("Ports", |o| if len(o, "/spec/tls") > 0 { "80, 443".into() } else { "80".into() })]),
    ("networking.k8s.io/ingressclasses", &[("Controller", |o| get(o, &["spec", "controller"]))]),
    ("networking.k8s.io/networkpolicies", &[("Pod-Selector", |o| pairs(o.pointer("/spec/podSelector/matchLabels")))]),
    ("networking.k8s.io/servicecidrs", &[("CIDRs", |o| list(o.pointer("/spec/cidrs")))]),
    ("coordination.k8s.io/leases", &[("Holder", |o| get(o, &["spec", "holderIdentity"]))]),
    ("rbac.authorization.k8s.io/rolebindings", &[("Role", role), ("Users*", |o| subjects(o, "User")), ("Groups*", |o| subjects(o, "Group"))]),
    ("rbac.authorization.k8s.io/clusterrolebindings", &[("Role", role), ("Users*", |o| subjects(o, "User")), ("Groups*", |o| subjects(o, "Group"))]),
    ("apiextensions.k8s.io/customresourcedefinitions", &[("Created At", |o| get(o, &["metadata", "creationTimestamp"]))]),
    ("policy/poddisruptionbudgets", &[("Min Available", |o| get(o, &["spec", "minAvailable"])), ("Max Unavailable", |o| get(o, &["spec", "maxUnavailable"])),
        ("Allowed Disruptions", |o| number(o, "/status/disruptionsAllowed"))]),
    ("storage.k8s.io/storageclasses", &[("Provisioner", |o| get(o, &["provisioner"])), ("ReclaimPolicy", |o| get(o, &["reclaimPolicy"]))]),
    ("admissionregistration.k8s.io/mutatingwebhookconfigurations", &[("Webhooks", |o| len(o, "/webhooks").into())]),
    ("admissionregistration.k8s.io/validatingwebhookconfigurations", &[("Webhooks", |o| len(o, "/webhooks").into())]),
];

/// The own columns of a kind.
pub(super) fn columns(collection: &str) -> Vec<Column> {
    let row = TABLE.iter().find(|(name, _)| *name == collection);
    let listed = row.into_iter().flat_map(|(_, columns)| columns.iter());
    let made = listed.map(|(name, make)| Column {
        name: name.trim_end_matches('*').into(),
        kind: "string".into(),
        priority: u64::from(name.ends_with('*')),
        description: String::new(),
        cell: Cell::Made(*make),
    });
    made.collect()
}

fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

fn get(object: &Value, path: &[&str]) -> Value {
    match at(object, path) {
        None | Some(Value::Null) => "<none>".into(),
        Some(Value::String(text)) => or_none(text),
        Some(other) => other.clone(),
    }
}

fn number(object: &Value, pointer: &str) -> Value {
    object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0).into()
}

fn len(object: &Value, pointer: &str) -> usize {
    match object.pointer(pointer) {
        Some(Value::Array(list)) => list.len(),
        Some(Value::Object(map)) => map.len(),
        _ => 0,
    }
}

fn each<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn join<'a>(texts: impl Iterator<Item = &'a str>) -> Value {
    or_none(&texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(","))
}

fn list(value: Option<&Value>) -> Value {
    join(value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str))
}

fn pairs(map: Option<&Value>) -> Value {
    let map = map.and_then(Value::as_object).into_iter().flatten();
    let pairs: Vec<String> = map.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    or_none(&pairs.join(","))
}

fn title(flag: &Value) -> Value {
    if flag == true { "True".into() } else { "False".into() }
}

fn since(time: &str) -> Value {
    if time.is_empty() { "<none>".into() } else { age(time).into() }
}

/// The field of the first item whose key has a value.
fn find<'a>(object: &'a Value, pointer: &str, key: &str, value: &str, field: &str) -> &'a str {
    each(object, pointer).find(|item| text(item, &[key]) == value).map(|item| text(item, &[field])).unwrap_or_default()
}

fn node_status(object: &Value) -> Value {
    let ready =
        if find(object, "/status/conditions", "type", "Ready", "status") == "True" { "Ready" } else { "NotReady" };
    let cordoned = object.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
    if cordoned { format!("{ready},SchedulingDisabled").into() } else { ready.into() }
}

fn node_roles(object: &Value) -> Value {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    join(labels.filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/")))
}

fn pod_ready(object: &Value) -> Value {
    let ready = each(object, "/status/containerStatuses").filter(|status| status["ready"] == true).count();
    format!("{ready}/{}", len(object, "/spec/containers")).into()
}

fn pod_status(object: &Value) -> Value {
    if !text(object, &["metadata", "deletionTimestamp"]).is_empty() {
        return "Terminating".into();
    }
    let waiting = each(object, "/status/containerStatuses").find_map(|status| {
        ["waiting", "terminated"].iter().map(|state| text(status, &["state", state, "reason"])).find(|r| !r.is_empty())
    });
    let phase = text(object, &["status", "phase"]);
    let reason = text(object, &["status", "reason"]);
    or_none(waiting.unwrap_or(if reason.is_empty() { phase } else { reason }))
}

fn pod_restarts(object: &Value) -> Value {
    each(object, "/status/containerStatuses").filter_map(|status| status["restartCount"].as_u64()).sum::<u64>().into()
}

fn service_external(object: &Value) -> Value {
    let balancer = each(object, "/status/loadBalancer/ingress").map(|ingress| match text(ingress, &["ip"]) {
        "" => text(ingress, &["hostname"]),
        ip => ip,
    });
    match text(object, &["spec", "type"]) {
        "ExternalName" => get(object, &["spec", "externalName"]),
        "LoadBalancer" => match join(balancer) {
            none if none == "<none>" => "<pending>".into(),
            some => some,
        },
        _ => list(object.pointer("/spec/externalIPs")),
    }
}

fn service_ports(object: &Value) -> Value {
    let ports: Vec<String> = each(object, "/spec/ports")
        .map(|port| {
            let node = port["nodePort"].as_u64().map(|node| format!(":{node}")).unwrap_or_default();
            format!("{}{node}/{}", port["port"], text(port, &["protocol"]))
        })
        .collect();
    or_none(&ports.join(","))
}

fn endpoints(object: &Value) -> Value {
    let mut all = Vec::new();
    for subset in each(object, "/subsets") {
        for address in each(subset, "/addresses") {
            let ip = text(address, &["ip"]);
            all.extend(each(subset, "/ports").map(|port| format!("{ip}:{}", port["port"])));
        }
    }
    or_none(&more(all))
}

/// The first three of a list.
fn more(all: Vec<String>) -> String {
    match all.len() {
        0..=3 => all.join(","),
        n => format!("{} + {} more...", all[..3].join(","), n - 3),
    }
}

fn event_seen(object: &Value) -> Value {
    let times =
        [text(object, &["series", "lastObservedTime"]), text(object, &["lastTimestamp"]), text(object, &["eventTime"])];
    since(times.into_iter().find(|time| !time.is_empty()).unwrap_or_default())
}

fn event_object(object: &Value) -> Value {
    let of = |key| text(object, &["involvedObject", key]);
    format!("{}/{}", of("kind").to_lowercase(), of("name")).into()
}

fn ready_of_wanted(object: &Value) -> Value {
    format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas")).into()
}

fn containers(object: &Value) -> Value {
    join(each(object, "/spec/template/spec/containers").map(|container| text(container, &["name"])))
}

fn images(object: &Value) -> Value {
    join(each(object, "/spec/template/spec/containers").map(|container| text(container, &["image"])))
}

fn job_status(object: &Value) -> Value {
    let is = |kind: &str| find(object, "/status/conditions", "type", kind, "status") == "True";
    match () {
        () if is("Complete") => "Complete".into(),
        () if is("Failed") => "Failed".into(),
        () if is("Suspended") => "Suspended".into(),
        () => "Running".into(),
    }
}

fn slice_ports(object: &Value) -> Value {
    let ports: Vec<String> = each(object, "/ports").map(|port| port["port"].to_string()).collect();
    if ports.is_empty() { "<unset>".into() } else { more(ports).into() }
}

fn slice_addresses(object: &Value) -> Value {
    let all = each(object, "/endpoints").flat_map(|endpoint| each(endpoint, "/addresses"));
    let all: Vec<String> = all.filter_map(Value::as_str).map(str::to_owned).collect();
    if all.is_empty() { "<unset>".into() } else { more(all).into() }
}

fn ingress_hosts(object: &Value) -> Value {
    match join(each(object, "/spec/rules").map(|rule| text(rule, &["host"]))) {
        none if none == "<none>" => "*".into(),
        some => some,
    }
}

fn ingress_address(object: &Value) -> Value {
    let all = each(object, "/status/loadBalancer/ingress");
    let found =
        all.map(|one| if text(one, &["ip"]).is_empty() { text(one, &["hostname"]) } else { text(one, &["ip"]) });
    found.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(",").into()
}

fn role(object: &Value) -> Value {
    format!("{}/{}", text(object, &["roleRef", "kind"]), text(object, &["roleRef", "name"])).into()
}

fn subjects(object: &Value, kind: &str) -> Value {
    let of_kind = each(object, "/subjects").filter(|subject| text(subject, &["kind"]) == kind);
    of_kind.map(|subject| text(subject, &["name"])).collect::<Vec<_>>().join(", ").into()
}
