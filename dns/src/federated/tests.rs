//! What askers of each cluster and set get for a service, as cases.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use atoll_api::health::{HealthView, Probe, Rules};
use atoll_api::names::ClusterName;
use atoll_api::topology::Topology;
use hickory_proto::op::ResponseCode;
use serde_json::json;

use super::*;
use crate::config::Config;
use crate::hierarchy::{Place, place};
use crate::hosts;
use crate::names::absolute;
use crate::testing::topology;
use crate::view::{Findings, LastGood};

/// Code and data of the answer to `name`, asked from `ip` with `down` members.
fn ask(topology: Topology, ip: &str, name: &str, kind: RecordType, down: &[&str]) -> String {
    ask_after(topology, (ip, Duration::from_secs(60)), name, kind, down)
}

/// The same, so long after the hub's last word.
fn ask_after(
    topology: Topology,
    (ip, silence): (&str, Duration),
    name: &str,
    kind: RecordType,
    down: &[&str],
) -> String {
    let topology = Arc::new(topology);
    let table = Table::new(&topology, &Config::default(), &crate::geo::Geo::default());
    let asker = table.clients.asker(ip.parse().unwrap());
    let probes: BTreeMap<ClusterName, Probe> =
        topology.clusters.keys().map(|n| (n.clone(), Probe::new(!down.contains(&n.as_str())))).collect();
    let health = HealthView::new(&topology, Some(silence), &probes, &Rules::default());
    let relayed = BTreeSet::from(["dr".parse().unwrap()]);
    let name = absolute(name).unwrap();
    let mut why = Vec::new();
    let (own, good) = (Findings::default(), LastGood::default());
    let view = View { health: &health, relayed: &relayed, own: &own, good: &good, until: None };
    let case = |zone| Case { table: &table, view, asker: &asker, zone, name: &name, kind, client: 0, dice: 0 };
    let answer = match place(&table, &asker, &name, kind) {
        Place::Beside(zone, beside) => answer(&case(zone), &beside, &mut why),
        Place::Host(zone, policy) => hosts::answer(&case(zone), policy, &mut why),
        other => panic!("{name} is {other:?}"),
    };
    let data: Vec<String> = answer.answers.iter().map(|r| r.data.to_string()).collect();
    let soa = answer.authorities.iter().any(|r| r.record_type() == RecordType::SOA);
    match (answer.rcode, data.is_empty(), soa) {
        (ResponseCode::NoError, false, false) => data.join(" "),
        (ResponseCode::NoError, true, true) => "no data".to_owned(),
        (ResponseCode::NXDomain, true, true) => "no name".to_owned(),
        (ResponseCode::ServFail, true, false) => answer.edes[0].text.clone(),
        odd => panic!("{name}: {odd:?}"),
    }
}

const EU: &str = "10.1.0.7";
const US: &str = "10.2.0.7";
const DR: &str = "10.3.0.7";
const DEV: &str = "10.9.0.7";
const OUT: &str = "203.0.113.5";

#[test]
fn the_nearest_healthy_cluster_of_the_askers_set_answers() {
    let web = "web.shop.svc.atoll.internal";
    for (ip, name, down, want) in [
        (EU, web, &[][..], "10.1.0.1"),
        (US, web, &[], "10.2.0.1"),
        (EU, web, &["prod-eu"], "10.2.0.1"),
        (EU, web, &["prod-eu", "prod-us"], "192.0.2.80 192.0.2.81"),
        (DR, web, &[], "10.1.0.1 10.2.0.1"),
        (DR, web, &["prod-eu", "prod-us"], "10.3.0.1"),
        (DEV, web, &[], "10.9.0.1"),
        (DEV, "nothing.shop.svc.atoll.internal", &[], "no name"),
        (EU, "web.shop.svc.clusterset.local", &[], "10.1.0.1"),
        (EU, "web.shop.svc.us-east.region.atoll.internal", &[], "10.2.0.1"),
        (EU, "web.shop.svc.us-east.region.atoll.internal", &["prod-us"], "10.2.0.1"),
        (EU, "web.shop.svc.nowhere.region.atoll.internal", &[], "no name"),
        (EU, "nowhere.region.atoll.internal", &[], "no name"),
        (EU, "us-east.region.atoll.internal", &[], "no data"),
        (EU, "web.shop.svc.dr.env.atoll.internal", &[], "192.0.2.80"),
        (EU, "web.shop.svc.dev.env.atoll.internal", &[], "no name"),
        (EU, "shop.svc.atoll.internal", &[], "no data"),
        (EU, "empty.svc.atoll.internal", &[], "no name"),
        (EU, "_tcp.web.shop.svc.atoll.internal", &[], "no data"),
        (EU, "_http._tcp.web.shop.svc.atoll.internal", &[], "no data"),
        (EU, "_smtp._tcp.web.shop.svc.atoll.internal", &[], "no name"),
        (EU, "web-0.prod-eu.web.shop.svc.clusterset.local", &[], "no name"),
        (EU, "x.clusterset.local", &[], "no name"),
        (EU, "shop.example.com", &[], "192.0.2.80"),
        (US, "shop.example.com", &[], "192.0.2.81"),
        (EU, "shop.example.com", &["prod-eu"], "192.0.2.81"),
        (OUT, "x.apps.example.net", &["prod-eu", "prod-us"], "192.0.2.80 192.0.2.81"),
    ] {
        assert_eq!(ask(topology(), ip, name, RecordType::A, down), want, "{ip} {name} without {down:?}");
    }
}

#[test]
fn other_types_of_a_service_are_no_data_and_srv_names_it() {
    let web = "web.shop.svc.atoll.internal";
    for (name, kind, want) in [
        (web, RecordType::AAAA, "no data"),
        (web, RecordType::TXT, "no data"),
        ("_http._tcp.web.shop.svc.atoll.internal", RecordType::SRV, "0 100 8080 web.shop.svc.atoll.internal."),
        ("_http._tcp.web.shop.svc.clusterset.local", RecordType::SRV, "0 100 8080 web.shop.svc.clusterset.local."),
        ("dns-version.clusterset.local", RecordType::TXT, "1.0.0"),
    ] {
        assert_eq!(ask(topology(), EU, name, kind, &[]).replace('"', ""), want, "{name} {kind}");
    }
}

#[test]
fn endpoints_of_a_headless_service_have_names() {
    let mut t = topology();
    let headless = json!({"clusters": ["prod-eu", "prod-us"], "headless": true, "ports": [{"name": "http", "protocol": "TCP", "port": 80}]});
    let web = ServiceName::new("shop", "web");
    t.services.get_mut("prod").unwrap().insert(web, Arc::new(serde_json::from_value(headless).unwrap()));
    for (name, kind, want) in [
        ("web-0.prod-eu.web.shop.svc.clusterset.local", RecordType::A, "10.1.0.1"),
        ("web-0.prod-us.web.shop.svc.clusterset.local", RecordType::A, "10.2.0.1"),
        ("web-1.prod-eu.web.shop.svc.clusterset.local", RecordType::A, "no name"),
        ("web-0.dr.web.shop.svc.clusterset.local", RecordType::A, "no name"),
        ("prod-eu.web.shop.svc.clusterset.local", RecordType::A, "no data"),
        (
            "_http._tcp.web.shop.svc.clusterset.local",
            RecordType::SRV,
            "0 100 8080 web-0.prod-eu.web.shop.svc.clusterset.local. 0 100 8080 web-0.prod-us.web.shop.svc.clusterset.local.",
        ),
        // Every endpoint by the specification's names, the nearest by our own.
        ("web.shop.svc.clusterset.local", RecordType::A, "10.1.0.1 10.2.0.1"),
        ("web.shop.svc.atoll.internal", RecordType::A, "10.1.0.1"),
    ] {
        assert_eq!(ask(t.clone(), EU, name, kind, &[]), want, "{name} {kind}");
    }
}

#[test]
fn an_endpoint_has_addresses_of_its_family_and_no_other_data() {
    let mut t = topology();
    let web = ServiceName::new("shop", "web");
    let headless = json!({"clusters": ["prod-eu"], "headless": true, "ports": []});
    t.services.get_mut("prod").unwrap().insert(web.clone(), Arc::new(serde_json::from_value(headless).unwrap()));
    let mut there = atoll_api::topology::Endpoints::clone(&t.endpoints["prod-eu"][&web]);
    there.endpoints[0].address = "2001:db8::1".parse().unwrap();
    t.endpoints.get_mut("prod-eu").unwrap().insert(web, there.into());
    for (kind, want) in [
        (RecordType::AAAA, "2001:db8::1"),
        (RecordType::A, "no data"),
        (RecordType::TXT, "no data"),
        (RecordType::MX, "no data"),
    ] {
        let name = "web-0.prod-eu.web.shop.svc.clusterset.local";
        assert_eq!(ask(t.clone(), EU, name, kind, &[]), want, "{kind}");
    }
}

#[test]
fn a_policy_decides_and_a_bad_one_is_passed_over() {
    for (spec, ip, down, want) in [
        (
            json!({"service": "web", "strategy": [{"policy": "failover", "groups": [["prod-us"], ["prod-eu"]]}]}),
            EU,
            &[][..],
            "10.2.0.1",
        ),
        (
            json!({"service": "web", "strategy": [{"policy": "failover", "groups": [["prod-us"], ["prod-eu"]]}]}),
            EU,
            &["prod-us"],
            "10.1.0.1",
        ),
        (json!({"service": "web", "strategy": [{"policy": "no-such"}]}), EU, &[], "10.1.0.1"),
        (json!({"service": "web", "answer": "VirtualIP"}), EU, &[], "10.1.128.80"),
        (json!({"service": "web", "answer": "Gateway"}), US, &[], "192.0.2.81"),
        (
            json!({"service": "web", "allDown": "None"}),
            EU,
            &["prod-eu", "prod-us", "dr"],
            "service shop/web: no cluster that offers it is usable",
        ),
        (
            json!({"service": "web", "allDown": "Fallback", "fallback": ["192.0.2.250"]}),
            EU,
            &["prod-eu", "prod-us", "dr"],
            "192.0.2.250",
        ),
        (
            json!({"service": "web", "strategy": [{"policy": "geofence", "only": {"regions": ["mars"]}}]}),
            EU,
            &[],
            "service shop/web: its policy lets no cluster serve this asker",
        ),
        (
            json!({"service": "web", "limit": 1, "strategy": [{"policy": "failover", "groups": [["dr"], ["prod-eu", "prod-us"]]}]}),
            EU,
            &[],
            "10.1.0.1",
        ),
    ] {
        let mut t = topology();
        t.traffic.insert(ServiceName::new("shop", "p"), Arc::new(serde_json::from_value(spec.clone()).unwrap()));
        // Three of five down is not yet panic: lab and dev are up.
        assert_eq!(ask(t, ip, "web.shop.svc.atoll.internal", RecordType::A, down), want, "{spec} without {down:?}");
    }
}

#[test]
fn where_nobody_has_endpoints_the_answer_is_a_failure_and_no_absence() {
    let mut t = topology();
    t.endpoints.clear();
    let web = "web.shop.svc.atoll.internal";
    for down in [&[][..], &["prod-eu"]] {
        let want = "service shop/web: no cluster that offers it is usable";
        assert_eq!(ask(t.clone(), EU, web, RecordType::A, down), want, "without {down:?}");
    }
    let headless = json!({"clusters": ["prod-eu", "prod-us"], "headless": true, "ports": []});
    let headless = Arc::new(serde_json::from_value(headless).unwrap());
    t.services.get_mut("prod").unwrap().insert(ServiceName::new("shop", "web"), headless);
    assert_eq!(ask(t, EU, web, RecordType::A, &[]), "no name", "Kubernetes DNS specification 2.4.1, MCS DNS 2.4.1");
}

/// What a policy gives for `shop.example.com` or the service, with load balancers in prod-eu (an address) and prod-us (a host).
fn given_by(spec: serde_json::Value, ip: &str, name: &str, down: &[&str]) -> String {
    let mut t = topology();
    for (cluster, front) in [("prod-eu", "198.51.100.9"), ("prod-us", "lb.us.example.net")] {
        let web = ServiceName::new("shop", "web");
        let mut there = atoll_api::topology::Endpoints::clone(&t.endpoints[cluster][&web]);
        there.load_balancer = vec![front.to_owned()];
        t.endpoints.get_mut(cluster).unwrap().insert(web, there.into());
    }
    t.traffic.insert(ServiceName::new("shop", "hosts"), Arc::new(serde_json::from_value(spec).unwrap()));
    ask(t, ip, name, RecordType::A, down)
}

#[test]
fn what_is_given_follows_the_askers_reach() {
    let web = "web.shop.svc.atoll.internal";
    let none = json!({"hosts": ["other.example.com"]});
    for (name, ip, spec, down, want) in [
        ("a pod gets endpoints", EU, none.clone(), &[][..], "10.1.0.1"),
        ("a machine beside them, too", "192.168.7.7", none.clone(), &["prod-us"], "10.1.0.1"),
        ("outside: the load balancer", OUT, none.clone(), &["prod-us"], "198.51.100.9"),
        ("outside: the host that is one", OUT, none.clone(), &["prod-eu"], "lb.us.example.net."),
        ("outside: gateways where there is none", OUT, none.clone(), &["prod-eu", "prod-us"], "192.0.2.80 192.0.2.81"),
        ("as written", EU, json!({"service": "web", "answer": "LoadBalancer"}), &[], "198.51.100.9"),
        ("virtual address, as written", EU, json!({"service": "web", "answer": "VirtualIP"}), &[], "10.1.128.80"),
        (
            "virtual address, from outside",
            OUT,
            json!({"service": "web", "answer": "VirtualIP"}),
            &["prod-us"],
            "198.51.100.9",
        ),
    ] {
        assert_eq!(given_by(spec, ip, web, down), want, "{name}");
    }
}

#[test]
fn a_host_has_what_its_policy_says() {
    let host = |rest: serde_json::Value| {
        let mut spec = json!({"hosts": ["shop.example.com"]});
        spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        spec
    };
    let fixed = json!([
        {"address": "192.0.2.1", "cluster": "prod-eu"}, {"address": "192.0.2.2", "cluster": "prod-us"}, {"address": "192.0.2.3"},
    ]);
    let both = &["prod-eu", "prod-us"][..];
    for (name, ip, spec, down, want) in [
        ("gateways", EU, host(json!({})), &[][..], "192.0.2.80"),
        ("fixed, near", EU, host(json!({"answer": "Addresses", "addresses": fixed})), &[], "192.0.2.1"),
        ("fixed, the other near", US, host(json!({"answer": "Addresses", "addresses": fixed})), &[], "192.0.2.2"),
        ("fixed, failed over", EU, host(json!({"answer": "Addresses", "addresses": fixed})), &["prod-eu"], "192.0.2.2"),
        ("fixed, none left", EU, host(json!({"answer": "Addresses", "addresses": fixed})), both, "192.0.2.3"),
        (
            "fixed, all down",
            EU,
            host(json!({"answer": "Addresses", "addresses": [{"address": "192.0.2.1", "cluster": "prod-eu"}]})),
            both,
            "192.0.2.1",
        ),
        (
            "fixed, all down and nothing wanted",
            EU,
            host(
                json!({"answer": "Addresses", "allDown": "None", "addresses": [{"address": "192.0.2.1", "cluster": "prod-eu"}]}),
            ),
            both,
            "TrafficPolicy `shop/hosts`: none of its addresses is usable",
        ),
        (
            "a host elsewhere",
            EU,
            host(json!({"answer": "Addresses", "addresses": [{"address": "cdn.example.net"}]})),
            &[],
            "cdn.example.net.",
        ),
        ("endpoints of a service", EU, host(json!({"answer": "Endpoints", "backend": "web"})), &[], "10.1.0.1"),
        (
            "load balancers of one",
            US,
            host(json!({"answer": "LoadBalancer", "backend": "web"})),
            &["prod-us"],
            "198.51.100.9",
        ),
        (
            "a service that is not there",
            EU,
            host(json!({"answer": "Endpoints", "backend": "nothing"})),
            &[],
            "service shop/nothing: cluster set prod has no such service",
        ),
    ] {
        assert_eq!(given_by(spec, ip, "shop.example.com", down), want, "{name}");
    }
}

#[test]
fn what_health_checks_take_out_is_not_given() {
    let web = ServiceName::new("shop", "web");
    let mut t = topology();
    let policy = json!({"service": "web", "healthCheck": {"protocol": "HTTP"}});
    t.traffic.insert(web.clone(), Arc::new(serde_json::from_value(policy).unwrap()));
    // As the hub folds it.
    let mut there = atoll_api::topology::Endpoints::clone(&t.endpoints["prod-eu"][&web]);
    (there.endpoints[0].ready, there.endpoints[0].failing) = (false, true);
    t.endpoints.get_mut("prod-eu").unwrap().insert(web, there.into());
    // The hub is silent here, and our own checks find nothing wrong: they count.
    assert_eq!(ask(t.clone(), EU, "web.shop.svc.atoll.internal", RecordType::A, &[]), "10.1.0.1");
    let fixed = json!({"hosts": ["shop.example.com"], "answer": "Addresses", "addresses": [{"address": "192.0.2.1"}, {"address": "192.0.2.2"}]});
    t.traffic.insert(ServiceName::new("shop", "hosts"), Arc::new(serde_json::from_value(fixed).unwrap()));
    let failing = [("192.0.2.1".to_owned(), "it says so".to_owned())].into();
    t.failing.insert(ServiceName::new("shop", "hosts"), Arc::new(failing));
    assert_eq!(ask(t.clone(), EU, "shop.example.com", RecordType::A, &[]), "192.0.2.1 192.0.2.2");
    let heard = |t: Topology, name: &str| ask_after(t, (EU, Duration::ZERO), name, RecordType::A, &[]);
    assert_eq!(heard(t.clone(), "web.shop.svc.atoll.internal"), "10.2.0.1");
    assert_eq!(heard(t, "shop.example.com"), "192.0.2.2");
}
