//! Exported services, those that gateways serve as their balancer, and the endpoints of both, as facts.
//!
//! In: the tables. Out: `export/…` for every export, `service/…` and `endpoints/…` for those that have a Service, `balancer/…` and `endpoints/…`
//! for Services of type LoadBalancer of the gateways' class. Pure.
//! An export without a Service is told as not valid (KEP-1645: `Valid=False`).

use std::collections::{BTreeMap, BTreeSet};

use atoll_api::facts::{Facts, key};
use atoll_api::topology::{EndpointPort, Endpoints, ExportFacts, MemberService, ServicePort};

use super::Seen;
use super::labels::Wanted;
use super::trim::ServiceRow;

/// Endpoints told of one service.
const ENDPOINTS_MAX: usize = 5000;
/// Services that gateways are asked to serve; of more the first by name.
const BALANCERS_MAX: usize = 1000;

/// Adds the facts about exported services; endpoints of services of which labels are wanted with those of their pods. `holds_hub`: gateways see
/// the Services of the member's API themselves, and are their balancer without an agent.
pub(super) fn fold(seen: &Seen, wanted: &Wanted, holds_hub: bool, facts: &mut Facts) {
    let (exports, services) = (seen.exports.rows(), seen.services.rows());
    let mut told: BTreeMap<String, Endpoints> = BTreeMap::new();
    for (name, export) in exports.iter() {
        let service = services.get(name);
        let fact = ExportFacts { created: export.created.clone(), valid: service.is_some() };
        facts.put(format!("{}/{name}", key::EXPORT), &fact);
        let Some(service) = service else { continue };
        facts.put(format!("{}/{name}", key::SERVICE), &member_service(service));
        told.insert(name.clone(), begun(service));
    }
    let asking: BTreeMap<_, _> =
        services.iter().filter_map(|(name, s)| Some((name, (s, s.balancer.as_ref()?)))).collect();
    for (name, (service, balancer)) in asking.into_iter().take(if holds_hub { 0 } else { BALANCERS_MAX }) {
        facts.put(format!("{}/{name}", key::BALANCER), balancer);
        told.entry(name.clone()).or_insert_with(|| begun(service));
    }
    gather(seen, &mut told);
    stand(seen, &mut told);
    label(seen, wanted, &mut told);
    for (name, endpoints) in &told {
        facts.put(format!("{}/{name}", key::ENDPOINTS), endpoints);
    }
}

/// What of a service's endpoints does not come from slices.
fn begun(service: &ServiceRow) -> Endpoints {
    Endpoints {
        cluster_ips: service.cluster_ips.clone(),
        load_balancer: service.load_balancer.clone(),
        node_ports: node_ports(service),
        ..Endpoints::default()
    }
}

/// The ports of a service that every node has.
fn node_ports(service: &ServiceRow) -> Vec<EndpointPort> {
    let port =
        |p: &ServicePort| Some(EndpointPort { name: p.name.clone(), protocol: p.protocol.clone(), port: p.node_port? });
    service.ports.iter().filter_map(port).collect()
}

/// Says where the nodes of endpoints are, where their service has ports there.
fn stand(seen: &Seen, told: &mut BTreeMap<String, Endpoints>) {
    let nodes = seen.nodes.rows();
    for endpoints in told.values_mut().filter(|endpoints| !endpoints.node_ports.is_empty()) {
        let named: BTreeSet<&String> = endpoints.endpoints.iter().filter_map(|e| e.node.as_ref()).collect();
        let known = named.into_iter().filter_map(|name| Some((name.clone(), nodes.get(name)?)));
        endpoints.nodes =
            known.filter(|(_, node)| node.ready).map(|(name, node)| (name, node.addresses.clone())).collect();
    }
}

/// Says which of the wanted labels the pods of endpoints have.
fn label(seen: &Seen, wanted: &Wanted, told: &mut BTreeMap<String, Endpoints>) {
    let pods = seen.pods.rows();
    for (service, keys) in wanted {
        let (Some(endpoints), Some((namespace, _))) = (told.get_mut(service), service.split_once('/')) else {
            continue;
        };
        for endpoint in &mut endpoints.endpoints {
            let pod = endpoint.pod.as_ref().and_then(|pod| pods.get(&format!("{namespace}/{pod}")));
            let own = pod.iter().flat_map(|pod| &pod.labels).filter(|(key, _)| keys.contains(*key));
            endpoint.labels = own.map(|(key, value)| (key.clone(), value.clone())).collect();
        }
    }
}

fn member_service(service: &ServiceRow) -> MemberService {
    MemberService {
        cluster_ips: service.cluster_ips.clone(),
        load_balancer: service.load_balancer.clone(),
        ports: service.ports.clone(),
    }
}

/// Puts the slices of each service together, in an order that does not depend on how they were cut.
fn gather(seen: &Seen, told: &mut BTreeMap<String, Endpoints>) {
    let mut ports: BTreeMap<&str, BTreeMap<(String, String), EndpointPort>> = BTreeMap::new();
    let slices = seen.slices.rows();
    for slice in slices.values() {
        let Some(endpoints) = told.get_mut(&slice.service) else { continue };
        endpoints.endpoints.extend(slice.endpoints.iter().cloned());
        let known = ports.entry(&slice.service).or_default();
        for port in &slice.ports {
            known.entry((port.name.clone(), port.protocol.clone())).or_insert_with(|| port.clone());
        }
    }
    for (name, endpoints) in told {
        let mut addresses = BTreeSet::new();
        // A ready one first: while a pod moves between slices its address is in two.
        endpoints.endpoints.sort_by_key(|e| (e.address, !e.ready));
        endpoints.endpoints.retain(|e| addresses.insert(e.address));
        endpoints.endpoints.truncate(ENDPOINTS_MAX);
        endpoints.ports = ports.remove(name.as_str()).unwrap_or_default().into_values().collect();
    }
}

#[cfg(test)]
mod tests {
    use atoll_api::topology::Endpoint;
    use serde_json::json;

    use super::*;
    use crate::observe::trim;

    fn read<T: serde::de::DeserializeOwned>(object: serde_json::Value) -> T {
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_service_with_node_ports_is_told_with_the_nodes_that_its_pods_run_on() {
        let seen = Seen::default();
        let node = |ready: &str, addresses: serde_json::Value| {
            trim::node(read(
                json!({"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": ready}], "addresses": addresses}}),
            ))
        };
        let at = |ip: &str| json!({"type": "InternalIP", "address": ip});
        seen.nodes.put(
            "one".into(),
            node("True", json!([at("192.0.2.1"), at("fd00::1"), {"type": "Hostname", "address": "one"}])),
        );
        seen.nodes.put("two".into(), node("False", json!([at("192.0.2.2")])));
        seen.nodes.put("three".into(), node("True", json!([at("192.0.2.3")])));
        let service = |kind: &str, node_port: Option<u16>| {
            trim::service(read(json!({"metadata": {}, "spec": {"type": kind, "clusterIP": "10.96.0.7",
                "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": node_port}]}})))
        };
        seen.services.put("shop/web".into(), service("NodePort", Some(30080)));
        seen.services.put("shop/inner".into(), service("ClusterIP", None));
        for name in ["web", "inner"] {
            let slice = json!({"metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.1.0.1"], "nodeName": "one"}, {"addresses": ["10.1.0.2"], "nodeName": "two"}],
                "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]});
            seen.slices.put(format!("shop/{name}-1"), trim::slice(read(slice)));
            seen.exports.put(format!("shop/{name}"), Some(trim::ExportRow::default()));
        }
        let mut facts = Facts::default();
        fold(&seen, &Wanted::new(), false, &mut facts);
        let of = |name: &str| facts.get::<Endpoints>(&format!("{}/shop/{name}", key::ENDPOINTS)).unwrap();
        let (web, inner) = (of("web"), of("inner"));
        assert_eq!(
            web.nodes.keys().collect::<Vec<_>>(),
            ["one"],
            "one that is not ready, or runs none of it, is no way in"
        );
        let door = |e: &Endpoint| web.door(e, "http", "TCP").map(|at| at.to_string());
        assert_eq!(web.endpoints.iter().map(door).collect::<Vec<_>>(), [Some("192.0.2.1:30080".to_owned()), None]);
        assert_eq!((inner.node_ports.len(), inner.nodes.len()), (0, 0));
    }

    #[test]
    fn endpoints_are_told_with_the_wanted_labels_of_their_pods_and_no_others() {
        let seen = Seen::default();
        let keys = |keys: &[&str]| -> BTreeSet<String> { keys.iter().map(|key| (*key).to_owned()).collect() };
        for (name, labels) in [
            ("web-1", json!({"app": "web", "version": "1", "secret": "x"})),
            ("web-2", json!({"app": "web", "version": "2"})),
            ("cart-1", json!({"app": "cart", "version": "7"})),
        ] {
            let pod = json!({"metadata": {"labels": labels}, "spec": {"containers": []}, "status": {}});
            seen.pods.put(format!("shop/{name}"), trim::pod(read(pod), &keys(&["version", "app"])));
        }
        let target = |pod: &str| json!({"kind": "Pod", "name": pod});
        for (name, endpoints) in [
            (
                "web",
                json!([{"addresses": ["10.1.0.1"], "targetRef": target("web-1")}, {"addresses": ["10.1.0.2"], "targetRef": target("web-2")},
                {"addresses": ["10.1.0.3"], "targetRef": target("gone")}, {"addresses": ["10.1.0.4"]}]),
            ),
            ("cart", json!([{"addresses": ["10.1.0.5"], "targetRef": target("cart-1")}])),
        ] {
            seen.services.put(format!("shop/{name}"), trim::service(read(json!({"metadata": {}, "spec": {}}))));
            seen.exports.put(format!("shop/{name}"), Some(trim::ExportRow::default()));
            let slice = json!({"metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4",
                "endpoints": endpoints, "ports": []});
            seen.slices.put(format!("shop/{name}-1"), trim::slice(read(slice)));
        }
        let wanted = Wanted::from([
            ("shop/web".to_owned(), keys(&["version"]).into()),
            ("shop/absent".to_owned(), keys(&["version"]).into()),
        ]);
        let mut facts = Facts::default();
        fold(&seen, &wanted, false, &mut facts);
        let of = |name: &str| {
            let told: Endpoints = facts.get(&format!("{}/shop/{name}", key::ENDPOINTS)).unwrap();
            let said = told.endpoints.iter().map(|e| format!("{:?}", e.labels));
            said.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("web"), r#"{"version": "1"} {"version": "2"} {} {}"#);
        assert_eq!(of("cart"), "{}", "nobody asked for labels of it");
    }

    #[test]
    fn a_service_of_the_gateways_class_is_told_with_its_endpoints_although_it_is_not_exported() {
        let seen = Seen::default();
        for (name, class) in [("web", "atoll.dev/gateway"), ("other", "example.com/lb")] {
            let service = json!({"metadata": {}, "spec": {"type": "LoadBalancer", "loadBalancerClass": class,
                "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}]}});
            seen.services.put(format!("shop/{name}"), trim::service(read(service)));
            let slice = json!({"metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.1.0.1"]}], "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]});
            seen.slices.put(format!("shop/{name}-1"), trim::slice(read(slice)));
        }
        let mut facts = Facts::default();
        fold(&seen, &Wanted::new(), true, &mut facts);
        assert_eq!(facts.iter().count(), 0, "gateways see it themselves in the API of their hub");
        fold(&seen, &Wanted::new(), false, &mut facts);
        let keys: Vec<&str> = facts.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["balancer/shop/web", "endpoints/shop/web"]);
        let told: Endpoints = facts.get("endpoints/shop/web").unwrap();
        assert_eq!((told.ready(), told.ports[0].port, told.node_ports[0].port), (1, 8080, 30080));
    }
}
