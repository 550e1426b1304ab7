//! Which endpoint of a cluster: sessions stay where they began, keys go where their hash says.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use crate::backend::{Manner, Pod};
use crate::client::{Answer, get, request, send};
use crate::world::{World, import, route, service, topology, with_traffic};

async fn get_with(world: &World, path: &str, header: (&str, &str)) -> Answer {
    send(world.http, request("any.test", &format!("GET {path}"), &[header], "")).await
}

/// Three pods on one port, as one service has them.
async fn pods(net: u8) -> [Pod; 3] {
    let first = Pod::start("a", &format!("127.10.{net}.1")).await;
    let port = first.address.port();
    let second = Pod::start_as("b", &format!("127.10.{net}.2"), port, Manner::Well).await;
    let third = Pod::start_as("c", &format!("127.10.{net}.3"), port, Manner::Well).await;
    [first, second, third]
}

/// The name=value of the cookie that an answer sets.
fn cookie(answer: &Answer) -> String {
    answer.header("set-cookie").split(';').next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_session_stays_with_its_endpoint_and_begins_anew_when_that_is_gone() {
    let world = World::start().await;
    let pods = pods(60).await;
    world.publish(topology(&[("eu", &[&pods[0], &pods[1], &pods[2]])]), true);
    let rule = |path: &str, session: serde_json::Value| json!({"matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": [import("web")], "sessionPersistence": session});
    let by_cookie = rule("/cookie", json!({"sessionName": "sid"}));
    let by_header = rule("/header", json!({"type": "Header", "sessionName": "x-session", "absoluteTimeout": "1h"}));
    world.apply(route("web", &[], json!([by_cookie, by_header]))).await;
    let first = world.until("any.test", "/cookie", |a| a.status == 200).await;
    let sid = cookie(&first);
    assert!(first.header("set-cookie").ends_with("; Path=/cookie; HttpOnly"), "{}", first.header("set-cookie"));
    let again = || get_with(&world, "/cookie", ("cookie", &sid));
    for _ in 0..30 {
        let answer = again().await;
        assert_eq!(
            (answer.pod(), answer.header("set-cookie")),
            (first.pod(), ""),
            "a session that goes on is not told again"
        );
    }
    let begun = get(world.http, "any.test", "/header").await;
    let token = begun.header("x-session").to_owned();
    for _ in 0..30 {
        assert_eq!(get_with(&world, "/header", ("x-session", &token)).await.pod(), begun.pod());
    }
    assert_ne!(
        get_with(&world, "/header", ("x-session", "none of ours")).await.header("x-session"),
        "",
        "it begins anew"
    );
    let names = ["a", "b", "c"];
    pods[names.iter().position(|name| *name == first.pod()).unwrap()].die();
    let elsewhere = again().await;
    assert_eq!(elsewhere.status, 200);
    assert_ne!(elsewhere.pod(), first.pod());
    assert_ne!(cookie(&elsewhere), "", "the client is told of its new session");
    assert_ne!(cookie(&elsewhere), sid);
}

#[tokio::test]
async fn a_key_goes_where_its_hash_says_and_explain_names_the_method() {
    let world = World::start().await;
    let pods = pods(61).await;
    let mut known = topology(&[("eu", &[&pods[0], &pods[1], &pods[2]])]);
    let policy = json!({"service": "web", "balance": {"method": "Maglev", "hashOn": {"header": "x-user"}}});
    let name = atoll_api::names::ServiceName::new("shop", "web");
    known.traffic.insert(name, Arc::new(serde_json::from_value(policy).unwrap()));
    world.publish(known, true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("any.test", "/", |a| a.status == 200).await;
    let mut used = BTreeSet::new();
    for user in 0..20 {
        let user = format!("user-{user}");
        let pod = get_with(&world, "/", ("x-user", &user)).await.pod().to_owned();
        for _ in 0..3 {
            assert_eq!(get_with(&world, "/", ("x-user", &user)).await.pod(), pod, "{user}");
        }
        used.insert(pod);
    }
    assert_eq!(used.len(), 3, "twenty users are more than one endpoint's: {used:?}");
    let explained = world.server.explain("any.test", "/", None).await;
    assert_eq!(explained["listeners"][0]["backends"][0]["balance"], "Maglev", "{explained:#}");
}

#[tokio::test]
async fn policies_of_services_count_for_those_of_the_hub() {
    let world = World::start().await;
    let (first, second) = (Pod::start("first", "127.20.90.1").await, Pod::start("second", "127.20.90.2").await);
    let [object, slice] = service("web", &first);
    let [_, mut other] = service("web", &second);
    other["metadata"]["name"] = json!("web-2");
    for object in [object, slice, other] {
        world.apply(object).await;
    }
    let policy = json!({"service": "web", "balance": {"method": "RoundRobin"}});
    world.publish(with_traffic(topology(&[]), "web", policy), true);
    world.apply(route("web", &[], json!([{"backendRefs": [{"name": "web", "port": 80}]}]))).await;
    for pod in ["first", "second"] {
        world.until("a.test", "/", |answer| answer.status == 200 && answer.pod() == pod).await;
    }
    let mut answered = [0; 2];
    for _ in 0..20 {
        let answer = get(world.http, "a.test", "/").await;
        answered[usize::from(answer.pod() == "second")] += 1;
    }
    assert_eq!(answered, [10, 10], "one after the other");
}
