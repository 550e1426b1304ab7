//! Objects and what a balancer is told of them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

fn all<K: serde::de::DeserializeOwned, A: FromIterator<Arc<K>>>(objects: &[Value]) -> A {
    objects.iter().map(|o| Arc::new(serde_json::from_value(o.clone()).unwrap())).collect()
}

fn service(name: &str, ips: &[&str], more: Value) -> [Value; 2] {
    let mut spec = json!({"ports": [{"name": "http", "port": 80, "protocol": "TCP"}]});
    more.as_object().into_iter().flatten().for_each(|(k, v)| spec[k] = v.clone());
    let endpoints: Value = ips.iter().map(|ip| json!({"addresses": [ip]})).collect();
    let slice = json!({"metadata": {"namespace": "shop", "name": format!("{name}-1"), "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}]});
    [json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec}), slice]
}

#[test]
fn gateways_and_services_of_its_classes_are_told_with_routes_servers_and_weights() {
    let class =
        |name: &str, controller: &str| json!({"metadata": {"name": name}, "spec": {"controllerName": controller}});
    let gateway = |name: &str, class: &str| {
        json!({"metadata": {"namespace": "shop", "name": name},
        "spec": {"gatewayClassName": class, "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"},
            {"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "missing"}]}}]}})
    };
    let route = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": {"parentRefs": [{"name": "ours", "sectionName": "http"}],
        "hostnames": ["shop.example"], "rules": [{"backendRefs": [{"name": "a", "port": 80, "weight": 3}, {"name": "b", "port": 80},
            {"name": "none", "port": 80}]}]}});
    let balancer = json!({"type": "LoadBalancer", "loadBalancerClass": "atoll.dev/edge", "loadBalancerSourceRanges": ["10.0.0.0/8"]});
    let made = [
        service("a", &["10.0.0.1"], json!({})),
        service("b", &["10.0.0.2", "10.0.0.3"], json!({})),
        service("lb", &["10.0.0.4"], balancer),
    ];
    let objects = Objects {
        classes: all(&[
            class("edge", PROVIDER_CONTROLLER),
            class("other", PROVIDER_CONTROLLER),
            class("atoll", "atoll.dev/gateway"),
        ]),
        gateways: all(&[gateway("ours", "edge"), gateway("theirs", "other"), gateway("atolls", "atoll")]),
        routes: all(&[route]),
        services: all(&made.clone().map(|[service, _]| service)),
        slices: all(&made.map(|[_, slice]| slice)),
        ..Objects::default()
    };
    let wanted = wanted(&objects, &Topology::default(), "one", &["edge".to_owned()]);
    let frontends: Vec<String> =
        wanted.push.frontends.iter().map(|f| format!("{} {} {}", f.owner, f.protocol, f.port)).collect();
    assert_eq!(frontends, ["Gateway shop/ours HTTP 80", "Gateway shop/ours HTTPS 443", "Service shop/lb TCP 80"]);
    assert_eq!(wanted.push.frontends[0].routes[0].hostnames, ["shop.example"]);
    assert!(wanted.push.frontends[1].routes.is_empty(), "the section is another");
    assert_eq!(wanted.push.frontends[2].source_ranges, ["10.0.0.0/8"]);
    let servers: Vec<String> = wanted
        .push
        .backends
        .iter()
        .flat_map(|b| b.servers.iter().map(move |s| format!("{} {}:{} {}", b.name, s.address, s.port, s.weight)))
        .collect();
    assert_eq!(
        servers,
        [
            "shop_web_0 10.0.0.1:8080 256",
            "shop_web_0 10.0.0.2:8080 43",
            "shop_web_0 10.0.0.3:8080 43",
            "shop_lb_80 10.0.0.4:8080 256"
        ]
    );
    let refused: Vec<String> = wanted.refused.iter().map(|r| format!("{} {}", r.owner, r.field)).collect();
    assert_eq!(
        refused,
        [
            "HTTPRoute shop/web spec.rules[0].backendRefs[2]",
            "Gateway shop/ours spec.listeners[1].tls.certificateRefs[0]"
        ]
    );
    assert_eq!(wanted.routes.len(), 1);
}
