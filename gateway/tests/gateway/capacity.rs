//! A cluster gets as many requests at once as its TrafficPolicy lets it have, from all gateways together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use atoll_api::topology::{Site, Topology};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backend::{Manner, Pod};
use crate::client::get;
use crate::world::{Made, World, gateway, import, listener, route, topology, with_traffic};

const WAIT_MAX: Duration = Duration::from_secs(20);

async fn reached(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < WAIT_MAX, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn world(known: &Topology, instance: &str) -> World {
    let world = World::start_as(Made { instance, ..Made::default() }).await;
    world.publish(known.clone(), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("x", "/", |a| a.status == 200).await;
    world
}

#[tokio::test]
async fn a_tier_fills_to_its_bound_exactly_the_excess_goes_on_and_what_nobody_takes_is_refused() {
    let (eu, dr) = (Pod::start("eu", "127.31.0.1").await, Pod::start("dr", "127.31.0.2").await);
    let known = topology(&[("eu", &[&eu]), ("dr", &[&dr])]);
    for (name, capacity) in [("total", json!({"total": 3})), ("each", json!({"perEndpoint": 3}))] {
        let known = with_traffic(known.clone(), "web", json!({"service": "web", "capacity": capacity}));
        let world = world(&known, "one").await;
        let (at, mut waiting) = (world.http, JoinSet::new());
        let before = (eu.hits(), dr.hits());
        for n in 1..=6_usize {
            waiting.spawn(async move { get(at, "x", "/?wait_ms=1500").await });
            let expected = (n.min(3), n.saturating_sub(3));
            let now = || (eu.busy.now.load(Ordering::SeqCst), dr.busy.now.load(Ordering::SeqCst));
            reached(&format!("{name}: {:?} is not {expected:?}", now()), || now() == expected).await;
        }
        let refused = get(at, "x", "/").await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, "1"), "{name}: {}", refused.body);
        let explained = world.server.explain("x", "/", None).await;
        let backend = &explained["listeners"][0]["backends"][0];
        let room = &backend["tiers"][0][0]["capacity"];
        assert_eq!(*room, json!({"bound": 3, "here": 3, "taken": 3}), "{name}: {explained:#}");
        assert!(backend["capacity"].as_str().unwrap().starts_with("3 requests at once"), "{backend:#}");
        let all = waiting.join_all().await;
        assert!(all.iter().all(|a| a.status == 200), "{name}");
        assert_eq!((eu.hits() - before.0, dr.hits() - before.1), (3, 3), "{name}");
        assert_eq!(get(at, "x", "/").await.pod(), "eu", "{name}: there is room again");
    }
    let world = world(&known, "one").await;
    let explained = world.server.explain("x", "/", None).await;
    let said = &explained["listeners"][0]["backends"][0]["capacity"];
    assert!(said.as_str().unwrap().starts_with("none"), "{said}");
}

#[tokio::test]
async fn streams_are_bounded_as_requests_are() {
    let (eu, dr) = (Pod::start("eu", "127.31.1.1").await, Pod::start("dr", "127.31.1.2").await);
    let known = topology(&[("eu", &[&eu]), ("dr", &[&dr])]);
    let known = with_traffic(known, "web", json!({"service": "web", "capacity": {"total": 1}}));
    let world = World::bare(None).await;
    world.publish(known, true);
    let probe = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    world.apply(gateway("main", json!([listener("tcp", port, "TCP")]))).await;
    world
        .apply(json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "TCPRoute", "metadata": {"name": "t", "namespace": "shop"},
            "spec": {"parentRefs": [{"name": "main", "namespace": "infra"}], "rules": [{"backendRefs": [import("web")]}]}}))
        .await;
    let at = SocketAddr::new(world.http.ip(), port);
    let started = Instant::now();
    let _first = loop {
        // The port opens, and streams before this one end.
        match stream(at).await {
            Some((stream, pod)) if pod == "eu" => break stream,
            _ => assert!(started.elapsed() < WAIT_MAX, "the best cluster takes a stream"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let (_second, pod) = stream(at).await.unwrap();
    assert_eq!(pod, "dr", "the excess goes on");
    assert!(stream(at).await.is_none(), "nobody takes a third");
}

/// A stream that stays open, and who is at its other end.
async fn stream(at: SocketAddr) -> Option<(TcpStream, String)> {
    let mut stream = TcpStream::connect(at).await.ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.ok()?;
    let (mut read, mut chunk) = (Vec::new(), [0; 4096]);
    while !read.ends_with(b"}") {
        match stream.read(&mut chunk).await {
            Ok(n) if n > 0 => read.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    }
    let pod = String::from_utf8_lossy(&read).split("x-pod: ").nth(1)?.split('\r').next()?.to_owned();
    Some((stream, pod))
}

/// What a hub does for gateways: tells each what the others are asked for.
fn hub(worlds: &[World], names: &[&str], known: &Topology) -> Topology {
    let mut next = known.clone();
    for (world, name) in worlds.iter().zip(names) {
        let asked = world.report.borrow().site.asked.clone();
        let site = Site { instance: (*name).to_owned(), kind: "gateway".to_owned(), asked, ..Site::default() };
        next.sites.insert((*name).to_owned(), Arc::new(site));
    }
    next
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_gateways_at_three_times_the_load_keep_one_bound_with_the_hub_and_without() {
    const EU: usize = 12;
    const DR: usize = 6;
    let (eu, dr) = (Pod::start("eu", "127.31.2.1").await, Pod::start("dr", "127.31.2.2").await);
    // A cluster's bound goes by its endpoints.
    let second = Pod::start_as("eu-2", "127.31.2.3", eu.address.port(), Manner::Well).await;
    let known = topology(&[("eu", &[&eu, &second]), ("dr", &[&dr])]);
    let strategy = json!([{"policy": "failover", "groups": [["eu"], ["dr"]]}]);
    let spec = json!({"service": "web", "capacity": {"perEndpoint": DR}, "strategy": strategy});
    let bounded = with_traffic(known.clone(), "web", spec);
    let names = ["a", "b", "c"];
    let mut worlds = Vec::new();
    for name in names {
        worlds.push(world(&known, name).await);
    }
    // All know of all before the load comes.
    let first = hub(&worlds, &names, &bounded);
    worlds.iter().for_each(|world| world.publish(first.clone(), true));
    for world in &worlds {
        let started = Instant::now();
        loop {
            let explained = world.server.explain("x", "/", None).await;
            let room = explained["listeners"][0]["backends"][0]["tiers"][0][0]["capacity"].clone();
            if room["bound"] == EU && room["here"] == EU / 3 {
                break;
            }
            assert!(started.elapsed() < WAIT_MAX, "{explained:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    for pod in [&eu, &second, &dr] {
        pod.busy.peak.store(0, Ordering::SeqCst);
    }
    let (stop, refused, served) =
        (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let mut clients = JoinSet::new();
    // 54 at once, three times what there is room for, most of them at one gateway.
    for (world, many) in worlds.iter().zip([30, 18, 6]) {
        for _ in 0..many {
            let (at, stop, refused, served) =
                (world.http, Arc::clone(&stop), Arc::clone(&refused), Arc::clone(&served));
            clients.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = get(at, "x", "/?wait_ms=300").await;
                    if answer.status == 503 {
                        assert_eq!(answer.header("retry-after"), "1");
                        refused.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    } else {
                        assert_eq!(answer.status, 200, "{}", answer.body);
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    }
    for (word, fresh) in [("with the hub", true), ("without", false)] {
        let (began, mut held, mut looks) = (Instant::now(), 0, 0);
        while began.elapsed() < Duration::from_secs(5) {
            let next = hub(&worlds, &names, &bounded);
            worlds.iter().for_each(|world| world.publish(next.clone(), fresh));
            tokio::time::sleep(Duration::from_millis(50)).await;
            if began.elapsed() > Duration::from_secs(3) {
                held += eu.busy.now.load(Ordering::SeqCst) + second.busy.now.load(Ordering::SeqCst);
                looks += 1;
            }
        }
        assert!(held * 10 > looks * EU * 5, "{word}: the first tier is full, {held} in {looks} looks");
        let (of_eu, of_dr) = (
            eu.busy.peak.load(Ordering::SeqCst) + second.busy.peak.load(Ordering::SeqCst),
            dr.busy.peak.load(Ordering::SeqCst),
        );
        assert!(of_dr * 100 <= DR * 105, "{word}: {of_dr} of {DR} at once at dr");
        assert!(of_dr >= DR - 1, "{word}: dr takes its share: {of_dr}");
        // The two endpoints' peaks need not come at once.
        assert!(of_eu <= 2 * EU, "{word}: {of_eu}");
    }
    stop.store(true, Ordering::Relaxed);
    clients.join_all().await;
    assert!(refused.load(Ordering::Relaxed) > 0 && served.load(Ordering::Relaxed) > 100);
}
