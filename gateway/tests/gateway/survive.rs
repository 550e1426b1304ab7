//! With hub and API server dead the gateway goes on, through its own restart too.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use atoll_wire::kept::{self, Seal};
use serde_json::json;

use crate::backend::Pod;
use crate::client::get;
use crate::world::{World, gateway, import, last_good, listener, route, service, topology};

const FORM: &str = "atoll-gateway-objects-3";

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
    let has = |text: &str| text.contains("shop.test") && text.contains("own-1");
    until_saved(dir.path(), has).await;
    let sealed = std::fs::read(&file).unwrap();
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "its owner alone reads it");
    assert!(!String::from_utf8_lossy(&sealed).contains("shop.test"), "and nobody without the key");
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

    let mut flipped = sealed.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let objects = last_good(dir.path()).seal.decode(FORM, sealed.clone(), None).unwrap();
    let theirs = |secret: &[u8], hub: &str| Seal::new(secret).encode(FORM, hub, objects.clone());
    let cases = [
        ("something else", b"not what it was".to_vec()),
        ("empty", Vec::new()),
        ("cut", sealed[..sealed.len() / 2].to_vec()),
        ("changed", flipped),
        ("another site's", theirs(b"another's", "hub-1")),
        ("another hub's", theirs(b"the site's own secret", "hub-2")),
        ("not sealed", kept::encode(FORM, "hub-1", &json!(null), &objects)),
    ];
    for (name, bytes) in cases {
        std::fs::write(&file, bytes).unwrap();
        let mut blank = World::over(client.clone(), topology.clone(), Some(dir.path())).await;
        assert_eq!(get(blank.http, "shop.test", "/").await.status, 503, "{name}: nothing to go by");
        assert!(!blank.server.is_ready(), "{name}");
        blank.stop().await;
    }
    std::fs::write(&file, theirs(b"the site's own secret", "hub-1")).unwrap();
    let mut ours = World::over(client, topology, Some(dir.path())).await;
    ours.until("shop.test", "/", |a| a.pod() == "us").await;
    ours.stop().await;
}

#[tokio::test]
async fn a_file_that_is_not_used_is_replaced_once_the_hub_answers() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["objects.last-good", "policies.last-good"] {
        std::fs::write(dir.path().join(file), b"not what it was").unwrap();
    }
    let mut world = World::bare(Some(dir.path())).await;
    let eu = Pod::start("eu", "127.19.3.1").await;
    world.publish(topology(&[("eu", &[&eu])]), true);
    world.apply(gateway("main", json!([listener("http", 80, "HTTP")]))).await;
    world.apply(route("web", &["shop.test"], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("shop.test", "/", |a| a.pod() == "eu").await;
    assert!(world.server.is_ready());
    until_saved(dir.path(), |text| text.contains("shop.test")).await;
    world.stop().await;
}

/// Waits until the file holds what it is to.
pub(crate) async fn until_saved(dir: &Path, is_it: impl Fn(&str) -> bool) {
    let kept = last_good(dir);
    let read = || kept.seal.decode(FORM, std::fs::read(dir.join("objects.last-good")).ok()?, Some("hub-1")).ok();
    let saved = async {
        while !read().is_some_and(|body| is_it(&String::from_utf8_lossy(&body))) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), saved).await.expect("the objects are saved in time");
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
