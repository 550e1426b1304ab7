//! A bad object is refused alone, with a condition that says why; the others are served.

use serde_json::{Value, json};

use crate::backend::Pod;
use crate::client::get;
use crate::world::{World, gateway, import, listener, route, topology};

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let all = status["parents"][0]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().find(|c| c["type"] == kind).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn bad_routes_say_why_and_good_ones_are_served() {
    let world = World::start().await;
    let web = Pod::start("web", "127.15.0.1").await;
    world.publish(topology(&[("eu", &[&web])]), true);
    let regex = |r: &str| json!([{"path": {"type": "RegularExpression", "value": r}}]);
    let good = json!({"matches": [{"path": {"value": "/good"}}], "backendRefs": [import("web")]});
    let with = |filter: Value| json!({"matches": [{"path": {"value": "/f"}}], "filters": [filter], "backendRefs": [import("web")]});
    let extension =
        json!({"type": "ExtensionRef", "extensionRef": {"group": "example.com", "kind": "Odd", "name": "x"}});
    let both = |rule: Value| json!([rule, good]);
    let cases = [
        (
            "regex",
            json!([{"matches": regex("/(("), "backendRefs": [import("web")]}]),
            "Accepted",
            "False",
            "UnsupportedValue",
            404,
        ),
        (
            "partly",
            both(json!({"matches": regex("/(("), "backendRefs": [import("web")]})),
            "PartiallyInvalid",
            "True",
            "UnsupportedValue",
            200,
        ),
        (
            "half",
            both(
                json!({"matches": [{"path": {"type": "RegularExpression", "value": "/(("}}, {"path": {"value": "/f"}}],
                "backendRefs": [import("web")]}),
            ),
            "PartiallyInvalid",
            "True",
            "UnsupportedValue",
            200,
        ),
        ("filter", both(with(extension)), "PartiallyInvalid", "True", "UnsupportedValue", 200),
        ("import", json!([{"backendRefs": [import("gone")]}]), "ResolvedRefs", "False", "BackendNotFound", 500),
        (
            "kind",
            json!([{"backendRefs": [{"group": "example.com", "kind": "Odd", "name": "x"}]}]),
            "ResolvedRefs",
            "False",
            "InvalidKind",
            500,
        ),
        (
            "grant",
            json!([{"backendRefs": [{"name": "x", "namespace": "other", "port": 80}]}]),
            "ResolvedRefs",
            "False",
            "RefNotPermitted",
            500,
        ),
    ];
    for (name, rules, ..) in &cases {
        world.apply(route(name, &[&format!("{name}.test")], rules.clone())).await;
    }
    world.apply(route("fine", &["fine.test"], json!([good]))).await;
    world.until("fine.test", "/good", |a| a.status == 200).await;
    for (name, _, kind, status, reason, answered) in cases {
        let said = world.until_status(route(name, &[], json!([])), |s| !condition(s, kind).is_null()).await;
        let condition = condition(&said, kind);
        assert_eq!((&condition["status"], &condition["reason"]), (&json!(status), &json!(reason)), "{name}: {said:#}");
        assert_eq!(get(world.http, &format!("{name}.test"), "/good").await.status, answered, "{name}");
    }
    assert_eq!(get(world.http, "filter.test", "/f").await.status, 500, "a filter that is unknown is not skipped");
    assert_eq!(
        get(world.http, "half.test", "/f").await.status,
        500,
        "what can be read of a rule is kept out all the same"
    );
    assert_eq!(get(world.http, "fine.test", "/good").await.status, 200);
}

#[tokio::test]
async fn routes_that_fit_no_listener_say_which_way() {
    let world = World::bare(None).await;
    let mut limited = listener("http", 80, "HTTP");
    limited["hostname"] = json!("*.shop.test");
    let mut closed = listener("closed", 81, "HTTP");
    closed["allowedRoutes"] = json!({"namespaces": {"from": "Same"}});
    // Port 81 may not be ours to open; whether routes may attach does not depend on it.
    world.apply(gateway("main", json!([limited, closed]))).await;
    let to = |name: &str, section: &str, host: &str| {
        let mut route = route(name, &[host], json!([{"backendRefs": [{"name": "x", "port": 80}]}]));
        route["spec"]["parentRefs"][0]["sectionName"] = json!(section);
        route
    };
    for (name, section, host, status, reason) in [
        ("fits", "http", "a.shop.test", "True", "Accepted"),
        ("host", "http", "a.other.test", "False", "NoMatchingListenerHostname"),
        ("namespace", "closed", "a.shop.test", "False", "NotAllowedByListeners"),
        ("section", "gone", "a.shop.test", "False", "NoMatchingParent"),
    ] {
        world.apply(to(name, section, host)).await;
        let said = world.until_status(to(name, section, host), |s| !condition(s, "Accepted").is_null()).await;
        let condition = condition(&said, "Accepted");
        assert_eq!((&condition["status"], &condition["reason"]), (&json!(status), &json!(reason)), "{name}: {said:#}");
    }
}
