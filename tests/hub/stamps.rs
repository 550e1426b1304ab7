//! Who asked and who voted is stamped, and nobody can speak for others. The same test for the embedded API server and for a real one
//! with the hub's webhook: it takes clients and nothing else.

use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, Error};
use serde_json::{Value, json};

/// Who asks. `dev` and `approver` may create and change requests and votes in `namespace`, which exists.
pub(crate) struct Clients {
    pub(crate) admin: Client,
    pub(crate) dev: Client,
    pub(crate) approver: Client,
}

fn api(client: &Client, namespace: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("atoll.dev", "v1alpha1", kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
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

/// Asks, votes, lies; leaves nothing behind. `dev` and `approver` are the users' names.
pub(crate) async fn hold(clients: &Clients, namespace: &str, dev: &str, approver: &str) {
    let params = PostParams::default();
    let request = || json!({"policy": "none-of-this-name", "images": ["shop/web:2"]});
    let vote = || json!({"request": "stamped", "decision": "Approve", "closure": "sha256:0"});
    let requests = api(&clients.dev, namespace, "ReplicationRequest");
    // Stamped, with the groups, whatever else is annotated.
    let made =
        requests.create(&params, &object("ReplicationRequest", "stamped", json!({"a": "b"}), request())).await.unwrap();
    assert_eq!((annotation(&made, "atoll.dev/requester"), annotation(&made, "a")), (dev.to_owned(), "b".to_owned()));
    assert!(annotation(&made, "atoll.dev/requester-groups").contains("system:authenticated"), "{:?}", made.metadata);
    let votes = api(&clients.approver, namespace, "ReplicationApproval");
    let cast = votes.create(&params, &object("ReplicationApproval", "stamped", json!({}), vote())).await.unwrap();
    assert_eq!(annotation(&cast, "atoll.dev/voter"), approver);
    // Who lies is refused, an administrator too.
    for (who, key) in [
        (&clients.dev, "atoll.dev/requester"),
        (&clients.admin, "atoll.dev/requester"),
        (&clients.dev, "atoll.dev/requester-groups"),
    ] {
        let lie = object("ReplicationRequest", "lie", json!({key: "somebody"}), request());
        refused(api(who, namespace, "ReplicationRequest").create(&params, &lie).await, key);
    }
    let lie = object("ReplicationApproval", "lie", json!({"atoll.dev/voter": approver}), vote());
    refused(api(&clients.dev, namespace, "ReplicationApproval").create(&params, &lie).await, "atoll.dev/voter");
    // So is who changes it afterwards, by whatever kind of patch.
    let other = json!({"metadata": {"annotations": {"atoll.dev/requester": "somebody"}}});
    for who in [&clients.dev, &clients.admin] {
        let requests = api(who, namespace, "ReplicationRequest");
        refused(requests.patch("stamped", &PatchParams::default(), &Patch::Merge(&other)).await, "atoll.dev/requester");
    }
    let applied = json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "ReplicationRequest", "metadata": {"name": "stamped", "annotations": {"atoll.dev/requester": "somebody"}}, "spec": request()});
    let admin = api(&clients.admin, namespace, "ReplicationRequest");
    refused(
        admin.patch("stamped", &PatchParams::apply("liar").force(), &Patch::Apply(&applied)).await,
        "atoll.dev/requester",
    );
    // Other changes go through and keep it, taking it away does not work.
    let more = json!({"metadata": {"annotations": {"c": "d", "atoll.dev/requester": null}}});
    let kept = admin.patch("stamped", &PatchParams::default(), &Patch::Merge(&more)).await.unwrap();
    assert_eq!((annotation(&kept, "atoll.dev/requester"), annotation(&kept, "c")), (dev.to_owned(), "d".to_owned()));
    // What was refused is not there.
    for kind in ["ReplicationRequest", "ReplicationApproval"] {
        let api = api(&clients.admin, namespace, kind);
        assert!(api.get_opt("lie").await.unwrap().is_none());
        api.delete("stamped", &DeleteParams::default()).await.unwrap();
    }
}

/// The embedded API server.
#[tokio::test]
async fn the_embedded_api_server_stamps_who_asked_and_who_voted() {
    use crate::world::World;
    let world = World::start().await;
    world.people("shop").await;
    let clients = Clients {
        admin: world.client(),
        dev: world.server.client_as("dev", &["developers"]),
        approver: world.server.client_as("approver", &["approvers"]),
    };
    hold(&clients, "shop", "dev", "approver").await;
    world.end([]).await;
}
