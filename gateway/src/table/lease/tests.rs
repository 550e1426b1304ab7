//! Who gets which address, by cases.

use std::sync::Arc;

use atoll_api::kinds::gateway::Gateway;
use atoll_api::topology::BalancerFacts;
use serde_json::{Value, json};

use super::super::address::{Allotted, allot};
use super::*;
use crate::balancer::Balancers;

/// A Gateway, or a Service: `name`, `cluster` (empty: the hub's), what it asks for.
type Who<'a> = (&'a str, Option<&'a str>, Value);

fn of_gateway(name: &str, spec: Value, status: Value) -> Arc<Gateway> {
    let object = json!({"metadata": {"name": name, "namespace": "a"},
        "spec": {"gatewayClassName": "atoll", "listeners": [], "addresses": spec}, "status": {"addresses": status}});
    Arc::new(serde_json::from_value(object).unwrap())
}

/// What each gets: addresses, or the reason.
fn given(pool: &[&str], all: &[Who<'_>], before: &mut Allotted) -> String {
    let mut balancers = Balancers::default();
    let mut gateways = Vec::new();
    for (name, cluster, asks) in all {
        let Some(cluster) = cluster else {
            let list = |said: &Value| if said.is_null() { json!([]) } else { said.clone() };
            gateways.push(of_gateway(name, list(&asks["addresses"]), list(&asks["has"])));
            continue;
        };
        gateways.push(of_gateway(name, json!([]), json!([])));
        let mut asks = asks.clone();
        if asks["ports"].is_null() {
            asks["ports"] = json!([{"protocol": "TCP", "port": 80}]);
        }
        let facts: BalancerFacts = serde_json::from_value(asks).unwrap();
        let cluster = (!cluster.is_empty()).then(|| cluster.parse().unwrap());
        let service = atoll_api::names::ServiceName::new("a", *name);
        let balanced = Balanced { cluster, service, facts: Arc::new(facts), object: None };
        balancers.all.insert(("a".to_owned(), (*name).to_owned()), balanced);
    }
    let pool: Vec<IpNet> = pool.iter().map(|range| range.parse().unwrap()).collect();
    let given = allot(&pool, &gateways.iter().collect::<Vec<_>>(), &balancers, before);
    let said = given.into_iter().map(|given| match given {
        Ok(ips) => ips.iter().map(ToString::to_string).collect::<Vec<_>>().join("+"),
        Err(problem) => problem.reason.to_owned(),
    });
    said.collect::<Vec<_>>().join(" ")
}

#[test]
fn services_get_what_they_had_what_they_wish_for_or_what_is_free_and_nobody_loses_anything_to_them() {
    let none = || json!({});
    let wish = |ip: &str| json!({"wishes": [ip]});
    let has = |ip: &str| json!({"has": [ip]});
    let one = |ip: &str| json!([{"value": ip}]);
    let small = ["10.0.0.0/30"];
    for (case, pool, all, expected) in [
        ("beside a Gateway", &small[..], vec![("g", None, none()), ("s", Some(""), none())], "10.0.0.1 10.0.0.2"),
        (
            "full",
            &small[..],
            vec![("g", None, none()), ("s", Some(""), none()), ("t", Some(""), none())],
            "10.0.0.1 10.0.0.2 PoolExhausted",
        ),
        ("a wish", &small[..], vec![("s", Some(""), none()), ("t", Some(""), wish("10.0.0.1"))], "10.0.0.2 10.0.0.1"),
        (
            "a wish for what another has",
            &small[..],
            vec![("s", Some(""), has("10.0.0.1")), ("t", Some(""), wish("10.0.0.1"))],
            "10.0.0.1 AddressTaken",
        ),
        ("a wish outside", &small[..], vec![("s", Some(""), wish("10.9.0.1"))], "AddressNotInPool"),
        (
            "a Gateway's choice takes nothing away",
            &small[..],
            vec![("g", None, json!({"addresses": one("10.0.0.1")})), ("s", Some(""), has("10.0.0.1"))],
            "AddressNotUsable 10.0.0.1",
        ),
        (
            "a Gateway's address is not had",
            &small[..],
            vec![("g", None, json!({"has": one("10.0.0.1")})), ("s", Some(""), wish("10.0.0.1"))],
            "10.0.0.1 AddressTaken",
        ),
        (
            "a member says that it has a Gateway's",
            &small[..],
            vec![("g", None, json!({"has": one("10.0.0.1")})), ("s", Some("eu"), has("10.0.0.1"))],
            "10.0.0.1 10.0.0.2",
        ),
        (
            "a member says that it has the hub's",
            &small[..],
            vec![("s", Some(""), has("10.0.0.2")), ("t", Some("eu"), has("10.0.0.2"))],
            "10.0.0.2 10.0.0.1",
        ),
        (
            "another wish than before",
            &small[..],
            vec![("s", Some(""), json!({"has": ["10.0.0.1"], "wishes": ["10.0.0.2"]}))],
            "10.0.0.2",
        ),
        ("what can't be read", &small[..], vec![("s", Some(""), json!({"odd": "no range"}))], "InvalidService"),
        (
            "both families",
            &["10.0.0.0/30", "fd00::/126"][..],
            vec![("s", Some(""), json!({"families": ["IPv4", "IPv6"]}))],
            "10.0.0.1+fd00::1",
        ),
        ("one of them", &small[..], vec![("s", Some(""), json!({"families": ["IPv4", "IPv6"]}))], "10.0.0.1"),
        (
            "both or nothing",
            &small[..],
            vec![("s", Some(""), json!({"families": ["IPv4", "IPv6"], "needsAll": true}))],
            "PoolExhausted",
        ),
        ("the other family", &small[..], vec![("s", Some(""), json!({"families": ["IPv6"]}))], "PoolExhausted"),
        ("a pool of the other", &["fd00::/126"][..], vec![("s", Some(""), none())], "fd00::1"),
    ] {
        assert_eq!(given(pool, &all, &mut Allotted::new()), expected, "{case}");
    }
}

#[test]
fn an_address_is_shared_by_those_who_say_so_at_ports_of_their_own() {
    let asks = |key: Option<&str>, port: u16, protocol: &str| json!({"shares": key, "ports": [{"protocol": protocol, "port": port}]});
    for (case, all, expected) in [
        (
            "same key",
            vec![("s", Some(""), asks(Some("k"), 53, "TCP")), ("t", Some(""), asks(Some("k"), 53, "UDP"))],
            "10.0.0.1 10.0.0.1",
        ),
        (
            "same port",
            vec![("s", Some(""), asks(Some("k"), 53, "TCP")), ("t", Some(""), asks(Some("k"), 53, "TCP"))],
            "10.0.0.1 10.0.0.2",
        ),
        (
            "other key",
            vec![("s", Some(""), asks(Some("k"), 53, "TCP")), ("t", Some(""), asks(Some("l"), 54, "TCP"))],
            "10.0.0.1 10.0.0.2",
        ),
        (
            "no key",
            vec![("s", Some(""), asks(Some("k"), 53, "TCP")), ("t", Some(""), asks(None, 54, "TCP"))],
            "10.0.0.1 10.0.0.2",
        ),
        (
            "another cluster",
            vec![("s", Some(""), asks(Some("k"), 53, "TCP")), ("t", Some("eu"), asks(Some("k"), 54, "TCP"))],
            "10.0.0.1 10.0.0.2",
        ),
    ] {
        assert_eq!(given(&["10.0.0.0/29"], &all, &mut Allotted::new()), expected, "{case}");
    }
}

#[test]
fn an_address_stays_before_its_status_says_so_and_is_free_when_its_service_is_gone() {
    let mut before = Allotted::new();
    let (one, two) = (("s", Some("eu"), json!({})), ("r", Some("eu"), json!({"has": ["10.0.0.1"]})));
    assert_eq!(given(&["10.0.0.0/30"], std::slice::from_ref(&one), &mut before), "10.0.0.1");
    assert_eq!(
        given(&["10.0.0.0/30"], &[two.clone(), one], &mut before),
        "10.0.0.2 10.0.0.1",
        "whoever was given it keeps it"
    );
    assert_eq!(
        given(&["10.0.0.0/30"], &[("n", Some(""), json!({"wishes": ["10.0.0.1"]})), two], &mut before),
        "10.0.0.1 10.0.0.2"
    );
}
