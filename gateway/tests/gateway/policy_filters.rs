//! The filters of RoutePolicies, one after the other, on real requests.

use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::backend::Pod;
use crate::client::{Answer, get, request, send};
use crate::world::{World, import, policy, route, secret, topology};

/// A gateway with a route `web` of `shop.test` to one pod at `ip`.
pub(crate) async fn world(ip: &str) -> (World, Pod) {
    let world = World::start().await;
    let web = Pod::start("web", ip).await;
    world.publish(topology(&[("eu", &[&web])]), true);
    world.apply(route("web", &["shop.test"], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("shop.test", "/", |a| a.status == 200).await;
    (world, web)
}

/// Puts filters on the route, and waits until they are in force.
pub(crate) async fn put(world: &World, filters: Value) {
    world.apply(policy("web", ("HTTPRoute", "web"), filters)).await;
    let of = policy("web", ("HTTPRoute", "web"), json!([]));
    let generation = world.read(of.clone()).await["metadata"]["generation"].clone();
    let current = |s: &Value| s["ancestors"][0]["conditions"][0]["observedGeneration"] == generation;
    world.until_status(of, current).await;
}

pub(crate) async fn ask(world: &World, line: &str, headers: &[(&str, &str)], body: &'static str) -> Answer {
    send(world.http, request("shop.test", line, headers, body)).await
}

#[tokio::test]
async fn lists_of_addresses_let_in_and_keep_out() {
    let (world, _web) = world("127.13.2.1").await;
    for (name, filters, status) in [
        ("not listed as denied", json!([{"filter": "deny", "cidrs": ["10.0.0.0/8", "192.0.2.1"]}]), 200),
        ("denied", json!([{"filter": "deny", "cidrs": ["127.0.0.1"]}]), 403),
        ("allowed", json!([{"filter": "allow", "cidrs": ["127.0.0.0/8"]}]), 200),
        ("not allowed", json!([{"filter": "allow", "cidrs": ["::1", "10.0.0.0/8"]}]), 403),
        (
            "both",
            json!([{"filter": "allow", "cidrs": ["127.0.0.0/8"]}, {"filter": "deny", "cidrs": ["127.0.0.1"]}]),
            403,
        ),
        ("no range", json!([{"filter": "allow", "cidrs": ["127.0.0.0/8", "everywhere"]}]), 503),
    ] {
        put(&world, filters).await;
        assert_eq!(get(world.http, "shop.test", "/").await.status, status, "{name}");
    }
}

#[tokio::test]
async fn users_and_keys_are_asked_for() {
    let (world, _web) = world("127.13.2.2").await;
    let users = format!("anna:{}\nbert:$apr1$xxxxxxxx$dxHfLAsjHkDRmG83UXe8K0\n", bcrypt::hash("anna's", 4).unwrap());
    world.apply(secret("users", &[("auth", &users)])).await;
    world.apply(secret("keys", &[("robot", "k-1"), ("rover", "k-2")])).await;
    put(&world, json!([{"filter": "basic", "secretRef": {"name": "users"}, "realm": "shop", "userHeader": "x-user"}]))
        .await;
    let coded = |text: &str| format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(text));
    for (said, status, user) in [
        (coded("anna:anna's"), 200, json!("anna")),
        (coded("anna:anna's"), 200, json!("anna")),
        (coded("bert:password"), 200, json!("bert")),
        (coded("anna:password"), 401, Value::Null),
        (coded("nobody:password"), 401, Value::Null),
        (coded("anna"), 401, Value::Null),
        ("Basic !!!".to_owned(), 401, Value::Null),
        ("Bearer x".to_owned(), 401, Value::Null),
    ] {
        let answer = ask(&world, "GET /", &[("authorization", &said), ("x-user", "root")], "").await;
        assert_eq!(answer.status, status, "{said}");
        if status == 200 {
            let headers = &answer.said()["headers"];
            assert_eq!((&headers["x-user"], &headers["authorization"]), (&user, &Value::Null), "{said}");
        } else {
            assert_eq!(answer.header("www-authenticate"), "Basic realm=\"shop\", charset=\"UTF-8\"");
        }
    }
    put(&world, json!([{"filter": "apiKeys", "secretRef": {"name": "keys"}, "fromHeaders": ["x-key"], "fromQueries": ["key"], "userHeader": "x-user"}])).await;
    for (line, headers, status) in [
        ("GET /", &[("x-key", "k-1")][..], 200),
        ("GET /?key=k-1&a=b", &[], 200),
        ("GET /", &[("x-key", "k-3")], 401),
        ("GET /", &[("x-key", "")], 401),
        ("GET /", &[], 401),
    ] {
        let answer = ask(&world, line, headers, "").await;
        assert_eq!(answer.status, status, "{line} {headers:?}");
        if status == 200 {
            let said = answer.said();
            assert_eq!((&said["headers"]["x-user"], &said["headers"]["x-key"]), (&json!("robot"), &Value::Null));
            assert!(
                !said["uri"].as_str().unwrap().contains("k-1"),
                "the backend has no use for the key: {}",
                said["uri"]
            );
        }
    }
}

#[tokio::test]
async fn rates_sizes_and_numbers_are_kept() {
    let (world, _web) = world("127.13.2.3").await;
    put(&world, json!([{"filter": "rate", "requests": 3, "per": "1h", "key": "header", "header": "x-who"}])).await;
    for (who, expected) in [("a", [200, 200, 200, 429]), ("b", [200, 200, 200, 429])] {
        for (nth, status) in expected.into_iter().enumerate() {
            let answer = ask(&world, "GET /", &[("x-who", who)], "").await;
            assert_eq!(answer.status, status, "{who} {nth}");
            if status == 429 {
                let wait: u64 = answer.header("retry-after").parse().unwrap();
                assert!((1100..=1200).contains(&wait), "a third of an hour: {wait}");
            }
        }
    }
    put(&world, json!([{"filter": "sizes", "requestBytesMax": 5, "headerBytesMax": 600}])).await;
    let long = "x".repeat(600);
    for (headers, body, status) in
        [(&[][..], "five!", 200), (&[], "sixsix", 413), (&[("x-long", long.as_str())], "", 431)]
    {
        assert_eq!(ask(&world, "POST /", headers, body).await.status, status, "{body}");
    }
    put(&world, json!([{"filter": "sizes", "responseBytesMax": 10}])).await;
    assert_eq!(get(world.http, "shop.test", "/").await.status, 502);
    put(&world, json!([{"filter": "bandwidth", "bytesPerSecond": 1000, "burstBytes": 100}])).await;
    let began = Instant::now();
    let length = get(world.http, "shop.test", "/").await.body.len();
    let least = Duration::from_secs_f64((length as f64 - 150.0).max(0.0) / 1000.0);
    assert!(began.elapsed() >= least, "{length} bytes in {:?}", began.elapsed());
}

#[tokio::test]
async fn heads_paths_and_pages_are_changed() {
    let (world, _web) = world("127.13.2.4").await;
    put(&world, json!([
        {"filter": "headers", "request": {"set": [{"name": "x-a", "value": "1"}], "remove": ["x-b"]}, "response": {"add": [{"name": "x-c", "value": "3"}]}},
        {"filter": "path", "prefix": "/old", "substitution": "/new", "hostname": "inner.test"},
        {"filter": "cors", "allowOrigins": ["https://a.test"], "allowMethods": ["GET"]},
    ])).await;
    let answer = ask(&world, "GET /old/x?q=1", &[("x-b", "2"), ("origin", "https://a.test")], "").await;
    let said = answer.said();
    assert_eq!((&said["uri"], &said["headers"]["host"]), (&json!("/new/x?q=1"), &json!("inner.test")));
    assert_eq!((&said["headers"]["x-a"], &said["headers"]["x-b"]), (&json!("1"), &Value::Null));
    assert_eq!((answer.header("x-c"), answer.header("access-control-allow-origin")), ("3", "https://a.test"));
    let preflight = [("origin", "https://a.test"), ("access-control-request-method", "GET")];
    assert_eq!(ask(&world, "OPTIONS /", &preflight, "").await.status, 204);

    put(&world, json!([{"filter": "path", "pattern": "^/v([0-9]+)/(.*)", "substitution": "/$2/$1"}])).await;
    assert_eq!(get(world.http, "shop.test", "/v2/a").await.said()["uri"], "/a/2");
    put(&world, json!([{"filter": "path", "pattern": "(", "substitution": ""}])).await;
    assert_eq!(get(world.http, "shop.test", "/v2/a").await.status, 503, "an expression that is none closes");

    put(&world, json!([
        {"filter": "errorPages", "pages": [{"statuses": ["403"], "body": "<p>no</p>", "status": 404}, {"statuses": ["5xx"], "body": "sorry", "contentType": "text/plain"}]},
        {"filter": "deny", "cidrs": ["127.0.0.0/8"]},
    ])).await;
    let answer = get(world.http, "shop.test", "/").await;
    assert_eq!(
        (answer.status, answer.body.as_str(), answer.header("content-type")),
        (404, "<p>no</p>", "text/html; charset=utf-8")
    );
    put(&world, json!([{"filter": "errorPages", "pages": [{"statuses": ["502-504"], "body": "sorry", "contentType": "text/plain"}]}])).await;
    world.publish(topology(&[("eu", &[])]), true);
    let answer = world.until("shop.test", "/", |a| a.status == 503).await;
    assert_eq!(answer.body, "sorry", "also in the place of a refusal of ours");
}

#[tokio::test]
async fn requests_at_once_are_bounded_and_given_back() {
    let (world, _web) = world("127.13.2.5").await;
    put(
        &world,
        json!([
            {"filter": "connections", "max": 1},
            {"filter": "bandwidth", "bytesPerSecond": 400, "burstBytes": 100},
        ]),
    )
    .await;
    let (first, second) = tokio::join!(get(world.http, "shop.test", "/"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        get(world.http, "shop.test", "/").await
    });
    assert_eq!((first.status, second.status, second.header("retry-after")), (200, 429, "1"));
    world.until("shop.test", "/", |a| a.status == 200).await;
}
