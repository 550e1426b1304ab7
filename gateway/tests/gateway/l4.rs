//! Streams and packets: TCP, TLS that ends here, UDP; and the addresses of Gateways that have their own.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::{TcpListener, UdpSocket};

use crate::backend::Pod;
use crate::client::{get, request, send};
use crate::world::{Made, World, gateway, listener, route, service};

/// A route of `kind` in `shop` on a listener of the Gateway `main`.
pub(crate) fn stream_route(kind: &str, name: &str, section: &str, backend: Value) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"},
        "spec": {"parentRefs": [{"name": "main", "namespace": "infra", "sectionName": section}],
            "rules": [{"backendRefs": [backend]}]}})
}

/// A port that nobody listens at.
pub(crate) async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// Waits until a GET at `at` is answered by `pod`.
pub(crate) async fn until_pod(at: SocketAddr, pod: &str) {
    let asked = async {
        loop {
            let connected = tokio::net::TcpStream::connect(at).await.is_ok();
            if connected
                && tokio::time::timeout(Duration::from_secs(1), get(at, "x", "/")).await.is_ok_and(|a| a.pod() == pod)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asked).await.expect("the pod answers in time");
}

#[tokio::test]
async fn the_oldest_tcp_route_of_a_listener_carries_its_bytes() {
    let world = World::bare(None).await;
    let (old, new) = (Pod::start("old", "127.21.0.1").await, Pod::start("new", "127.21.0.2").await);
    for object in service("old", &old).into_iter().chain(service("new", &new)) {
        world.apply(object).await;
    }
    let port = free_port().await;
    world.apply(gateway("main", json!([listener("tcp", port, "TCP")]))).await;
    world.apply(stream_route("TCPRoute", "a", "tcp", json!({"name": "old", "port": 80}))).await;
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    until_pod(at, "old").await;
    // Of the same second the first by name counts.
    let second = stream_route("TCPRoute", "b", "tcp", json!({"name": "new", "port": 80}));
    world.apply(second.clone()).await;
    let said = world.until_status(second, |s| !s["parents"][0].is_null()).await;
    assert_eq!(said["parents"][0]["conditions"][0]["status"], "True", "it waits, accepted");
    world.until_status(gateway("main", json!([])), |s| s["listeners"][0]["attachedRoutes"] == 2).await;
    assert_eq!(get(at, "x", "/").await.pod(), "old");
    world.delete(stream_route("TCPRoute", "a", "tcp", json!({}))).await;
    until_pod(at, "new").await;
}

#[tokio::test]
async fn packets_of_one_client_go_to_one_endpoint_and_back() {
    let world = World::bare(None).await;
    let echo = UdpSocket::bind("127.21.1.1:0").await.unwrap();
    let echo_at = echo.local_addr().unwrap();
    let echoes = tokio::spawn(async move {
        let mut packet = [0; 100];
        while let Ok((n, from)) = echo.recv_from(&mut packet).await {
            let answer = [&packet[..n], b" of ", from.to_string().as_bytes()].concat();
            echo.send_to(&answer, from).await.unwrap();
        }
    });
    world
        .apply(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "dns", "namespace": "shop"},
        "spec": {"ports": [{"name": "dns", "port": 53, "targetPort": echo_at.port(), "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]}}))
        .await;
    world
        .apply(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "dns-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "dns"}},
        "endpoints": [{"addresses": [echo_at.ip()], "conditions": {"ready": true}}],
        "ports": [{"name": "dns", "port": echo_at.port(), "protocol": "UDP"}]}))
        .await;
    let port = free_port().await;
    world.apply(gateway("main", json!([listener("udp", port, "UDP")]))).await;
    world.apply(stream_route("UDPRoute", "dns", "udp", json!({"name": "dns", "port": 53}))).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(("127.0.0.1", port)).await.unwrap();
    let mut heard = Vec::new();
    let asked = async {
        while heard.len() < 3 {
            let mut packet = [0; 100];
            let _ = client.send(b"hello").await;
            if let Ok(Ok(n)) = tokio::time::timeout(Duration::from_millis(200), client.recv(&mut packet)).await {
                heard.push(String::from_utf8_lossy(&packet[..n]).into_owned());
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asked).await.expect("packets come back");
    assert!(heard[0].starts_with("hello of "), "{heard:?}");
    assert!(heard.iter().all(|one| *one == heard[0]), "one flow has one socket towards the endpoint: {heard:?}");
    echoes.abort();
}

#[tokio::test]
async fn each_gateway_has_an_address_of_its_own_and_keeps_it() {
    let world = World::make(Made { pool: vec!["127.21.2.0/29".parse().unwrap()], ..Made::default() }).await;
    let (a, b) = (Pod::start("a", "127.21.0.3").await, Pod::start("b", "127.21.0.4").await);
    for object in service("a", &a).into_iter().chain(service("b", &b)) {
        world.apply(object).await;
    }
    let port = free_port().await;
    let on = |name: &str, gateway: &str| {
        let mut route = route(name, &[], json!([{"backendRefs": [{"name": name, "port": 80}]}]));
        route["spec"]["parentRefs"] = json!([{"name": gateway, "namespace": "infra"}]);
        route
    };
    let mut chooses = gateway("second", json!([listener("http", port, "HTTP")]));
    chooses["spec"]["addresses"] = json!([{"type": "IPAddress", "value": "127.21.2.5"}]);
    world.apply(gateway("first", json!([listener("http", port, "HTTP")]))).await;
    world.apply(chooses).await;
    world.apply(on("a", "first")).await;
    world.apply(on("b", "second")).await;
    let address = async |name: &str| {
        let said = world.until_status(gateway(name, json!([])), |s| !s["addresses"][0].is_null()).await;
        said["addresses"][0]["value"].as_str().unwrap().to_owned()
    };
    let (first, second) = (address("first").await, address("second").await);
    assert_eq!((first.as_str(), second.as_str()), ("127.21.2.1", "127.21.2.5"));
    until_pod(format!("{first}:{port}").parse().unwrap(), "a").await;
    until_pod(format!("{second}:{port}").parse().unwrap(), "b").await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "first-atoll", "namespace": "infra"}});
    let account = world.read(account).await;
    assert_eq!(account["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"], "first");
    let mut outside = gateway("third", json!([listener("http", port, "HTTP")]));
    outside["spec"]["addresses"] = json!([{"type": "IPAddress", "value": "127.99.0.1"}]);
    world.apply(outside).await;
    let refused =
        |s: &Value| s["conditions"][1]["reason"] == "AddressNotUsable" && s["conditions"][0]["status"] == "True";
    world.until_status(gateway("third", json!([])), refused).await;
    assert_eq!(address("first").await, first, "it stays");
}

#[tokio::test]
async fn a_gateway_has_an_address_of_each_family_and_is_served_at_both() {
    let pool = vec!["127.21.3.0/30".parse().unwrap(), "::1/128".parse().unwrap()];
    let world = World::make(Made { pool, ..Made::default() }).await;
    let pod = Pod::start("a", "127.21.0.5").await;
    for object in service("a", &pod) {
        world.apply(object).await;
    }
    let port = free_port().await;
    world.apply(gateway("main", json!([listener("http", port, "HTTP")]))).await;
    world.apply(route("a", &[], json!([{"backendRefs": [{"name": "a", "port": 80}]}]))).await;
    let said = world.until_status(gateway("main", json!([])), |s| !s["addresses"][1].is_null()).await;
    let ip = |value: &str| json!({"type": "IPAddress", "value": value});
    assert_eq!(said["addresses"], json!([ip("127.21.3.1"), ip("::1")]));
    for at in [format!("127.21.3.1:{port}"), format!("[::1]:{port}")] {
        until_pod(at.parse().unwrap(), "a").await;
    }
    // Of the second there is one alone: the next Gateway has one family.
    world.apply(gateway("next", json!([listener("http", port, "HTTP")]))).await;
    let said = world.until_status(gateway("next", json!([])), |s| !s["addresses"][0].is_null()).await;
    assert_eq!(said["addresses"], json!([ip("127.21.3.2")]));
}

#[tokio::test]
async fn a_grpc_client_is_told_in_its_own_words() {
    let world = World::start().await;
    world.apply(route("none", &["nobody.test"], json!([{}]))).await;
    for (host, status) in [("unknown.test", "12"), ("nobody.test", "2")] {
        let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
        let told = async {
            loop {
                let answer = send(world.http, request(host, "POST /a.B/C", &grpc, "")).await;
                if answer.status == 200 && answer.header("grpc-status") == status {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let answer = tokio::time::timeout(Duration::from_secs(20), told).await.expect(host);
        assert_eq!((answer.header("content-type"), answer.body.as_str()), ("application/grpc", ""));
    }
    world
        .apply(json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "RoutePolicy", "metadata": {"name": "closed", "namespace": "shop"},
            "spec": {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "none"}],
                "filters": [{"filter": "deny", "cidrs": ["0.0.0.0/0"]}]}}))
        .await;
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    let began = tokio::time::Instant::now();
    loop {
        let answer = send(world.http, request("nobody.test", "POST /a.B/C", &grpc, "")).await;
        if (answer.status, answer.header("grpc-status")) == (200, "7") {
            assert_eq!(answer.header("grpc-message"), "this address may not come here");
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "what a policy refuses is told otherwise: {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answer = send(world.http, request("nobody.test", "GET /", &[], "")).await;
    assert_eq!(answer.status, 403, "and anybody else as before");
}
