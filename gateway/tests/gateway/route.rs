//! Requests find their backend by host, path and weight, and get the right status where there is none.

use serde_json::json;

use crate::backend::Pod;
use crate::client::{get, request, send, send_h2c};
use crate::world::{World, import, route, service, topology};

#[tokio::test]
async fn hosts_and_paths_lead_to_their_backends() {
    let world = World::start().await;
    let (web, api, any) = (
        Pod::start("web", "127.10.0.1").await,
        Pod::start("api", "127.10.0.2").await,
        Pod::start("any", "127.10.0.3").await,
    );
    world.publish(topology(&[("eu", &[&web])]), true);
    for object in service("api", &api).into_iter().chain(service("any", &any)) {
        world.apply(object).await;
    }
    world
        .apply(route("web", &["shop.example.com"], json!([
            {"backendRefs": [import("web")]},
            {"matches": [{"path": {"type": "PathPrefix", "value": "/api"}}], "backendRefs": [{"name": "api", "port": 80}]}])))
        .await;
    world.apply(route("any", &["*.example.com"], json!([{"backendRefs": [{"name": "any", "port": 80}]}]))).await;
    world.until("shop.example.com", "/", |a| a.pod() == "web").await;
    world.until("x.example.com", "/", |a| a.pod() == "any").await;
    for (host, path, status, pod) in [
        ("shop.example.com", "/", 200, "web"),
        ("SHOP.example.com.", "/x?y=z", 200, "web"),
        ("shop.example.com:8080", "/api", 200, "api"),
        ("shop.example.com", "/api/v1", 200, "api"),
        ("shop.example.com", "/apiary", 200, "web"),
        ("other.example.com", "/api", 200, "any"),
        ("example.com", "/", 404, ""),
        ("elsewhere.test", "/", 404, ""),
    ] {
        let answer = get(world.http, host, path).await;
        assert_eq!((answer.status, answer.pod()), (status, pod), "{host}{path}: {}", answer.body);
    }
    let h2 = send_h2c(world.http, "http://shop.example.com/api").await;
    assert_eq!(h2.pod(), "api", "HTTP/2 with prior knowledge");
}

#[tokio::test]
async fn an_endpoint_learns_who_asked_and_nothing_that_was_between_us() {
    let world = World::start().await;
    let web = Pod::start("web", "127.10.1.1").await;
    world.publish(topology(&[("eu", &[&web])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("any.test", "/", |a| a.status == 200).await;
    let headers = [("x-forwarded-for", "1.2.3.4"), ("connection", "x-private"), ("x-private", "1"), ("x-mine", "2")];
    let answer = send(world.http, request("any.test:80", "POST /p?q=1", &headers, "the body")).await;
    let said = answer.said();
    assert_eq!(said["method"], "POST");
    assert_eq!(said["uri"], "/p?q=1");
    assert_eq!(said["body"], "the body");
    for (name, value) in [
        ("host", json!("any.test:80")),
        ("x-forwarded-for", json!("127.0.0.1")),
        ("x-forwarded-proto", json!("http")),
        ("x-forwarded-host", json!("any.test:80")),
        ("x-mine", json!("2")),
        ("x-private", json!(null)),
    ] {
        assert_eq!(said["headers"][name], value, "{name}");
    }
}

#[tokio::test]
async fn weights_divide_requests_and_missing_backends_take_their_share_of_errors() {
    let world = World::start().await;
    let (a, b) = (Pod::start("a", "127.10.2.1").await, Pod::start("b", "127.10.2.2").await);
    for object in service("a", &a).into_iter().chain(service("b", &b)) {
        world.apply(object).await;
    }
    let backend = |name: &str, weight: u32| json!({"name": name, "port": 80, "weight": weight});
    let path = |path: &str, backends: serde_json::Value| json!({"matches": [{"path": {"type": "Exact", "value": path}}], "backendRefs": backends});
    world
        .apply(route(
            "w",
            &[],
            json!([
                path("/split", json!([backend("a", 3), backend("b", 1)])),
                path("/half", json!([backend("a", 1), backend("gone", 1)])),
                path("/zero", json!([backend("a", 0), backend("b", 1)])),
                path("/none", json!([backend("a", 0)]))
            ]),
        ))
        .await;
    world.until("x", "/split", |a| a.status == 200).await;
    let mut of_a = 0;
    for _ in 0..200 {
        of_a += usize::from(get(world.http, "x", "/split").await.pod() == "a");
        assert_eq!(get(world.http, "x", "/zero").await.pod(), "b");
    }
    assert!((110..190).contains(&of_a), "{of_a} of 200, not about 150");
    let mut failed = 0;
    for _ in 0..100 {
        failed += usize::from(get(world.http, "x", "/half").await.status == 500);
    }
    assert!((20..80).contains(&failed), "{failed} of 100, not about 50");
    assert_eq!(get(world.http, "x", "/none").await.status, 500);
}

#[tokio::test]
async fn what_is_missing_is_500_and_what_is_not_ready_503() {
    let world = World::start().await;
    world.publish(topology(&[("eu", &[])]), true);
    let path = |path: &str, backend: serde_json::Value| json!({"matches": [{"path": {"value": path}}], "backendRefs": [backend]});
    world
        .apply(route(
            "w",
            &[],
            json!([
                path("/empty", import("web")),
                path("/no-import", import("gone")),
                path("/no-service", json!({"name": "gone", "port": 80})),
                path(
                    "/no-port",
                    json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "web", "port": 81})
                ),
                path("/no-grant", json!({"name": "web", "namespace": "other", "port": 80})),
                path("/no-kind", json!({"group": "example.com", "kind": "Odd", "name": "web"}))
            ]),
        ))
        .await;
    world.until("x", "/empty", |a| a.status == 503).await;
    for path in ["/no-import", "/no-service", "/no-port", "/no-grant", "/no-kind"] {
        assert_eq!(get(world.http, "x", path).await.status, 500, "{path}");
    }
}

#[tokio::test]
async fn time_outs_are_kept() {
    let world = World::start().await;
    let web = Pod::start("web", "127.10.3.1").await;
    world.publish(topology(&[("eu", &[&web])]), true);
    world
        .apply(route("w", &[], json!([
            {"matches": [{"path": {"value": "/request"}}], "timeouts": {"request": "200ms"}, "backendRefs": [import("web")]},
            {"matches": [{"path": {"value": "/backend"}}], "timeouts": {"backendRequest": "200ms"}, "backendRefs": [import("web")]},
            {"matches": [{"path": {"value": "/none"}}], "timeouts": {"request": "0s"}, "backendRefs": [import("web")]}])))
        .await;
    world.until("x", "/request", |a| a.status == 200).await;
    for (path, status) in [("/request", 504), ("/backend", 504), ("/none", 200)] {
        assert_eq!(get(world.http, "x", &format!("{path}?wait_ms=600")).await.status, status, "{path}");
    }
}
