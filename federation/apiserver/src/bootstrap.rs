//! What a cluster has from the start. In: an empty (or older) store; out: namespaces, the Service range, the usual
//! roles. What exists is left as it is.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    Error,
    config::User,
    http::{Options, Target, View},
    object::{meta, text},
    rbac::MASTERS,
    server::Inner,
    store::Key,
    verbs::{self, Call},
};

const RBAC: &str = "rbac.authorization.k8s.io/v1";

/// What whoever may view sees in the core group. Secrets are not among it.
const SHOWN: [&str; 13] = [
    "configmaps",
    "endpoints",
    "events",
    "limitranges",
    "namespaces",
    "persistentvolumeclaims",
    "pods",
    "pods/log",
    "pods/status",
    "resourcequotas",
    "serviceaccounts",
    "services",
    "services/status",
];

/// What whoever may edit changes there.
const KEPT: [&str; 8] =
    ["configmaps", "endpoints", "events", "persistentvolumeclaims", "pods", "secrets", "serviceaccounts", "services"];

/// Makes what is missing.
pub(crate) async fn run(server: &Arc<Inner>) -> Result<(), Error> {
    let user = User { name: "system:apiserver".into(), groups: vec![MASTERS.into()] };
    let options = Options { manager: "apiserver".into(), ..Options::default() };
    let kinds = server.kinds();
    for body in objects(server) {
        let (version, kind) = (text(&body, &["apiVersion"]), text(&body, &["kind"]));
        let name = meta(&body, "name").to_owned();
        let failed = |why: String| Error::Bootstrap { object: format!("{kind} {name}"), why };
        let resource = kinds.of_kind(version, kind).ok_or_else(|| failed("unknown kind".into()))?;
        if server.store.get(&Key::new(&resource.collection, "", &name)).is_some() {
            continue;
        }
        let target = Target::of(resource.clone(), "", &name);
        let call = Call { server, user: &user, target: &target, options: &options, view: View::Full, agent: "" };
        verbs::create(&call, body.clone()).await.map_err(|refusal| failed(refusal.message))?;
    }
    Ok(())
}

fn objects(server: &Inner) -> Vec<Value> {
    let namespaces = server.config.namespaces.iter();
    let mut all: Vec<Value> =
        namespaces.map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).collect();
    all.push(json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [server.config.service_cidr]}}));
    let [view, edit, admin] = for_users();
    all.extend([
        role("cluster-admin", json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
            {"nonResourceURLs": ["*"], "verbs": ["*"]}])),
        binding("cluster-admin", MASTERS),
        role("admin", admin),
        role("edit", edit),
        role("view", view),
        role("system:basic-user", json!([
            {"apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], "verbs": ["create"]},
            {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]}])),
        binding("system:basic-user", "system:authenticated"),
        role("system:discovery", json!([{"nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez",
            "/openapi", "/openapi/*", "/readyz", "/version", "/version/"], "verbs": ["get"]}])),
        binding("system:discovery", "system:authenticated"),
    ]);
    all
}

fn role(name: &str, rules: Value) -> Value {
    json!({"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}, "rules": rules})
}

fn binding(name: &str, group: &str) -> Value {
    json!({"apiVersion": RBAC, "kind": "ClusterRoleBinding",
        "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}]})
}

/// What the roles view, edit and admin allow: to look, to change, to give both to others.
fn for_users() -> [Value; 3] {
    let look = ["get", "list", "watch"];
    let change = ["create", "delete", "deletecollection", "patch", "update", "get", "list", "watch"];
    let groups = ["apps", "batch", "discovery.k8s.io", "networking.k8s.io", "policy"];
    let view = json!([{"apiGroups": [""], "resources": SHOWN, "verbs": look},
        {"apiGroups": groups, "resources": ["*"], "verbs": look}]);
    let edit = vec![
        json!({"apiGroups": [""], "resources": KEPT, "verbs": change}),
        json!({"apiGroups": [""], "resources": SHOWN, "verbs": look}),
        json!({"apiGroups": groups, "resources": ["*"], "verbs": change}),
        json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": change}),
    ];
    let mut admin = edit.clone();
    admin.extend([
        json!({"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": change}),
        json!({"apiGroups": ["authorization.k8s.io"], "resources": ["localsubjectaccessreviews"], "verbs": ["create"]}),
    ]);
    [view, edit.into(), admin.into()]
}
