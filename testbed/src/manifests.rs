//! The objects that every member gets: CoreDNS as the usual Deployment and Service, and the echo pods.

use serde_json::{Value, json};

use crate::plan::MemberPlan;

/// The name under which each containerd holds CoreDNS.
pub(crate) const COREDNS_IMAGE: &str = "atoll-testbed/coredns:1.15.0";
/// The image of the echo pods, pulled from the member's registry.
pub(crate) const ECHO_IMAGE: &str = "shop/web:1";
/// The namespace and name of the echo pods and their service.
pub const ECHO: &str = "echo";

const COREFILE: &str = ".:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }
    cache 30
    prometheus :9153
    reload 10s
    loadbalance
}
";

/// Everything, in the order in which it is to be applied.
pub(crate) fn all(member: &MemberPlan) -> Vec<Value> {
    let mut all = coredns(member);
    all.extend(echo());
    all
}

fn coredns(member: &MemberPlan) -> Vec<Value> {
    let labels = json!({"k8s-app": "kube-dns"});
    let named = |name: &str| json!({"name": name, "namespace": "kube-system", "labels": labels});
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named("coredns")}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "system:coredns"},
            "rules": [
                {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "system:coredns"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
            "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}],
        }),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": named("coredns"), "data": {"Corefile": COREFILE}}),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": named("kube-dns"),
            "spec": {
                "clusterIP": member.dns(), "selector": labels,
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
                    {"name": "metrics", "port": 9153, "protocol": "TCP"},
                ],
            },
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": named("coredns"),
            "spec": {
                "replicas": 1, "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "serviceAccountName": "coredns", "dnsPolicy": "Default", "priorityClassName": "system-cluster-critical",
                        "terminationGracePeriodSeconds": 1,
                        "containers": [{
                            "name": "coredns", "image": COREDNS_IMAGE, "imagePullPolicy": "IfNotPresent",
                            "args": ["-conf", "/etc/coredns/Corefile"],
                            "env": [{"name": "GOMAXPROCS", "value": "2"}],
                            "resources": {"requests": {"cpu": "50m", "memory": "70Mi"}},
                            "ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP"}],
                            // No liveness probe: a paused server shall stay paused.
                            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
                            "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": true}],
                        }],
                        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
                    },
                },
            },
        }),
    ]
}

fn echo() -> Vec<Value> {
    let labels = json!({"app": ECHO});
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ECHO}}),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": ECHO, "namespace": ECHO, "labels": labels},
            "spec": {
                "selector": labels,
                "ports": [
                    {"name": "http", "port": 80, "targetPort": 8080},
                    {"name": "grpc", "port": 9090, "appProtocol": "kubernetes.io/h2c"},
                    {"name": "tcp", "port": 9000},
                    {"name": "udp", "port": 9000, "protocol": "UDP"},
                ],
            },
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": ECHO, "namespace": ECHO, "labels": labels},
            "spec": {
                "replicas": 2, "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "terminationGracePeriodSeconds": 1,
                        "containers": [{
                            "name": "echo", "image": ECHO_IMAGE, "imagePullPolicy": "IfNotPresent",
                            "resources": {"requests": {"cpu": "10m", "memory": "10Mi"}},
                            "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
                        }],
                    },
                },
            },
        }),
    ]
}
