//! What the hub may place in a member: checked here, whatever the hub has checked before.
//!
//! In: one manifest, its Bundle, what the member's operator opted in to. Out: fine, or why not. Pure. A Bundle's namespaced
//! objects stay in its own namespace, so that who may write one namespace of the hub can't write another of a member; kinds
//! that reach beyond it, and pods that reach their node, are refused. Source: the Pod Security Standards (baseline).

use serde_json::Value;

use crate::config::OptIn;

/// Namespaces that belong to the cluster or to us.
const SYSTEM: &[&str] = &["kube-system", "kube-public", "kube-node-lease", "atoll-system"];

/// Checks a manifest whose kind is namespaced, or not, as the member says.
pub(crate) fn check(manifest: &Value, namespace: &str, namespaced: bool, opt_in: &OptIn) -> Result<(), String> {
    let kind = text(manifest, "/kind").unwrap_or_default();
    if text(manifest, "/metadata/name").is_none_or(str::is_empty) {
        return Err(format!("{kind} without metadata.name"));
    }
    if namespaced {
        if SYSTEM.contains(&namespace) {
            return Err(format!("nothing may be placed in namespace {namespace}"));
        }
        let own = text(manifest, "/metadata/namespace").unwrap_or(namespace);
        if own != namespace {
            return Err(format!("namespace {own} is not the Bundle's own ({namespace})"));
        }
    } else if !is_own_namespace(manifest, kind, namespace) && !opt_in.cluster_kinds.iter().any(|k| k == kind) {
        return Err(format!("{kind} is cluster-scoped, and this member's agent is not told to allow it"));
    }
    if !opt_in.privileged
        && let Some(pod) = pod_spec(manifest, kind)
    {
        check_pod(pod)?;
    }
    Ok(())
}

/// A Bundle may bring the Namespace it lives in, with labels of its own.
fn is_own_namespace(manifest: &Value, kind: &str, namespace: &str) -> bool {
    kind == "Namespace" && text(manifest, "/metadata/name") == Some(namespace) && !SYSTEM.contains(&namespace)
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// The pod that a manifest makes, wherever it stands in it.
fn pod_spec<'a>(manifest: &'a Value, kind: &str) -> Option<&'a Value> {
    match kind {
        "Pod" => manifest.pointer("/spec"),
        "CronJob" => manifest.pointer("/spec/jobTemplate/spec/template/spec"),
        // Deployment, StatefulSet, DaemonSet, Job, ReplicaSet and what is modelled on them.
        _ => manifest.pointer("/spec/template/spec"),
    }
}

fn check_pod(pod: &Value) -> Result<(), String> {
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        if pod.get(field).and_then(Value::as_bool) == Some(true) {
            return Err(format!("{field}: true is not allowed"));
        }
    }
    for volume in list(pod, "volumes") {
        if volume.get("hostPath").is_some() {
            return Err("hostPath volumes are not allowed".to_owned());
        }
    }
    for container in ["containers", "initContainers", "ephemeralContainers"].iter().flat_map(|field| list(pod, field)) {
        if container.pointer("/securityContext/privileged").and_then(Value::as_bool) == Some(true) {
            return Err("privileged containers are not allowed".to_owned());
        }
        let added = container.pointer("/securityContext/capabilities/add").and_then(Value::as_array);
        if let Some(capability) = added.into_iter().flatten().filter_map(Value::as_str).find(|c| !is_baseline(c)) {
            return Err(format!("capability {capability} is not allowed"));
        }
        if list(container, "ports").any(|port| port.get("hostPort").and_then(Value::as_u64).unwrap_or(0) != 0) {
            return Err("hostPort is not allowed".to_owned());
        }
    }
    Ok(())
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

/// The capabilities that the baseline profile lets be added.
fn is_baseline(capability: &str) -> bool {
    matches!(
        capability,
        "AUDIT_WRITE"
            | "CHOWN"
            | "DAC_OVERRIDE"
            | "FOWNER"
            | "FSETID"
            | "KILL"
            | "MKNOD"
            | "NET_BIND_SERVICE"
            | "SETFCAP"
            | "SETGID"
            | "SETPCAP"
            | "SETUID"
            | "SYS_CHROOT"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(pod: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"template": {"spec": pod}}})
    }

    fn object(kind: &str, name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}})
    }

    #[test]
    fn a_hostile_hub_gets_nothing_dangerous_placed() {
        let container = |context: Value| json!({"containers": [{"name": "c", "securityContext": context}]});
        let elsewhere = json!({"kind": "Secret", "metadata": {"name": "x", "namespace": "kube-system"}});
        for (name, manifest, namespaced, want) in [
            ("a Deployment", deployment(json!({"containers": [{"name": "c"}]})), true, None),
            ("a Service", object("Service", "web"), true, None),
            ("its own Namespace", object("Namespace", "shop"), false, None),
            ("another Namespace", object("Namespace", "bank"), false, Some("cluster-scoped")),
            ("another's Secret", elsewhere, true, Some("not the Bundle's own")),
            (
                "no name",
                json!({"kind": "Service", "metadata": {"generateName": "x"}}),
                true,
                Some("without metadata.name"),
            ),
            ("a ClusterRoleBinding", object("ClusterRoleBinding", "root"), false, Some("cluster-scoped")),
            ("a webhook", object("MutatingWebhookConfiguration", "w"), false, Some("cluster-scoped")),
            ("a CRD", object("CustomResourceDefinition", "x"), false, Some("cluster-scoped")),
            ("a Node", object("Node", "n"), false, Some("cluster-scoped")),
            ("host network", deployment(json!({"hostNetwork": true})), true, Some("hostNetwork")),
            ("host pid", deployment(json!({"hostPID": true})), true, Some("hostPID")),
            ("host path", deployment(json!({"volumes": [{"hostPath": {"path": "/"}}]})), true, Some("hostPath")),
            ("privileged", deployment(container(json!({"privileged": true}))), true, Some("privileged")),
            (
                "SYS_ADMIN",
                deployment(container(json!({"capabilities": {"add": ["SYS_ADMIN"]}}))),
                true,
                Some("SYS_ADMIN"),
            ),
            ("CHOWN", deployment(container(json!({"capabilities": {"add": ["CHOWN"]}}))), true, None),
            (
                "a CronJob on the host",
                json!({"kind": "CronJob", "metadata": {"name": "x"},
                       "spec": {"jobTemplate": {"spec": {"template": {"spec": {"hostIPC": true}}}}}}),
                true,
                Some("hostIPC"),
            ),
        ] {
            let got = check(&manifest, "shop", namespaced, &OptIn::default());
            match want {
                None => assert_eq!(got, Ok(()), "{name}"),
                Some(why) => assert!(got.as_ref().is_err_and(|e| e.contains(why)), "{name}: {got:?}"),
            }
        }
        for namespace in SYSTEM {
            assert!(check(&object("ConfigMap", "x"), namespace, true, &OptIn::default()).is_err(), "{namespace}");
            assert!(
                check(&object("Namespace", namespace), namespace, false, &OptIn::default()).is_err(),
                "{namespace}"
            );
        }
    }

    #[test]
    fn what_the_member_opted_in_to_is_allowed() {
        let opt_in = OptIn { privileged: true, cluster_kinds: vec!["PriorityClass".into()] };
        assert_eq!(check(&deployment(json!({"hostNetwork": true})), "shop", true, &opt_in), Ok(()));
        assert_eq!(check(&object("PriorityClass", "high"), "shop", false, &opt_in), Ok(()));
        assert!(check(&object("ClusterRole", "x"), "shop", false, &opt_in).is_err());
    }
}
