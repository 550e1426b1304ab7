//! Subsets of services by labels of pods: weights between versions over several clusters, a cluster that has none of one, pods of the hub's own
//! API that are labelled anew, and a new process while hub and API server are dead.

use std::collections::BTreeMap;
use std::sync::Arc;

use atoll_api::names::ServiceName;
use atoll_api::topology::{Endpoints, Topology};
use serde_json::{Value, json};

use crate::backend::{Manner, Pod};
use crate::client::get;
use crate::world::{Made, World, import, route, service, topology, with_traffic};

fn of_subset(mut backend: Value, subset: &str, weight: u32) -> Value {
    let named = json!({"group": "atoll.dev", "kind": "Subset", "name": subset});
    backend["filters"] = json!([{"type": "ExtensionRef", "extensionRef": named}]);
    backend["weight"] = weight.into();
    backend
}

fn policy(service: &str, more: Value) -> Value {
    let subset = |version: &str| json!({"name": format!("v{version}"), "labels": {"version": version}});
    let mut policy = json!({"service": service, "subsets": [subset("1"), subset("2")]});
    for (field, value) in more.as_object().unwrap() {
        policy[field] = value.clone();
    }
    policy
}

/// Says of which version each pod of a cluster is, in the order of their addresses.
fn label(mut topology: Topology, cluster: &str, versions: &[&str]) -> Topology {
    let web = ServiceName::new("shop", "web");
    let of_cluster = topology.endpoints.get_mut(cluster).unwrap();
    let mut endpoints = Endpoints::clone(of_cluster.get(&web).unwrap());
    for (endpoint, version) in endpoints.endpoints.iter_mut().zip(versions) {
        endpoint.labels = BTreeMap::from([("version".to_owned(), (*version).to_owned())]);
    }
    of_cluster.insert(web, Arc::new(endpoints));
    topology
}

/// How many of 200 requests each pod answered.
async fn counted(world: &World, host: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..200 {
        let answer = get(world.http, host, "/").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        *counts.entry(answer.pod().to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn weights_hold_between_versions_and_a_cluster_without_one_is_passed_over() {
    let eu = Pod::start("eu-1", "127.48.0.1").await;
    let port = eu.address.port();
    let us1 = Pod::start_as("us-1", "127.48.0.2", port, Manner::Well).await;
    let us2 = Pod::start_as("us-2", "127.48.0.3", port, Manner::Well).await;
    let plain = topology(&[("eu", &[&eu]), ("us", &[&us1, &us2])]);
    let plain = with_traffic(plain, "web", policy("web", json!({})));
    let known = label(label(plain.clone(), "eu", &["1"]), "us", &["1", "2"]);
    let world = World::start_as(Made::default()).await;
    world.publish(known.clone(), true);
    let backends = json!([of_subset(import("web"), "v1", 90), of_subset(import("web"), "v2", 10)]);
    world.apply(route("canary", &["canary"], json!([{"backendRefs": backends}]))).await;
    world.apply(route("v2", &["v2"], json!([{"backendRefs": [of_subset(import("web"), "v2", 1)]}]))).await;
    world.apply(route("whole", &["whole"], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("whole", "/", |a| a.status == 200).await;
    world.until("v2", "/", |a| a.status == 200 && a.pod() == "us-2").await;
    world.until("canary", "/", |a| a.status == 200).await;

    let counts = counted(&world, "canary").await;
    assert_eq!(counts.keys().map(String::as_str).collect::<Vec<_>>(), ["eu-1", "us-2"], "{counts:?}");
    // Of 200 at 10 % fewer than 3 or more than 50 come once in a million.
    assert!((3..=50).contains(&counts["us-2"]), "{counts:?}");
    let explained = world.server.explain("canary", "/", None).await;
    let upstreams: Vec<&str> = explained["listeners"][0]["backends"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| b["upstream"].as_str().unwrap())
        .collect();
    let of_set = "ServiceImport shop/web:80 of cluster set prod";
    assert_eq!(upstreams, [format!("{of_set}, subset v1"), format!("{of_set}, subset v2")]);

    // Only labels are others: the same pod is of the other version.
    world.publish(label(known.clone(), "us", &["2", "1"]), true);
    world.until("v2", "/", |a| a.status == 200 && a.pod() == "us-1").await;
    world.publish(label(label(plain, "eu", &["1"]), "us", &["1", "1"]), true);
    world.until("v2", "/", |a| a.status == 503).await;
    world.publish(known, true);
    world.until("v2", "/", |a| a.status == 200 && a.pod() == "us-2").await;
}

#[tokio::test]
async fn where_each_endpoint_counts_a_subset_has_a_capacity_of_its_own() {
    let v1 = Pod::start("v1", "127.48.1.1").await;
    let v2 = Pod::start_as("v2", "127.48.1.2", v1.address.port(), Manner::Well).await;
    for (capacity, together) in [(json!({"perEndpoint": 1}), 200), (json!({"total": 1}), 503)] {
        let known = with_traffic(topology(&[("eu", &[&v1, &v2])]), "web", policy("web", json!({"capacity": capacity})));
        let world = World::start_as(Made::default()).await;
        world.publish(label(known, "eu", &["1", "2"]), true);
        for version in ["v1", "v2"] {
            let backend = of_subset(import("web"), version, 1);
            world.apply(route(version, &[version], json!([{"backendRefs": [backend]}]))).await;
            world.until(version, "/", |a| a.status == 200 && a.pod() == version).await;
        }
        let (at, before) = (world.http, v1.hits());
        let slow = tokio::spawn(async move { get(at, "v1", "/?wait_ms=1500").await });
        while v1.hits() == before {
            tokio::task::yield_now().await;
        }
        assert_eq!(get(at, "v2", "/").await.status, together, "{capacity}");
        assert_eq!(get(at, "v1", "/").await.status, 503, "{capacity}: it is full");
        assert_eq!(slow.await.unwrap().status, 200);
    }
}

/// A pod of the hub's own API.
fn pod(name: &str, version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop", "labels": {"version": version}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]}})
}

#[tokio::test]
async fn pods_of_the_hub_are_looked_at_as_their_labels_change_and_remembered_when_it_is_dead() {
    let one = Pod::start("one", "127.48.2.1").await;
    let two = Pod::start_as("two", "127.48.2.2", one.address.port(), Manner::Well).await;
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start_as(Made { dir: Some(dir.path()), ..Made::default() }).await;
    let known = with_traffic(topology(&[]), "inner", policy("inner", json!({})));
    world.publish(known.clone(), true);
    let [object, mut slice] = service("inner", &one);
    let endpoint = |pod: &Pod, name: &str| {
        json!({"addresses": [pod.address.ip()], "conditions": {"ready": true},
        "targetRef": {"kind": "Pod", "name": name, "namespace": "shop"}})
    };
    slice["endpoints"] = json!([endpoint(&one, "one"), endpoint(&two, "two")]);
    for object in [object, slice, pod("one", "1"), pod("two", "2")] {
        world.apply(object).await;
    }
    for version in ["v1", "v2"] {
        let backend = of_subset(json!({"name": "inner", "port": 80}), version, 1);
        world.apply(route(version, &[version], json!([{"backendRefs": [backend]}]))).await;
    }
    world.until("v1", "/", |a| a.status == 200 && a.pod() == "one").await;
    world.until("v2", "/", |a| a.status == 200 && a.pod() == "two").await;
    world.apply(pod("one", "2")).await;
    world.until("v1", "/", |a| a.status == 503).await;
    world.apply(pod("two", "1")).await;
    world.until("v1", "/", |a| a.status == 200 && a.pod() == "two").await;
    world.until("v2", "/", |a| a.status == 200 && a.pod() == "one").await;
    world.delete(pod("two", "1")).await;
    world.until("v1", "/", |a| a.status == 503).await;

    world.stop().await;
    world.api.take().unwrap().close().await;
    let (client, topology) = (world.client.clone(), world.topology.clone());
    drop(world);
    let again = World::over(client, topology, Some(dir.path())).await;
    again.until("v2", "/", |a| a.status == 200 && a.pod() == "one").await;
    again.until("v1", "/", |a| a.status == 503).await;
}
