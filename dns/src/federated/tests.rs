//! What askers of each cluster and set get for a service, as cases.

use std::collections::BTreeMap;
use std::time::Duration;

use atoll_api::health::{Probe, Rules};
use atoll_api::topology::Topology;
use hickory_proto::op::ResponseCode;
use serde_json::json;

use super::*;
use crate::config::Config;
use crate::hierarchy::{Place, place};
use crate::names::absolute;
use crate::testing::topology;

/// Code and data of the answer to `name`, asked from `ip` with `down` members.
fn ask(topology: Topology, ip: &str, name: &str, kind: RecordType, down: &[&str]) -> String {
    let topology = Arc::new(topology);
    let table = Table::new(&topology, &Config::default());
    let asker = table.clients.asker(ip.parse().unwrap());
    let probes: BTreeMap<ClusterName, Probe> =
        topology.clusters.keys().map(|n| (n.clone(), Probe::new(!down.contains(&n.as_str())))).collect();
    let health = HealthView::new(&topology, Some(Duration::from_secs(60)), &probes, &Rules::default());
    let relayed = BTreeSet::from(["dr".parse().unwrap()]);
    let name = absolute(name).unwrap();
    let mut why = Vec::new();
    let view = View { health: &health, relayed: &relayed };
    let case = |zone| Case { table: &table, view, asker: &asker, zone, name: &name, kind, client: 0, dice: 0 };
    let answer = match place(&table, &asker, &name, kind) {
        Place::Beside(zone, beside) => answer(&case(zone), &beside, &mut why),
        Place::Host(zone, policy) => gateways::answer(&case(zone), policy, Some(&policy.chain), &mut why),
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
            "0 100 8080 web-0.prod-eu.web.shop.svc.clusterset.local.",
        ),
    ] {
        assert_eq!(ask(t.clone(), EU, name, kind, &[]), want, "{name} {kind}");
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
        (json!({"service": "web", "allDown": "None"}), EU, &["prod-eu", "prod-us", "dr"], "no data"),
    ] {
        let mut t = topology();
        t.traffic.insert(ServiceName::new("shop", "p"), Arc::new(serde_json::from_value(spec.clone()).unwrap()));
        // Three of five down is not yet panic: lab and dev are up.
        assert_eq!(ask(t, ip, "web.shop.svc.atoll.internal", RecordType::A, down), want, "{spec} without {down:?}");
    }
}

#[test]
fn what_nobody_can_tell_because_clusters_are_down_is_a_failure_and_no_absence() {
    let mut t = topology();
    t.endpoints.clear();
    for (down, want) in [(&[][..], "no data"), (&["prod-eu"], "service shop/web: every cluster that offers it is down")]
    {
        assert_eq!(ask(t.clone(), EU, "web.shop.svc.atoll.internal", RecordType::A, down), want, "without {down:?}");
    }
}
