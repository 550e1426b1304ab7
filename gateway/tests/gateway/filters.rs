//! Filters of rules and backends on real requests.

use std::time::Duration;

use serde_json::json;

use crate::backend::Pod;
use crate::client::{get, request, send};
use crate::world::{World, import, route, service, topology};

#[tokio::test]
async fn requests_are_rewritten_redirected_and_changed() {
    let world = World::start().await;
    let web = Pod::start("web", "127.12.0.1").await;
    world.publish(topology(&[("eu", &[&web])]), true);
    let rule = |path: &str, filters: serde_json::Value| json!({"matches": [{"path": {"value": path}}], "filters": filters, "backendRefs": [import("web")]});
    let rules = json!([
        rule("/rewrite", json!([{"type": "URLRewrite", "urlRewrite": {"hostname": "inner.test",
            "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}}}])),
        rule("/headers", json!([
            {"type": "RequestHeaderModifier", "requestHeaderModifier":
                {"set": [{"name": "x-set", "value": "1"}], "add": [{"name": "x-add", "value": "2"}], "remove": ["x-gone"]}},
            {"type": "ResponseHeaderModifier", "responseHeaderModifier":
                {"set": [{"name": "x-pod", "value": "hidden"}], "add": [{"name": "x-more", "value": "3"}]}}])),
        {"matches": [{"path": {"value": "/redirect"}}], "filters": [{"type": "RequestRedirect", "requestRedirect":
            {"scheme": "https", "statusCode": 301, "path": {"type": "ReplaceFullPath", "replaceFullPath": "/there"}}}]},
        {"matches": [{"path": {"value": "/backend"}}], "backendRefs": [{"group": "multicluster.x-k8s.io", "kind": "ServiceImport",
            "name": "web", "port": 80, "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier":
                {"set": [{"name": "x-backend", "value": "web"}]}}]}]},
    ]);
    world.apply(route("web", &["shop.test"], rules)).await;
    world.until("shop.test", "/rewrite", |a| a.status == 200).await;

    let said = get(world.http, "shop.test", "/rewrite/a?b=c").await.said();
    assert_eq!((&said["uri"], &said["headers"]["host"]), (&json!("/new/a?b=c"), &json!("inner.test")));
    let headers = [("x-set", "old"), ("x-gone", "1")];
    let answer = send(world.http, request("shop.test", "GET /headers", &headers, "")).await;
    let said = answer.said();
    assert_eq!((answer.header("x-pod"), answer.header("x-more")), ("hidden", "3"));
    for (name, value) in [("x-set", json!("1")), ("x-add", json!("2")), ("x-gone", json!(null))] {
        assert_eq!(said["headers"][name], value, "{name}");
    }
    let answer = get(world.http, "shop.test", "/redirect/x?q=1").await;
    assert_eq!((answer.status, answer.header("location")), (301, "https://shop.test/there?q=1"));
    assert_eq!(get(world.http, "shop.test", "/backend").await.said()["headers"]["x-backend"], "web");
}

#[tokio::test]
async fn a_mirrored_request_reaches_both_and_the_copy_is_not_waited_for() {
    let world = World::start().await;
    let (web, shadow) = (Pod::start("web", "127.12.1.1").await, Pod::start("shadow", "127.12.1.2").await);
    world.publish(topology(&[("eu", &[&web])]), true);
    for object in service("shadow", &shadow) {
        world.apply(object).await;
    }
    let mirror =
        |name: &str| json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": name, "port": 80}}}]);
    world.apply(route("web", &[], json!([{"filters": mirror("shadow"), "backendRefs": [import("web")]}]))).await;
    world.until("x", "/", |a| a.status == 200).await;
    let answer = send(world.http, request("x", "POST /", &[], "for both")).await;
    assert_eq!((answer.pod(), &answer.said()["body"]), ("web", &json!("for both")));
    tokio::time::timeout(Duration::from_secs(10), async {
        while shadow.hits() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the copies arrive");
    world.apply(route("web", &[], json!([{"filters": mirror("gone"), "backendRefs": [import("web")]}]))).await;
    let status = world
        .until_status(route("web", &[], json!([])), |s| {
            s["parents"][0]["conditions"][1]["reason"] == json!("BackendNotFound")
        })
        .await;
    assert_eq!(status["parents"][0]["conditions"][0]["status"], "True", "a mirror that is missing stops nothing");
    assert_eq!(get(world.http, "x", "/").await.status, 200);
}
