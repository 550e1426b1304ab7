//! Who asked and who voted is stamped, and nobody can speak for others. The same test for the embedded API server and for a real one
//! with the hub's webhook: it takes clients and nothing else.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, Error};
use serde_json::{Value, json};

/// Where the test has its objects.
const NAMESPACE: &str = "stamps";
/// A real API server takes a moment until it knows new roles, and its webhooks.
const SOON: Duration = Duration::from_secs(30);

/// Who asks: the administrator, the users `dev` and `approver`.
pub(crate) struct Clients {
    pub(crate) admin: Client,
    pub(crate) dev: Client,
    pub(crate) approver: Client,
}

fn api(client: &Client, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("atoll.dev", "v1alpha1", kind));
    Api::namespaced_with(client.clone(), NAMESPACE, &resource)
}

fn object(kind: &str, name: &str, annotations: Value, spec: Value) -> DynamicObject {
    let object = json!({"apiVersion": "atoll.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "annotations": annotations}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

fn annotation(object: &DynamicObject, key: &str) -> String {
    object.metadata.annotations.as_ref().and_then(|a| a.get(key)).cloned().unwrap_or_default()
}

fn refused(done: Result<DynamicObject, Error>, annotation: &str) {
    match done {
        Err(Error::Api(status)) => {
            assert!(status.code == 403 || status.code == 422, "{status:?}");
            assert!(status.message.contains(annotation), "it names the annotation: {}", status.message);
        }
        other => panic!("{annotation}: not refused: {other:?}"),
    }
}

/// A namespace in which both may do everything with our kinds.
async fn permit(admin: &Client) {
    let rbac = "rbac.authorization.k8s.io";
    let user = |name: &str| json!({"apiGroup": rbac, "kind": "User", "name": name});
    let rules = json!([{"apiGroups": ["atoll.dev"], "resources": ["*"], "verbs": ["*"]}]);
    for (path, object) in [
        (
            "/api/v1/namespaces".to_owned(),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        ),
        (
            format!("/apis/{rbac}/v1/namespaces/{NAMESPACE}/roles"),
            json!({"apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": {"name": "all"}, "rules": rules}),
        ),
        (
            format!("/apis/{rbac}/v1/namespaces/{NAMESPACE}/rolebindings"),
            json!({"apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": {"name": "all"},
                "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "all"}, "subjects": [user("dev"), user("approver")]}),
        ),
    ] {
        let request = http::Request::post(path).header("content-type", "application/json");
        admin.request::<Value>(request.body(object.to_string().into_bytes()).unwrap()).await.unwrap();
    }
}

/// Creates as soon as it is permitted.
async fn create_soon(api: &Api<DynamicObject>, object: &DynamicObject) -> DynamicObject {
    let until = tokio::time::Instant::now() + SOON;
    loop {
        match api.create(&PostParams::default(), object).await {
            Ok(made) => return made,
            Err(Error::Api(status)) if status.code == 403 && tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => panic!("not created: {error}"),
        }
    }
}

/// Asks, votes, lies; leaves nothing behind.
pub(crate) async fn hold(clients: &Clients) {
    permit(&clients.admin).await;
    let params = PostParams::default();
    let request = || json!({"policy": "none-of-this-name", "images": ["shop/web:2"]});
    let vote = || json!({"request": "stamped", "decision": "Approve", "closure": "sha256:0"});
    let requests = api(&clients.dev, "ReplicationRequest");
    // Stamped, with the groups, whatever else is annotated.
    let made = create_soon(&requests, &object("ReplicationRequest", "stamped", json!({"a": "b"}), request())).await;
    assert_eq!((annotation(&made, "atoll.dev/requester"), annotation(&made, "a")), ("dev".to_owned(), "b".to_owned()));
    assert!(annotation(&made, "atoll.dev/requester-groups").contains("system:authenticated"), "{:?}", made.metadata);
    let votes = api(&clients.approver, "ReplicationApproval");
    let cast = create_soon(&votes, &object("ReplicationApproval", "stamped", json!({}), vote())).await;
    assert_eq!(annotation(&cast, "atoll.dev/voter"), "approver");
    // Who lies is refused, an administrator too.
    for (who, key) in [
        (&clients.dev, "atoll.dev/requester"),
        (&clients.admin, "atoll.dev/requester"),
        (&clients.dev, "atoll.dev/requester-groups"),
    ] {
        let lie = object("ReplicationRequest", "lie", json!({key: "somebody"}), request());
        refused(api(who, "ReplicationRequest").create(&params, &lie).await, key);
    }
    let lie = object("ReplicationApproval", "lie", json!({"atoll.dev/voter": "approver"}), vote());
    refused(api(&clients.dev, "ReplicationApproval").create(&params, &lie).await, "atoll.dev/voter");
    // So is who changes it afterwards, by whatever kind of patch.
    let other = json!({"metadata": {"annotations": {"atoll.dev/requester": "somebody"}}});
    for who in [&clients.dev, &clients.admin] {
        let requests = api(who, "ReplicationRequest");
        refused(requests.patch("stamped", &PatchParams::default(), &Patch::Merge(&other)).await, "atoll.dev/requester");
    }
    let applied = json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "ReplicationRequest", "metadata": {"name": "stamped", "annotations": {"atoll.dev/requester": "somebody"}}, "spec": request()});
    let admin = api(&clients.admin, "ReplicationRequest");
    refused(
        admin.patch("stamped", &PatchParams::apply("liar").force(), &Patch::Apply(&applied)).await,
        "atoll.dev/requester",
    );
    // Other changes go through and keep it, taking it away does not work.
    let more = json!({"metadata": {"annotations": {"c": "d", "atoll.dev/requester": null}}});
    let kept = admin.patch("stamped", &PatchParams::default(), &Patch::Merge(&more)).await.unwrap();
    assert_eq!((annotation(&kept, "atoll.dev/requester"), annotation(&kept, "c")), ("dev".to_owned(), "d".to_owned()));
    // What was refused is not there.
    for kind in ["ReplicationRequest", "ReplicationApproval"] {
        let api = api(&clients.admin, kind);
        assert!(api.get_opt("lie").await.unwrap().is_none());
        api.delete("stamped", &DeleteParams::default()).await.unwrap();
    }
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(clients.admin.clone());
    namespaces.delete(NAMESPACE, &DeleteParams::default()).await.unwrap();
}
