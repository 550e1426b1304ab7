//! How endpoints are watched and spared, as TrafficPolicies say it.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::backend::{Manner, Pod};
use crate::client::get;
use crate::world::{World, import, route, service, topology, with_failing, with_traffic};

const WAIT_MAX: Duration = Duration::from_secs(20);

/// Two pods of one service in `eu`.
async fn pods(net: u8) -> [Pod; 2] {
    let first = Pod::start("eu-1", &format!("127.33.{net}.1")).await;
    let port = first.address.port();
    [first, Pod::start_as("eu-2", &format!("127.33.{net}.2"), port, Manner::Well).await]
}

async fn world(clusters: &[(&str, &[&Pod])], spec: Value) -> World {
    let world = World::start().await;
    world.publish(with_traffic(topology(clusters), "web", spec), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until_status(route("web", &[], json!([])), |s| !s["parents"][0].is_null()).await;
    world
}

/// Who answers twenty requests.
async fn answering(world: &World) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for _ in 0..20 {
        all.insert(get(world.http, "x", "/").await.pod().to_owned());
    }
    all
}

async fn until_answering(world: &World, expected: &[&str]) {
    let (started, expected) = (Instant::now(), expected.iter().map(|e| (*e).to_owned()).collect::<BTreeSet<_>>());
    loop {
        let all = answering(world).await;
        if all == expected {
            return;
        }
        assert!(started.elapsed() < WAIT_MAX, "{all:?} answer, not {expected:?}");
    }
}

#[tokio::test]
async fn an_active_check_takes_out_who_says_that_it_is_ill_and_one_prober_asks_however_many_routes() {
    let pods = pods(0).await;
    let check = json!({"protocol": "HTTP", "path": "/healthz", "interval": "1s", "timeout": "500ms"});
    let spec = json!({"service": "web", "healthCheck": check});
    let world = world(&[("eu", &[&pods[0], &pods[1]])], spec).await;
    for other in ["a", "b", "c"] {
        world.apply(route(other, &[&format!("{other}.test")], json!([{"backendRefs": [import("web")]}]))).await;
    }
    until_answering(&world, &["eu-1", "eu-2"]).await;
    pods[0].busy.ill.store(true, Ordering::SeqCst);
    until_answering(&world, &["eu-2"]).await;
    let (before, began) = (pods[1].busy.checks.load(Ordering::SeqCst), Instant::now());
    pods[0].busy.ill.store(false, Ordering::SeqCst);
    until_answering(&world, &["eu-1", "eu-2"]).await;
    let asked = pods[1].busy.checks.load(Ordering::SeqCst) - before;
    // One a second, and one more for where the window begins.
    assert!(asked as u64 <= began.elapsed().as_secs() + 2, "{asked} checks in {:?}", began.elapsed());
}

#[tokio::test]
async fn answers_with_errors_eject_where_that_is_asked_for_but_never_more_than_half() {
    let pods = pods(1).await;
    // One after the other: who is not asked is ejected, and not merely slow at times.
    let (outlier, balance) = (json!({"consecutiveErrors": 3, "ejection": "30s"}), json!({"method": "RoundRobin"}));
    let spec = json!({"service": "web", "outlier": outlier, "balance": balance});
    let world = world(&[("eu", &[&pods[0], &pods[1]])], spec).await;
    until_answering(&world, &["eu-1", "eu-2"]).await;
    pods[0].busy.wrong.store(true, Ordering::SeqCst);
    until_answering(&world, &["eu-2"]).await;
    pods[1].busy.wrong.store(true, Ordering::SeqCst);
    for _ in 0..10 {
        let answer = get(world.http, "x", "/").await;
        assert_eq!((answer.status, answer.pod()), (500, "eu-2"), "it is the last half");
    }
}

#[tokio::test]
async fn an_endpoint_gets_no_more_at_once_than_the_breaker_lets_it_have() {
    let pod = Pod::start("eu", "127.33.2.1").await;
    let spec = json!({"service": "web", "circuitBreaker": {"requestsPerEndpoint": 2}});
    let world = world(&[("eu", &[&pod])], spec).await;
    world.until("x", "/", |a| a.status == 200).await;
    let at = world.http;
    let waiting: Vec<_> =
        (0..2).map(|_| tokio::spawn(async move { get(at, "x", "/?wait_ms=1000").await.status })).collect();
    let started = Instant::now();
    while pod.busy.now.load(Ordering::SeqCst) < 2 {
        assert!(started.elapsed() < WAIT_MAX);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refused = get(at, "x", "/").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"), "{}", refused.body);
    for one in waiting {
        assert_eq!(one.await.unwrap(), 200);
    }
    assert_eq!(get(at, "x", "/").await.status, 200);
}

#[tokio::test]
async fn a_budget_of_nothing_sends_nothing_again() {
    for (net, budget, status) in [(3, json!({}), 200), (4, json!({"percent": 0, "perSecond": 0}), 502)] {
        let rude = Pod::start_as("rude", &format!("127.33.{net}.1"), 0, Manner::Rude).await;
        let us = Pod::start("us", &format!("127.33.{net}.2")).await;
        let spec = json!({"service": "web", "retryBudget": budget});
        let world = world(&[("eu", &[&rude]), ("us", &[&us])], spec).await;
        let answer = world.until("x", "/", |a| ![404, 503].contains(&a.status)).await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
}

#[tokio::test]
async fn the_last_cluster_left_is_asked_whatever_is_known_of_it() {
    let pod = Pod::start("eu", "127.33.5.1").await;
    let (address, ip) = (pod.address, "127.33.5.1");
    let world = world(&[("eu", &[&pod])], json!({"service": "web"})).await;
    world.until("x", "/", |a| a.status == 200).await;
    pod.die();
    world.until("x", "/", |a| a.status == 503).await;
    let mut report = world.report.clone();
    report.wait_for(|r| r.probes.get("eu") == Some(&false)).await.unwrap();
    let _back = Pod::start_as("eu", ip, address.port(), Manner::Well).await;
    assert_eq!(get(world.http, "x", "/").await.status, 200, "it is out, and asked all the same");
}

#[tokio::test]
async fn who_fails_the_checks_of_the_dns_servers_takes_nothing_while_the_hub_speaks_and_counts_all_the_same() {
    let (pods, us) = (pods(6).await, Pod::start("us", "127.33.6.3").await);
    let spec = json!({"service": "web", "panicPercent": 60, "healthCheck": {"protocol": "HTTP", "path": "/healthz"}});
    let world = world(&[("eu", &[&pods[0], &pods[1]]), ("us", &[&us])], spec.clone()).await;
    let all = |spec| with_traffic(topology(&[("eu", &[&pods[0], &pods[1]]), ("us", &[&us])]), "web", spec);
    until_answering(&world, &["eu-1", "eu-2"]).await;
    world.publish(with_failing(all(spec.clone()), "eu", &[&pods[0]]), true);
    until_answering(&world, &["us"]).await;
    let said = world.server.explain("x", "/", None).await["listeners"][0]["backends"][0].clone();
    assert_eq!(said["panic"], json!({"percent": 60, "passedOver": [["eu"]], "ignored": false}), "{said:#}");
    let endpoints = said["tiers"][0][0]["endpoints"].as_array().unwrap();
    let ill = endpoints.iter().find(|e| e["usable"] == false).unwrap();
    let why = ill["why"][0].as_str().unwrap();
    assert!(why.starts_with("HTTP /healthz at port") && why.ends_with("as the DNS servers find"), "{why}");
    assert_eq!((&ill["healthCheck"]["hub"], &ill["healthCheck"]["here"]), (&json!("fails"), &json!("passes")));
    // Half is enough: the one that is well serves.
    let mut calm = spec.clone();
    calm["panicPercent"] = json!(50);
    world.publish(with_failing(all(calm.clone()), "eu", &[&pods[0]]), true);
    until_answering(&world, &["eu-2"]).await;
    // All of them fail: the next cluster; and when there is none that is well, those that there are.
    world.publish(with_failing(all(calm.clone()), "eu", &[&pods[0], &pods[1]]), true);
    until_answering(&world, &["us"]).await;
    let said = world.server.explain("x", "/", None).await["listeners"][0]["backends"][0].clone();
    assert!(said["why"].to_string().contains("eu: left out, none of its 2 endpoints is well"), "{said:#}");
    let none = with_failing(with_failing(all(calm.clone()), "eu", &[&pods[0], &pods[1]]), "us", &[&us]);
    world.publish(none, true);
    until_answering(&world, &["eu-1", "eu-2"]).await;
    // The hub is silent: what we see ourselves counts.
    world.publish(with_failing(all(spec), "eu", &[&pods[0]]), false);
    until_answering(&world, &["eu-1", "eu-2"]).await;
}

#[tokio::test]
async fn explain_says_what_keeps_an_endpoint_from_a_request() {
    let pods = pods(7).await;
    let spec = json!({"service": "web", "outlier": {"consecutiveErrors": 2, "ejection": "30s"}, "slowStart": "60s",
        "circuitBreaker": {"requestsPerEndpoint": 3}, "retryBudget": {"percent": 10, "perSecond": 1}, "balance": {"method": "RoundRobin"}});
    let world = world(&[("eu", &[&pods[0], &pods[1]])], spec).await;
    world.until("x", "/", |a| a.status == 200).await;
    pods[0].busy.wrong.store(true, Ordering::SeqCst);
    let started = Instant::now();
    let ill = loop {
        get(world.http, "x", "/").await;
        let said = world.server.explain("x", "/", None).await["listeners"][0]["backends"][0].clone();
        assert_eq!(said["retryBudget"], json!({"left": 200, "of": "the policy"}));
        let endpoints = said["tiers"][0][0]["endpoints"].as_array().unwrap().clone();
        for endpoint in &endpoints {
            assert_eq!(
                (&endpoint["circuitBreaker"]["requestsMax"], &endpoint["circuitBreaker"]["full"]),
                (&json!(3), &json!(false))
            );
            let part = endpoint["slowStart"]["part"].as_f64().unwrap_or(1.0);
            assert!((0.1..=1.0).contains(&part), "{endpoint:#}");
        }
        if let Some(ill) = endpoints.into_iter().find(|e| !e["ejected"].is_null()) {
            break ill;
        }
        assert!(started.elapsed() < WAIT_MAX, "{said:#}");
    };
    assert_eq!(ill["ejected"]["why"], "2 answers with errors in a row");
    let until: jiff::Timestamp = ill["ejected"]["until"].as_str().unwrap().parse().unwrap();
    let left = until.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((20..=31).contains(&left), "{left}");
    assert_eq!((&ill["usable"], &ill["why"]), (&json!(false), &json!(["ejected: 2 answers with errors in a row"])));
}

#[tokio::test]
async fn of_a_service_of_the_hub_no_more_than_half_is_ejected_for_errors() {
    let (pods, world) = (pods(8).await, World::start().await);
    let outlier = json!({"consecutiveErrors": 2, "ejection": "30s"});
    let spec = json!({"service": "own", "outlier": outlier, "balance": {"method": "RoundRobin"}});
    world.publish(with_traffic(topology(&[]), "own", spec), true);
    let [object, mut slice] = service("own", &pods[0]);
    slice["endpoints"]
        .as_array_mut()
        .unwrap()
        .push(json!({"addresses": [pods[1].address.ip()], "conditions": {"ready": true}}));
    world.apply(object).await;
    world.apply(slice).await;
    world.apply(route("own", &[], json!([{"backendRefs": [{"name": "own", "port": 80}]}]))).await;
    until_answering(&world, &["eu-1", "eu-2"]).await;
    pods.iter().for_each(|pod| pod.busy.wrong.store(true, Ordering::SeqCst));
    let ejected = |said: &Value| {
        let endpoints = said["listeners"][0]["backends"][0]["tiers"][0][0]["endpoints"].as_array().unwrap().clone();
        endpoints.iter().filter(|e| !e["ejected"].is_null()).count()
    };
    for _ in 0..10 {
        get(world.http, "x", "/").await;
    }
    assert_eq!(ejected(&world.server.explain("x", "/", None).await), 1);
}
