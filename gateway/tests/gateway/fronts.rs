//! Each Gateway with a Service of type LoadBalancer before it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::topology::Site;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use crate::backend::Pod;
use crate::client::get;
use crate::world::{Made, World, gateway, import, listener, route, topology};

fn condition<'a>(status: &'a Value, kind: &str) -> (&'a str, &'a str) {
    let all = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = all.iter().find(|c| c["type"] == kind);
    found.map_or(("", ""), |c| (c["status"].as_str().unwrap_or(""), c["reason"].as_str().unwrap_or("")))
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "infra"}})
}

fn slice(name: &str) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": name, "namespace": "infra"}})
}

/// Its load balancer gets an address, as whoever runs load balancers in the cluster would write it.
async fn give(world: &World, name: &str, ingress: Value) {
    let api: kube::Api<k8s_openapi::api::core::v1::Service> = kube::Api::namespaced(world.client.clone(), "infra");
    let patch = json!({"status": {"loadBalancer": {"ingress": ingress}}});
    api.patch_status(name, &Default::default(), &kube::api::Patch::Merge(&patch)).await.unwrap();
}

/// Waits until the object is there, or is gone.
async fn until_there(world: &World, name: &str, there: bool) {
    let api: kube::Api<k8s_openapi::api::core::v1::Service> = kube::Api::namespaced(world.client.clone(), "infra");
    let looked = async {
        while api.get_opt(name).await.unwrap().is_some() != there {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looked).await.unwrap_or_else(|_| panic!("{name}: {there}"));
}

/// Waits until a slice has these endpoints, each by whether something new may be sent there.
async fn until_ready(world: &World, name: &str, wanted: Value) {
    let api: kube::Api<EndpointSlice> = kube::Api::namespaced(world.client.clone(), "infra");
    let looked = async {
        loop {
            let found = api.get_opt(name).await.unwrap();
            let each = found.iter().flat_map(|slice| &slice.endpoints);
            let each = each.map(|e| json!([e.addresses[0], e.conditions.as_ref().and_then(|c| c.ready)]));
            if found.is_some() && each.collect::<Value>() == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looked).await.unwrap_or_else(|_| panic!("{name}: {wanted}"));
}

/// The port behind a port of a Service.
fn target(service: &Value, port: u16) -> SocketAddr {
    let ports = service["spec"]["ports"].as_array().unwrap();
    let found = ports.iter().find(|p| p["port"] == port).unwrap();
    SocketAddr::from(([127, 0, 0, 1], u16::try_from(found["targetPort"].as_u64().unwrap()).unwrap()))
}

#[tokio::test]
async fn each_gateway_has_a_service_whose_addresses_it_bears_and_which_goes_with_it() {
    let world = World::make(Made { service: true, ..Made::default() }).await;
    let web = Pod::start("web", "127.19.1.1").await;
    world.publish(topology(&[("eu", &[&web])]), true);
    let mut main = gateway("main", json!([listener("http", 80, "HTTP")]));
    main["spec"]["infrastructure"] = json!({"labels": {"team": "shop"}, "annotations": {"lb.test/kind": "internal"}});
    world.apply(main.clone()).await;
    world.apply(gateway("other", json!([listener("http", 80, "HTTP")]))).await;
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;

    // It is served, and nobody reaches it yet.
    let said = world
        .until_status(main.clone(), |s| {
            condition(s, "Programmed") == ("False", "AddressNotAssigned") && s["listeners"][0]["attachedRoutes"] == 1
        })
        .await;
    assert_eq!(condition(&said, "Accepted"), ("True", "Accepted"), "{said:#}");
    assert!(said["addresses"].as_array().is_none_or(Vec::is_empty));
    until_there(&world, "other-atoll", true).await;
    let (made, other) = (world.read(service("main-atoll")).await, world.read(service("other-atoll")).await);
    assert_eq!(
        (&made["spec"]["type"], &made["spec"]["externalTrafficPolicy"]),
        (&json!("LoadBalancer"), &json!("Local"))
    );
    assert_eq!(
        (&made["metadata"]["labels"]["team"], &made["metadata"]["annotations"]["lb.test/kind"]),
        (&json!("shop"), &json!("internal"))
    );
    assert_eq!(made["metadata"]["ownerReferences"][0]["kind"], "Gateway");
    let (at, at_other) = (target(&made, 80), target(&other, 80));
    assert_ne!(at, at_other, "both have port 80, and do not meet");
    for (family, address) in [("ipv4", "127.0.0.1"), ("ipv6", "fd00::7")] {
        let slice = world.read(slice(&format!("main-atoll-{family}"))).await;
        assert_eq!(slice["endpoints"][0]["addresses"], json!([address]));
        assert_eq!(slice["endpoints"][0]["nodeName"], "node-1");
        assert_eq!(slice["ports"], json!([{"name": "tcp-80", "port": at.port(), "protocol": "TCP"}]));
        assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "main-atoll");
    }

    give(&world, "main-atoll", json!([{"ip": "192.0.2.7"}, {"hostname": "lb.example.test"}])).await;
    let said = world.until_status(main.clone(), |s| condition(s, "Programmed") == ("True", "Programmed")).await;
    let borne = json!([{"type": "IPAddress", "value": "192.0.2.7"}, {"type": "Hostname", "value": "lb.example.test"}]);
    assert_eq!(said["addresses"], borne);
    assert_eq!(condition(&said["listeners"][0], "Programmed"), ("True", "Programmed"));
    assert_eq!(get(at, "x", "/").await.pod(), "web");
    assert_eq!(get(at_other, "x", "/").await.status, 404, "the other has no route");
    let stated = world.report.borrow().site.gateways.clone().unwrap_or_default();
    assert_eq!(stated["infra/main"].addresses, ["192.0.2.7", "lb.example.test"], "what DNS hears");
    assert!(!stated.contains_key("infra/other"), "of one that nobody reaches DNS hears nothing");

    // Ports follow the listeners; one that stays keeps what is behind it.
    let more = json!([listener("http", 80, "HTTP"), listener("alt", 8081, "HTTP"), listener("dns", 53, "UDP")]);
    main["spec"]["listeners"] = more;
    world.apply(main.clone()).await;
    let said = world
        .until_status(main.clone(), |s| {
            s["listeners"]
                .as_array()
                .is_some_and(|all| all.len() == 3 && all.iter().all(|l| condition(l, "Programmed").0 == "True"))
        })
        .await;
    assert_eq!(condition(&said, "Programmed"), ("True", "Programmed"));
    let made = world.read(service("main-atoll")).await;
    assert_eq!(target(&made, 80), at);
    assert_eq!(made["spec"]["ports"].as_array().map(Vec::len), Some(3));
    assert_eq!(get(target(&made, 8081), "x", "/").await.pod(), "web");

    // A slice that is deleted by hand comes back.
    world.delete(slice("main-atoll-ipv4")).await;
    until_ready(&world, "main-atoll-ipv4", json!([["127.0.0.1", true]])).await;

    // An address that was chosen and isn't given.
    main["spec"]["addresses"] = json!([{"type": "IPAddress", "value": "192.0.2.8"}]);
    world.apply(main.clone()).await;
    world.until_status(main.clone(), |s| condition(s, "Programmed") == ("False", "AddressNotUsable")).await;
    let wished = async {
        while world.read(service("main-atoll")).await["spec"]["loadBalancerIP"] != "192.0.2.8" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wished).await.expect("it is asked for");
    give(&world, "main-atoll", json!([{"ip": "192.0.2.8"}])).await;
    world.until_status(main.clone(), |s| condition(s, "Programmed") == ("True", "Programmed")).await;
    main["spec"]["addresses"] = json!([{"type": "example.com/lb", "value": "x"}]);
    world.apply(main.clone()).await;
    world.until_status(main, |s| condition(s, "Accepted") == ("False", "UnsupportedAddress")).await;

    // What is deleted by hand comes back, and what is of no Gateway goes.
    world.delete(service("other-atoll")).await;
    until_there(&world, "other-atoll", true).await;
    world.delete(gateway("other", json!([]))).await;
    until_there(&world, "other-atoll", false).await;
}

#[tokio::test]
async fn a_service_of_somebody_else_is_left_as_it_is() {
    let world = World::make(Made { service: true, ..Made::default() }).await;
    world.publish(topology(&[]), true);
    let mut theirs = service("main-atoll");
    theirs["spec"] = json!({"ports": [{"name": "x", "port": 5432, "protocol": "TCP"}]});
    world.apply(theirs.clone()).await;
    let main = gateway("main", json!([listener("http", 80, "HTTP")]));
    world.apply(main.clone()).await;
    let said = world.until_status(main, |s| condition(s, "Programmed") == ("False", "AddressNotAssigned")).await;
    assert!(said.to_string().contains("is there and not the gateway's"), "{said:#}");
    assert_eq!(world.read(theirs.clone()).await["spec"]["ports"][0]["port"], 5432);
    // Once it is gone the place is the Gateway's.
    world.delete(theirs).await;
    until_ready(&world, "main-atoll-ipv4", json!([["127.0.0.1", true]])).await;
}

#[tokio::test]
async fn a_replica_that_leaves_is_sent_nothing_new() {
    let world = World::make(Made { service: true, ..Made::default() }).await;
    let publish = |leaving: bool| {
        let site = Site {
            instance: "gateway-2".into(),
            kind: "gateway".into(),
            gateways: Some(BTreeMap::new()),
            own: vec!["127.0.0.9".parse().unwrap()],
            node: Some("node-2".to_owned()),
            leaving,
            // As the hub says it.
            silent: leaving,
            ..Site::default()
        };
        let mut known = topology(&[]);
        known.sites.insert("gateway-2".into(), Arc::new(site));
        world.publish(known, true);
    };
    publish(false);
    world.apply(gateway("main", json!([listener("http", 80, "HTTP")]))).await;
    until_ready(&world, "main-atoll-ipv4", json!([["127.0.0.1", true], ["127.0.0.9", true]])).await;
    publish(true);
    until_ready(&world, "main-atoll-ipv4", json!([["127.0.0.1", true], ["127.0.0.9", false]])).await;
    let slice = world.read(slice("main-atoll-ipv4")).await;
    assert_eq!(slice["endpoints"][1]["conditions"]["terminating"], true, "what it has it serves on: {slice:#}");
}
