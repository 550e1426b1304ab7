//! The console of a hub that has something to show.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{World, eventually};

/// Status line with headers, and body.
async fn get(world: &World, path: &str, host: &str) -> (String, String) {
    let mut stream = TcpStream::connect(world.running.as_ref().unwrap().console).await.unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn the_console_shows_clusters_bundles_and_what_waits() {
    let world = World::start().await;
    let (_member, agent) = world.joined("prod-eu", |_| ()).await;
    world.condition("prod-eu", "DNSReady", "True").await;
    world.apply(crate::place::web(2, "shop/web:1", json!({}))).await;
    let policy = json!({"from": "dev", "to": "prod-eu", "repositories": ["*"]});
    world.apply(json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "ReplicationPolicy", "metadata": {"name": "p", "namespace": "shop"}, "spec": policy})).await;
    let state = eventually("the Bundle is ready", async || {
        let (head, body) = get(&world, "/api/v1/state", "localhost").await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-type: application/json"), "{head}");
        let state: Value = serde_json::from_str(&body).unwrap();
        if state["bundles"][0]["clusters"][0]["ready"] == 2 { Ok(state) } else { Err(state["bundles"].to_string()) }
    })
    .await;
    assert_eq!(
        (&state["clusters"][0]["name"], &state["clusters"][0]["environment"]),
        (&json!("prod-eu"), &json!("prod"))
    );
    assert_eq!(state["hub"]["epoch"], 1);
    let (head, page) = get(&world, "/", "127.0.0.1:1").await;
    assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
    for word in [
        "<h3>prod-eu",
        "Answers",
        "2/2",
        "/page.css",
        "/page.js",
        "web.shop.svc.atoll.internal A",
        "503 no ready backend",
        "127.0.0.1:5353",
    ] {
        assert!(page.contains(word), "{word}: {page}");
    }
    for path in ["/page.css", "/page.js", "/fragment"] {
        assert!(get(&world, path, "localhost").await.0.starts_with("HTTP/1.1 200"), "{path}");
    }
    // Neither other pages' scripts by DNS rebinding nor anything that is not there.
    let (head, body) = get(&world, "/api/v1/state", "evil.example").await;
    assert!(head.starts_with("HTTP/1.1 421") && !body.contains("prod-eu"), "{head} {body}");
    assert!(get(&world, "/nowhere", "localhost").await.0.starts_with("HTTP/1.1 404"));
    world.end([agent]).await;
}
