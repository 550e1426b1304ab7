//! Services of type LoadBalancer: addresses out of the pool, ports, who may come, who comes back, what endpoints are told, what statuses say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use atoll_api::names::ServiceName;
use atoll_api::topology::{BALANCER_CLASS, BalancerFacts, BalancerState, ServicePort, Site};
use atoll_reach::RelayTable;
use atoll_reach::proxy::{self, Ends};
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::backend::Pod;
use crate::client::get;
use crate::l4::{free_port, until_pod};
use crate::relay::agent;
use crate::world::{Made, World, gateway, listener, topology};

const WAIT_MAX: Duration = Duration::from_secs(20);

/// A Service of our class in `shop` with one TCP port, and the slice of its pods.
fn balancer(name: &str, port: u16, pods: &[SocketAddr], more: Value) -> [Value; 2] {
    let target = pods.first().map_or(1, SocketAddr::port);
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"type": "LoadBalancer", "loadBalancerClass": BALANCER_CLASS,
            "ports": [{"name": "main", "port": port, "targetPort": target, "protocol": "TCP"}]}});
    for (field, value) in more.as_object().into_iter().flatten() {
        if field == "annotations" {
            service["metadata"]["annotations"] = value.clone();
        } else {
            service["spec"][field] = value.clone();
        }
    }
    let endpoints: Value =
        pods.iter().map(|at| json!({"addresses": [at.ip()], "conditions": {"ready": true}})).collect();
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{name}-1"), "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
        "endpoints": endpoints, "ports": [{"name": "main", "port": target, "protocol": "TCP"}]});
    [service, slice]
}

async fn world(pool: &str) -> World {
    World::make(Made { pool: vec![pool.parse().unwrap()], ..Made::default() }).await
}

async fn apply(world: &World, objects: [Value; 2]) -> Value {
    let [service, slice] = objects;
    world.apply(slice).await;
    world.apply(service.clone()).await;
    service
}

/// Waits for the address of a Service.
async fn given(world: &World, service: &Value) -> String {
    let status = world.until_status(service.clone(), |s| s["loadBalancer"]["ingress"][0]["ip"].is_string()).await;
    status["loadBalancer"]["ingress"][0]["ip"].as_str().unwrap().to_owned()
}

/// Waits for a Warning about a Service.
async fn warned(world: &World, name: &str, reason: &str) -> String {
    let events: kube::Api<Event> = kube::Api::namespaced(world.client.clone(), "shop");
    let looked = async {
        loop {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            let about = |e: &&Event| {
                e.involved_object.kind.as_deref() == Some("Service")
                    && e.involved_object.name.as_deref() == Some(name)
                    && e.reason.as_deref() == Some(reason)
            };
            if let Some(found) = all.iter().find(about) {
                return found.message.clone().unwrap_or_default();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, looked).await.unwrap_or_else(|_| panic!("{name} is not warned of {reason}"))
}

/// What is answered to a client at `from`; nothing where it is sent away.
async fn asked_from(from: &str, at: SocketAddr) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let mut stream = socket.connect(at).await.unwrap();
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got).await;
    String::from_utf8_lossy(&got).into_owned()
}

#[tokio::test]
async fn a_service_gets_an_address_of_the_pool_and_gives_it_back() {
    let world = world("127.23.1.0/30").await;
    let (a, b) = (Pod::start("a", "127.23.0.1").await, Pod::start("b", "127.23.0.2").await);
    let port = free_port().await;
    let first = apply(&world, balancer("first", port, &[a.address], json!({"ipFamilies": ["IPv4"]}))).await;
    assert_eq!(given(&world, &first).await, "127.23.1.1");
    let status = world.read(first.clone()).await["status"]["loadBalancer"]["ingress"].clone();
    let ports = json!([{"port": port, "protocol": "TCP"}]);
    assert_eq!(status, json!([{"ip": "127.23.1.1", "ipMode": "Proxy", "ports": ports}]));
    until_pod(format!("127.23.1.1:{port}").parse().unwrap(), "a").await;
    // A Gateway has one of the same pool, and the pool is full.
    world.apply(gateway("main", json!([listener("http", port, "HTTP")]))).await;
    world.until_status(gateway("main", json!([])), |s| s["addresses"][0]["value"] == "127.23.1.2").await;
    let second = apply(&world, balancer("second", port, &[b.address], json!({}))).await;
    let told = warned(&world, "second", "PoolExhausted").await;
    assert!(told.contains("widen the pool"), "{told}");
    assert!(world.read(second.clone()).await["status"]["loadBalancer"]["ingress"].is_null());
    // Wishes: outside of the pool, and another's.
    apply(&world, balancer("outside", port, &[b.address], json!({"loadBalancerIP": "127.99.0.1"}))).await;
    warned(&world, "outside", "AddressNotInPool").await;
    let wish = json!({"annotations": {"metallb.io/loadBalancerIPs": "127.23.1.1"}});
    let taken = apply(&world, balancer("taken", port, &[b.address], wish)).await;
    let told = warned(&world, "taken", "AddressTaken").await;
    assert!(told.contains("Service `shop/first` has address 127.23.1.1"), "{told}");
    // One that is no balancer any more frees its address and says so; who wished for it gets it.
    let mut plain = first.clone();
    plain["spec"] = json!({"type": "ClusterIP", "ports": first["spec"]["ports"]});
    world.apply(plain).await;
    world.until_status(first.clone(), |s| s["loadBalancer"]["ingress"][0].is_null()).await;
    assert_eq!(given(&world, &taken).await, "127.23.1.1");
    until_pod(format!("127.23.1.1:{port}").parse().unwrap(), "b").await;
    world.delete(taken).await;
    assert_eq!(given(&world, &second).await, "127.23.1.1", "the one that waited has it");
}

#[tokio::test]
async fn without_a_pool_services_are_told_so() {
    let world = World::make(Made::default()).await;
    let service = apply(&world, balancer("web", 80, &[], json!({}))).await;
    let told = warned(&world, "web", "NoPool").await;
    assert!(told.contains("set gateway.addresses"), "{told}");
    assert!(world.read(service).await["status"]["loadBalancer"]["ingress"].is_null());
}

#[tokio::test]
async fn two_services_of_one_key_share_an_address_at_ports_of_their_own_and_udp_is_carried() {
    let world = world("127.23.2.0/29").await;
    let pod = Pod::start("a", "127.23.0.3").await;
    let echo = UdpSocket::bind("127.23.0.4:0").await.unwrap();
    let echo_at = echo.local_addr().unwrap();
    let echoes = tokio::spawn(async move {
        let mut packet = [0; 100];
        while let Ok((n, from)) = echo.recv_from(&mut packet).await {
            echo.send_to(&packet[..n], from).await.unwrap();
        }
    });
    let port = free_port().await;
    let key = json!({"atoll.dev/allow-shared-ip": "dns"});
    let tcp = apply(&world, balancer("tcp", port, &[pod.address], json!({"annotations": key}))).await;
    let [mut udp, mut slice] = balancer("udp", port, &[echo_at], json!({"annotations": key}));
    udp["spec"]["ports"] =
        json!([{"name": "main", "port": port, "protocol": "UDP"}, {"name": "odd", "port": 7, "protocol": "SCTP"}]);
    slice["ports"][0]["protocol"] = json!("UDP");
    let udp = apply(&world, [udp, slice]).await;
    assert_eq!(
        (given(&world, &tcp).await, given(&world, &udp).await),
        ("127.23.2.1".to_owned(), "127.23.2.1".to_owned())
    );
    let ports = world.read(udp).await["status"]["loadBalancer"]["ingress"][0]["ports"].clone();
    assert_eq!(ports[1], json!({"port": 7, "protocol": "SCTP", "error": "atoll.dev/UnsupportedProtocol"}));
    warned(&world, "udp", "UnsupportedProtocol").await;
    until_pod(format!("127.23.2.1:{port}").parse().unwrap(), "a").await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(("127.23.2.1", port)).await.unwrap();
    let asked = async {
        loop {
            let mut packet = [0; 100];
            let _ = client.send(b"hello").await;
            if let Ok(Ok(n)) = tokio::time::timeout(Duration::from_millis(200), client.recv(&mut packet)).await {
                return packet[..n].to_vec();
            }
        }
    };
    assert_eq!(tokio::time::timeout(WAIT_MAX, asked).await.expect("it comes back"), b"hello");
    echoes.abort();
}

#[tokio::test]
async fn only_source_ranges_come_and_with_affinity_a_client_comes_back_to_its_pod() {
    let world = world("127.23.3.0/29").await;
    let mut pods = Vec::new();
    let port = Pod::start("0", "127.23.4.1").await;
    for n in 1..4 {
        let ip = format!("127.23.4.{}", n + 1);
        pods.push(Pod::start_as(&n.to_string(), &ip, port.address.port(), crate::backend::Manner::Well).await);
    }
    pods.push(port);
    let at: Vec<SocketAddr> = pods.iter().map(|pod| pod.address).collect();
    let open = free_port().await;
    let mut more = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}},
        "loadBalancerSourceRanges": ["127.0.0.0/16", "127.1.0.0/16"]});
    let service = apply(&world, balancer("web", open, &at, more.clone())).await;
    let ip = given(&world, &service).await;
    let front: SocketAddr = format!("{ip}:{open}").parse().unwrap();
    assert!(asked_from("127.1.0.1", front).await.starts_with("HTTP/1.1 200"));
    assert_eq!(asked_from("127.9.0.1", front).await, "", "no range has it");
    pods.iter().for_each(|pod| pod.hits.store(0, Ordering::Relaxed));
    for _ in 0..12 {
        assert!(asked_from("127.1.0.1", front).await.starts_with("HTTP/1.1 200"));
    }
    let hits: Vec<usize> = pods.iter().map(|pod| pod.hits.load(Ordering::Relaxed)).filter(|n| *n > 0).collect();
    assert_eq!(hits, [12], "one client has one pod");
    for n in 1..25 {
        asked_from(&format!("127.1.0.{n}"), front).await;
    }
    let used = pods.iter().filter(|pod| pod.hits.load(Ordering::Relaxed) > 0).count();
    assert!(used > 1, "others have others");
    // New ranges hold from now on.
    more["loadBalancerSourceRanges"] = json!(["127.9.0.0/16"]);
    apply(&world, balancer("web", open, &at, more.clone())).await;
    let turned = async {
        while !(asked_from("127.9.0.1", front).await.starts_with("HTTP/1.1 200")
            && asked_from("127.1.0.1", front).await.is_empty())
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, turned).await.expect("the new ranges are in force");
    // A range that nobody understands serves nobody.
    more["loadBalancerSourceRanges"] = json!(["home"]);
    apply(&world, balancer("web", open, &at, more)).await;
    warned(&world, "web", "InvalidService").await;
    world.until_status(service, |s| s["loadBalancer"]["ingress"][0].is_null()).await;
    assert!(TcpStream::connect(front).await.is_err(), "its port is closed");
}

#[tokio::test]
async fn endpoints_are_told_of_the_client_by_the_version_that_the_annotation_names() {
    let world = world("127.23.5.0/29").await;
    for version in ["v1", "v2"] {
        let endpoint = TcpListener::bind("127.23.0.6:0").await.unwrap();
        let at = endpoint.local_addr().unwrap();
        let (say, mut said) = tokio::sync::mpsc::channel(4);
        let heard = tokio::spawn(async move {
            loop {
                let (mut stream, _) = endpoint.accept().await.unwrap();
                let mut first = [0; 1];
                // A probe says nothing.
                if stream.peek(&mut first).await.unwrap_or(0) > 0 {
                    let ends = proxy::take_any(&mut stream).await.ok().flatten();
                    let _ = say.send((first[0], ends)).await;
                }
            }
        });
        let open = free_port().await;
        let more = json!({"annotations": {"atoll.dev/proxy-protocol": version}});
        let service = apply(&world, balancer(version, open, &[at], more)).await;
        let front: SocketAddr = format!("{}:{open}", given(&world, &service).await).parse().unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.7.0.1:0".parse().unwrap()).unwrap();
        let mut stream = socket.connect(front).await.unwrap();
        let ends = Ends { client: stream.local_addr().unwrap(), server: front };
        stream.write_all(b"hello").await.unwrap();
        let got = tokio::time::timeout(WAIT_MAX, said.recv()).await.expect("it is told").unwrap();
        let begins = if version == "v1" { b'P' } else { b'\r' };
        assert_eq!(got, (begins, Some(ends)), "{version}");
        heard.abort();
    }
}

#[tokio::test]
async fn a_members_service_is_served_with_that_members_endpoints_alone_directly_and_by_its_agent_until_it_leaves() {
    let relays = RelayTable::default();
    let pool = vec!["127.23.6.0/29".parse().unwrap()];
    let world = World::make(Made { pool, relays: relays.clone(), ..Made::default() }).await;
    let end = CancellationToken::new();
    let counting = agent(&relays, "relayed", &end);
    let (eu, us) = (Pod::start("eu", "127.23.0.7").await, Pod::start("us", "127.23.0.8").await);
    let port = free_port().await;
    let known = |members: &[(&str, &[&Pod])], asking: &[&str]| {
        let mut known = topology(members);
        for cluster in asking {
            let ports =
                vec![ServicePort { name: "http".into(), protocol: "TCP".into(), port, ..ServicePort::default() }];
            let facts = Arc::new(BalancerFacts { ports, ..BalancerFacts::default() });
            let services = std::collections::BTreeMap::from([(ServiceName::new("shop", "web"), facts)]);
            known.balancers.insert(cluster.parse().unwrap(), services.into());
        }
        known
    };
    world.publish(known(&[("eu", &[&eu]), ("relayed", &[&us])], &["eu", "relayed"]), true);
    let stated = async |name: &str| {
        let looked = async {
            loop {
                let state = world.report.borrow().site.balancers.get(name).cloned().unwrap_or_default();
                if let Some(ip) = state.addresses.first() {
                    return SocketAddr::new(*ip, port);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(WAIT_MAX, looked).await.unwrap_or_else(|_| panic!("{name} has no address"))
    };
    let (at_eu, at_relayed) = (stated("eu/shop/web").await, stated("relayed/shop/web").await);
    assert_ne!(at_eu, at_relayed);
    for _ in 0..4 {
        assert_eq!(get(at_eu, "x", "/").await.pod(), "eu");
        assert_eq!(get(at_relayed, "x", "/").await.pod(), "us");
    }
    assert!(counting.count() > 0, "by way of its agent");
    assert!(world.report.borrow().site.gateways.clone().unwrap_or_default().is_empty(), "DNS hears nothing of it");
    world.publish(known(&[("relayed", &[&us])], &["eu", "relayed"]), true);
    let closed = async {
        while TcpStream::connect(at_eu).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, closed).await.expect("a member that left has no address");
    assert_eq!(get(at_relayed, "x", "/").await.pod(), "us");
    assert!(!world.report.borrow().site.balancers.contains_key("eu/shop/web"));
    end.cancel();
}

#[tokio::test]
async fn an_address_is_said_once_every_live_replica_serves_the_service() {
    let world = world("127.23.8.0/30").await;
    let pod = Pod::start("a", "127.23.0.10").await;
    let beside = |state: Option<BalancerState>, silent: bool| {
        let mut known = topology(&[]);
        let balancers = state.map(|state| ("/shop/web".to_owned(), state)).into_iter().collect();
        let (instance, kind) = ("gateway-2".to_owned(), "gateway".to_owned());
        let site = Site { instance, kind, gateways: Some(Default::default()), balancers, silent, ..Site::default() };
        known.sites.insert("gateway-2".to_owned(), Arc::new(site));
        known
    };
    world.publish(beside(None, false), true);
    let port = free_port().await;
    let service = apply(&world, balancer("web", port, &[pod.address], json!({}))).await;
    let stated = || world.report.borrow().site.balancers.get("/shop/web").cloned();
    let served = async {
        while stated().is_none_or(|state| state.addresses.is_empty()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, served).await.expect("it is served here");
    until_pod(format!("127.23.8.1:{port}").parse().unwrap(), "a").await;
    assert!(world.read(service.clone()).await["status"]["loadBalancer"]["ingress"].is_null(), "the other lags");
    world.publish(beside(stated(), false), true);
    assert_eq!(given(&world, &service).await, "127.23.8.1");
    // What is said stays while one lags with a change, and a silent one is waited for by nobody.
    world.publish(beside(None, false), true);
    let late = apply(&world, balancer("late", port, &[pod.address], json!({}))).await;
    assert!(world.read(late.clone()).await["status"]["loadBalancer"]["ingress"].is_null());
    world.publish(beside(None, true), true);
    assert_eq!(given(&world, &late).await, "127.23.8.2");
    assert_eq!(given(&world, &service).await, "127.23.8.1");
}

#[tokio::test]
async fn addresses_stay_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let pool = || vec!["127.23.7.0/29".parse().unwrap()];
    let mut world = World::make(Made { pool: pool(), dir: Some(dir.path()), ..Made::default() }).await;
    let pod = Pod::start("a", "127.23.0.9").await;
    let port = free_port().await;
    let first = apply(&world, balancer("first", port, &[pod.address], json!({}))).await;
    let second = apply(&world, balancer("second", port, &[pod.address], json!({}))).await;
    let had = (given(&world, &first).await, given(&world, &second).await);
    world.delete(first).await;
    let front: SocketAddr = format!("{}:{port}", had.1).parse().unwrap();
    until_pod(front, "a").await;
    world.stop().await;
    let _again = world.beside(Made { pool: pool(), dir: Some(dir.path()), ..Made::default() }).await;
    until_pod(front, "a").await;
    assert_eq!(given(&world, &second).await, had.1);
}
