//! What the hub may place in a member: checked by the member's agent, whatever the hub has checked before, and by the hub in time.
//!
//! In: one manifest, its Bundle, what the member's operator opted in to. Out: fine, or why not. Pure. The hub knows neither every kind nor
//! what members opted in to: [`foresee`] tells what no agent takes from what only some do. A Bundle's namespaced objects stay in its own
//! namespace, so that who may write one namespace of the hub can't write another of a member; kinds that reach beyond it, and pods that
//! reach their node, are refused. Source: the Pod Security Standards (baseline).

use serde_json::Value;

/// What a member's operator allows the hub to place, beyond harmless objects in the Bundle's own namespace.
#[derive(Debug, Clone, Default)]
pub struct OptIn {
    /// Pods that are privileged, use the host's namespaces or mount its paths.
    pub privileged: bool,
    /// Cluster-scoped kinds, for example `PriorityClass`.
    pub cluster_kinds: Vec<String>,
}

/// Namespaces that belong to the cluster or to us.
const SYSTEM: &[&str] = &["kube-system", "kube-public", "kube-node-lease", "atoll-system"];

/// Kubernetes' own kinds that are of the whole cluster. In its groups without a domain every other kind is namespaced.
const CLUSTER_KINDS: &[(&str, &[&str])] = &[
    ("", &["Namespace", "Node", "PersistentVolume", "ComponentStatus"]),
    ("admissionregistration.k8s.io", &[]),
    ("apiextensions.k8s.io", &[]),
    ("apiregistration.k8s.io", &[]),
    ("certificates.k8s.io", &["CertificateSigningRequest", "ClusterTrustBundle"]),
    ("networking.k8s.io", &["IngressClass", "IPAddress", "ServiceCIDR"]),
    ("node.k8s.io", &[]),
    ("rbac.authorization.k8s.io", &["ClusterRole", "ClusterRoleBinding"]),
    ("scheduling.k8s.io", &["PriorityClass"]),
    ("storage.k8s.io", &["StorageClass", "CSIDriver", "CSINode", "VolumeAttachment", "VolumeAttributesClass"]),
];

/// What can be said of a manifest before a member is asked.
///
/// `Ok(Some(why))`: only members take it whose operators opted in to such things.
///
/// # Errors
/// Why no member's agent takes it, whatever its operator allows.
pub fn foresee(manifest: &Value, namespace: &str) -> Result<Option<String>, String> {
    let kind = text(manifest, "/kind").unwrap_or_default();
    let Some(namespaced) = is_namespaced(manifest, kind) else {
        return Ok(None);
    };
    let everything = OptIn { privileged: true, cluster_kinds: vec![kind.to_owned()] };
    check(manifest, namespace, namespaced, &everything)?;
    Ok(check(manifest, namespace, namespaced, &OptIn::default()).err())
}

/// Whether a kind is namespaced, where that is known without a member: of Kubernetes' own, and where the manifest names one.
fn is_namespaced(manifest: &Value, kind: &str) -> Option<bool> {
    let api_version = text(manifest, "/apiVersion").unwrap_or_default();
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    match CLUSTER_KINDS.iter().find(|(of, _)| *of == group) {
        Some((_, kinds)) if kinds.is_empty() || kinds.contains(&kind) => Some(false),
        Some(_) => Some(true),
        None if !group.contains('.') => Some(true),
        None => text(manifest, "/metadata/namespace").map(|_| true),
    }
}

/// Checks a manifest whose kind is namespaced, or not, as the member says.
///
/// # Errors
/// Why it is not placed.
pub fn check(manifest: &Value, namespace: &str, namespaced: bool, opt_in: &OptIn) -> Result<(), String> {
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
    fn what_is_foreseen_is_what_agents_say() {
        let of = |api_version: &str, kind: &str, namespace: Value| json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "namespace": namespace}});
        let host = deployment(json!({"hostNetwork": true}));
        for (manifest, never, some) in [
            (of("v1", "ConfigMap", Value::Null), None, None),
            (of("v1", "ConfigMap", json!("shop")), None, None),
            (of("v1", "ConfigMap", json!("bank")), Some("namespace bank is not the Bundle's own (shop)"), None),
            (of("cert-manager.io/v1", "Certificate", json!("bank")), Some("namespace bank"), None),
            (of("cert-manager.io/v1", "ClusterIssuer", Value::Null), None, None),
            (of("rbac.authorization.k8s.io/v1", "Role", json!("bank")), Some("namespace bank"), None),
            (of("rbac.authorization.k8s.io/v1", "ClusterRole", Value::Null), None, Some("is cluster-scoped")),
            (of("apiextensions.k8s.io/v1", "CustomResourceDefinition", Value::Null), None, Some("is cluster-scoped")),
            (object("Namespace", "shop"), None, None),
            (object("Namespace", "bank"), None, Some("is cluster-scoped")),
            (host, None, Some("hostNetwork")),
        ] {
            let (got_never, got_some) = match foresee(&manifest, "shop") {
                Ok(some) => (None, some),
                Err(never) => (Some(never), None),
            };
            for (got, want) in [(got_never, never), (got_some, some)] {
                assert_eq!(got.is_some(), want.is_some(), "{manifest}: {got:?}");
                assert!(got.unwrap_or_default().contains(want.unwrap_or_default()), "{manifest}");
            }
        }
        assert!(foresee(&object("ConfigMap", "x"), "kube-system").is_err());
    }

    #[test]
    fn what_the_member_opted_in_to_is_allowed() {
        let opt_in = OptIn { privileged: true, cluster_kinds: vec!["PriorityClass".into()] };
        assert_eq!(check(&deployment(json!({"hostNetwork": true})), "shop", true, &opt_in), Ok(()));
        assert_eq!(check(&object("PriorityClass", "high"), "shop", false, &opt_in), Ok(()));
        assert!(check(&object("ClusterRole", "x"), "shop", false, &opt_in).is_err());
    }
}
