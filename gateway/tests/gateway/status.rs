//! Statuses say what is served, change only when that changes, and leave what others wrote.

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
