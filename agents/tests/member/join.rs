//! Joining, being who one is, renewing, and what is told.

use atoll_agents::AgentError;
use atoll_api::facts::Facts;
use atoll_api::topology::MemberFacts;
use atoll_reach::Peer;
use k8s_openapi::api::core::v1::{Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use std::time::Duration;

use crate::hub::{Authority, Hub};
use crate::{Member, eventually, until};

async fn create<K>(api: Api<K>, object: Value)
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_token_joins_once_and_the_member_keeps_its_identity() {
    let authority = Authority::new();
    let hub = Hub::start(&authority, 1, Facts::default()).await;
    let (member, other, token) = (Member::new().await, Member::new().await, authority.token("dev"));
    let address = hub.address.to_string();
    let agent = member.start(&address, Some(token.clone()));
    until(&hub.link, "the link", |link| link.0 == 1).await;
    let first = hub.link.borrow().1.clone().unwrap();
    agent.stop().await.unwrap();

    let refused = other.start(&address, Some(token)).ended().await.unwrap_err();
    assert!(matches!(&refused, AgentError::Refused { message, .. } if message.contains("used")), "{refused}");
    let wrong = member.start(&address, Some(authority.token("test"))).ended().await.unwrap_err();
    assert!(matches!(wrong, AgentError::OtherName { .. }), "{wrong}");
    let garbled = other.start(&address, Some("atoll1.dev".into())).ended().await.unwrap_err();
    assert!(matches!(garbled, AgentError::Token(_)), "{garbled}");
    let tokenless = other.start(&address, None).ended().await.unwrap_err();
    assert!(matches!(tokenless, AgentError::NoToken), "{tokenless}");

    let again = member.start("", None);
    until(&hub.link, "the second link", |link| link.0 == 2).await;
    assert_eq!(hub.link.borrow().1.clone().unwrap(), first, "the same certificate, without a token");
    again.stop().await.unwrap();
}

#[tokio::test]
async fn a_hub_of_another_ca_gets_neither_the_token_nor_a_link() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let member = Member::new().await;
    let impostor = Hub::start(&foreign, 1, Facts::default()).await;
    let agent = member.start(&impostor.address.to_string(), Some(authority.token("dev")));
    // It goes on trying: the network between may be at fault. Nothing may come of it.
    until(&impostor.knocks, "a second try", |knocks| *knocks >= 2).await;
    assert_eq!(impostor.link.borrow().0, 0);
    let secrets: Api<Secret> = Api::namespaced(member.client(), "atoll-system");
    assert!(secrets.get_opt("atoll-agent").await.unwrap().is_none());
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_hub_of_an_older_epoch_is_not_obeyed() {
    let authority = Authority::new();
    let member = Member::new().await;
    let hub = Hub::start(&authority, 5, Facts::default()).await;
    let agent = member.start(&hub.address.to_string(), Some(authority.token("dev")));
    until(&hub.facts, "the first facts, so the epoch is kept", |facts| !facts.is_empty()).await;
    agent.stop().await.unwrap();
    let old = Hub::start(&authority, 4, Facts::default()).await;
    let again = member.start(&old.address.to_string(), None);
    until(&old.link, "a third attempt", |link| link.0 > 2).await;
    assert!(old.facts.borrow().is_empty(), "it is told nothing");
    again.stop().await.unwrap();
}

#[tokio::test]
async fn a_certificate_past_half_of_its_life_is_renewed_and_the_link_opened_anew() {
    let authority = Authority::new();
    *authority.age.lock().unwrap() = Duration::from_secs(3600);
    let (member, hub, agent) = Member::joined(&authority, Facts::default()).await;
    until(&authority.renewed.subscribe(), "the renewal", Option::is_some).await;
    let serial = authority.renewed.borrow().clone().unwrap();
    let shows = |link: &(u64, Option<Peer>)| link.1.as_ref().is_some_and(|peer| peer.serial == serial);
    until(&hub.link, "a link that shows the new certificate", shows).await;
    let links = hub.link.borrow().0;
    agent.stop().await.unwrap();
    let again = member.start("", None);
    until(&hub.link, "a link after the restart", |link| link.0 > links).await;
    assert!(shows(&hub.link.borrow()), "the new certificate was stored");
    again.stop().await.unwrap();
}

#[tokio::test]
async fn an_agent_ends_at_once_although_its_hub_never_answers_a_renewal() {
    let authority = Authority::new();
    *authority.age.lock().unwrap() = Duration::from_secs(3600);
    authority.silent.store(true, std::sync::atomic::Ordering::SeqCst);
    let (_member, _hub, agent) = Member::joined(&authority, Facts::default()).await;
    until(&authority.asked.subscribe(), "a renewal is asked for", |asked| *asked > 0).await;
    tokio::time::timeout(Duration::from_secs(10), agent.stop()).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn a_hub_address_that_is_none_is_named() {
    let authority = Authority::new();
    let member = Member::new().await;
    for (address, want) in [("", "no hub address given"), ("hub.example", "`hub.example` is not `host:port`")] {
        let error = member.start(address, Some(authority.token("dev"))).ended().await.unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[tokio::test]
async fn what_there_is_in_the_member_is_told() {
    let authority = Authority::new();
    let (member, hub, agent) = Member::joined(&authority, Facts::default()).await;
    let client = member.client();
    create::<Node>(
        Api::all(client.clone()),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {"podCIDR": "10.1.0.0/24"},
               "status": {"capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
                          "allocatable": {"cpu": "3500m", "memory": "7Gi", "pods": "110"},
                          "addresses": [{"type": "InternalIP", "address": "192.0.2.11"}],
                          "conditions": [{"type": "Ready", "status": "True"}]}}),
    )
    .await;
    create::<Pod>(
        Api::namespaced(client.clone(), "default"),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
               "spec": {"containers": [{"name": "c", "image": "x", "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}}}]},
               "status": {"podIP": "10.1.0.5"}}),
    )
    .await;
    create::<Service>(
        Api::namespaced(client.clone(), "kube-system"),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "labels": {"k8s-app": "kube-dns"}},
               "spec": {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"],
                        "ports": [{"name": "dns", "protocol": "UDP", "port": 53}]}}),
    )
    .await;
    let member_facts = |facts: &Facts| facts.get::<MemberFacts>("member").unwrap_or_default();
    // Status can't be created with the object on a real server; here it is patched in where it was dropped.
    let nodes: Api<Node> = Api::all(client.clone());
    let status = json!({"status": {"capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        "allocatable": {"cpu": "3500m", "memory": "7Gi", "pods": "110"},
        "addresses": [{"type": "InternalIP", "address": "192.0.2.11"}],
        "conditions": [{"type": "Ready", "status": "True"}]}});
    nodes.patch_status("n1", &Default::default(), &kube::api::Patch::Merge(&status)).await.unwrap();
    until(&hub.facts, "the member's facts", |facts| {
        let m = member_facts(facts);
        m.nodes_ready == 1 && m.free.get("cpu").is_some_and(|cpu| cpu == "3250m") && m.dns.is_some()
    })
    .await;
    let told = member_facts(&hub.facts.borrow());
    assert_eq!(told.free["pods"], "109");
    assert_eq!(told.free["memory"], "6Gi");
    assert_eq!(told.cidrs.pods, ["10.1.0.0/24"]);
    assert_eq!(told.dns.unwrap().servers, ["10.96.0.10:53"]);
    assert_eq!(told.version, "v1.34.0+atoll");
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn exported_services_are_told_with_their_endpoints_and_others_are_not() {
    let authority = Authority::new();
    let (member, hub, agent) = Member::joined(&authority, Facts::default()).await;
    let client = member.client();
    for name in ["web", "hidden"] {
        create::<Service>(
            Api::namespaced(client.clone(), "default"),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                   "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}),
        )
        .await;
        create::<EndpointSlice>(
            Api::namespaced(client.clone(), "default"),
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                   "metadata": {"name": format!("{name}-1"), "labels": {"kubernetes.io/service-name": name}},
                   "endpoints": [{"addresses": ["10.1.0.6"], "conditions": {"ready": false}},
                                 {"addresses": ["10.1.0.5"], "targetRef": {"kind": "Pod", "name": "web-a"}}],
                   "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}),
        )
        .await;
    }
    let definitions = "serviceexports.multicluster.x-k8s.io";
    let crds: Api<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> =
        Api::all(client.clone());
    eventually("the agent brings the definition", || async { crds.get_opt(definitions).await.unwrap().is_some() })
        .await;
    let kind = kube::api::ApiResource::erase::<atoll_api::kinds::ServiceExport>(&());
    let exports: Api<kube::api::DynamicObject> = Api::namespaced_with(client.clone(), "default", &kind);
    for name in ["web", "without-a-service"] {
        let export =
            json!({"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport", "metadata": {"name": name}});
        create(exports.clone(), export).await;
    }
    until(&hub.facts, "the export", |facts| facts.json("endpoints/default/web").is_some()).await;
    until(&hub.facts, "the other export", |facts| facts.json("export/default/without-a-service").is_some()).await;
    let facts = hub.facts.borrow().clone();
    let endpoints: Value = facts.get("endpoints/default/web").unwrap();
    assert_eq!(endpoints["endpoints"][0]["address"], "10.1.0.5");
    assert_eq!(endpoints["endpoints"][0]["ready"], true);
    assert_eq!(endpoints["endpoints"][0]["pod"], "web-a");
    assert_eq!(endpoints["endpoints"][1]["ready"], false);
    assert_eq!(endpoints["ports"][0]["port"], 8080);
    assert_eq!(facts.get::<Value>("service/default/web").unwrap()["ports"][0]["port"], 80);
    assert_eq!(facts.get::<Value>("export/default/without-a-service").unwrap()["valid"], false);
    assert!(facts.json("service/default/hidden").is_none() && facts.json("endpoints/default/hidden").is_none());
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_member_that_does_not_answer_its_agent_says_so_in_heartbeats() {
    let authority = Authority::new();
    let (member, hub, agent) = Member::joined(&authority, Facts::default()).await;
    until(&hub.heartbeat, "a heartbeat", |beat| beat.as_ref().is_some_and(|b| b.api_ok && !b.dns_ok)).await;
    member.server.close().await;
    until(&hub.heartbeat, "the bad news", |beat| beat.as_ref().is_some_and(|b| !b.api_ok)).await;
    assert!(hub.heartbeat.borrow().as_ref().unwrap().reason.contains("API server"));
    agent.stop().await.unwrap();
}
