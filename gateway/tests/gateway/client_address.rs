//! The client's address and the form of paths, on real requests.

use atoll_gateway::Trusted;
use serde_json::{Value, json};

use crate::backend::Pod;
use crate::client::{get, request, send};
use crate::world::{Made, World, import, policy, route, topology};

async fn world(trusted: Trusted, ip: &str) -> (World, Pod) {
    let world = World::start_as(Made { trusted, ..Made::default() }).await;
    let web = Pod::start("web", ip).await;
    world.publish(topology(&[("eu", &[&web])]), true);
    world.apply(route("web", &["shop.test"], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("shop.test", "/", |a| a.status == 200).await;
    (world, web)
}

#[tokio::test]
async fn lists_and_endpoints_go_by_the_one_address_of_the_client() {
    let said = [
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "mine"),
        ("forwarded", "for=192.0.2.7"),
    ];
    let deny = json!([{"filter": "deny", "cidrs": ["192.0.2.0/24"]}]);
    for (name, cidrs, ip, told, status) in [
        ("a trusted proxy", vec!["127.0.0.0/8".parse().unwrap()], "127.13.1.1", "192.0.2.7, 127.0.0.1", 403),
        ("a stranger", vec!["10.0.0.0/8".parse().unwrap()], "127.13.1.2", "127.0.0.1", 200),
    ] {
        let (world, _web) = world(Trusted { cidrs, hops: 0 }, ip).await;
        let answer = send(world.http, request("shop.test", "GET /", &said, "")).await.said();
        let headers = &answer["headers"];
        let believed = status == 403;
        assert_eq!(headers["x-forwarded-for"], told, "{name}");
        assert_eq!(headers["x-forwarded-proto"], if believed { "https" } else { "http" }, "{name}");
        assert_eq!(headers["x-request-id"] == "mine", believed, "{name}");
        assert_eq!(headers["forwarded"] == Value::Null, !believed, "{name}");
        assert_eq!(headers["x-request-id"].as_str().unwrap().len(), if believed { 4 } else { 32 }, "{name}");
        world
            .apply(policy(
                "deny",
                ("HTTPRoute", "web"),
                json!([{"filter": "deny", "cidrs": ["192.0.2.0/24"]},
            {"filter": "headers", "response": {"set": [{"name": "x-mark", "value": "1"}]}}]),
            ))
            .await;
        // The mark stands on answers that were let through, the refusal on the others.
        world.until("shop.test", "/", |a| a.header("x-mark") == "1").await;
        let answer = send(world.http, request("shop.test", "GET /", &said, "")).await;
        assert_eq!(answer.status, status, "{name}: {deny}");
    }
}

#[tokio::test]
async fn what_is_matched_is_what_is_forwarded() {
    let (world, _web) = world(Trusted::default(), "127.13.1.3").await;
    let open = json!({"matches": [{"path": {"value": "/"}}], "backendRefs": [import("web")]});
    let closed = json!({"matches": [{"path": {"value": "/admin"}}], "filters": [{"type": "RequestRedirect",
        "requestRedirect": {"hostname": "closed.test", "statusCode": 302}}]});
    world.apply(route("web", &["shop.test"], json!([open, closed]))).await;
    world.until("shop.test", "/admin", |a| a.status == 302).await;
    for path in ["/a/../admin", "//admin", "/./admin", "/%61dmin", "/x/%2e%2e/admin", "/admin/./x"] {
        assert_eq!(get(world.http, "shop.test", path).await.status, 302, "{path}");
    }
    for (path, forwarded) in
        [("/a//b", "/a/b"), ("/a%2fb/../c", "/c"), ("/a%2fadmin", "/a%2Fadmin"), ("/%7Eme?x=%61", "/~me?x=%61")]
    {
        assert_eq!(get(world.http, "shop.test", path).await.said()["uri"], forwarded, "{path}");
    }
    for path in ["/..", "/a%00b", "/%zz", "/a/../../b"] {
        assert_eq!(get(world.http, "shop.test", path).await.status, 400, "{path}");
    }
    let answer =
        send(world.http, request("shop.test", "GET /", &[("x_user", "root"), ("x-mine", "1")], "")).await.said();
    assert_eq!((&answer["headers"]["x_user"], &answer["headers"]["x-mine"]), (&Value::Null, &json!("1")));
}
