//! The nearest healthy cluster serves; when it dies the next one does, without a failed request; when it heals it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::backend::{Manner, Pod};
use crate::client::{get, request, send};
use crate::world::{World, import, route, topology, with_service};

/// Sends GETs one after the other until told to stop; gives statuses other than 200.
fn load(world: &World) -> (Arc<AtomicBool>, tokio::task::JoinHandle<Vec<String>>) {
    let (at, stop) = (world.http, Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let task = tokio::spawn(async move {
        let mut failed = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            let answer = get(at, "shop.test", "/").await;
            if answer.status != 200 {
                failed.push(format!("{} {}", answer.status, answer.body));
            }
        }
        failed
    });
    (stop, task)
}

#[tokio::test]
async fn requests_go_on_from_the_next_cluster_without_a_failed_one_and_come_back() {
    let world = World::start().await;
    let first = Pod::start("eu-1", "127.11.0.1").await;
    let port = first.address.port();
    let second = Pod::start_as("eu-2", "127.11.0.2", port, Manner::Well).await;
    let us = Pod::start("us-1", "127.11.1.1").await;
    let dr = Pod::start("dr-1", "127.11.2.1").await;
    let all = || topology(&[("eu", &[&first, &second]), ("us", &[&us]), ("dr", &[&dr])]);
    world.publish(all(), true);
    world.apply(route("web", &["shop.test"], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("shop.test", "/", |a| a.pod().starts_with("eu")).await;
    let loads = [load(&world), load(&world)];
    for _ in 0..20 {
        assert!(get(world.http, "shop.test", "/").await.pod().starts_with("eu"), "the nearest serves");
    }
    first.die();
    second.die();
    world.until("shop.test", "/", |a| a.pod() == "us-1").await;
    us.die();
    world.until("shop.test", "/", |a| a.pod() == "dr-1").await;
    let mut report = world.report.clone();
    let seen = report.wait_for(|r| r.probes.get("eu") == Some(&false) && r.probes.get("us") == Some(&false));
    assert_eq!(seen.await.unwrap().probes.get("dr"), Some(&true));
    let healed = [
        Pod::start_as("eu-1", "127.11.0.1", port, Manner::Well).await,
        Pod::start_as("eu-2", "127.11.0.2", port, Manner::Well).await,
    ];
    world.until("shop.test", "/", |a| a.pod().starts_with("eu")).await;
    for (stop, task) in loads {
        stop.store(true, Ordering::Relaxed);
        assert_eq!(task.await.unwrap(), Vec::<String>::new(), "no request failed");
    }
    assert!(healed.iter().any(|pod| pod.hits() > 0));
}

#[tokio::test]
async fn a_service_with_dead_pods_leaves_its_cluster_to_the_others_and_moves_alone() {
    let world = World::start().await;
    let first = Pod::start("eu-1", "127.11.8.1").await;
    let second = Pod::start_as("eu-2", "127.11.8.2", first.address.port(), Manner::Well).await;
    let us = Pod::start("us", "127.11.8.3").await;
    let dead = Pod::start("dead-1", "127.11.8.4").await;
    let also = Pod::start_as("dead-2", "127.11.8.5", dead.address.port(), Manner::Well).await;
    let third = Pod::start_as("dead-3", "127.11.8.6", dead.address.port(), Manner::Well).await;
    let well = Pod::start("well", "127.11.8.7").await;
    let known = topology(&[("eu", &[&first, &second]), ("us", &[&us])]);
    let known = with_service(known, "well", &[&well]);
    [&dead, &also, &third].into_iter().for_each(Pod::die);
    world.publish(with_service(known.clone(), "z", &[&dead, &also, &third]), true);
    for name in ["web", "z", "well"] {
        world.apply(route(name, &[&format!("{name}.test")], json!([{"backendRefs": [import(name)]}]))).await;
    }
    world.until("web.test", "/", |a| a.status == 200).await;
    world.until("well.test", "/", |a| a.status == 200).await;
    for _ in 0..10 {
        world.until("z.test", "/", |a| a.status == 503).await;
        assert!(get(world.http, "web.test", "/").await.pod().starts_with("eu"), "half of the cluster's pods are z's");
    }
    let out = |said: &serde_json::Value, at: usize| said["listeners"][0]["backends"][0]["clusters"][at].clone();
    let said = world.server.explain("z.test", "/", None).await;
    assert_eq!(out(&said, 0)["weSee"], "well", "{said:#}");
    assert!(out(&said, 0)["service"].as_str().unwrap().starts_with("out"), "{said:#}");
    assert_eq!(world.report.borrow().probes.get("eu"), Some(&true));
    // Where all of a service's are gone it moves at once; the cluster has others that are well.
    world.publish(known, true);
    world.until("z.test", "/", |a| a.status == 500).await;
    let began = Instant::now();
    first.die();
    second.die();
    world.until("web.test", "/", |a| a.pod() == "us").await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let again = Instant::now();
    assert_eq!(get(world.http, "web.test", "/").await.pod(), "us");
    assert!(again.elapsed() < Duration::from_millis(900), "{:?}", again.elapsed());
    assert_eq!(get(world.http, "well.test", "/").await.pod(), "well");
    assert_eq!(world.report.borrow().probes.get("eu"), Some(&true));
}

#[tokio::test]
async fn a_cluster_of_many_services_of_which_one_is_asked_is_out_after_a_second() {
    let world = World::start().await;
    let pod = |n: u8| async move { Pod::start(&format!("eu-{n}"), &format!("127.11.9.{n}")).await };
    let pods = futures::future::join_all((1..9).map(pod)).await;
    let us = Pod::start("us", "127.11.9.100").await;
    let mut known = topology(&[("eu", &[&pods[0]]), ("us", &[&us])]);
    for (n, pod) in pods.iter().enumerate().skip(1) {
        known = with_service(known, &format!("s{n}"), &[pod]);
    }
    world.publish(known, true);
    world.apply(route("web", &["web.test"], json!([{"backendRefs": [import("web")]}]))).await;
    for n in 1..8 {
        let name = format!("s{n}");
        world.apply(route(&name, &[&format!("{name}.test")], json!([{"backendRefs": [import(&name)]}]))).await;
        world.until(&format!("{name}.test"), "/", |a| a.status == 200).await;
    }
    world.until("web.test", "/", |a| a.pod() == "eu-1").await;
    pods.iter().for_each(Pod::freeze);
    let began = Instant::now();
    assert_eq!(get(world.http, "web.test", "/").await.pod(), "us");
    world.report.clone().wait_for(|r| r.probes.get("eu") == Some(&false)).await.unwrap();
    // A second, and what a busy machine adds.
    assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_hubs_word_counts_while_it_is_fresh() {
    let world = World::start().await;
    let (eu, us) = (Pod::start("eu", "127.11.3.1").await, Pod::start("us", "127.11.3.2").await);
    let mut known = topology(&[("eu", &[&eu]), ("us", &[&us])]);
    world.publish(known.clone(), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("x", "/", |a| a.pod() == "eu").await;
    let mut facts = (**known.clusters.get("eu").unwrap()).clone();
    facts.ready = false;
    known.clusters.insert(facts.name.clone(), Arc::new(facts));
    world.publish(known.clone(), true);
    world.until("x", "/", |a| a.pod() == "us").await;
    // The hub falls silent: now what we see ourselves counts, and eu answers.
    world.publish(known, false);
    world.until("x", "/", |a| a.pod() == "eu").await;
}

#[tokio::test]
async fn a_dead_cluster_is_found_by_own_probes_without_hub_and_without_traffic() {
    let world = World::start().await;
    let (eu, us) = (Pod::start("eu", "127.11.4.1").await, Pod::start("us", "127.11.4.2").await);
    world.publish(topology(&[("eu", &[&eu]), ("us", &[&us])]), false);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    let mut report = world.report.clone();
    report.wait_for(|r| r.probes.get("eu") == Some(&true)).await.unwrap();
    let died = Instant::now();
    eu.die();
    report.wait_for(|r| r.probes.get("eu") == Some(&false)).await.unwrap();
    assert!(died.elapsed() < Duration::from_secs(15), "found after {:?}", died.elapsed());
    assert_eq!(get(world.http, "x", "/").await.pod(), "us");
}

#[tokio::test]
async fn a_request_without_an_answer_is_sent_again_only_if_that_is_harmless() {
    let world = World::start().await;
    let rude = Pod::start_as("rude", "127.11.5.1", 0, Manner::Rude).await;
    let us = Pod::start("us", "127.11.5.2").await;
    world.publish(topology(&[("eu", &[&rude]), ("us", &[&us])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("x", "/", |a| a.status == 200).await;
    let hits = rude.hits();
    assert!(hits >= 1, "it was tried");
    // Forget the failure: another world, where the first request is a POST.
    let world = World::start().await;
    world.publish(topology(&[("eu", &[&rude]), ("us", &[&us])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until_status(route("web", &[], json!([])), |s| !s["parents"][0].is_null()).await;
    let (before, elsewhere) = (rude.hits(), us.hits());
    let answer = send(world.http, request("x", "POST /", &[], "once")).await;
    assert_eq!(answer.status, 502, "{}", answer.body);
    assert_eq!((rude.hits(), us.hits()), (before + 1, elsewhere), "a POST reaches one backend once");
}

#[tokio::test]
async fn a_post_goes_elsewhere_when_nothing_of_it_was_sent() {
    let world = World::start().await;
    let us = Pod::start("us", "127.11.6.2").await;
    let gone = Pod::start("gone", "127.11.6.1").await;
    gone.die();
    world.publish(topology(&[("eu", &[&gone]), ("us", &[&us])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until_status(route("web", &[], json!([])), |s| !s["parents"][0].is_null()).await;
    let answer = send(world.http, request("x", "POST /", &[], "hello")).await;
    assert_eq!((answer.status, answer.pod()), (200, "us"));
    assert_eq!(answer.said()["body"], "hello");
}

/// A server that takes no connections any more, and refuses none either: its queue is full, as behind a cut link.
struct BlackHole {
    address: std::net::SocketAddr,
    listener: tokio::net::TcpListener,
    queue: Vec<TcpStream>,
}

impl BlackHole {
    fn open(ip: &str) -> Self {
        Self::open_at(ip, 0)
    }

    fn open_at(ip: &str, port: u16) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{ip}:{port}").parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        Self { address: listener.local_addr().unwrap(), listener, queue: Vec::new() }
    }

    async fn close(&mut self) {
        for _ in 0..4 {
            let connect = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(self.address));
            if let Ok(Ok(stream)) = connect.await {
                self.queue.push(stream);
            }
        }
    }

    fn pod(&self) -> Pod {
        Pod::named(self.address)
    }
}

#[tokio::test]
async fn a_cluster_that_swallows_packets_is_left_after_a_second() {
    let world = World::start().await;
    let us = Pod::start("us", "127.11.7.2").await;
    let mut hole = BlackHole::open("127.11.7.1");
    hole.close().await;
    let swallowed = hole.pod();
    world.publish(topology(&[("eu", &[&swallowed]), ("us", &[&us])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    let began = Instant::now();
    world.until("x", "/", |a| a.status != 404 && a.status != 503 && a.pod() == "us").await;
    assert!(began.elapsed() < Duration::from_secs(8), "took {:?}", began.elapsed());
    let again = Instant::now();
    assert_eq!(get(world.http, "x", "/").await.pod(), "us");
    assert!(again.elapsed() < Duration::from_millis(900), "eu is known to be out: took {:?}", again.elapsed());
}

#[tokio::test]
async fn a_request_that_waits_for_a_cluster_that_was_cut_goes_on_elsewhere() {
    let world = World::start().await;
    let us = Pod::start("us", "127.11.8.2").await;
    let mut hole = BlackHole::open("127.11.8.1");
    let cut = hole.pod();
    world.publish(topology(&[("eu", &[&cut]), ("us", &[&us])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until_status(route("web", &[], json!([])), |s| !s["parents"][0].is_null()).await;
    let at = world.http;
    let waiting = tokio::spawn(async move { get(at, "x", "/").await });
    // Probes and the request are taken in, but nobody ever reads them; then the link is cut.
    let (_held, _) = hole.listener.accept().await.unwrap();
    hole.close().await;
    let answer = waiting.await.unwrap();
    assert_eq!((answer.status, answer.pod()), (200, "us"), "{}", answer.body);
}

#[tokio::test]
async fn policies_of_services_and_hosts_order_the_clusters() {
    let world = World::start().await;
    let (eu, us) = (Pod::start("eu", "127.11.9.1").await, Pod::start("us", "127.11.9.2").await);
    let mut known = topology(&[("eu", &[&eu]), ("us", &[&us])]);
    let of_host = json!({"hosts": ["far.test"], "strategy": [{"policy": "failover", "groups": [["us"], ["eu"]]}]});
    let name = atoll_api::names::ServiceName::new("shop", "far");
    known.traffic.insert(name, Arc::new(serde_json::from_value(of_host).unwrap()));
    world.publish(known.clone(), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("near.test", "/", |a| a.pod() == "eu").await;
    assert_eq!(get(world.http, "far.test", "/").await.pod(), "us", "by host");
    let explained = world.server.explain("far.test", "/", None).await;
    let backend = &explained["listeners"][0]["backends"][0];
    assert_eq!(backend["policy"], "shop/far");
    assert_eq!(backend["tiers"][0][0]["cluster"], "us", "{explained:#}");
    let of_service = json!({"service": "web", "strategy": [{"policy": "failover", "groups": [["us"], ["eu"]]}]});
    let name = atoll_api::names::ServiceName::new("shop", "web");
    known.traffic.insert(name, Arc::new(serde_json::from_value(of_service).unwrap()));
    world.publish(known, true);
    world.until("near.test", "/", |a| a.pod() == "us").await;
    let explained = world.server.explain("near.test", "/", Some("eu")).await;
    assert_eq!(explained["listeners"][0]["backends"][0]["policy"], "shop/web", "{explained:#}");
}

#[tokio::test]
async fn one_swallowed_request_is_enough_to_find_that_a_whole_cluster_is_cut() {
    let world = World::start().await;
    let us = Pod::start("us", "127.11.10.9").await;
    let first = BlackHole::open("127.11.10.1");
    let second = BlackHole::open_at("127.11.10.2", first.address.port());
    let mut holes = [first, second];
    let pods = [holes[0].pod(), holes[1].pod()];
    world.publish(topology(&[("eu", &[&pods[0], &pods[1]]), ("us", &[&us])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until_status(route("web", &[], json!([])), |s| !s["parents"][0].is_null()).await;
    let (at, began) = (world.http, Instant::now());
    let waiting = tokio::spawn(async move { get(at, "x", "/").await });
    let mut held = Vec::new();
    for hole in &mut holes {
        // Whatever knocked already is taken in and never answered; then the link is cut.
        while let Ok(Ok((stream, _))) = tokio::time::timeout(Duration::from_millis(50), hole.listener.accept()).await {
            held.push(stream);
        }
        hole.close().await;
    }
    let answer = waiting.await.unwrap();
    assert_eq!((answer.status, answer.pod()), (200, "us"), "{}", answer.body);
    assert!(began.elapsed() < Duration::from_secs(6), "took {:?}", began.elapsed());
}
