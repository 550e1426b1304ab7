//! Listeners on ports of their own: opened beside the shared ones, closed again, or unavailable.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use crate::backend::Pod;
use crate::client::get;
use crate::world::{World, gateway, import, listener, route, topology};

#[tokio::test]
async fn a_listener_gets_its_port_or_says_why_not() {
    let world = World::bare(None).await;
    let web = Pod::start("web", "127.17.0.1").await;
    world.publish(topology(&[("eu", &[&web])]), true);
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (taken_port, free_port) = {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (taken.local_addr().unwrap().port(), free.local_addr().unwrap().port())
    };
    let real = world.http.port();
    let shared_as_tls = json!({"name": "odd", "port": 80, "protocol": "HTTPS", "hostname": "odd.test",
        "tls": {"certificateRefs": [{"name": "x"}]}});
    let listeners = json!([
        listener("real", real, "HTTP"),
        listener("own", free_port, "HTTP"),
        listener("taken", taken_port, "HTTP"),
        shared_as_tls,
    ]);
    world.apply(gateway("main", listeners)).await;
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("x", "/", |a| a.pod() == "web").await;
    let said =
        world.until_status(gateway("main", json!([])), |s| s["listeners"].as_array().map(Vec::len) == Some(4)).await;
    for (index, accepted, reason) in [
        (0, "True", "Accepted"),
        (1, "True", "Accepted"),
        (2, "False", "PortUnavailable"),
        (3, "False", "PortUnavailable"),
    ] {
        let conditions = said["listeners"][index]["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|c| c["type"] == "Accepted").unwrap();
        assert_eq!((&found["status"], &found["reason"]), (&json!(accepted), &json!(reason)), "{index}: {said:#}");
    }
    let programmed = said["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Programmed").unwrap();
    assert_eq!(programmed["status"], "True", "the others are served");
    let own = SocketAddr::from(([127, 0, 0, 1], free_port));
    assert_eq!(get(own, "x", "/").await.pod(), "web");
    world.apply(gateway("main", json!([listener("real", real, "HTTP")]))).await;
    tokio::time::timeout(Duration::from_secs(10), async {
        while TcpStream::connect(own).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("a port that nobody wants is closed");
    assert_eq!(get(world.http, "x", "/").await.pod(), "web");
}
