//! A rate over all gateways: three of them, and a hub that hands on what each is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atoll_api::topology::Topology;
use atoll_wire::follow::Snapshot;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backend::Pod;
use crate::client::get;
use crate::policy_filters::put;
use crate::world::{Made, World, import, route, topology};

const NAMES: [&str; 3] = ["g1", "g2", "g3"];
const PER_SECOND: usize = 60;

/// What all gateways say of themselves, as a hub would tell it to each.
fn told(worlds: &[World], base: &Topology) -> Topology {
    let mut all = base.clone();
    for (name, world) in NAMES.iter().zip(worlds) {
        let mut site = world.report.borrow().site.clone();
        (site.instance, site.kind) = ((*name).to_owned(), "gateway".to_owned());
        all.sites.insert(site.instance.clone(), Arc::new(site));
    }
    all
}

/// Asks the gateway `at`, about so often a second, until told to stop; counts what comes through, by the second since `began`.
fn press(
    tasks: &mut JoinSet<()>,
    at: std::net::SocketAddr,
    per_second: u32,
    lasts: Duration,
    passed: Arc<Vec<AtomicUsize>>,
    began: Instant,
) {
    tasks.spawn(async move {
        let mut every = tokio::time::interval(Duration::from_secs(1) / per_second);
        let mut asked = JoinSet::new();
        let end = Instant::now() + lasts;
        while Instant::now() < end {
            every.tick().await;
            let passed = Arc::clone(&passed);
            asked.spawn(async move {
                if get(at, "shop.test", "/").await.status == 200 {
                    let second = usize::try_from(began.elapsed().as_millis() / 100).unwrap();
                    if let Some(count) = passed.get(second) {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            while asked.try_join_next().is_some() {}
        }
        while asked.join_next().await.is_some() {}
    });
}

fn tenths(seconds: usize) -> Arc<Vec<AtomicUsize>> {
    Arc::new((0..seconds * 10).map(|_| AtomicUsize::default()).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_gateways_keep_one_rate_and_without_a_hub_each_its_part() {
    let web = Pod::start("web", "127.13.7.1").await;
    let base = topology(&[("eu", &[&web])]);
    let mut worlds = Vec::new();
    for name in NAMES {
        let world = World::start_as(Made { instance: name, ..Made::default() }).await;
        world.publish(base.clone(), true);
        world.apply(route("web", &["shop.test"], json!([{"backendRefs": [import("web")]}]))).await;
        world.until("shop.test", "/", |a| a.status == 200).await;
        put(&world, json!([{"filter": "rate", "requests": PER_SECOND, "burst": 3, "key": "route"}])).await;
        worlds.push(world);
    }
    let worlds = Arc::new(worlds);
    let hub = {
        let (worlds, base) = (Arc::clone(&worlds), base.clone());
        tokio::spawn(async move {
            let mut every = tokio::time::interval(Duration::from_millis(100));
            loop {
                every.tick().await;
                let all = Arc::new(told(&worlds, &base));
                for world in worlds.iter() {
                    world.topology.send_replace(Snapshot { topology: Arc::clone(&all), heard: Some(Instant::now()) });
                }
            }
        })
    };
    // Most of what comes moves from one gateway to the next every four seconds, three times the rate in all.
    let (passed, began) = (tenths(14), Instant::now());
    let mut tasks = JoinSet::new();
    for busy in 0..3 {
        for (nth, world) in worlds.iter().enumerate() {
            let per_second = if nth == busy { 120 } else { 30 };
            press(&mut tasks, world.http, per_second, Duration::from_secs(4), Arc::clone(&passed), began);
        }
        while tasks.join_next().await.is_some() {}
    }
    let counts: Vec<usize> = passed.iter().map(|n| n.load(Ordering::Relaxed)).collect();
    let windows: Vec<usize> = counts[..120].windows(100).map(|w| w.iter().sum()).collect();
    let most = *windows.iter().max().unwrap();
    assert!(most <= PER_SECOND * 10 * 110 / 100, "{most} in ten seconds, {PER_SECOND} a second are let");
    assert!(most >= PER_SECOND * 10 / 2, "{most} in ten seconds: it is no good if nobody comes in");

    hub.abort();
    let _ = hub.await;
    let last = told(&worlds, &base);
    for world in worlds.iter() {
        world.publish(last.clone(), false);
    }
    // Each takes its equal part within half a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for busy in [&worlds[..1], &worlds[..]] {
        let (passed, began) = (tenths(8), Instant::now());
        let mut tasks = JoinSet::new();
        for world in busy {
            press(&mut tasks, world.http, 60, Duration::from_secs(5), Arc::clone(&passed), began);
        }
        while tasks.join_next().await.is_some() {}
        let all: usize = passed.iter().map(|n| n.load(Ordering::Relaxed)).sum();
        let let_in = PER_SECOND / 3 * 5 * busy.len();
        assert!(all <= let_in * 110 / 100 + 3 * busy.len(), "{all} of {} gateways, {let_in} are let", busy.len());
        assert!(all >= let_in * 6 / 10, "{all} of {} gateways, {let_in} are let", busy.len());
    }
}
