//! What this crate's unit tests share: one federation of five members, a service, a few records.

use std::sync::Arc;

use atoll_api::names::ServiceName;
use atoll_api::topology::{Settings, Site, Topology, Version};
use serde_json::{Value, json};

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

/// prod-eu, prod-us and dr (relayed) in one set, dev alone, lab with Consul. `shop/web` everywhere but in lab.
pub(crate) fn topology() -> Topology {
    let mut t = Topology { version: Version { epoch: 1, generation: 7 }, ..Topology::default() };
    t.settings = Settings { apex: "atoll.internal".into(), default_set: "prod".into(), ..Settings::default() };
    for (name, environment, region, net, kind, reach) in [
        ("prod-eu", "prod", "eu-central", "10.1", "Kubernetes", "Auto"),
        ("prod-us", "prod", "us-east", "10.2", "Kubernetes", "Auto"),
        ("dr", "dr", "eu-north", "10.3", "Kubernetes", "Relay"),
        ("dev", "dev", "eu-central", "10.9", "Kubernetes", "Auto"),
        ("lab", "lab", "eu-central", "10.8", "Consul", "Auto"),
    ] {
        let node = if name == "prod-us" { vec!["172.16.0.2"] } else { vec![] };
        let facts = parse(json!({
            "name": name, "ready": true, "dnsReady": true, "nodes": node,
            "spec": {"environment": environment, "region": region, "reach": reach},
            "cidrs": {"pods": [format!("{net}.0.0/17")], "services": [format!("{net}.128.0/18")]},
            "dns": {"kind": kind, "servers": [format!("{net}.128.10:53")]},
        }));
        t.clusters.insert(name.parse().unwrap(), facts);
        if name == "lab" {
            continue;
        }
        let endpoints = parse(json!({
            "clusterIps": [format!("{net}.128.80")],
            "endpoints": [
                {"address": format!("{net}.0.1"), "ready": true, "hostname": "web-0"},
                {"address": format!("{net}.0.2"), "ready": false},
            ],
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        }));
        t.endpoints.entry(name.parse().unwrap()).or_default().insert(ServiceName::new("shop", "web"), endpoints);
    }
    let port = json!([{"name": "http", "protocol": "TCP", "port": 80}]);
    let prod = parse(json!({"clusters": ["prod-eu", "prod-us", "dr"], "ports": port}));
    let dev = parse(json!({"clusters": ["dev"], "ports": port}));
    t.services.entry("prod".into()).or_default().insert(ServiceName::new("shop", "web"), prod);
    t.services.entry("dev".into()).or_default().insert(ServiceName::new("shop", "web"), dev);
    t.zones.insert(
        "example-com".into(),
        parse(json!({"serial": 3, "spec": {
        "apex": "example.com", "soa": {"negativeTtl": 30}, "ns": ["ns1.example.com"],
        "records": [
            {"name": "www", "type": "CNAME", "values": ["web.shop.svc.atoll.internal."]},
            {"name": "*", "type": "A", "ttl": 60, "values": ["192.0.2.99"]},
            {"name": "a.b", "type": "TXT", "values": ["hello world"]},
            {"name": "@", "type": "MX", "values": ["10 mail.example.com"]},
            {"name": "mail", "type": "A", "values": ["192.0.2.25"]},
            {"name": "sub", "type": "NS", "values": ["ns.sub.example.com"]},
            {"name": "ns.sub", "type": "A", "values": ["192.0.2.53"]},
            {"name": "bad", "type": "A", "values": ["not an address"]},
        ]}})),
    );
    t.records.insert(
        "ops/a".into(),
        parse(json!({"endpoints": [
            {"dnsName": "db.atoll.internal", "recordType": "A", "recordTTL": 30, "targets": ["192.0.2.7"]},
            {"dnsName": "special.prod-eu.atoll.internal", "recordType": "A", "targets": ["192.0.2.8"]},
            {"dnsName": "alone.example.org", "recordType": "A", "targets": ["192.0.2.9"]},
        ]})),
    );
    t.traffic.insert(
        ServiceName::new("shop", "hosts"),
        parse(json!({"hosts": ["shop.example.com", "*.apps.example.net"], "ttlSeconds": 7})),
    );
    for (instance, kind, address, cluster) in [
        ("gw-eu", "gateway", "192.0.2.80:80", "prod-eu"),
        ("gw-us", "gateway", "192.0.2.81", "prod-us"),
        ("dns-1", "dns", "192.0.2.53", "prod-eu"),
    ] {
        let site = Site {
            instance: instance.into(),
            kind: kind.into(),
            addresses: vec![address.into()],
            cluster: Some(cluster.into()),
            ..Site::default()
        };
        t.sites.insert(instance.into(), Arc::new(site));
    }
    t
}
