//! Push: members that the hub dials with a kubeconfig out of a Secret, and what is said of kubeconfigs that do not work.

use atoll_agents::AgentError;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::world::{World, eventually};

fn cluster(reference: &Value) -> Value {
    json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": "test"},
        "spec": {"environment": "test", "sync": {"mode": "Push", "kubeconfigRef": reference}}})
}

/// Waits until Syncing says `says`, and Ready the same while the member was never seen.
async fn told(world: &World, name: &str, says: &str) {
    let clusters = world.clusters();
    eventually(&format!("{name}: {says}"), async || {
        let conditions = clusters.get("test").await.unwrap().status.unwrap_or_default().conditions;
        let of = |kind: &str| conditions.iter().find(|c| c.type_ == kind).cloned();
        let (Some(ready), Some(syncing)) = (of("Ready"), of("Syncing")) else { return Err("none yet".to_owned()) };
        let fits = syncing.reason == "PushFailed" && syncing.message.contains(says) && ready.message.contains(says);
        if fits && ready.status != "True" { Ok(()) } else { Err(format!("{ready:?} {syncing:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_push_member_needs_a_kubeconfig_that_works_and_says_what_is_wrong_with_it() {
    let world = World::start().await;
    let member = world.member("test", |_| ()).await;
    let secret = async |data: Value| {
        let api: Api<Secret> = Api::namespaced(world.client(), "atoll-system");
        let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "test"}, "stringData": data});
        let _ = api.delete("test", &DeleteParams::default()).await;
        api.patch("test", &PatchParams::apply("test").force(), &Patch::Apply(&body)).await.unwrap();
    };
    let good = member.kubeconfig().unwrap();
    world.apply(cluster(&Value::Null)).await;
    told(&world, "no reference", "sync.kubeconfigRef is missing").await;
    world.apply(cluster(&json!({"name": "test"}))).await;
    told(&world, "no Secret", "secret atoll-system/test: there is none").await;
    secret(json!({"config": "x"})).await;
    told(&world, "no key", "secret atoll-system/test: key `kubeconfig` is missing").await;
    secret(json!({"kubeconfig": "not: [a, kubeconfig"})).await;
    told(&world, "no YAML", "secret atoll-system/test: ").await;
    secret(json!({"kubeconfig": good.replace(&member.api_url(), "https://127.0.0.1:9")})).await;
    told(&world, "nobody there", "Connect").await;
    // Repaired, it is Ready like any other.
    secret(json!({"kubeconfig": good})).await;
    world.condition("test", "Ready", "True").await;
    assert_eq!(world.condition("test", "Syncing", "True").await.reason, "Connected");
    world.condition("test", "DNSReady", "True").await;
    world.topology("it is in the topology", |t| t.clusters.get("test").filter(|c| c.ready).cloned()).await;
    // The member knows who it is: an agent there under the name needs no token, one for another name is refused.
    let token = world.token("dev").await.token.to_string();
    let refused = world.agent(&member, Some(token)).ended().await.unwrap_err();
    assert!(matches!(refused, AgentError::OtherName { .. }), "{refused}");
    // Removed, its agent ends.
    world.clusters().delete("test", &DeleteParams::default()).await.unwrap();
    world.topology("it is gone", |t| t.clusters.is_empty().then_some(())).await;
    world.end([]).await;
}
