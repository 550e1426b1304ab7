//! Refusals as those understand them who are refused: clients of gRPC-Web, pages of other origins, and people who wrote what can't be.

use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use kube::Api;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::backend::Pod;
use crate::client::{Answer, get, request, send};
use crate::ingress::ingress;
use crate::world::{World, policy, route, service};

const WAIT_MAX: Duration = Duration::from_secs(20);

/// Calls by gRPC-Web, from a page of another origin, until the status is as wanted.
async fn call(world: &World, host: &str, kind: &str, status: &str) -> Answer {
    let headers = [("content-type", kind), ("origin", "https://page.test"), ("x-grpc-web", "1")];
    let began = Instant::now();
    loop {
        let answer = send(world.http, request(host, "POST /a.B/C", &headers, "")).await;
        if answer.header("grpc-status") == status {
            assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{host}: {answer:?}");
            assert_eq!(answer.header("content-type"), kind, "{host}");
            return answer;
        }
        assert!(began.elapsed() < WAIT_MAX, "{host} {status}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether the page may read it, and with it the status of gRPC.
fn is_readable(answer: &Answer) -> bool {
    let exposed = answer.headers.get_all("access-control-expose-headers").iter();
    answer.header("access-control-allow-origin") == "https://page.test"
        && exposed.filter_map(|v| v.to_str().ok()).any(|v| v.contains("grpc-status"))
}

#[tokio::test]
async fn a_client_of_grpc_web_is_told_in_its_own_words() {
    let world = World::start().await;
    let one = Pod::start("one", "127.47.0.1").await;
    let [full, slice] = service("full", &one);
    let [mut empty, _] = service("empty", &one);
    empty["spec"]["ports"][0]["appProtocol"] = json!("kubernetes.io/h2c");
    let [idle, _] = service("idle", &one);
    for object in [full, slice, empty, idle] {
        world.apply(object).await;
    }
    let cors = json!([{"type": "CORS", "cors": {"allowOrigins": ["https://page.test"]}}]);
    let to = |name: &str, filters: Value| json!([{"filters": filters, "backendRefs": [{"name": name, "port": 80}]}]);
    world.apply(route("empty", &["empty.test"], to("empty", cors.clone()))).await;
    world.apply(route("plain", &["plain.test"], to("idle", json!([])))).await;
    world.apply(route("denied", &["denied.test"], to("full", json!([])))).await;
    world.apply(route("closed", &["closed.test"], to("full", cors))).await;
    world.apply(route("rated", &["rated.test"], to("full", json!([])))).await;
    let here = json!({"filter": "cors", "allowOrigins": ["https://page.test"]});
    let nobody = json!({"filter": "deny", "cidrs": ["0.0.0.0/0"]});
    let once = json!({"filter": "rate", "requests": 1, "per": "1h"});
    world.apply(policy("denied", ("HTTPRoute", "denied"), json!([here, nobody]))).await;
    world.apply(policy("closed", ("HTTPRoute", "closed"), json!([nobody]))).await;
    world.apply(policy("rated", ("HTTPRoute", "rated"), json!([here, once]))).await;

    let answer = call(&world, "unknown.test", "application/grpc-web+proto", "12").await;
    assert_eq!(answer.header("access-control-allow-origin"), "", "nobody said who may read it");
    call(&world, "plain.test", "application/grpc-web+proto", "14").await;
    let answer = call(&world, "empty.test", "application/grpc-web-text+proto", "14").await;
    assert!(is_readable(&answer) && !answer.header("grpc-message").is_empty(), "{answer:?}");
    for (host, status) in [("denied.test", "7"), ("closed.test", "7"), ("rated.test", "14")] {
        let answer = call(&world, host, "application/grpc-web", status).await;
        assert!(is_readable(&answer), "{host}: {answer:?}");
    }
    // Other pages may read why, too; other origins may not.
    let ask = |origin| request("denied.test", "GET /", &[("origin", origin)], "");
    let answer = send(world.http, ask("https://page.test")).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (403, "https://page.test"));
    let answer = send(world.http, ask("https://other.test")).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (403, ""));
}

#[tokio::test]
async fn headers_that_carry_a_message_are_nobodys_to_change() {
    let world = World::start().await;
    let one = Pod::start("one", "127.47.1.1").await;
    for object in service("web", &one) {
        world.apply(object).await;
    }
    let to = |filters: Value| json!([{"filters": filters, "backendRefs": [{"name": "web", "port": 80}]}]);
    world.apply(route("web", &["web.test"], to(json!([])))).await;
    world.until("web.test", "/", |a| a.status == 200).await;
    let headers =
        |of: &str, change: Value| policy("odd", ("HTTPRoute", "web"), json!([{"filter": "headers", of: change}]));
    let pair = |name: &str| json!([{"name": name, "value": "x"}]);
    for (of, change, says) in [
        ("request", json!({"remove": ["Host"]}), "request.remove: `Host`: every request has one"),
        (
            "request",
            json!({"set": pair("Transfer-Encoding")}),
            "request.set: `Transfer-Encoding`: it says how a message is carried",
        ),
        (
            "response",
            json!({"add": pair("Connection")}),
            "response.add: `Connection`: it says how a message is carried",
        ),
    ] {
        let written = headers(of, change);
        world.apply(written.clone()).await;
        let told = |s: &Value| s["ancestors"][0]["conditions"][0]["message"].as_str().is_some_and(|m| m.contains(says));
        let status = world.until_status(written.clone(), told).await;
        assert_eq!(status["ancestors"][0]["conditions"][0]["status"], "False");
        world.until("web.test", "/", |a| a.status == 503).await;
        world.delete(written).await;
        world.until("web.test", "/", |a| a.status == 200).await;
    }
    let odd = json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["host"]}}]);
    world.apply(route("web", &["web.test"], to(odd))).await;
    let condition = |s: &Value| s["parents"][0]["conditions"][0].clone();
    let status = world.until_status(route("web", &[], json!([])), |s| condition(s)["status"] == "False").await;
    assert!(condition(&status)["message"].as_str().unwrap().contains("remove: `host`"), "{status}");
}

#[tokio::test]
async fn what_a_canary_says_beside_is_told_and_never_opens() {
    let world = World::start().await;
    let one = Pod::start("one", "127.47.2.1").await;
    for object in service("web", &one) {
        world.apply(object).await;
    }
    let root = [("/", "Prefix")];
    let deny = ("denylist-source-range", "0.0.0.0/0");
    let canary = [("canary", "true"), ("canary-weight", "10"), deny, ("limit-rps", "1")];
    world.apply(ingress("main", "a.test", "web", &[], &root)).await;
    world.apply(ingress("canary", "a.test", "web", &canary, &root)).await;
    world.apply(ingress("alone", "a.test", "web", &canary[..3], &[("/admin", "Prefix")])).await;
    world.until("a.test", "/admin", |a| a.status == 503).await;
    world.until("a.test", "/", |a| a.status == 200).await;
    let api: Api<Event> = Api::namespaced(world.client.clone(), "shop");
    for (name, reason, words) in [
        ("canary", "NotHonoured", "denylist-source-range"),
        ("canary", "NotHonoured", "the main Ingress `shop/main` counts, which does not have it"),
        ("alone", "Closed", "denylist-source-range"),
    ] {
        let began = Instant::now();
        loop {
            let events = api.list(&Default::default()).await.unwrap().items;
            let is_it = |e: &Event| {
                let said = e.message.as_deref().unwrap_or_default();
                e.involved_object.name.as_deref() == Some(name)
                    && said.contains(words)
                    && (e.reason.as_deref() == Some("Closed")) == (reason == "Closed")
            };
            if events.iter().any(is_it) {
                break;
            }
            let said: Vec<_> = events.iter().map(|e| (&e.involved_object.name, &e.reason, &e.message)).collect();
            assert!(began.elapsed() < WAIT_MAX, "{name} {reason}: {said:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(get(world.http, "a.test", "/admin/x").await.status, 503);
}
