//! Statuses say what is served, change only when that changes, and leave what others wrote.

use std::sync::Arc;

use atoll_api::topology::{ServedGateway, Site, Topology};
use serde_json::{Value, json};

use crate::backend::Pod;
use crate::client::get;
use crate::world::{World, gateway, import, listener, route, topology};

fn class() -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "atoll"}})
}

fn of<'a>(conditions: &'a Value, kind: &str) -> (&'a str, &'a str) {
    let all = conditions.as_array().map(Vec::as_slice).unwrap_or_default();
    let found = all.iter().find(|c| c["type"] == kind);
    found.map_or(("", ""), |c| (c["status"].as_str().unwrap_or(""), c["reason"].as_str().unwrap_or("")))
}

#[tokio::test]
async fn class_gateway_and_route_say_what_became_of_them() {
    let world = World::start().await;
    let web = Pod::start("web", "127.16.0.1").await;
    world.publish(topology(&[("eu", &[&web])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    let said = world.until_status(class(), |s| of(&s["conditions"], "Accepted").0 == "True").await;
    assert!(said["supportedFeatures"].as_array().is_some_and(|f| f.contains(&json!({"name": "HTTPRoute"}))));
    let said =
        world.until_status(gateway("main", json!([])), |s| s["listeners"][0]["attachedRoutes"] == json!(1)).await;
    assert_eq!(of(&said["conditions"], "Accepted"), ("True", "Accepted"));
    assert_eq!(of(&said["conditions"], "Programmed"), ("True", "Programmed"));
    assert_eq!(said["addresses"], json!([{"type": "IPAddress", "value": "127.0.0.1"}]));
    let listener = &said["listeners"][0];
    let kind = |kind: &str| json!({"group": "gateway.networking.k8s.io", "kind": kind});
    assert_eq!(listener["supportedKinds"], json!([kind("HTTPRoute"), kind("GRPCRoute")]));
    for (kind, expected) in [
        ("Accepted", ("True", "Accepted")),
        ("Programmed", ("True", "Programmed")),
        ("ResolvedRefs", ("True", "ResolvedRefs")),
        ("Conflicted", ("False", "NoConflicts")),
    ] {
        assert_eq!(of(&listener["conditions"], kind), expected, "{kind}");
    }
    let said = world.until_status(route("web", &[], json!([])), |s| !s["parents"][0].is_null()).await;
    let parent = &said["parents"][0];
    assert_eq!(parent["controllerName"], "atoll.dev/gateway");
    assert_eq!(of(&parent["conditions"], "Accepted"), ("True", "Accepted"));
    assert_eq!(of(&parent["conditions"], "ResolvedRefs"), ("True", "ResolvedRefs"));
    assert_eq!(parent["conditions"][0]["observedGeneration"], 1);
    // A topology that changes nothing for them writes nothing.
    let objects = || [gateway("main", json!([])), route("web", &[], json!([]))];
    let versions = async || {
        let [gateway, route] = objects();
        let version = |object: Value| object["metadata"]["resourceVersion"].clone();
        (version(world.read(gateway).await), version(world.read(route).await))
    };
    let before = versions().await;
    world.publish(topology(&[("eu", &[&web]), ("us", &[])]), true);
    world.until("x", "/", |a| a.status == 200).await;
    assert_eq!(versions().await, before);
    world.delete(route("web", &[], json!([]))).await;
    world.until_status(gateway("main", json!([])), |s| s["listeners"][0]["attachedRoutes"] == json!(0)).await;
}

/// A topology with another replica, which states that it serves `main` in this generation; `None`: not at all.
fn beside(generation: Option<i64>, silent: bool) -> Topology {
    let served = |generation| ServedGateway { generation, ..ServedGateway::default() };
    let gateways = generation.map(|g| ("infra/main".to_owned(), served(g))).into_iter().collect();
    let site = Site {
        instance: "gateway-2".into(),
        kind: "gateway".into(),
        gateways: Some(gateways),
        silent,
        ..Site::default()
    };
    let mut topology = topology(&[]);
    topology.sites.insert("gateway-2".into(), Arc::new(site));
    topology
}

#[tokio::test]
async fn a_gateway_is_programmed_once_every_live_replica_serves_its_generation() {
    let world = World::start().await;
    let listeners = |n: usize| -> Value {
        let one = |i: usize| {
            let mut one = listener(&format!("http-{i}"), 80, "HTTP");
            one["hostname"] = json!(format!("host-{i}.test"));
            one
        };
        (0..n).map(one).collect()
    };
    for (case, count, other, expected) in [
        ("the other has nothing of it", 1, beside(None, false), ("False", "Pending")),
        ("the other serves it", 1, beside(Some(2), false), ("True", "Programmed")),
        ("it changes, the other lags", 2, beside(Some(2), false), ("False", "Pending")),
        ("the other comes after", 2, beside(Some(3), false), ("True", "Programmed")),
        ("it changes again, the other lags", 1, beside(Some(3), false), ("False", "Pending")),
        ("and dies: its lease is over", 1, beside(Some(3), true), ("True", "Programmed")),
    ] {
        world.publish(other, true);
        world.apply(gateway("main", listeners(count))).await;
        let said = world
            .until_status(gateway("main", json!([])), |s| {
                let all = s["listeners"].as_array().map(Vec::as_slice).unwrap_or_default();
                all.len() == count
                    && of(&s["conditions"], "Programmed") == expected
                    && all.iter().all(|l| of(&l["conditions"], "Programmed") == expected)
            })
            .await;
        let why = said["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Programmed").unwrap();
        let why = why["message"].as_str().unwrap();
        assert_eq!(why.ends_with("is not served yet by gateway-2"), expected.1 == "Pending", "{case}: {why}");
        let held = world.read(gateway("main", json!([]))).await["metadata"]["generation"].as_i64();
        let stated = world.report.borrow().site.gateways.clone().unwrap_or_default();
        assert_eq!(stated.get("infra/main").map(|g| g.generation), held, "{case}: what this replica states");
    }
}

#[tokio::test]
async fn what_other_controllers_wrote_stays() {
    let world = World::start().await;
    let theirs = json!({"parentRef": {"name": "theirs"}, "controllerName": "example.com/other", "conditions": [
        {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let object = route("web", &[], json!([{"backendRefs": [import("web")]}]));
    world.apply(object.clone()).await;
    world.until_status(object.clone(), |s| !s["parents"][0].is_null()).await;
    let api: kube::Api<atoll_api::kinds::gateway::HTTPRoute> = kube::Api::namespaced(world.client.clone(), "shop");
    let mut held = api.get("web").await.unwrap();
    let parents = &mut held.status.as_mut().unwrap().parents;
    parents.push(serde_json::from_value(theirs.clone()).unwrap());
    api.replace_status("web", &Default::default(), &held).await.unwrap();
    world.publish(topology(&[("eu", &[])]), true);
    let said = world
        .until_status(object, |s| {
            let ours =
                s["parents"].as_array().into_iter().flatten().find(|p| p["controllerName"] == "atoll.dev/gateway");
            ours.is_some_and(|p| of(&p["conditions"], "ResolvedRefs").0 == "True")
        })
        .await;
    let kept = said["parents"].as_array().unwrap().iter().find(|p| p["controllerName"] == theirs["controllerName"]);
    assert_eq!(kept.map(|p| &p["conditions"]), Some(&theirs["conditions"]), "{said:#}");
}

#[tokio::test]
async fn the_older_of_two_claims_to_a_host_name_keeps_it() {
    let world = World::start().await;
    world.until_status(gateway("main", json!([])), |s| of(&s["conditions"], "Programmed").0 == "True").await;
    // Creation is kept in whole seconds; the name settles what they don't.
    world.apply(gateway("younger", json!([listener("http", 80, "HTTP")]))).await;
    let said = world.until_status(gateway("younger", json!([])), |s| !s["listeners"][0].is_null()).await;
    assert_eq!(of(&said["listeners"][0]["conditions"], "Conflicted"), ("True", "HostnameConflict"));
    assert_eq!(of(&said["conditions"], "Programmed"), ("False", "Invalid"));
    world.delete(gateway("main", json!([]))).await;
    world.until_status(gateway("younger", json!([])), |s| of(&s["conditions"], "Programmed").0 == "True").await;
    assert_eq!(get(world.http, "x", "/").await.status, 404);
}
