//! Bundles in the member: brought, kept, changed, removed; and what is refused.

use std::net::SocketAddr;
use std::sync::Arc;

use atoll_api::facts::Facts;
use atoll_api::topology::{BundleReport, DesiredBundle};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::hub::{Authority, Hub};
use crate::{Agent, Member, eventually, until, within};

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"x": value}})
}

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
           "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}},
                    "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}}})
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
           "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80}]}})
}

/// The Bundle `shop/<name>`; the revision is made of what it holds.
fn bundle(name: &str, manifests: &[Value], exports: &[&str]) -> DesiredBundle {
    DesiredBundle {
        namespace: "shop".into(),
        name: name.into(),
        uid: "u".into(),
        revision: serde_json::to_string(&(manifests, exports)).unwrap(),
        epoch: 1,
        manifests: manifests.to_vec(),
        exports: exports.iter().map(|e| (*e).to_owned()).collect(),
        ..DesiredBundle::default()
    }
}

fn desired(bundles: &[DesiredBundle]) -> Facts {
    let mut facts = Facts::default();
    for bundle in bundles {
        facts.put(format!("bundle/{}/{}", bundle.namespace, bundle.name), bundle);
    }
    facts
}

fn report(facts: &Facts, name: &str) -> Option<BundleReport> {
    facts.get(&format!("bundle/shop/{name}"))
}

async fn applied(hub: &Hub, bundle: &DesiredBundle) {
    let (name, revision) = (bundle.name.clone(), bundle.revision.clone());
    until(&hub.status, "the Bundle is applied", move |facts| {
        report(facts, &name).is_some_and(|r| r.applied && r.revision == revision)
    })
    .await;
}

async fn joined_with(bundles: &[DesiredBundle]) -> (Arc<Authority>, Member, Hub, Agent) {
    let authority = Authority::new();
    let (member, hub, agent) = Member::joined(&authority, desired(bundles)).await;
    (authority, member, hub, agent)
}

fn maps(member: &Member) -> Api<ConfigMap> {
    Api::namespaced(member.client(), "shop")
}

async fn value_of(member: &Member, name: &str) -> Option<String> {
    maps(member).get_opt(name).await.unwrap()?.data?.remove("x")
}

/// Makes the namespace `shop`, which is then not the agent's.
async fn with_shop(member: &Member) -> Api<Namespace> {
    let namespaces: Api<Namespace> = Api::all(member.client());
    let shop = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    namespaces.create(&PostParams::default(), &serde_json::from_value(shop).unwrap()).await.unwrap();
    namespaces
}

/// Waits until somebody has knocked at a dead hub's door so many times.
async fn knocks(address: SocketAddr, count: usize) {
    within("the agent tries again", async {
        let door = TcpListener::bind(address).await.unwrap();
        for _ in 0..count {
            door.accept().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_bundle_is_brought_with_its_namespace_and_exports_and_is_ready_when_its_pods_are() {
    let web = bundle("web", &[deployment("web"), service("web")], &["web"]);
    let (_authority, member, hub, agent) = joined_with(std::slice::from_ref(&web)).await;
    applied(&hub, &web).await;
    let deployments: Api<Deployment> = Api::namespaced(member.client(), "shop");
    let live = deployments.get("web").await.unwrap();
    assert_eq!(live.metadata.labels.unwrap()["atoll.dev/bundle"], "shop.web");
    let kind = kube::api::ApiResource::erase::<atoll_api::kinds::ServiceExport>(&());
    let exports: Api<kube::api::DynamicObject> = Api::namespaced_with(member.client(), "shop", &kind);
    assert!(exports.get_metadata_opt("web").await.unwrap().is_some());
    assert!(!report(&hub.status.borrow(), "web").unwrap().ready);

    let generation = live.metadata.generation;
    let status = json!({"status": {"observedGeneration": generation, "replicas": 2, "updatedReplicas": 2,
                                   "readyReplicas": 2, "availableReplicas": 2}});
    deployments.patch_status("web", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    until(&hub.status, "ready", |facts| {
        report(facts, "web").is_some_and(|r| r.ready && r.replicas == 2 && r.ready_replicas == 2)
    })
    .await;
    until(&hub.facts, "the export is told", |facts| facts.json("export/shop/web").is_some()).await;
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn drift_is_corrected_and_what_others_added_stays() {
    let web = bundle("web", &[config_map("web", "1"), deployment("web")], &[]);
    let (_authority, member, hub, agent) = joined_with(std::slice::from_ref(&web)).await;
    applied(&hub, &web).await;
    let change = json!({"data": {"x": "mine", "y": "theirs"}});
    maps(&member).patch("web", &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
    eventually("the edit is undone", || async { value_of(&member, "web").await.as_deref() == Some("1") }).await;
    assert_eq!(maps(&member).get("web").await.unwrap().data.unwrap()["y"], "theirs");
    maps(&member).delete("web", &DeleteParams::default()).await.unwrap();
    eventually("the deletion is undone", || async { value_of(&member, "web").await.as_deref() == Some("1") }).await;
    let deployments: Api<Deployment> = Api::namespaced(member.client(), "shop");
    let scaled = json!({"spec": {"replicas": 7}});
    deployments.patch("web", &PatchParams::default(), &Patch::Merge(&scaled)).await.unwrap();
    eventually("the scaling is undone", || async {
        deployments.get("web").await.unwrap().spec.unwrap().replicas == Some(2)
    })
    .await;
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_new_revision_prunes_what_it_no_longer_holds_and_nothing_else() {
    let first = bundle("web", &[config_map("a", "1"), config_map("b", "1")], &[]);
    let (_authority, member, hub, agent) = joined_with(std::slice::from_ref(&first)).await;
    applied(&hub, &first).await;
    let foreign: ConfigMap = serde_json::from_value(config_map("foreign", "theirs")).unwrap();
    maps(&member).create(&PostParams::default(), &foreign).await.unwrap();
    let second = bundle("web", &[config_map("a", "2")], &[]);
    hub.desired.send_replace(desired(std::slice::from_ref(&second)));
    applied(&hub, &second).await;
    assert_eq!(value_of(&member, "a").await.as_deref(), Some("2"));
    assert_eq!(value_of(&member, "b").await, None);
    assert_eq!(value_of(&member, "foreign").await.as_deref(), Some("theirs"));
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn removal_takes_what_is_ours_and_the_namespace_only_when_it_is_empty() {
    let web = bundle("web", &[config_map("a", "1")], &[]);
    let (_authority, member, hub, agent) = joined_with(std::slice::from_ref(&web)).await;
    applied(&hub, &web).await;
    let namespaces: Api<Namespace> = Api::all(member.client());
    let foreign: ConfigMap = serde_json::from_value(config_map("foreign", "theirs")).unwrap();
    maps(&member).create(&PostParams::default(), &foreign).await.unwrap();
    hub.desired.send_replace(Facts::default());
    eventually("ours is gone", || async { value_of(&member, "a").await.is_none() }).await;
    assert_eq!(value_of(&member, "foreign").await.as_deref(), Some("theirs"));
    assert!(namespaces.get_opt("shop").await.unwrap().is_some());
    maps(&member).delete("foreign", &DeleteParams::default()).await.unwrap();
    eventually("the namespace is gone", || async { namespaces.get_opt("shop").await.unwrap().is_none() }).await;
    until(&hub.status, "nothing is reported any more", |facts| report(facts, "web").is_none()).await;
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_bundle_that_comes_back_before_it_was_wholly_gone_is_reported_again() {
    let web = bundle("web", &[config_map("a", "1")], &[]);
    let (_authority, member, hub, agent) = joined_with(std::slice::from_ref(&web)).await;
    applied(&hub, &web).await;
    // Something foreign keeps the namespace, so the removal does not end.
    let foreign: ConfigMap = serde_json::from_value(config_map("foreign", "theirs")).unwrap();
    maps(&member).create(&PostParams::default(), &foreign).await.unwrap();
    hub.desired.send_replace(Facts::default());
    until(&hub.status, "it is being removed", |facts| {
        report(facts, "web").and_then(|r| r.message).is_some_and(|m| m == "being removed")
    })
    .await;
    hub.desired.send_replace(desired(std::slice::from_ref(&web)));
    applied(&hub, &web).await;
    assert_eq!(value_of(&member, "a").await.as_deref(), Some("1"));
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_namespace_that_was_there_before_stays() {
    let (authority, member) = (Authority::new(), Member::new().await);
    let namespaces = with_shop(&member).await;
    let web = bundle("web", &[config_map("a", "1")], &[]);
    let hub = Hub::start(&authority, 1, desired(std::slice::from_ref(&web))).await;
    let agent = member.start(&hub.address.to_string(), Some(authority.token("dev")));
    applied(&hub, &web).await;
    hub.desired.send_replace(Facts::default());
    until(&hub.status, "the Bundle is gone", |facts| report(facts, "web").is_none()).await;
    assert_eq!(value_of(&member, "a").await, None);
    assert!(namespaces.get_opt("shop").await.unwrap().is_some());
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_somebody_elses_or_dangerous_is_refused_alone_and_says_why() {
    let (authority, member) = (Authority::new(), Member::new().await);
    with_shop(&member).await;
    let foreign: Service = serde_json::from_value(service("db")).unwrap();
    Api::<Service>::namespaced(member.client(), "shop").create(&PostParams::default(), &foreign).await.unwrap();
    let role =
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "root"}});
    let unknown = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}});
    let mut elsewhere = config_map("x", "1");
    elsewhere["metadata"]["namespace"] = json!("kube-system");
    let mixed = bundle("web", &[config_map("a", "1"), service("db"), role, unknown, elsewhere], &[]);
    let hub = Hub::start(&authority, 1, desired(&[mixed])).await;
    let agent = member.start(&hub.address.to_string(), Some(authority.token("dev")));
    until(&hub.status, "a report with reasons", |facts| {
        report(facts, "web").and_then(|r| r.message).is_some_and(|m| {
            ["db: exists already and is not Atoll's", "root: ClusterRole is cluster-scoped", "no Widget", "kube-system"]
                .iter()
                .all(|why| m.contains(why))
        })
    })
    .await;
    assert!(!report(&hub.status.borrow(), "web").unwrap().applied);
    assert_eq!(value_of(&member, "a").await.as_deref(), Some("1"));
    let db = Api::<Service>::namespaced(member.client(), "shop").get("db").await.unwrap();
    assert!(db.metadata.labels.is_none_or(|labels| !labels.contains_key("atoll.dev/bundle")));
    hub.desired.send_replace(Facts::default());
    until(&hub.status, "the Bundle is gone", |facts| report(facts, "web").is_none()).await;
    assert!(Api::<Service>::namespaced(member.client(), "shop").get_opt("db").await.unwrap().is_some());
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_bundle_waits_for_what_it_depends_on() {
    let mut web = bundle("web", &[config_map("web", "1")], &[]);
    web.dependencies = vec!["shop/db".into()];
    let db = bundle("db", &[deployment("db")], &[]);
    let (_authority, member, hub, agent) = joined_with(&[web.clone(), db.clone()]).await;
    applied(&hub, &db).await;
    until(&hub.status, "web waits", |facts| {
        report(facts, "web").and_then(|r| r.message).is_some_and(|m| m.contains("waits for Bundle shop/db"))
    })
    .await;
    assert_eq!(value_of(&member, "web").await, None);
    let deployments: Api<Deployment> = Api::namespaced(member.client(), "shop");
    let generation = deployments.get("db").await.unwrap().metadata.generation;
    let status = json!({"status": {"observedGeneration": generation, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2}});
    deployments.patch_status("db", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    applied(&hub, &web).await;
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn cut_off_from_its_hub_the_agent_changes_nothing_and_afterwards_catches_up() {
    let web = bundle("web", &[config_map("a", "1")], &[]);
    let (authority, member, hub, agent) = joined_with(std::slice::from_ref(&web)).await;
    applied(&hub, &web).await;
    let address = hub.kill().await;
    // The link is down once the agent tries anew; then the member is left alone.
    knocks(address, 1).await;
    maps(&member).delete("a", &DeleteParams::default()).await.unwrap();
    knocks(address, 3).await;
    assert_eq!(value_of(&member, "a").await, None, "nothing is corrected while the hub is silent");
    let hub = Hub::start_at(address, &authority, 1, desired(&[web])).await;
    eventually("it is put back", || async { value_of(&member, "a").await.is_some() }).await;
    drop(hub);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn an_older_hub_is_not_obeyed_even_after_a_restart() {
    let authority = Authority::new();
    let (member, web) = (Member::new().await, bundle("web", &[config_map("a", "1")], &[]));
    let hub = Hub::start(&authority, 7, desired(std::slice::from_ref(&web))).await;
    let agent = member.start(&hub.address.to_string(), Some(authority.token("dev")));
    applied(&hub, &web).await;
    agent.stop().await.unwrap();
    let address = hub.kill().await;
    let old = Hub::start_at(address, &authority, 6, Facts::default()).await;
    let agent = member.start("", None);
    until(&old.link, "the agent tries twice", |link| link.0 >= 2).await;
    assert_eq!(value_of(&member, "a").await.as_deref(), Some("1"), "an older hub removes nothing");
    old.kill().await;
    let new = Hub::start_at(address, &authority, 8, Facts::default()).await;
    eventually("the new hub's word counts", || async { value_of(&member, "a").await.is_none() }).await;
    drop(new);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn what_an_agent_applied_before_its_restart_is_removed_after_it() {
    let web = bundle("web", &[config_map("a", "1")], &[]);
    let (_authority, member, hub, agent) = joined_with(std::slice::from_ref(&web)).await;
    applied(&hub, &web).await;
    agent.stop().await.unwrap();
    hub.desired.send_replace(Facts::default());
    let agent = member.start("", None);
    eventually("it is gone", || async { value_of(&member, "a").await.is_none() }).await;
    agent.stop().await.unwrap();
}
