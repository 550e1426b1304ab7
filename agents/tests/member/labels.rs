//! Labels of pods: endpoints are told with those that the hub asks for, as pods and orders change.

use std::collections::BTreeSet;

use atoll_api::facts::{Facts, key};
use atoll_api::topology::Endpoints;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::hub::{Authority, Hub};
use crate::{Member, until};

fn asking(keys: &[&str]) -> Facts {
    let keys: BTreeSet<&str> = keys.iter().copied().collect();
    let mut facts = Facts::default();
    if !keys.is_empty() {
        facts.put(format!("{}/default/web", key::LABELS), &keys);
    }
    facts
}

/// The labels of the only endpoint, once it is told.
fn told(facts: &Facts) -> Option<String> {
    let endpoints: Endpoints = facts.get("endpoints/default/web")?;
    Some(format!("{:?}", endpoints.endpoints.first()?.labels))
}

#[tokio::test]
async fn endpoints_are_told_with_the_labels_that_the_hub_asks_for_now() {
    let authority = Authority::new();
    let member = Member::new().await;
    let pods: Api<Pod> = Api::namespaced(member.client(), "default");
    let pod = json!({"metadata": {"name": "web-1", "labels": {"app": "web", "version": "1", "track": "stable"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    // One that gateways serve need not be exported to be told.
    let services: Api<Service> = Api::namespaced(member.client(), "default");
    let service = json!({"metadata": {"name": "web"}, "spec": {"type": "LoadBalancer", "loadBalancerClass": "atoll.dev/gateway",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}});
    services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    let slices: Api<EndpointSlice> = Api::namespaced(member.client(), "default");
    let slice = json!({"metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.0.1"], "targetRef": {"kind": "Pod", "name": "web-1", "namespace": "default"}}],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]});
    slices.create(&PostParams::default(), &serde_json::from_value(slice).unwrap()).await.unwrap();

    let hub = Hub::start(&authority, 1, asking(&["version"])).await;
    let agent = member.start(&hub.address.to_string(), Some(authority.token("dev")));
    until(&hub.facts, "the endpoint is told", |facts| told(facts).as_deref() == Some(r#"{"version": "1"}"#)).await;

    let patch = Patch::Merge(json!({"metadata": {"labels": {"version": "2"}}}));
    pods.patch("web-1", &PatchParams::default(), &patch).await.unwrap();
    for (asked, labels) in [
        (&["version"][..], r#"{"version": "2"}"#),
        (&["version", "track"], r#"{"track": "stable", "version": "2"}"#),
        (&["track"], r#"{"track": "stable"}"#),
        (&["absent"], "{}"),
        (&[], "{}"),
        (&["app"], r#"{"app": "web"}"#),
    ] {
        hub.desired.send_replace(asking(asked));
        until(&hub.facts, &format!("{labels} are told"), |facts| told(facts).as_deref() == Some(labels)).await;
    }
    agent.stop().await.unwrap();
}
