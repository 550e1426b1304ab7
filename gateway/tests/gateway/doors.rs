//! A member whose pods are not routed and whose nodes are: its Services of type NodePort are reached there, all else by its agent.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::Reach;
use atoll_api::names::ServiceName;
use atoll_api::topology::{Endpoint, EndpointPort, Endpoints, Topology};
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::backend::Pod;
use crate::l4::{free_port, stream_route};
use crate::relay::agent;
use crate::world::{Made, World, gateway, import, listener, route, topology, with_traffic};

/// The member `relayed` with two pods that nobody listens for, on two nodes, and one without a node; a node's port where `nodes` has one.
fn member(pod: &Pod, nodes: &[(&str, IpAddr)], node_port: Option<u16>) -> Topology {
    let mut known = topology(&[("relayed", &[pod])]);
    let endpoint = |address: &str, node: Option<&str>| Endpoint {
        address: address.parse().unwrap(),
        ready: true,
        failing: false,
        hostname: None,
        node: node.map(str::to_owned),
        zone: None,
        pod: None,
        labels: BTreeMap::new(),
    };
    let port = |port| EndpointPort { name: "http".into(), protocol: "TCP".into(), port };
    let endpoints = Endpoints {
        endpoints: vec![
            endpoint("127.20.9.1", Some("one")),
            endpoint("127.20.9.2", Some("one")),
            endpoint("127.20.9.3", Some("two")),
        ],
        ports: vec![port(pod.address.port())],
        node_ports: node_port.map(port).into_iter().collect(),
        nodes: nodes.iter().map(|(name, ip)| ((*name).to_owned(), vec![*ip])).collect(),
        ..Endpoints::default()
    };
    let all = known.endpoints.get_mut("relayed").unwrap();
    all.insert(ServiceName::new("shop", "web"), Arc::new(endpoints));
    with_traffic(known, "web", json!({"service": "web", "balance": {"method": "RoundRobin"}}))
}

/// How each endpoint is reached, as `explain` says it.
async fn ways(world: &World) -> Vec<String> {
    ways_at(world, "x").await
}

async fn ways_at(world: &World, host: &str) -> Vec<String> {
    let said = world.server.explain(host, "/", None).await;
    let endpoints = &said["listeners"][0]["backends"][0]["tiers"][0][0]["endpoints"];
    let each = endpoints.as_array().unwrap_or_else(|| panic!("{said:#}")).iter();
    each.map(|e| e["way"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn each_endpoint_is_reached_at_its_node_else_through_the_agent() {
    let relays = atoll_reach::RelayTable::default();
    let world = World::start_as(Made { relays: relays.clone(), ..Made::default() }).await;
    let (node, pod) = (Pod::start("node", "127.20.1.1").await, Pod::start("pod", "127.20.9.3").await);
    let end = CancellationToken::new();
    let counting = agent(&relays, "relayed", &end);
    let at = SocketAddr::new("127.20.1.1".parse().unwrap(), node.address.port());
    world.publish(member(&pod, &[("one", at.ip())], Some(at.port())), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("x", "/", |a| a.status == 200).await;
    let door = format!("NodePort {at}");
    assert_eq!(ways(&world).await, [door.as_str(), door.as_str(), "Relay"], "the other node says no address");
    // Two of three pods run there, and so many of the requests go there.
    let (mut there, mut relayed) = (0, 0);
    for _ in 0..120 {
        let answer = crate::client::get(world.http, "x", "/").await;
        assert_eq!(answer.status, 200);
        (there, relayed) = (there + usize::from(answer.pod() == "node"), relayed + usize::from(answer.pod() == "pod"));
    }
    assert!((78..=82).contains(&there) && there + relayed == 120, "{there} at the node, {relayed} by relay");

    // Nobody answers at the node's port: the agent carries what it can, and nothing fails that has somewhere to go.
    let nowhere = free_port().await;
    world.publish(member(&pod, &[("one", at.ip()), ("two", at.ip())], Some(nowhere)), true);
    world.until("x", "/", |a| a.pod() == "pod").await;
    assert!(counting.count() > 0);
    // A Service without node ports has none of its own.
    world.publish(member(&pod, &[("one", at.ip())], None), true);
    world.until("x", "/", |a| a.pod() == "pod").await;
    assert_eq!(ways(&world).await, ["Relay"; 3]);
    // Whom people let others reach by relay alone is not dialed.
    let mut strict = member(&pod, &[("one", at.ip()), ("two", at.ip())], Some(at.port()));
    let mut facts = (**strict.clusters.get("relayed").unwrap()).clone();
    facts.spec.reach = Reach::Relay;
    strict.clusters.insert(facts.name.clone(), Arc::new(facts));
    world.publish(strict, true);
    world.until("x", "/", |a| a.pod() == "pod").await;
    assert_eq!(ways(&world).await, ["Relay"; 3]);
    end.cancel();
}

#[tokio::test]
async fn pods_of_a_subset_are_not_reached_at_their_node_where_any_pod_answers() {
    let relays = atoll_reach::RelayTable::default();
    let world = World::start_as(Made { relays: relays.clone(), ..Made::default() }).await;
    let node = Pod::start("node", "127.20.3.1").await;
    let pod = Pod::start("pod", "127.20.9.2").await;
    let end = CancellationToken::new();
    let _relayed = agent(&relays, "relayed", &end);
    let at = SocketAddr::new("127.20.3.1".parse().unwrap(), node.address.port());
    let mut known = member(&pod, &[("one", at.ip()), ("two", at.ip())], Some(at.port()));
    let web = ServiceName::new("shop", "web");
    let all = known.endpoints.get_mut("relayed").unwrap();
    let mut endpoints = Endpoints::clone(all.get(&web).unwrap());
    endpoints.endpoints[1].labels = BTreeMap::from([("version".to_owned(), "2".to_owned())]);
    all.insert(web, Arc::new(endpoints));
    let subsets = json!([{"name": "v2", "labels": {"version": "2"}}]);
    world.publish(with_traffic(known, "web", json!({"service": "web", "subsets": subsets})), true);
    let mut of_subset = import("web");
    let named = json!({"group": "atoll.dev", "kind": "Subset", "name": "v2"});
    of_subset["filters"] = json!([{"type": "ExtensionRef", "extensionRef": named}]);
    world.apply(route("web", &["x"], json!([{"backendRefs": [import("web")]}]))).await;
    world.apply(route("v2", &["v2"], json!([{"backendRefs": [of_subset]}]))).await;
    world.until("x", "/", |a| a.pod() == "node").await;
    world.until("v2", "/", |a| a.pod() == "pod").await;
    let door = format!("NodePort {at}");
    assert_eq!(ways(&world).await, [door.as_str(); 3]);
    assert_eq!(ways_at(&world, "v2").await, ["Relay"]);
    for _ in 0..20 {
        assert_eq!(crate::client::get(world.http, "x", "/").await.pod(), "node");
        assert_eq!(crate::client::get(world.http, "v2", "/").await.pod(), "pod");
    }
    end.cancel();
}

#[tokio::test]
async fn packets_go_to_the_node_where_pods_are_not_routed() {
    let world = World::bare(None).await;
    let node = UdpSocket::bind("127.20.2.1:0").await.unwrap();
    let at = node.local_addr().unwrap();
    let mut known = topology(&[("relayed", &[])]);
    let port = |name: &str, port| EndpointPort { name: name.into(), protocol: "UDP".into(), port };
    let endpoints = Endpoints {
        endpoints: vec![Endpoint {
            address: "127.20.9.9".parse().unwrap(),
            ready: true,
            failing: false,
            hostname: None,
            node: Some("one".into()),
            zone: None,
            pod: None,
            labels: BTreeMap::new(),
        }],
        ports: vec![port("dns", 53)],
        node_ports: vec![port("dns", at.port())],
        nodes: [("one".to_owned(), vec![at.ip()])].into(),
        ..Endpoints::default()
    };
    known.endpoints.get_mut("relayed").unwrap().insert(ServiceName::new("shop", "web"), Arc::new(endpoints));
    let facts = atoll_api::topology::ServiceFacts {
        clusters: vec!["relayed".into()],
        ports: vec![atoll_api::topology::ServicePort {
            name: "dns".into(),
            protocol: "UDP".into(),
            port: 80,
            ..Default::default()
        }],
        headless: false,
    };
    known.services.get_mut("prod").unwrap().insert(ServiceName::new("shop", "web"), Arc::new(facts));
    world.publish(known, true);
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    world.apply(gateway("main", json!([listener("dns", udp, "UDP")]))).await;
    let backend: Value = import("web");
    world.apply(stream_route("UDPRoute", "dns", "dns", backend)).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(("127.0.0.1", udp)).await.unwrap();
    let mut got = [0; 16];
    let heard = async {
        loop {
            let _ = client.send(b"hello").await;
            if let Ok(Ok((length, _))) =
                tokio::time::timeout(Duration::from_millis(100), node.recv_from(&mut got)).await
            {
                return length;
            }
        }
    };
    let length = tokio::time::timeout(Duration::from_secs(20), heard).await.expect("a packet comes to the node");
    assert_eq!(&got[..length], b"hello");
}
