//! HTTP/3 comes and goes with its listener, gives way to UDP listeners, and ends in order.

use std::time::Duration;

use atoll_gateway::Limits;
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

use crate::client::get_tls;
use crate::peer::{Became, HEADERS, Peer, frame, get, read, section};
use crate::quic::{Caller, LONG, asks};
use crate::stage::{Stage, https};
use crate::world::{Made, gateway, listener};

#[tokio::test]
async fn at_the_end_requests_are_finished_and_later_ones_told_to_go_elsewhere() {
    let made = Made::default();
    let limits = Limits { drain: LONG, ..made.limits };
    let mut stage = Stage::set("127.56.0.1", Made { limits, ..made }).await;
    let peer = stage.peer().await;
    let mut control = timeout(LONG, peer.connection.accept_uni()).await.unwrap().unwrap();
    let mut client = stage.open().await;
    let open = client.sender.send_request(asks("a.test", "GET /?wait_ms=1500", &[])).await;
    let mut open = open.unwrap();
    open.finish().await.unwrap();
    let (mut send, recv) = peer.connection.open_bi().await.unwrap();
    send.write_all(&frame(HEADERS, &section(&get("/?wait_ms=1500")))).await.unwrap();
    send.finish().unwrap();
    let began = Instant::now();
    while stage.pod.busy.now.load(std::sync::atomic::Ordering::SeqCst) < 2 {
        assert!(began.elapsed() < LONG);
        sleep(Duration::from_millis(5)).await;
    }
    let rest = async {
        // Settings, a first GOAWAY that names no request, and one that says which was the last.
        let mut said = Vec::new();
        let last = async {
            while !said.ends_with(&[7, 1, 4]) {
                let chunk = control.read_chunk(64, true).await.unwrap().unwrap();
                said.extend_from_slice(&chunk.bytes);
            }
        };
        timeout(LONG, last).await.expect("it says that it goes");
        assert!(said.windows(10).any(|w| w == [7, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfc]), "{said:?}");
        assert_eq!(peer.ask(&get("/late")).await, Became::Reset(0x10b), "a late one may be sent again elsewhere");
        let Became::Answered(octets) = peer.hear(recv).await else { panic!("no answer") };
        assert_eq!(read(&octets).0, 200, "what was begun is finished");
        assert_eq!(open.recv_response().await.unwrap().status(), 200);
        while open.recv_data().await.unwrap().is_some() {}
        assert_eq!(peer.ended().await, Became::Ended(0x100), "the end is no error");
    };
    tokio::join!(stage.world.stop(), rest);
    UdpSocket::bind(stage.world.https).await.expect("the port is free");
}

#[tokio::test]
async fn it_goes_with_its_listener_and_comes_back_with_it() {
    let stage = Stage::set("127.56.1.1", Made::default()).await;
    let mut client = stage.open().await;
    stage.world.apply(gateway("main", json!([listener("http", 80, "HTTP")]))).await;
    let ended = timeout(LONG, &mut client.driver).await.expect("its connections end").unwrap();
    assert!(ended.is_h3_no_error(), "{ended}");
    let began = Instant::now();
    while UdpSocket::bind(stage.world.https).await.is_err() {
        assert!(began.elapsed() < LONG, "the port stays open");
        sleep(Duration::from_millis(20)).await;
    }
    stage.world.apply(gateway("main", json!([https("a", "a.test", "a")]))).await;
    stage.until_open().await;
    assert_eq!(stage.open().await.get("a.test", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_listener_of_its_own_port_has_it_there() {
    let stage = Stage::set("127.56.2.1", Made::default()).await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut own = https("own", "a.test", "a");
    own["port"] = json!(free.port());
    stage.world.apply(gateway("main", json!([https("a", "a.test", "a"), own]))).await;
    let began = Instant::now();
    let mut client = loop {
        match stage.caller().open(free).await {
            Ok(client) => break client,
            Err(error) => assert!(began.elapsed() < LONG, "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    };
    let host = format!("a.test:{}", free.port());
    assert_eq!(client.get(&host, "/").await.unwrap().status, 200);
    let told = get_tls(free, "a.test", &stage.roots, "h2", &host, "/").await.unwrap();
    assert_eq!(told.header("alt-svc"), format!("h3=\":{}\"; ma=86400", free.port()));
}

#[tokio::test]
async fn a_udp_listener_on_the_port_wins_and_gives_it_back() {
    let stage = Stage::set("127.56.3.1", Made::default()).await;
    let echo = UdpSocket::bind("127.56.3.2:0").await.unwrap();
    let back = echo.local_addr().unwrap();
    tokio::spawn(async move {
        let mut octets = [0; 1500];
        while let Ok((length, from)) = echo.recv_from(&mut octets).await {
            let _ = echo.send_to(&octets[..length], from).await;
        }
    });
    let port = stage.world.https.port();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo", "namespace": "shop"},
        "spec": {"ports": [{"name": "udp", "port": 53, "targetPort": back.port(), "protocol": "UDP"}]}});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "echo-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "echo"}},
        "endpoints": [{"addresses": [back.ip()], "conditions": {"ready": true}}],
        "ports": [{"name": "udp", "port": back.port(), "protocol": "UDP"}]});
    let packets = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "UDPRoute",
        "metadata": {"name": "echo", "namespace": "shop"},
        "spec": {"parentRefs": [{"name": "main", "namespace": "infra"}], "rules": [{"backendRefs": [{"name": "echo", "port": 53}]}]}});
    for object in [service, slice, packets] {
        stage.world.apply(object).await;
    }
    let mut before = stage.open().await;
    let both = json!([https("a", "a.test", "a"), listener("udp", port, "UDP")]);
    stage.world.apply(gateway("main", both)).await;
    timeout(LONG, &mut before.driver).await.expect("its connections end").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut octets = [0; 64];
    let began = Instant::now();
    loop {
        client.send_to(b"ping", stage.world.https).await.unwrap();
        match timeout(Duration::from_millis(200), client.recv(&mut octets)).await {
            Ok(Ok(4)) if &octets[..4] == b"ping" => break,
            _ => assert!(began.elapsed() < LONG, "packets do not come through"),
        }
    }
    let answer = get_tls(stage.world.https, "a.test", &stage.roots, "h2", "a.test", "/").await.unwrap();
    assert_eq!((answer.status, answer.header("alt-svc")), (200, ""), "HTTPS goes on, and names no HTTP/3");
    let said = |status: &Value| {
        let conditions = status["listeners"][0]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|c| c["type"] == "atoll.dev/HTTP3")
    };
    let status = stage.world.until_status(gateway("main", json!([])), |status| said(status).is_some()).await;
    let condition = said(&status).unwrap();
    let why = format!("no HTTP/3: a UDP listener has port {port}");
    assert_eq!((&condition["status"], &condition["message"]), (&json!("False"), &json!(why)));
    let lacking = || stage.world.gauge("atoll_gateway_http3_lacking", &["https"]);
    assert_eq!(lacking(), Some(1.0));
    stage.world.apply(gateway("main", json!([https("a", "a.test", "a")]))).await;
    let began = Instant::now();
    while let Err(error) = Caller::new("a.test", &stage.roots).connect(stage.world.https).await {
        assert!(began.elapsed() < 2 * LONG, "{error}");
        sleep(Duration::from_millis(50)).await;
    }
    stage.world.until_status(gateway("main", json!([])), |status| said(status).is_none()).await;
    assert_eq!(lacking(), None);
    let peer: Peer = stage.peer().await;
    assert!(matches!(peer.ask(&get("/")).await, Became::Answered(_)));
}
