//! With hub and API server dead the gateway goes on, through its own restart too.

use serde_json::json;

use crate::backend::Pod;
use crate::client::get;
use crate::world::{World, gateway, import, listener, route, service, topology};

#[tokio::test]
async fn a_restart_serves_the_last_good_objects() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::bare(Some(dir.path())).await;
    let (eu, us, own) = (
        Pod::start("eu", "127.19.0.1").await,
        Pod::start("us", "127.19.0.2").await,
        Pod::start("own", "127.19.0.3").await,
    );
    let known = topology(&[("eu", &[&eu]), ("us", &[&us])]);
    world.publish(known.clone(), true);
    for object in service("own", &own) {
        world.apply(object).await;
    }
    world.apply(gateway("main", json!([listener("http", 80, "HTTP")]))).await;
    world
        .apply(route(
            "web",
            &["shop.test"],
            json!([
            {"backendRefs": [import("web")]},
            {"matches": [{"path": {"value": "/own"}}], "backendRefs": [{"name": "own", "port": 80}]}]),
        ))
        .await;
    world.until("shop.test", "/", |a| a.pod() == "eu").await;
    let file = dir.path().join("objects.last-good");
    let saved = async {
        while !std::fs::read_to_string(&file).is_ok_and(|text| text.contains("shop.test") && text.contains("own-1")) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), saved).await.expect("the objects are saved in time");
    world.api.take().unwrap().close().await;
    assert_eq!(get(world.http, "shop.test", "/").await.pod(), "eu", "a dead API server changes nothing");
    world.publish(known.clone(), false);
    assert_eq!(get(world.http, "shop.test", "/own").await.pod(), "own");
    world.stop().await;

    let (client, topology) = (world.client.clone(), world.topology.clone());
    let mut again = World::over(client.clone(), topology.clone(), Some(dir.path())).await;
    again.until("shop.test", "/", |a| a.pod() == "eu").await;
    assert!(again.server.is_ready());
    assert_eq!(get(again.http, "shop.test", "/own").await.pod(), "own");
    assert_eq!(again.server.explain("shop.test", "/", None).await["table"]["lastGood"], true);
    eu.die();
    again.until("shop.test", "/", |a| a.pod() == "us").await;
    again.stop().await;

    std::fs::write(&file, b"not what it was").unwrap();
    let mut blank = World::over(client, topology, Some(dir.path())).await;
    assert_eq!(get(blank.http, "shop.test", "/").await.status, 503, "nothing to go by");
    assert!(!blank.server.is_ready());
    blank.stop().await;
}

#[tokio::test]
async fn what_changed_just_before_the_end_is_served_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::bare(Some(dir.path())).await;
    let eu = Pod::start("eu", "127.19.2.1").await;
    world.publish(topology(&[("eu", &[&eu])]), true);
    world.apply(gateway("main", json!([listener("http", 80, "HTTP")]))).await;
    for host in ["one.test", "two.test"] {
        world.apply(route(host, &[host], json!([{"backendRefs": [import("web")]}]))).await;
        world.until(host, "/", |a| a.pod() == "eu").await;
    }
    world.stop().await;
    world.api.take().unwrap().close().await;
    let (client, topology) = (world.client.clone(), world.topology.clone());
    let mut again = World::over(client, topology, Some(dir.path())).await;
    again.until("two.test", "/", |a| a.pod() == "eu").await;
    again.stop().await;
}

#[tokio::test]
async fn open_requests_are_finished_at_the_end() {
    let mut world = World::start().await;
    let web = Pod::start("web", "127.19.1.1").await;
    world.publish(topology(&[("eu", &[&web])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("x", "/", |a| a.status == 200).await;
    let (at, before) = (world.http, web.hits());
    let slow = tokio::spawn(async move { get(at, "x", "/?wait_ms=700").await });
    while web.hits() == before {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    world.stop().await;
    assert_eq!(slow.await.unwrap().status, 200);
    assert!(tokio::net::TcpStream::connect(at).await.is_err(), "nobody listens any more");
}
