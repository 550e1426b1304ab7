//! Services of type LoadBalancer of the gateways' class: told to the hub with their endpoints, and their statuses written as it says.

use atoll_api::facts::{Facts, key};
use atoll_api::topology::{BalancerFacts, BalancerPort, BalancerProblem, BalancerState, Endpoints};
use k8s_openapi::api::core::v1::{Event, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::hub::Authority;
use crate::{Member, eventually, until};

const AT: &str = "balancer/default/web";

fn service(name: &str, class: &str) -> Service {
    let service = json!({"metadata": {"name": name}, "spec": {"type": "LoadBalancer", "loadBalancerClass": class,
        "loadBalancerSourceRanges": ["10.0.0.0/8"],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}});
    serde_json::from_value(service).unwrap()
}

fn said(state: &BalancerState) -> Facts {
    let mut facts = Facts::default();
    facts.put(AT, state);
    facts
}

fn state(ip: &str) -> BalancerState {
    let ports = vec![BalancerPort { port: 80, protocol: "TCP".into(), error: None }];
    BalancerState { addresses: vec![ip.parse().unwrap()], ports, ..BalancerState::default() }
}

#[tokio::test]
async fn a_service_is_told_and_its_status_is_what_the_hub_says() {
    let authority = Authority::new();
    let (member, hub, agent) = Member::joined(&authority, Facts::default()).await;
    let services: Api<Service> = Api::namespaced(member.client(), "default");
    let slices: Api<EndpointSlice> = Api::namespaced(member.client(), "default");
    let slice = json!({"metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.0.1"]}], "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]});
    slices.create(&PostParams::default(), &serde_json::from_value(slice).unwrap()).await.unwrap();
    services.create(&PostParams::default(), &service("web", "atoll.dev/gateway")).await.unwrap();
    services.create(&PostParams::default(), &service("other", "example.com/lb")).await.unwrap();
    until(&hub.facts, "the Service is told", |facts| {
        facts.get::<Endpoints>("endpoints/default/web").is_some_and(|e| e.ready() == 1) && facts.json(AT).is_some()
    })
    .await;
    let told: BalancerFacts = hub.facts.borrow().get(AT).unwrap();
    assert_eq!((told.ports[0].port, told.ranges[0].to_string()), (80, "10.0.0.0/8".to_owned()));
    assert!(hub.facts.borrow().under(key::BALANCER).all(|(name, _)| name == "default/web"), "of another class nothing");

    let ingress = async |name: &str| -> Value {
        let status = services.get(name).await.unwrap().status.and_then(|s| s.load_balancer).and_then(|l| l.ingress);
        serde_json::to_value(status.unwrap_or_default()).unwrap()
    };
    hub.desired.send_replace(said(&state("192.0.2.7")));
    let first = json!([{"ip": "192.0.2.7", "ipMode": "Proxy", "ports": [{"port": 80, "protocol": "TCP"}]}]);
    eventually("the address is there", async || ingress("web").await == first).await;
    until(&hub.facts, "and told", |f| {
        f.get::<BalancerFacts>(AT).is_some_and(|b| b.has == ["192.0.2.7".parse::<std::net::IpAddr>().unwrap()])
    })
    .await;
    // What somebody else writes there is mended.
    let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}}));
    services.patch_status("web", &PatchParams::default(), &patch).await.unwrap();
    eventually("the drift is mended", async || ingress("web").await == first).await;

    let problem = BalancerProblem { reason: "PoolExhausted".into(), message: "no address is free".into() };
    hub.desired.send_replace(said(&BalancerState { problems: vec![problem], ..BalancerState::default() }));
    eventually("the address is gone", async || ingress("web").await == json!([])).await;
    let events: Api<Event> = Api::namespaced(member.client(), "default");
    eventually("an Event says why", async || {
        let all = events.list(&ListParams::default()).await.unwrap().items;
        all.iter()
            .any(|e| e.reason.as_deref() == Some("PoolExhausted") && e.involved_object.name.as_deref() == Some("web"))
    })
    .await;

    // One of a balancer that others own is told with its class, and may be reached by name.
    let edge = "balancer/default/edge";
    services.create(&PostParams::default(), &service("edge", "atoll.dev/edge")).await.unwrap();
    until(&hub.facts, "its class is told", |f| {
        f.get::<BalancerFacts>(edge).is_some_and(|b| b.class.as_deref() == Some("edge"))
    })
    .await;
    let named = BalancerState { hostnames: vec!["lb.example".into()], ..state("192.0.2.9") };
    hub.desired.send_modify(|facts| {
        facts.put(edge, &named);
    });
    let ports = json!([{"port": 80, "protocol": "TCP"}]);
    let both =
        json!([{"ip": "192.0.2.9", "ipMode": "Proxy", "ports": ports}, {"hostname": "lb.example", "ports": ports}]);
    eventually("address and name are there", async || ingress("edge").await == both).await;

    // One that is of the class no more.
    hub.desired.send_replace(said(&state("192.0.2.8")));
    eventually("another address", async || ingress("web").await[0]["ip"] == "192.0.2.8").await;
    let plain = Patch::Merge(
        json!({"spec": {"type": "ClusterIP", "loadBalancerClass": null, "loadBalancerSourceRanges": null}}),
    );
    services.patch("web", &PatchParams::default(), &plain).await.unwrap();
    eventually("its status is empty", async || ingress("web").await == json!([])).await;
    until(&hub.facts, "and it is told no more", |facts| facts.json(AT).is_none()).await;
    assert_eq!(ingress("other").await, json!([]));
    agent.stop().await.unwrap();
}
